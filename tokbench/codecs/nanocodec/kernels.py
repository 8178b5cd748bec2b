# mypy: disable-error-code="untyped-decorator"
"""Passes over memory that torch would make several times: activations and the grouped upsampling, time first.

Numba compiles them for the machine's vectors. Arrays are flat, float32, channels fastest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["FASTMATH", "activate", "add_and_activate", "from_points", "tables", "to_points", "upsample"]

FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
"""Freedoms of the compiler; NaN and infinity keep their meaning."""

_fast: Any = njit(nogil=True, cache=True, fastmath=FASTMATH)

_ROWS = 16
"""Frames whose constants are laid out in a row, so that any number of channels fills whole vectors."""


def _sin_squared_series() -> tuple[np.float32, ...]:
    """Coefficients of `sin^2(pi r) / r^2` in `r^2`, for `|r| <= 1/2`, lowest first.

    A polynomial through Chebyshev nodes; `sin^2` comes out within 3e-10, below float32's rounding.
    """
    nodes = (np.cos(np.pi * (2 * np.arange(64) + 1) / 128) + 1) / 8
    values = (np.sin(np.pi * np.sqrt(nodes)) ** 2) / nodes
    fitted = np.polynomial.Polynomial.fit(nodes, values, 6).convert().coef
    return tuple(np.float32(value) for value in fitted)


_S0, _S1, _S2, _S3, _S4, _S5, _S6 = _sin_squared_series()
_HALF = np.float32(0.5)

Tables = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def tables(alpha: npt.NDArray[np.float32], gain: npt.NDArray[np.float32], slope: npt.NDArray[np.float32]) -> Tables:
    """Constants of `max(x, slope x) + gain sin^2(alpha x)`, one a channel, as the kernels take them."""
    turns = (alpha.astype(np.float64) / np.pi).astype(np.float32)
    turns, gain, slope = (np.ascontiguousarray(np.tile(one, _ROWS)) for one in (turns, gain, slope))
    return turns, gain, slope


@_fast
def _one(value: Any, turn: Any, gain: Any, slope: Any) -> Any:
    half_turns = value * turn
    rest = half_turns - np.floor(half_turns + _HALF)
    square = rest * rest
    series = _S0 + square * (_S1 + square * (_S2 + square * (_S3 + square * (_S4 + square * (_S5 + square * _S6)))))
    leaked = slope * value
    return (value if value > leaked else leaked) + gain * (square * series)


# Both cut slices and count from zero: an index that numba must suspect of being negative makes no vector load but a
# gather, which is several times slower.


@_fast
def activate(x: Any, out: Any, turns: Any, gains: Any, slopes: Any) -> None:
    """`out = max(x, slope x) + gain sin^2(alpha x)`; flat float32 of equal length."""
    width = turns.shape[0]
    for start in range(0, x.shape[0], width):
        end = min(start + width, x.shape[0])
        taken, made = x[start:end], out[start:end]
        for j in range(end - start):
            made[j] = _one(taken[j], turns[j], gains[j], slopes[j])


@_fast
def add_and_activate(x: Any, y: Any, out: Any, turns: Any, gains: Any, slopes: Any) -> None:
    """`y = y + x`, and `activate` of that into `out`."""
    width = turns.shape[0]
    for start in range(0, x.shape[0], width):
        end = min(start + width, x.shape[0])
        taken, total, made = x[start:end], y[start:end], out[start:end]
        for j in range(end - start):
            value = total[j] + taken[j]
            total[j] = value
            made[j] = _one(value, turns[j], gains[j], slopes[j])


@_fast
def upsample(x: Any, out: Any, taps: Any, bias: Any) -> None:
    """A causal transposed convolution in which output channel j sees input channels 2j and 2j + 1.

    Args:
        x: `[1 + T, 2 C]`, the first frame zeros.
        out: `[T, r, C]`.
        taps: `[2, 2, r, C]`: frame now or before, channel 2j or 2j + 1, place in the output frame.
        bias: `[C]`.
    """
    frames, rate, channels = out.shape
    for t in range(frames):
        for p in range(rate):
            for j in range(channels):
                out[t, p, j] = (
                    bias[j]
                    + x[t + 1, 2 * j] * taps[0, 0, p, j]
                    + x[t + 1, 2 * j + 1] * taps[0, 1, p, j]
                    + x[t, 2 * j] * taps[1, 0, p, j]
                    + x[t, 2 * j + 1] * taps[1, 1, p, j]
                )


@_fast
def to_points(x: Any, out: Any, matrix: Any) -> None:
    """Tiles of seven rows, one every four, times a matrix.

    Args:
        x: `[4 tiles + 3, width]`.
        out: `[7, tiles, width]`.
        matrix: `[7, 7]`, point by row of a tile.
    """
    for tile in range(out.shape[1]):
        x0, x1, x2, x3 = x[4 * tile], x[4 * tile + 1], x[4 * tile + 2], x[4 * tile + 3]
        x4, x5, x6 = x[4 * tile + 4], x[4 * tile + 5], x[4 * tile + 6]
        for point in range(7):
            row, made = matrix[point], out[point, tile]
            m0, m1, m2, m3, m4, m5, m6 = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            for j in range(made.shape[0]):
                made[j] = (m0 * x0[j] + m1 * x1[j]) + (m2 * x2[j] + m3 * x3[j]) + (m4 * x4[j] + m5 * x5[j]) + m6 * x6[j]


@_fast
def from_points(values: Any, out: Any, matrix: Any, bias: Any) -> None:
    """Seven arrays `[tiles, width]` to four rows a tile, `[4 tiles, width]`: times `[4, 7]`, plus a bias `[width]`."""
    v0, v1, v2, v3, v4, v5, v6 = values
    for tile in range(v0.shape[0]):
        x0, x1, x2, x3, x4, x5, x6 = v0[tile], v1[tile], v2[tile], v3[tile], v4[tile], v5[tile], v6[tile]
        for place in range(4):
            row, made = matrix[place], out[4 * tile + place]
            m0, m1, m2, m3, m4, m5, m6 = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            for j in range(made.shape[0]):
                made[j] = (
                    (m0 * x0[j] + m1 * x1[j])
                    + (m2 * x2[j] + m3 * x3[j])
                    + (m4 * x4[j] + m5 * x5[j])
                    + (m6 * x6[j] + bias[j])
                )
