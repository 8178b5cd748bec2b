"""A metric is per-item components, a reduce, a unit and a direction.

Corpus values are never means of rounded utterance values: each item gives named components (WER: errors and
words), and the reduce turns weighted components into one number. Intervals resample the same components, and
the audit recomputes the published number from stored rows with the same reduce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tokbench.types import Direction

__all__ = ["Columns", "Metric", "Reduce", "mean", "ratio"]

Columns = Mapping[str, npt.NDArray[np.float64]]
"""Component name -> float64 `[items]`, without missing values."""

Reduce = Callable[[Columns, npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""`(columns, weights [draws, items]) -> values [draws]`; weights are how often each item is drawn."""


@dataclass(frozen=True)
class Metric:
    """The definition of a number.

    Attributes:
        name: identifier, with the judge in brackets where one decides: `wer[whisper-tiny.en]`.
        unit: as printed, "%", "dB", "cents", "" for a pure number.
        direction: whether higher or lower is better, or "none" for a description.
        components: the columns of the rows it needs.
        reduce: see `Reduce`.
        title: the words for a table head.
        source: paper, section or reference implementation of the formula.
        scale: factor applied for display only ("%": 100); stored values are unscaled.
    """

    name: str
    unit: str
    direction: Direction
    components: tuple[str, ...]
    reduce: Reduce
    title: str = ""
    source: str = ""
    scale: float = 1.0

    def of(self, judge: str) -> Metric:
        """The same metric under a named judge: name and component columns carry it."""
        label = f"{self.name}[{judge}]"
        renamed = tuple(f"{c}[{judge}]" for c in self.components)
        back = dict(zip(renamed, self.components, strict=True))
        inner = self.reduce
        return replace(
            self,
            name=label,
            components=renamed,
            reduce=lambda columns, weights: inner({back[k]: v for k, v in columns.items()}, weights),
        )

    def value(self, columns: Columns) -> float:
        """The corpus value: every item once. NaN only where there is no item."""
        items = len(next(iter(columns.values())))
        return float(self.reduce(columns, np.ones((1, items)))[0]) if items else float("nan")


def ratio(numerator: str, denominator: str) -> Reduce:
    """`sum(numerator) / sum(denominator)`, the reduce of every rate."""

    def reduce(columns: Columns, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ columns[numerator]) / (weights @ columns[denominator]))

    return reduce


def mean(component: str) -> Reduce:
    """Mean over items, each with equal weight."""

    def reduce(columns: Columns, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray((weights @ columns[component]) / weights.sum(axis=1))

    return reduce
