"""Axes of the charts: ranges, round ticks, and where labels fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

__all__ = ["Axis", "Box", "deviate_axis", "linear_axis", "log_axis", "place_labels"]

_DEVIATE = NormalDist().inv_cdf
_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Round error rates for ticks of a normal-deviate axis."""


@dataclass(frozen=True)
class Axis:
    """Maps data to pixels; `ticks` are data values."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    scale: Literal["linear", "log", "deviate"] = "linear"

    def __call__(self, value: float) -> float:
        """Pixel position of a data value; values outside are clamped to the ends."""
        low, high, place = (self._even(v) for v in (self.low, self.high, min(max(value, self.low), self.high)))
        share = min(1.0, max(0.0, (place - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def _even(self, value: float) -> float:
        if self.scale == "log":
            return math.log(value)
        return _DEVIATE(value) if self.scale == "deviate" else value


def linear_axis(low: float, high: float, start: float, end: float, *, count: int = 5) -> Axis:
    """A linear axis from a round number below `low` to one above `high`."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten, or at powers alone over a long range."""
    low, high = low / 1.25, high * 1.25
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 3 else (1, 3) if decades <= 4 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [m * 10.0**p for p in range(first, last + 1) for m in steps]
    return Axis(low, high, start, end, tuple(t for t in ticks if low <= t <= high), "log")


def deviate_axis(low: float, high: float, start: float, end: float) -> Axis:
    """An axis of error rates (0 to 1, ends excluded) on which normally distributed scores give straight DET curves.

    It goes from a round rate below `low` to one above `high`, within 0.1 % to 99.9 %.

    Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    first = max((i for i, rate in enumerate(_RATES) if rate <= low), default=0)
    last = min((i for i, rate in enumerate(_RATES) if rate >= high), default=len(_RATES) - 1)
    if last - first < 3:
        first, last = max(0, first - 2), min(len(_RATES) - 1, last + 2)
    axis = Axis(_RATES[first], _RATES[last], start, end, (), "deviate")
    ticks: list[float] = []
    for rate in _RATES[first : last + 1]:
        if not ticks or abs(axis(rate) - axis(ticks[-1])) >= 26:
            ticks.append(rate)
    return replace(axis, ticks=tuple(ticks))


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


_RING = [(math.cos(a), math.sin(a)) for a in (i * math.pi / 8 for i in range(16))]


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    frame: Box,
    obstacles: Sequence[Box] = (),
    keep_clear: Sequence[Box] = (),
    *,
    size: float,
) -> list[Box]:
    """Greedy label placement: for each point the nearest spot that covers least of points, whiskers and other labels.

    Args:
        points: centres in pixels.
        texts: one label each.
        frame: labels stay inside.
        obstacles: whiskers and lines, better not covered.
        keep_clear: other text, covered only where nothing else is left.
        size: font size in pixels; a character counts as 0.56 of it, an average of common sans-serif faces.

    Returns:
        One box per label, in order.
    """
    blocked = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], points[i][0])):
        x, y = points[index]
        width, height = len(texts[index]) * size * 0.56, size * 1.1
        best: tuple[float, Box] | None = None
        for radius in (9.0, 16.0, 26.0, 40.0, 58.0, 80.0):
            for order, (dx, dy) in enumerate(_RING):
                cx = x + radius * dx + (width / 2) * (1 if dx > 0.3 else -1 if dx < -0.3 else 0)
                cy = y + radius * dy
                box = Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                if box.left < frame.left or box.right > frame.right or box.top < frame.top or box.bottom > frame.bottom:
                    continue
                cost = radius + order * 0.05
                cost += 4 * sum(box.overlap(b) for b in (*placed.values(), *keep_clear))
                cost += 2 * sum(box.overlap(b) for b in blocked) + 0.6 * sum(box.overlap(b) for b in obstacles)
                if best is None or cost < best[0]:
                    best = (cost, box)
        if best is None:
            best = (0.0, Box(x + 8, y - height / 2, x + 8 + width, y + height / 2))
        placed[index] = best[1]
    return [placed[i] for i in range(len(points))]
