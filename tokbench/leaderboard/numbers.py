"""How numbers are printed: digits that the interval supports, one precision a column."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from statistics import median

from tokbench.results import Estimate

__all__ = ["base_name", "dataset_label", "decimals_for", "format_number", "half_width", "judge_of", "quantity", "slug"]

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
_MOST = {"bit/s": 1, "token/s": 1, "frame/s": 1, "%": 2, "cents": 1, "codes": 1}
"""Most decimals that make sense for a unit."""


def half_width(estimate: Estimate) -> float | None:
    """Half the interval's length, unscaled; None without an interval, 0 where only rounding is left of it."""
    if estimate.ci95 is None:
        return None
    low, high = estimate.ci95
    half = (high - low) / 2
    return 0.0 if half <= 1e-9 * max(abs(low), abs(high)) else half


def decimals_for(estimates: Iterable[Estimate]) -> int:
    """Decimals for a column, from the median half-width: one significant digit, or two where that is a 1 or a 2.

    Percentages keep one decimal. Without intervals, three significant digits of the median value.
    """
    found = [e for e in estimates if e.value is not None]
    halves = [h * e.scale for e in found if (h := half_width(e)) is not None and h > 0]
    if halves:
        middle = median(halves)
        exponent = _exponent(middle)
        digits = 1 if middle < 3 * 10.0**exponent else 0
        return max(1 if found[0].unit == "%" else 0, min(_MOST.get(found[0].unit, 4), digits - exponent))
    sizes = [abs(e.value) * e.scale for e in found if e.value]
    return max(0, min(_MOST.get(found[0].unit, 4), 2 - _exponent(median(sizes)))) if sizes else 0


def _exponent(value: float) -> int:
    return math.floor(math.log10(value))


def format_number(value: float, decimals: int) -> str:
    """Fixed decimals, a real minus sign, and thin spaces from 10 000 on."""
    text = f"{abs(value):.{decimals}f}"
    whole, point, rest = text.partition(".")
    if len(whole) > 4:
        whole = re.sub(r"(?<=\d)(?=(\d{3})+$)", THIN, whole)
    zero = not (whole + rest).strip("0" + THIN)
    return f"{MINUS if value < 0 and not zero else ''}{whole}{point}{rest}"


def quantity(value: float) -> str:
    """A single number with three significant digits, for axis ends and facts; powers of ten below 0.0001."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", MINUS)
    decimals = max(0, min(6, 2 - _exponent(abs(value))))
    text = format_number(value, decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def base_name(metric: str) -> str:
    """The metric without its judge: `wer[whisper-tiny.en]` -> `wer`."""
    return metric.partition("[")[0]


def judge_of(metric: str) -> str | None:
    """The judge in a metric's name, or None."""
    _, bracket, rest = metric.partition("[")
    return rest.rstrip("]") if bracket else None


def dataset_label(name: str) -> str:
    """The dataset's name without the folders of the machine it was read on: `librispeech:/data/test-clean`."""
    reader, colon, place = name.partition(":")
    return f"{reader}:{place.rstrip('/').rpartition('/')[2]}" if colon else name


def slug(text: str) -> str:
    """Letters, digits, dots and dashes only: for file names and anchors."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower() or "x"
