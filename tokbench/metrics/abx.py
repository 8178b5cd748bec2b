"""ABX error from rows of one speaker and one ordered pair of phones each; the engine is `tokbench.abx`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from tokbench.metrics.base import Columns, Metric

__all__ = ["CONDITIONS", "METRICS", "PairMean", "condition_components"]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairMean:
    """Mean over phone pairs of the weighted mean over speakers; pairs that a draw lacks are left out of it."""

    value: str
    pair: str
    weight: str

    def __str__(self) -> str:
        return f"mean over pairs of mean over speakers of {self.value}"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        _, pair = np.unique(columns[self.pair], return_inverse=True)
        mass = columns[self.weight]
        shape = (len(pair), int(pair.max(initial=-1)) + 1)
        place = (np.arange(len(pair)), pair)
        parts = [np.asarray(weights @ csr_matrix((each, place), shape)) for each in (mass * columns[self.value], mass)]
        return self.finish(np.hstack(parts))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Weighted errors and weights of each pair, `[count, 2 * pairs]`."""
        _, pair = np.unique(columns[self.pair], return_inverse=True)
        pairs = int(pair.max(initial=-1)) + 1
        cell, mass = groups * pairs + pair, columns[self.weight]
        parts = [
            np.bincount(cell, weights=each, minlength=count * pairs).reshape(count, pairs)
            for each in (mass * columns[self.value], mass)
        ]
        return np.hstack(parts)

    def finish(self, totals: Float) -> Float:
        """Means `[draws]` from totals `[draws, 2 * pairs]`; NaN where a draw has no pair."""
        top, bottom = np.split(totals, 2, axis=1)
        there = bottom > 0
        ratio = np.divide(top, bottom, out=np.zeros_like(top), where=there)
        count = there.sum(axis=1)
        means: Float = np.divide(ratio.sum(axis=1), count, out=np.full(len(totals), np.nan), where=count > 0)
        return means

    def renamed(self, names: Mapping[str, str]) -> PairMean:
        """The same mean of other columns."""
        return PairMean(names[self.value], names[self.pair], names[self.weight])


CONDITIONS: dict[str, tuple[str, str, str]] = {
    "abx_within": ("within", "within", "triphone"),
    "abx_across": ("across", "within", "triphone"),
    "abx_within_any": ("within", "any", "phone"),
    "abx_across_any": ("across", "any", "phone"),
}
"""Metric -> speaker mode, context, and what an item made from an alignment spans."""


def condition_components(name: str, error: float, pair: int, weight: float) -> dict[str, float]:
    """Components of one row: the error of a speaker and a pair of phones, the pair's number, and the row's weight."""
    return {name: error, f"{name}_pair": float(pair), f"{name}_weight": weight}


def _metric(name: str, title: str, what: str) -> Metric:
    components = (name, f"{name}_pair", f"{name}_weight")
    return Metric(
        name=name,
        unit="%",
        direction="lower",
        components=components,
        reduce=PairMean(*components),
        title=title,
        source="Schatz et al., Interspeech 2013; averaged as in Libri-Light's eval_ABX.py",
        scale=100.0,
        description=(
            f"How often a sound is nearer to another phone than to its own, {what}; lower is better, 50 % is chance. "
            "It judges distances between representations, so codes of the same phone with other numbers count as "
            "different, and says nothing about what a trained model could still extract."
        ),
    )


METRICS: tuple[Metric, ...] = (
    _metric("abx_within", "ABX within", "spoken by one speaker between the same neighbours"),
    _metric("abx_across", "ABX across", "the third sound by another speaker, between the same neighbours"),
    _metric("abx_within_any", "ABX within, any context", "spoken by one speaker, whatever stands beside it"),
    _metric("abx_across_any", "ABX across, any context", "the third sound by another speaker, in any context"),
)
