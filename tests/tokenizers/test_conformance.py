"""Every tokenizer that loads here keeps the contract; and the suite sees it when one does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from tokbench.config import TokenizerCard
from tokbench.errors import DatasetError, DependencyError
from tokbench.registry import names
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.types import Encoded, Wave

EXAMPLES = {
    "resample-{rate}": "resample-8000",
    "kmeans-hubert-base-l{layer}-{k}": "kmeans-hubert-base-l6-50",
    "kmeans-hubert-large-l{layer}-{k}": "kmeans-hubert-large-l6-50",
    "kmeans-wavlm-base-plus-l{layer}-{k}": "kmeans-wavlm-base-plus-l6-50",
    "kmeans-wavlm-large-l{layer}-{k}": "kmeans-wavlm-large-l6-50",
}
"""A name for each pattern card."""


def loadable(name: str) -> Tokenizer:
    """The tokenizer, working; a package, weights or the corpus to fit on may be missing until the first use."""
    try:
        tokenizer = load_tokenizer(name)
        tokenizer.encode([speech_like(Fraction(1), tokenizer.card.input_rate)])
    except (DependencyError, DatasetError) as error:
        pytest.skip(str(error))
    return tokenizer


@pytest.mark.parametrize("name", names(TokenizerCard))
def test_the_contract(name: str) -> None:
    if "{" in name and name not in EXAMPLES:
        pytest.skip(f"the pattern card {name} is tested through the cards that it makes")
    checks = conformance(loadable(EXAMPLES.get(name, name)))
    assert len(checks) == 12
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


@lru_cache
def identity() -> Tokenizer:
    return load_tokenizer("identity")


class Faulty(Tokenizer):
    """The identity with a fault in what it encodes or decodes."""

    def __init__(self, encode: Callable[[Encoded, int], Encoded] | None = None, *, drift: float = 0.0) -> None:
        super().__init__(identity().card)
        self.fault = encode
        self.drift = drift
        self.calls = 0

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        self.calls += 1
        made = identity().encode(wavs)
        return [self.fault(item, self.calls) if self.fault else item for item in made]

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        self.calls += 1
        waves = identity().decode(items, globals_from=globals_from)
        return [wave + np.float32(self.drift * self.calls) for wave in waves]


def change(item: Encoded, **fields: object) -> Encoded:
    return Encoded(**({"streams": item.streams, "n_samples": item.n_samples} | fields))  # type: ignore[arg-type]


def failing(tokenizer: Tokenizer) -> set[str]:
    return {check.name for check in conformance(tokenizer, long_seconds=(Fraction(3),)) if not check.passed}


def test_the_identity_has_no_fault() -> None:
    assert failing(identity()) == set()


def test_lost_frames_are_seen() -> None:
    def drop(item: Encoded, _: int) -> Encoded:
        return change(item, streams={"pcm": item.streams["pcm"][: item.n_samples - item.n_samples // 100]})

    assert {"3 s", "token count law on short input", "measured against declared bit rate"} <= failing(Faulty(drop))


def test_ids_beyond_the_vocabulary_are_seen() -> None:
    assert "declared streams, dtypes and id range" in failing(
        Faulty(lambda item, _: change(item, streams={"pcm": item.streams["pcm"] + 65536}))
    )


def test_a_float_stream_is_seen() -> None:
    assert "declared streams, dtypes and id range" in failing(
        Faulty(lambda item, _: change(item, streams={"pcm": item.streams["pcm"].astype(np.float32)}))
    )


def test_a_wrong_length_is_seen() -> None:
    assert "declared streams, dtypes and id range" in failing(
        Faulty(lambda item, _: change(item, n_samples=item.n_samples + 1))
    )


def test_tokens_that_depend_on_the_past_are_seen() -> None:
    found = failing(Faulty(lambda item, k: change(item, streams={"pcm": (item.streams["pcm"] + k) % 65536})))
    assert {"determinism", "batch effect"} <= found


def test_samples_that_depend_on_the_past_are_seen() -> None:
    assert {"determinism", "round trip through disk in a new process"} <= failing(Faulty(drift=1e-3))


class Lenient(Faulty):
    """Takes what must be refused."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        return super().encode([np.nan_to_num(wave) if wave.size else np.zeros(1, np.float32) for wave in wavs])

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:  # noqa: ARG002
        return super().decode(items)


def test_leniency_is_seen() -> None:
    assert failing(Lenient()) == {"NaN and empty input are refused", "swapping globals"}


def test_a_length_limit_must_be_kept() -> None:
    limited = Faulty()
    limited.card = limited.card.model_copy(update={"max_seconds": 2.5})
    assert failing(limited) == {"3 s"}


def test_the_signal_is_the_same_everywhere() -> None:
    first, again = (speech_like(Fraction(1), 16000) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.dtype == np.float32
    assert np.abs(first).max() == pytest.approx(0.5)
