"""Training a reader on tokens and texts, and reading with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokbench.errors import TrainingError
from tokbench.probes.ctc import beam_search, frames_needed, greedy
from tokbench.probes.frames import Clock
from tokbench.probes.reader import Reader, Shape
from tokbench.probes.units import Units, spoken
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.loop import Batch, Fitted, Log, fit, seeded
from tokbench.training.order import Order
from tokbench.training.recipe import Recipe

__all__ = ["Heard", "Lesson", "latent_statistics", "lessons", "make_reader", "read", "train_reader"]

Streams = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Lesson:
    """One utterance to learn from: streams at one rate, and the labels of its text."""

    streams: dict[str, npt.NDArray[np.generic]]
    frames: int
    labels: tuple[int, ...]

    @property
    def feasible(self) -> bool:
        """Whether CTC can spell the labels in these frames."""
        return self.frames >= frames_needed(self.labels)


@dataclass(frozen=True)
class Heard:
    """What a reader made of one utterance, without and with a beam."""

    greedy: str
    beam: str


def lessons(clock: Clock, units: Units, tokens: Sequence[Streams], texts: Sequence[str]) -> list[Lesson]:
    """Utterances with their labels, in the order given."""
    return [
        Lesson(clock.aligned(streams), clock.frames(clock.steps(streams)), tuple(units.encode(spoken(text))))
        for streams, text in zip(tokens, texts, strict=True)
    ]


def latent_statistics(clock: Clock, tokens: Sequence[Streams]) -> dict[str, tuple[Any, Any]]:
    """Mean and standard deviation float32 `[D]` of each latent stream over all frames."""
    made = {}
    for stream in clock.streams:
        if stream.kind == "latent":
            values = np.concatenate([np.asarray(one[stream.name], np.float64) for one in tokens])
            made[stream.name] = (values.mean(axis=0).astype(np.float32), (values.std(axis=0) + 1e-5).astype(np.float32))
    return made


def make_reader(
    clock: Clock,
    shape: Shape,
    units: Units,
    recipe: Recipe,
    *,
    name: str,
    latents: Mapping[str, tuple[Any, Any]],
    codebooks: Mapping[str, Any],
) -> Reader:
    """A reader with the fresh weights of the recipe's seed."""
    with seeded(recipe.seed):
        return Reader(clock, shape, units.size, name=name, latents=latents, codebooks=codebooks)


def train_reader(
    model: Reader,
    taught: Sequence[Lesson],
    recipe: Recipe,
    *,
    where: str,
    units: Units,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    log: Log | None = None,
) -> Fitted:
    """Train on every lesson that has labels and frames enough for them.

    Raises:
        TrainingError: nothing is left to learn from, or of `fit`.
    """
    usable = [one for one in taught if one.labels and one.feasible]
    if not usable:
        short = sum(not one.feasible for one in taught)
        raise TrainingError(
            f"none of the {len(taught)} training utterances can be learnt from: {short} have more labels than frames, "
            f"the others no text",
            where=where,
            hint="Ask for more frames (--set head_rate=50) or for larger units (--set units=1000)",
        )
    order = Order(len(usable), recipe.batch, seed=recipe.seed, lengths=[one.frames for one in usable])

    def batch(step: int) -> Batch:
        chosen = [usable[int(k)] for k in order(step)]
        return Batch(
            {
                "frames": collate(model.clock, [one.streams for one in chosen]),
                "lengths": [one.frames for one in chosen],
                "labels": torch.tensor([label for one in chosen for label in one.labels]),
                "label_lengths": [len(one.labels) for one in chosen],
            },
            sum(len(values) for one in chosen for values in one.streams.values()),
        )

    identity = {"units": units.sha256, "utterances": len(usable)}
    return fit(model, batch, recipe, device=device, checkpoint=checkpoint, log=log, identity=identity)


def collate(clock: Clock, items: Sequence[Streams]) -> list[torch.Tensor]:
    """One padded tensor a stream (codes with `vocab`, latents with NaN), a whole number of frames long."""
    longest = max(clock.steps(one) for one in items)
    steps = -(-longest // clock.fold) * clock.fold
    made = []
    block: npt.NDArray[Any]
    for stream in clock.streams:
        if stream.kind == "codes":
            block = np.full((len(items), steps), stream.vocab, np.int64)
        else:
            block = np.full((len(items), steps, stream.dim or 0), np.nan, np.float32)
        for row, one in zip(block, items, strict=True):
            row[: len(one[stream.name])] = one[stream.name]
        made.append(torch.from_numpy(block))
    return made


def read(
    model: Reader, items: Sequence[Lesson], units: Units, *, beam: int, device: str = "cpu", batch: int = 16
) -> list[Heard]:
    """What the reader makes of each utterance; neighbours in a batch change nothing."""
    model.eval()
    heard = []
    with torch.inference_mode():
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            frames = [one.to(device) for one in collate(model.clock, [one.streams for one in part])]
            log_probs = model.log_probs(frames, [one.frames for one in part]).cpu().numpy()
            for one, rows in zip(part, log_probs, strict=True):
                rows = rows[: one.frames]
                labels, _ = beam_search(rows, width=beam)
                heard.append(Heard(units.decode(greedy(rows)), units.decode(labels)))
    return heard
