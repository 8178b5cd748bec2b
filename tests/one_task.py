"""One small run of a task, from waves on disk to a result, for adapters with random weights."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import soundfile

from tokbench.config import TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.handle import TokenizerHandle
from tokbench.registry import find_card
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.conformance import speech_like


def reconstruction(name: str, weights: Path, folder: Path, *, allow_pickle: bool = False) -> Result:
    """Reconstruction without judges of four utterances by two speakers."""
    utterances = []
    for n in range(4):
        path = folder / f"u{n}.wav"
        soundfile.write(path, speech_like(Fraction(6, 5), 16000, seed=n), 16000)
        utterances.append(Utterance(f"u{n}", path, f"s{n % 2}", text="some words"))
    task = find_card(TaskCard, "reconstruction")
    cell = Cell(
        TokenizerHandle(name, weights=weights, allow_pickle=allow_pickle),
        task,
        prepare_dataset(Dataset("tones", tuple(utterances), licence="CC0-1.0"), folder / "index"),
        {},
        dict(task.params),
    )
    options = Options(store=folder / "store", output=folder / "out", shard_size=4, draws=100)
    (result,) = run([cell], options, LocalEngine(1))
    return result


def value(result: Result, metric: str) -> float:
    """A metric's value, which must be there."""
    estimate = result.estimate(metric)
    assert estimate is not None
    assert estimate.value is not None
    return estimate.value
