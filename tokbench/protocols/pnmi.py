"""PNMI: how much a unit says of the phone under it, with silence in and out, and beside shuffled units.

Phones are looked up at the centres of frames of 20 ms, and every frame gets the unit that covers its centre. Speakers
are left out one at a time for the intervals: a bootstrap repeats speakers, which looks like a smaller sample and
raises mutual information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import TokenizerCard
from tokbench.data.alignment import PHONES, SILENCE
from tokbench.data.dataset import Dataset, Segment
from tokbench.errors import ItemError
from tokbench.metrics.base import Metric
from tokbench.metrics.catalogue import metric
from tokbench.metrics.pnmi import METRICS, shuffled_units, unit_of_frame
from tokbench.protocols.base import Item, Protocol, Row, Shard, failed_row
from tokbench.protocols.phones import check_alignment, corpus_item, encode_all, frame_streams, utterances_of
from tokbench.results import Estimate
from tokbench.streams import StreamSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LABELS", "Pnmi", "frame_phones"]

Int = npt.NDArray[np.int64]

LABELS = (SILENCE, *PHONES)
"""Phones by number; 0 is silence."""
FRAME_RATE = Fraction(50)


class Pnmi(Protocol):
    """Count phones under units, and score the counts."""

    code_modules: ClassVar[tuple[str, ...]] = (
        *BENCH_MODULES, "tokbench.protocols.base", "tokbench.protocols.phones", "tokbench.metrics.pnmi",
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = ("tokbench.metrics.pnmi", "tokbench.metrics.base")

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where there is no stream of codes at a frame rate."""
        super().check(card)
        self._streams(card)

    def items(self, dataset: Dataset) -> list[Item]:
        """The corpus, as one item."""
        return corpus_item(dataset)

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of table "items" (utterances) and "joint" (frames of a speaker with a phone and a unit)."""
        card = bench.tokenizer.card
        shard = Shard({"items": [], "joint": []})
        for item in items:
            utterances = utterances_of(item)
            frames: dict[str, list[tuple[str, Int, Int, Int]]] = {s.name: [] for s in self._streams(card)}
            for utterance, tokens in zip(utterances, encode_all(bench, utterances), strict=True):
                row = Item(utterance.id, {}, utterance.speaker)
                if isinstance(tokens, ItemError):
                    shard.tables["items"].append(failed_row(row, tokens))
                    continue
                seconds = tokens.n_samples / card.input_rate
                try:
                    check_alignment(utterance, seconds, tolerance=float(self.params.get("tolerance", 0.02)))
                except ItemError as error:
                    shard.tables["items"].append(failed_row(row, error))
                    continue
                phones = frame_phones(utterance.phones or (), seconds)
                for stream in self._streams(card):
                    units = np.asarray(tokens.streams[stream.name], np.int64)
                    index = unit_of_frame(len(phones), stream.rate_hz, FRAME_RATE, len(units))
                    frames[stream.name].append((utterance.speaker, phones[: len(index)], index, units))
                shard.tables["items"].append(
                    {
                        "id": utterance.id,
                        "speaker": utterance.speaker,
                        "frames": float(len(phones)),
                        "error": None,
                        "stage": None,
                    }
                )
            for name, parts in frames.items():
                shard.tables["joint"] += self._joint(name, parts)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:  # noqa: ARG002
        """Scores of the joint counts, with jackknife intervals over speakers."""
        joint = tables["joint"]
        made: list[Estimate] = []
        for stream in self._streams(card):
            own = joint[joint["stream"] == stream.name]
            for definition in METRICS:
                chosen = own[own["shuffled"] == definition.name.startswith("pnmi_shuffled")]
                if "_speech" in definition.name:
                    chosen = chosen[chosen["phone"] != 0]
                made.append(_estimate(metric(f"{definition.name}[{stream.name}]"), chosen))
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
        return made

    def _streams(self, card: TokenizerCard) -> list[StreamSpec]:
        return frame_streams(card, kinds=("codes",), max_rate=float(self.params.get("max_rate", 150)))

    def _joint(self, stream: str, parts: Sequence[tuple[str, Int, Int, Int]]) -> list[Row]:
        """Joint counts of real units, and of the same units in random order over the whole corpus."""
        if not parts:
            return []
        everything = np.concatenate([units for *_, units in parts])
        mixed = shuffled_units(everything, seed=self.seed)
        names = sorted({speaker for speaker, *_ in parts})
        rows: list[Row] = []
        for shuffled, source in ((False, everything), (True, mixed)):
            by_speaker: dict[str, list[Int]] = {name: [] for name in names}
            at = 0
            for speaker, phones, index, units in parts:
                own = np.asarray(source[at : at + len(units)], np.int64)
                at += len(units)
                # A unit that covers several frames is one observation: its first frame counts it.
                first = np.concatenate([[True], np.diff(index) != 0]) if len(index) else np.zeros(0, np.bool_)
                by_speaker[speaker].append(np.stack([phones, own[index], first.astype(np.int64)]))
            for speaker, blocks in by_speaker.items():
                block = np.concatenate(blocks, axis=1)
                pairs, place, frames = np.unique(block[:2], axis=1, return_inverse=True, return_counts=True)
                samples = np.bincount(place.ravel(), weights=block[2], minlength=pairs.shape[1])
                rows += [
                    {
                        "stream": stream,
                        "shuffled": shuffled,
                        "speaker": speaker,
                        "phone": float(phone),
                        "label": LABELS[phone],
                        "unit": float(unit),
                        "frames": float(count),
                        "samples": float(sample),
                    }
                    for phone, unit, count, sample in zip(*pairs.tolist(), frames, samples, strict=True)
                ]
        return rows


def frame_phones(segments: Sequence[Segment], seconds: float) -> Int:
    """The phone at the centre of every frame of 20 ms, int64 `[n]` (numbers of `LABELS`); silence between segments.

    A last frame whose centre lies after the audio does not exist.
    """
    count = int(np.floor(seconds * float(FRAME_RATE) + 0.5))
    centres = (np.arange(count) + 0.5) / float(FRAME_RATE)
    phones = np.zeros(count, np.int64)
    number = {label: index for index, label in enumerate(LABELS)}
    for segment in segments:
        # Times are told in milliseconds; the last bits of a float must not move a frame.
        low, high = np.searchsorted(centres, [segment.start - 1e-9, segment.end - 1e-9])
        phones[low:high] = number[segment.label]
    return phones


def _estimate(definition: Metric, rows: pd.DataFrame) -> Estimate:
    """Value over all rows, and Student's t interval with the jackknife's standard error over speakers.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
    """
    plain = definition.name.partition("[")[2][:-1]
    columns = {f"{c}[{plain}]": rows[c].to_numpy(np.float64) for c in ("phone", "unit", "frames", "samples")}
    formula = str(definition.reduce)
    frames = int(rows["frames"].sum())
    speakers = sorted(rows["speaker"].unique())
    value: float | None = None
    interval: tuple[float, float] | None = None
    method = f"{formula}; no frames"
    if frames:
        weights = np.ones((1, len(rows)))
        found = float(definition.reduce(columns, weights)[0])
        value = found if np.isfinite(found) else None
        method = f"{formula} over frames of {1000 / float(FRAME_RATE):g} ms"
    if value is not None and len(speakers) >= 2:
        who = rows["speaker"].to_numpy()
        without = np.array(
            [definition.reduce(columns, (who != speaker).astype(np.float64)[None])[0] for speaker in speakers]
        )
        n = len(speakers)
        if np.isfinite(without).all():
            error = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
            half = float(-stdtrit(n - 1, 0.025)) * error
            interval = (value - half, value + half)
            method += f"; jackknife over {n} speakers, Student's t"
    return Estimate.of(
        definition,
        value,
        ci95=interval,
        method=method,
        n=frames,
        clusters=len(speakers) if interval is not None else None,
        reasons={} if value is not None else {"fewer than two phones": frames},
        table="joint",
    )
