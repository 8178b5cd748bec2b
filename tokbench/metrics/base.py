"""A metric is per-item components, a reduce, a unit and a direction.

Corpus values are never means of rounded utterance values: each item gives named components (WER: errors and
words), and the reduce turns weighted components into one number. Intervals resample the same components, and
the audit recomputes the published number from stored rows with the same reduce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tokbench.types import Direction

__all__ = ["Additive", "Columns", "Mean", "Metric", "Ratio", "Reduce", "Renamed", "mean", "ratio", "under"]

Float = npt.NDArray[np.float64]

Columns = Mapping[str, Float]
"""Component name -> float64 `[items]`, without missing values."""

Reduce = Callable[[Columns, Float], Float]
"""`(columns, weights [draws, items]) -> values [draws]`; weights are how often each item is drawn."""


@runtime_checkable
class Additive(Protocol):
    """A reduce that needs only sums over items, so that a bootstrap over clusters never touches items again."""

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """As every `Reduce`."""

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Sums of the statistics over the items of each group, float64 `[count, k]`."""

    def finish(self, totals: Float) -> Float:
        """Values `[draws]` from weighted sums over groups `[draws, k]`."""

    def renamed(self, names: Mapping[str, str]) -> Additive:
        """The same reduce over columns of other names, old name -> new name."""


@dataclass(frozen=True)
class Ratio:
    """`sum(numerator) / sum(denominator)`, the reduce of every rate; NaN where the denominator is 0."""

    numerator: str
    denominator: str

    def __str__(self) -> str:
        return f"sum({self.numerator}) / sum({self.denominator})"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return self.finish(np.stack([weights @ columns[self.numerator], weights @ columns[self.denominator]], axis=1))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Sums of numerator and denominator, `[count, 2]`."""
        pair = (columns[self.numerator], columns[self.denominator])
        return np.stack([np.bincount(groups, weights=column, minlength=count) for column in pair], axis=1)

    def finish(self, totals: Float) -> Float:
        """Numerator over denominator."""
        return _divide(totals[:, 0], totals[:, 1])

    def renamed(self, names: Mapping[str, str]) -> Ratio:
        """The same ratio of other columns."""
        return Ratio(names[self.numerator], names[self.denominator])


@dataclass(frozen=True)
class Mean:
    """Mean over items, each with equal weight."""

    component: str

    def __str__(self) -> str:
        return f"mean({self.component})"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return self.finish(np.stack([weights @ columns[self.component], weights.sum(axis=1)], axis=1))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Sum and number of items, `[count, 2]`."""
        total = np.bincount(groups, weights=columns[self.component], minlength=count)
        return np.stack([total, np.bincount(groups, minlength=count).astype(np.float64)], axis=1)

    def finish(self, totals: Float) -> Float:
        """Sum over number."""
        return _divide(totals[:, 0], totals[:, 1])

    def renamed(self, names: Mapping[str, str]) -> Mean:
        """The same mean of another column."""
        return Mean(names[self.component])


def _divide(numerator: Float, denominator: Float) -> Float:
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


@dataclass(frozen=True)
class Renamed:
    """Any other reduce over columns of other names; `names` are pairs (column in the rows, column it knows)."""

    inner: Reduce
    names: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return getattr(self.inner, "__name__", str(self.inner))

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return self.inner({known: columns[column] for column, known in self.names}, weights)


@dataclass(frozen=True)
class Metric:
    """The definition of a number.

    Attributes:
        name: identifier, with the judge in brackets where one decides: `wer[whisper-tiny.en]`.
        unit: as printed, "%", "dB", "cents", "" for a pure number.
        direction: whether higher or lower is better, or "none" for a description.
        components: the columns of the rows it needs.
        reduce: see `Reduce`; an `Additive` one makes intervals fast.
        title: the words for a table head.
        source: paper, section or reference implementation of the formula.
        scale: factor applied for display only ("%": 100); stored values are unscaled.
        description: what it means, which direction is good and what it misses, in two or three sentences.
    """

    name: str
    unit: str
    direction: Direction
    components: tuple[str, ...]
    reduce: Reduce
    title: str = ""
    source: str = ""
    scale: float = 1.0
    description: str = ""

    def of(self, judge: str) -> Metric:
        """The same metric under a named judge: name and component columns carry it."""
        names = {component: f"{component}[{judge}]" for component in self.components}
        reduce = self.reduce
        return replace(
            self,
            name=f"{self.name}[{judge}]",
            components=tuple(names.values()),
            reduce=reduce.renamed(names)
            if isinstance(reduce, Additive)
            else Renamed(reduce, tuple((new, old) for old, new in names.items())),
        )

    def value(self, columns: Columns) -> float:
        """The corpus value: every item once. NaN only where there is no item, or nothing to divide by."""
        items = len(next(iter(columns.values())))
        return float(self.reduce(columns, np.ones((1, items)))[0]) if items else float("nan")


def ratio(numerator: str, denominator: str) -> Ratio:
    """`sum(numerator) / sum(denominator)`, the reduce of every rate."""
    return Ratio(numerator, denominator)


def mean(component: str) -> Mean:
    """Mean over items, each with equal weight."""
    return Mean(component)


def under(components: Mapping[str, float], judge: str) -> dict[str, float]:
    """The components of one item as columns of a judge, named as `Metric.of` expects them."""
    return {f"{name}[{judge}]": value for name, value in components.items()}
