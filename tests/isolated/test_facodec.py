"""FACodec in its own environment, in full size with random weights, beside the authors' own calls."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from isolated_support import Reference, call_authors

from tokbench.config import TokenizerCard
from tokbench.isolated.environments import Environment
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

Ready = Callable[[str], tuple[TokenizerCard, Environment]]


def reference_of(name: str, ready: Ready, folder: Path) -> Reference:
    waves = [speech_like(Fraction(2), 16000, seed=seed) for seed in range(2)]
    return call_authors(*ready(name), folder, waves if name == "facodec-redecoder" else waves[:1])


@pytest.fixture(scope="module")
def plain(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference_of("facodec", ready, tmp_path_factory.mktemp("facodec"))


@pytest.fixture(scope="module")
def converted(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference_of("facodec-redecoder", ready, tmp_path_factory.mktemp("redecoder"))


def test_tokens_and_samples_are_the_authors(plain: Reference) -> None:
    tokenizer = IsolatedTokenizer(plain.card, weights=plain.weights)
    item = tokenizer.encode([plain.waves[0]])[0]
    mine = np.stack([item.streams[spec.name] for spec in tokenizer.card.stream_specs])
    assert np.array_equal(mine, plain.expected["codes"])
    assert len({tuple(column) for column in mine.T}) > 10
    assert item.globals["timbre"] == pytest.approx(plain.expected["timbre"][0], abs=1e-5)
    assert 0.01 < float(np.abs(plain.expected["wave"]).mean()) < 0.9
    assert tokenizer.decode([item])[0] == pytest.approx(plain.expected["wave"], abs=1e-5)
    checks = conformance(tokenizer, long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()


def test_conversion_is_the_authors(converted: Reference) -> None:
    tokenizer = IsolatedTokenizer(converted.card, weights=converted.weights)
    one, two = tokenizer.encode(converted.waves)
    assert [*one.streams] == ["prosody", "content0", "content1"]
    made = tokenizer.decode([one], globals_from=[two])[0]
    assert made == pytest.approx(converted.expected["wave"], abs=1e-5)
    checks = conformance(tokenizer, long_seconds=())
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()
