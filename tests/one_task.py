"""One small run of a task, from waves on disk to a result, for adapters with random weights."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import soundfile
from phone_toys import corpus

from tokbench.config import TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.handle import TokenizerHandle
from tokbench.registry import find_card
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.conformance import speech_like


def reconstruction(
    name: str, weights: Path, folder: Path, *, allow_pickle: bool = False, paths: tuple[Path, ...] = ()
) -> Result:
    """Reconstruction without judges of four utterances by two speakers."""
    utterances = []
    for n in range(4):
        path = folder / f"u{n}.wav"
        soundfile.write(path, speech_like(Fraction(6, 5), 16000, seed=n), 16000)
        utterances.append(Utterance(f"u{n}", path, f"s{n % 2}", text="some words"))
    data = Dataset("tones", tuple(utterances), licence="CC0-1.0")
    return _result(
        "reconstruction", TokenizerHandle(name, weights=weights, allow_pickle=allow_pickle), data, folder, paths
    )


def pnmi(name: str, weights: Path, folder: Path, *, paths: tuple[Path, ...] = ()) -> Result:
    """Phones in units, over strings of tones by two speakers; for tokenizers that need no decoder."""
    data = corpus(folder, speakers=2, utterances=2)
    return _result("pnmi", TokenizerHandle(name, weights=weights), data, folder, paths)


def _result(task: str, tokenizer: TokenizerHandle, data: Dataset, folder: Path, paths: tuple[Path, ...]) -> Result:
    card = find_card(TaskCard, task)
    cell = Cell(tokenizer, card, prepare_dataset(data, folder / "index"), {}, dict(card.params))
    options = Options(store=folder / "store", output=folder / "out", shard_size=4, draws=100, paths=paths)
    (result,) = run([cell], options, LocalEngine(1))
    return result


def value(result: Result, metric: str) -> float:
    """A metric's value, which must be there."""
    estimate = result.estimate(metric)
    assert estimate is not None
    assert estimate.value is not None
    return estimate.value
