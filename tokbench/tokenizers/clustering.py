"""K-means: greedy k-means++ seeding, Lloyd's algorithm on growing random subsets, exact chunked assignment.

On the CPU numpy does the work (its BLAS beats torch's there), on CUDA torch does. Everything random comes from one
seed; equal data, seed, device and thread count give equal centroids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["KMeansFit", "assign", "fit_kmeans", "seed_plusplus"]

F32 = npt.NDArray[np.float32]
_CHUNK = 8192
"""Rows whose distances to all centroids are held at once: 16 MB at k = 500."""
_SUBSET = 131_072
"""Largest random subset that is copied before the passes over all rows."""


@dataclass(frozen=True)
class KMeansFit:
    """What `fit_kmeans` found.

    Attributes:
        centroids: float32 `[k, D]`.
        inertia: sum over all rows of the squared Euclidean distance to the nearest of these centroids.
        n_frames: rows it was fitted on.
        passes: passes over all rows that moved the centroids.
        converged: whether the last one lowered inertia by less than the tolerance.
    """

    centroids: F32
    inertia: float
    n_frames: int
    passes: int
    converged: bool


@dataclass(frozen=True)
class _Step:
    """One look at all rows: where Lloyd's update would put the centroids, and how good the present ones are."""

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    inertia: float


class _Engine(Protocol):
    def step(self, rows: F32, centroids: F32) -> _Step: ...


class _Numpy:
    """Nearest centroid by the largest `x.c - |c|^2 / 2`; sums by cluster through a sparse selection matrix."""

    def step(self, rows: F32, centroids: F32) -> _Step:
        from scipy.sparse import csr_matrix

        k = len(centroids)
        half = 0.5 * np.einsum("kd,kd->k", centroids, centroids)
        transposed = np.ascontiguousarray(centroids.T)
        sums, counts, inertia = np.zeros(centroids.shape), np.zeros(k, np.int64), 0.0
        buffer = np.empty((min(_CHUNK, len(rows)), k), np.float32)
        for start in range(0, len(rows), _CHUNK):
            block = rows[start : start + _CHUNK]
            score = np.matmul(block, transposed, out=buffer[: len(block)])
            score -= half
            labels = score.argmax(axis=1)
            best = score[np.arange(len(block)), labels]
            inertia += float(np.vdot(block, block)) - 2.0 * float(best.sum(dtype=np.float64))
            count = np.bincount(labels, minlength=k)
            bounds = np.concatenate([[0], np.cumsum(count)])
            order = np.argsort(labels, kind="stable")
            chosen = csr_matrix((np.ones(len(block), np.float32), order, bounds), shape=(k, len(block)))
            sums += chosen @ block
            counts += count
        return _Step(sums, counts, max(inertia, 0.0))


