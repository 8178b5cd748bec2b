"""WavTokenizer in its own environment, in full size with random weights, beside the authors' own calls."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from isolated_support import Reference, call_authors

from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.isolated.environments import Environment
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer


@pytest.fixture(scope="module", params=["wavtokenizer-40hz", "wavtokenizer-75hz"])
def reference(
    request: pytest.FixtureRequest,
    ready: Callable[[str], tuple[TokenizerCard, Environment]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Reference:
    # A whole number of frames at both rates, so that padding is not in question.
    return call_authors(
        *ready(request.param), tmp_path_factory.mktemp("wavtokenizer"), [speech_like(Fraction(2), 24000)]
    )


def test_tokens_and_samples_are_the_authors(reference: Reference) -> None:
    tokenizer = IsolatedTokenizer(reference.card, weights=reference.weights)
    item = tokenizer.encode([reference.waves[0]])[0]
    assert np.array_equal(item.streams["q0"], reference.expected["codes"])
    assert len(np.unique(item.streams["q0"])) > 10
    made = tokenizer.decode([item])[0]
    assert made == pytest.approx(reference.expected["wave"][: len(made)], abs=1e-5)
    assert np.array_equal(tokenizer.codebook("q0")[item.streams["q0"]].T, reference.expected["features"][0])
    tokenizer.close()


def test_the_contract(reference: Reference) -> None:
    tokenizer = IsolatedTokenizer(reference.card, weights=reference.weights)
    checks = conformance(tokenizer, long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()


def test_another_file_is_refused(reference: Reference, tmp_path: Path) -> None:
    (found,) = reference.weights.glob("*.ckpt")
    (tmp_path / "model.ckpt").write_bytes(found.read_bytes()[:1000])
    with pytest.raises(MissingWeights, match="is damaged, or is no checkpoint"):
        IsolatedTokenizer(reference.card, weights=tmp_path / "model.ckpt").encode([reference.waves[0]])
