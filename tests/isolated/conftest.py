"""What the tests of isolated tokenizers share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tokbench.config import TokenizerCard
from tokbench.errors import TokbenchError
from tokbench.isolated.environments import Environment, find_environment
from tokbench.registry import find_card


@pytest.fixture(scope="session")
def ready() -> Callable[[str], tuple[TokenizerCard, Environment]]:
    """`ready(name)`: a card and its environment; skips where `TOKBENCH_ENVS` does not hold it."""

    def get(name: str) -> tuple[TokenizerCard, Environment]:
        card = find_card(TokenizerCard, name)
        if "TOKBENCH_ENVS" not in os.environ:
            pytest.skip("no TOKBENCH_ENVS")
        try:
            return card, find_environment(card)
        except TokbenchError as error:
            pytest.skip(str(error))

    return get
