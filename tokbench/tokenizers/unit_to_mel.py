"""From units to a log-mel spectrogram: one linear map, trained by ridge regression on the fitting corpus.

With the weight-free vocoder it lets k-means units be heard. It knows neither who speaks nor the pitch: what comes out
is the average voice of the fitting corpus, whispered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.types import IntArray

__all__ = ["UnitToMel", "fit_unit_to_mel"]

MELS_PER_UNIT = 2
"""Vocoder frames (100 Hz) per unit (50 Hz)."""


@dataclass(frozen=True)
class UnitToMel:
    """A table of log-mel contributions: the prediction is the sum over a window of neighbouring units, plus a mean.

    Attributes:
        table: float32 `[2 c + 1, k, 2 * n_mels]`, the contribution of each unit at each place of the window.
        mean: float32 `[2 * n_mels]`.
    """

    table: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]

    def __call__(self, units: IntArray) -> npt.NDArray[np.float32]:
        """Units int64 `[T]` at 50 Hz to natural-log mel magnitudes float32 `[2 T, n_mels]` at 100 Hz."""
        total = np.repeat(self.mean[None], len(units), axis=0)
        for place, shifted in enumerate(_window(units, len(self.table) // 2)):
            total += self.table[place, shifted]
        return total.reshape(MELS_PER_UNIT * len(units), -1)


def _window(units: IntArray, context: int) -> list[IntArray]:
    """The units `-context .. context` frames away, edges repeated."""
    padded = np.pad(units, context, mode="edge")
    return [padded[place : place + len(units)] for place in range(2 * context + 1)]


def fit_unit_to_mel(
    pairs: Iterable[tuple[IntArray, npt.NDArray[np.float32]]],
    k: int,
    *,
    context: int = 2,
    ridge: float = 4.0,
    steps: int = 200,
) -> UnitToMel:
    """Least squares from one-hot units in a window to log-mels, with a penalty on the squared weights.

    The normal equations are summed utterance by utterance and solved by conjugate gradients, so memory does not grow
    with the corpus.

    Args:
        pairs: units int64 `[T]` and log-mels float32 `[m, n_mels]` at 100 Hz; m is cut or edge-padded to `2 T`.
        k: number of units.
        context: units either side.
        ridge: weight of the penalty, in frames: a unit seen `ridge` times is believed half.
        steps: largest number of conjugate gradient steps.

    Returns:
        The map.
    """
    from scipy.sparse import csr_matrix

    width = (2 * context + 1) * k
    gram = csr_matrix((width, width), dtype=np.float64)
    right: npt.NDArray[np.float64] | None = None
    total, count, frames = np.zeros(width), np.zeros(0), 0
    for units, mels in pairs:
        n_mels = mels.shape[1]
        short = MELS_PER_UNIT * len(units) - len(mels)
        target = np.pad(mels, ((0, max(short, 0)), (0, 0)), mode="edge")[: MELS_PER_UNIT * len(units)]
        target = target.reshape(len(units), MELS_PER_UNIT * n_mels).astype(np.float64)
        columns = np.stack([s + place * k for place, s in enumerate(_window(units, context))], axis=1)
        pointers = np.arange(len(units) + 1) * columns.shape[1]
        design = csr_matrix((np.ones(columns.size), columns.reshape(-1), pointers), shape=(len(units), width))
        gram = gram + design.T @ design
        if right is None:
            right, count = np.zeros((width, target.shape[1])), np.zeros(target.shape[1])
        right += design.T @ target
        total += np.asarray(design.sum(axis=0)).reshape(-1)
        count += target.sum(axis=0)
        frames += len(units)
    if right is None:
        raise ValueError("a unit-to-mel map cannot be fitted on no utterances")
    mean = count / frames
    weights = _solve(gram, right - total[:, None] * mean, ridge, steps)
    table = weights.reshape(2 * context + 1, k, -1).astype(np.float16).astype(np.float32)
    return UnitToMel(table, mean.astype(np.float32))


def _solve(matrix: Any, right: npt.NDArray[np.float64], ridge: float, steps: int) -> npt.NDArray[np.float64]:
    """Conjugate gradients with a diagonal preconditioner, every column on its own."""
    scale = 1.0 / (matrix.diagonal() + ridge)[:, None]
    solution = np.zeros_like(right)
    residual = right.copy()
    conditioned = scale * residual
    direction = conditioned.copy()
    product = np.einsum("ij,ij->j", residual, conditioned)
    goal = 1e-8 * product
    for _ in range(steps):
        moved = matrix @ direction + ridge * direction
        rate = product / np.maximum(np.einsum("ij,ij->j", direction, moved), 1e-300)
        solution += rate * direction
        residual -= rate * moved
        conditioned = scale * residual
        new = np.einsum("ij,ij->j", residual, conditioned)
        if (new <= goal).all():
            break
        direction = conditioned + (new / np.maximum(product, 1e-300)) * direction
        product = new
    return solution