class _Torch:
    """The same on a torch device. Sums are products with one-hot matrices, since scattered additions race on CUDA."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch: Any = torch
        self._device = device

    def step(self, rows: F32, centroids: F32) -> _Step:
        torch, k = self._torch, len(centroids)
        centres = torch.from_numpy(centroids).to(self._device)
        half = 0.5 * centres.square().sum(dim=1)
        sums = torch.zeros(centres.shape, dtype=torch.float64, device=self._device)
        counts = torch.zeros(k, dtype=torch.int64, device=self._device)
        inertia = torch.zeros((), dtype=torch.float64, device=self._device)
        for start in range(0, len(rows), _CHUNK):
            block = torch.from_numpy(np.ascontiguousarray(rows[start : start + _CHUNK])).to(self._device)
            best, labels = (block @ centres.T - half).max(dim=1)
            inertia += block.double().square().sum() - 2.0 * best.double().sum()
            chosen = torch.nn.functional.one_hot(labels, k)
            sums += (chosen.to(block.dtype).T @ block).double()
            counts += chosen.sum(dim=0)
        return _Step(sums.cpu().numpy(), counts.cpu().numpy(), max(float(inertia), 0.0))


def seed_plusplus(rows: F32, k: int, rng: np.random.Generator) -> F32:
    """Choose k rows as first centroids by greedy k-means++.

    Arthur and Vassilvitskii (SODA 2007): the next centroid is drawn with probability proportional to the squared
    distance to the nearest one so far; of `2 + floor(ln k)` draws, the one that leaves the least inertia is kept.

    Args:
        rows: float32 `[n, D]` with `n >= k`.
        k: number of centroids.
        rng: source of the draws.

    Returns:
        Float32 `[k, D]`.
    """
    trials = 2 + int(np.log(k))
    square = np.einsum("nd,nd->n", rows, rows)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.maximum(square - 2.0 * (rows @ rows[chosen[0]]) + square[chosen[0]], 0.0)
    for _ in range(1, k):
        mass = np.cumsum(nearest, dtype=np.float64)
        if mass[-1] > 0:
            picks = np.searchsorted(mass, rng.random(trials) * mass[-1], side="right").clip(max=len(rows) - 1)
        else:
            picks = rng.integers(len(rows), size=trials)  # every row is a centroid already
        distances = rows[picks] @ rows.T
        distances *= -2.0
        distances += square
        distances += square[picks, None]
        np.clip(distances, 0.0, nearest, out=distances)
        best = int(distances.sum(axis=1).argmin())
        nearest = distances[best]
        chosen.append(int(picks[best]))
    return np.ascontiguousarray(rows[chosen])


def fit_kmeans(
    rows: F32,
    k: int,
    *,
    seed: int,
    device: str = "cpu",
    passes: int | None = None,
    tolerance: float = 1e-4,
    subset_steps: int = 2,
) -> KMeansFit:
    """Fit k centroids.

    Seeds a random subset of `8 k` rows, runs a few steps of Lloyd's algorithm on it and on each of a nested series of
    subsets, every one twice as large (in the spirit of Newling and Fleuret, "Nested mini-batch k-means", NIPS 2016),
    then passes over all rows. A cluster that runs empty is put on a random row of the subset.

    Args:
        rows: float32 `[n, D]`; may be a memory map, is read in blocks.
        k: number of centroids, at most n.
        seed: of every draw.
        device: "cpu", or a CUDA device for torch.
        passes: largest number of passes over all rows; None: 100, or 2 where there are more than 2^18 rows.
        tolerance: stop when a pass lowers inertia by less than this share.
        subset_steps: steps of Lloyd's algorithm on each subset.

    Raises:
        ValueError: fewer rows than centroids.
    """
    n = len(rows)
    if not 1 <= k <= n:
        raise ValueError(f"{k} centroids cannot be fitted on {n} frames")
    if passes is None:
        passes = 100 if n <= 2**18 else 2
    engine: _Engine = _Numpy() if device == "cpu" else _Torch(device)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)[:_SUBSET]
    size = min(8 * k, len(order))
    subset = np.ascontiguousarray(rows[np.sort(order[:size])], np.float32)
    centroids = seed_plusplus(subset, k, rng)
    while True:
        for _ in range(subset_steps):
            centroids = _update(engine.step(subset, centroids), subset, rng)
        if size >= min(len(order), n):
            break
        size = min(2 * size, len(order))
        subset = np.ascontiguousarray(rows[np.sort(order[:size])], np.float32)
    done, converged = 0, False
    last = engine.step(rows, centroids)
    while done < passes and not converged:
        centroids = _update(last, subset, rng)
        step = engine.step(rows, centroids)
        converged = step.inertia >= last.inertia * (1.0 - tolerance)
        last, done = step, done + 1
    return KMeansFit(centroids, last.inertia, n, done, converged)


def _update(step: _Step, subset: F32, rng: np.random.Generator) -> F32:
    new = np.asarray(step.sums / np.maximum(step.counts, 1)[:, None], np.float32)
    empty = np.flatnonzero(step.counts == 0)
    if empty.size:
        new[empty] = subset[rng.integers(len(subset), size=empty.size)]
    return new


def assign(rows: F32, centroids: F32) -> npt.NDArray[np.int64]:
    """Nearest centroid of each row; a tie goes to the lowest index.

    Distances are computed in float64 and in blocks of rows, so that neither the number of rows nor the number of
    threads changes a token.

    Args:
        rows: float32 `[n, D]`.
        centroids: float32 `[k, D]`.

    Returns:
        Int64 `[n]`.
    """
    table = centroids.astype(np.float64)
    half = 0.5 * np.einsum("kd,kd->k", table, table)
    labels = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _CHUNK):
        block = rows[start : start + _CHUNK].astype(np.float64)
        labels[start : start + _CHUNK] = (half - block @ table.T).argmin(axis=1)
    return labels
