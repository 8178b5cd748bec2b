"""Which frames belong to an item: those whose centres lie in it, computed in exact integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tokbench.abx.items import SCALE, Items
from tokbench.errors import UserError

__all__ = ["frame_slices", "parse_rate"]

Int = npt.NDArray[np.int64]


def parse_rate(text: str) -> Fraction:
    """A frame rate in Hz: `50`, `12.5` or `25/2`.

    Raises:
        UserError: not a positive number.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise UserError(f"'{text}' is not a frame rate", where="--frequency", hint="Write 50, 12.5 or 25/2")
    return rate


def frame_slices(items: Items, rate: Fraction, *, drop_last: bool = False) -> tuple[Int, Int]:
    """First frame and the frame after the last one of every item, int64 `[n]` each; equal where an item is empty.

    Frame i stands at (i + 1/2) / rate; an item holds ceil(onset * rate - 1/2) .. floor(offset * rate - 1/2).

    Args:
        items: with exact times.
        rate: frames a second.
        drop_last: leave out the last frame of every item, as Libri-Light and the ZeroSpeech tools do.

    Source: Libri-Light `eval_ABX.py` (with the last frame dropped); fastabx 0.9.0 without.
    """
    p, q = rate.numerator, rate.denominator
    longest = int(items.offset.max(initial=0))
    if 2 * longest * p + SCALE * q >= 1 << 63 or 2 * SCALE * q >= 1 << 63:
        raise UserError(f"the rate {rate} cannot be computed exactly with times up to {longest / SCALE:g} s")
    # (2 t p - SCALE q) / (2 SCALE q), with t in ticks.
    unit = 2 * SCALE * q
    start = -((SCALE * q - 2 * items.onset * p) // unit)
    stop = (2 * items.offset * p - SCALE * q) // unit + (0 if drop_last else 1)
    return start, np.maximum(start, stop)
