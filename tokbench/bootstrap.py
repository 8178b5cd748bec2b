"""The cluster bootstrap: draws of whole speakers, vectorised over draws and, for additive reduces, over sums.

`tokbench.stats` builds estimates, comparisons and ranks from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, stdtrit

from tokbench.metrics.base import Additive, Columns, Reduce

__all__ = ["LEVEL", "Clusters", "bootstrap", "percentile_interval", "tail_level"]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

LEVEL = 0.05
"""1 - the coverage of every interval, and the level of every test."""
_CELLS = 1 << 22  # weights held at a time: 32 MiB of float64


@dataclass(frozen=True)
class Clusters:
    """How items are drawn together.

    Attributes:
        groups: int64 `[items]`, the group of each item.
        left, right: int64 `[n_groups]`, the clusters of a group; equal where an item belongs to one cluster. A
            group of two clusters is drawn as often as the product of both, so that trials follow their speakers.
        count: number of clusters.
        label: for the method text, "8 speakers".
        by_items: every item is its own cluster because there is nothing to cluster by.
    """

    groups: Int
    left: Int
    right: Int
    count: int
    label: str
    by_items: bool = False

    @classmethod
    def of(cls, rows: pd.DataFrame, cluster: str | Sequence[str]) -> Clusters:
        """Clusters by one column, or by the two columns of a trial (`("speaker_a", "speaker_b")`).

        Falls back to one cluster an item where a column is absent, has gaps, or holds fewer than two clusters.
        """
        columns = [cluster] if isinstance(cluster, str) else list(cluster)
        if len(columns) not in (1, 2):
            raise ValueError("cluster is one column, or the two columns of a trial")
        missing = [c for c in columns if c not in rows.columns]
        if missing:
            return cls._items(rows, f"no column '{missing[0]}'")
        if bool(rows[columns].isna().to_numpy().any()):
            return cls._items(rows, f"'{columns[0]}' has gaps")
        codes, names = pd.factorize(pd.concat([rows[c].astype(str) for c in columns], ignore_index=True), sort=True)
        if len(names) < 2:
            return cls._items(rows, f"one {columns[0]}")
        if len(columns) == 1:
            every = np.arange(len(names))
            return cls(codes.astype(np.int64), every, every, len(names), f"{len(names)} {columns[0]}s")
        first, second = codes[: len(rows)].astype(np.int64), codes[len(rows) :].astype(np.int64)
        low, high = np.minimum(first, second), np.maximum(first, second)
        pairs, groups = np.unique(low * len(names) + high, return_inverse=True)
        label = f"{len(names)} clusters of {' and '.join(columns)}, a trial weighted by both"
        return cls(groups.astype(np.int64), pairs // len(names), pairs % len(names), len(names), label)

    @classmethod
    def _items(cls, rows: pd.DataFrame, why: str) -> Clusters:
        every = np.arange(len(rows))
        return cls(every, every, every, len(rows), f"{len(rows)} items ({why})", by_items=True)

    def weights(self, draws: int, seed: int) -> Iterator[Float]:
        """Chunks of weights `[chunk, n_groups]`; the stream of draws does not depend on the chunking."""
        rng = np.random.default_rng(seed)
        chunk = max(1, min(draws, _CELLS // max(self.count, len(self.left))))
        paired = not np.array_equal(self.left, self.right)
        for start in range(0, draws, chunk):
            size = min(chunk, draws - start)
            drawn = rng.integers(self.count, size=(size, self.count), dtype=np.int64)
            drawn += np.arange(size)[:, None] * self.count
            counts = np.bincount(drawn.ravel(), minlength=size * self.count).reshape(size, self.count)
            weights = counts.astype(np.float64)
            if paired:
                same = self.left == self.right
                weights = np.where(same, weights[:, self.left], weights[:, self.left] * weights[:, self.right])
            yield weights


def bootstrap(reduce: Reduce, columns: Columns, clusters: Clusters, *, draws: int = 10_000, seed: int = 0) -> Float:
    """Values `[draws]` of a reduce over resampled clusters; NaN where a draw has no value.

    Clusters are drawn with replacement, as many as there are (multinomial weights). An additive reduce sees sums a
    cluster only, so its cost does not grow with the items; any other reduce gets item weights in chunks. One seed
    gives the same draws to every metric and system over the same clusters.

    Source: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (cluster resampling).
    """
    if isinstance(reduce, Additive):
        sums = reduce.sums(columns, clusters.groups, len(clusters.left))
        step = max(1, _CELLS // sums.shape[1])
        parts = [
            reduce.finish(weights[start : start + step] @ sums)
            for weights in clusters.weights(draws, seed)
            for start in range(0, len(weights), step)
        ]
    else:
        step = max(1, _CELLS // max(1, len(clusters.groups)))
        parts = [
            np.asarray(reduce(columns, weights[start : start + step][:, clusters.groups]), np.float64)
            for weights in clusters.weights(draws, seed)
            for start in range(0, len(weights), step)
        ]
    return np.concatenate(parts)


def tail_level(clusters: int) -> float:
    """Lower percentile level of an expanded 95 % interval over n clusters.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3.
    """
    quantile = float(stdtrit(clusters - 1, LEVEL / 2))
    return float(ndtr(quantile * np.sqrt(clusters / (clusters - 1))))


def percentile_interval(drawn: Float, clusters: int) -> tuple[tuple[float, float] | None, int]:
    """Expanded 95 % percentile interval of drawn values, and how many draws had no value and were left out."""
    kept = drawn[np.isfinite(drawn)]
    if not len(kept):
        return None, len(drawn)
    tail = tail_level(clusters)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return (float(low), float(high)), len(drawn) - len(kept)
