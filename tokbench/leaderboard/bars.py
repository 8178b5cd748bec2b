"""Horizontal bars with intervals: one row per tokenizer, one bar per condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tokbench.leaderboard.drawing import SHAPES, key, svg, text, ticks_below, whisker
from tokbench.leaderboard.numbers import quantity
from tokbench.leaderboard.scales import linear_axis

__all__ = ["Bar", "BarRow", "bar_chart", "bar_keys"]

BAR, GAP, PAD = 9.0, 2.0, 9.0
SHADES = ("", " light", " lighter")
"""Style of the first, the second and any further condition."""


@dataclass(frozen=True)
class Bar:
    """A value with the ends of its 95 % interval, in display units."""

    value: float
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class BarRow:
    """A tokenizer: one bar per condition, None where it has no value."""

    name: str
    bars: tuple[Bar | None, ...]
    family: int
    best: bool = False
    anchor: bool = False


def bar_chart(
    rows: Sequence[BarRow],
    *,
    conditions: Sequence[str],
    identifier: str,
    title: str,
    description: str,
    label: str,
    chance: float | None = None,
    width: int = 640,
) -> str:
    """Bars from zero, the first condition filled and the others lighter, in the order of `rows`.

    Args:
        rows: at least one.
        conditions: a name for each bar of a row.
        identifier: unique in the page.
        title: what the chart shows.
        description: what to read from it, for those who do not see it.
        label: of the axis, with unit and direction.
        chance: where guessing would be; a dashed line.
        width: of the drawing in pixels.
    """
    narrow = width < 500
    left = min(max(len(r.name) for r in rows) * (6.6 if narrow else 7.0) + 12, width * 0.45)
    right, top = width - 18.0, 24.0 if chance is not None else 10.0
    height_of = len(conditions) * BAR + (len(conditions) - 1) * GAP + PAD
    bottom = top + height_of * len(rows)
    values = [v for r in rows for b in r.bars if b for v in (b.value, *(b.ci or ()))]
    axis = linear_axis(min(0.0, *values), max([*values, *([chance] if chance is not None else [])]), left, right)
    parts = ticks_below(axis, top - 4, bottom, label, sparse=narrow)
    for index, row in enumerate(rows):
        y = top + index * height_of + PAD / 2
        middle = y + (height_of - PAD) / 2
        parts.append(text(left - 8, middle + 4, row.name, "lab strong" if row.best else "lab", "end"))
        for place, (condition, bar) in enumerate(zip(conditions, row.bars, strict=True)):
            if bar is None:
                continue
            line = y + place * (BAR + GAP)
            style = f"bar c{row.family % SHAPES}{SHADES[min(place, 2)]}{' pale' if row.anchor else ''}"
            a, b = sorted((axis(0.0), axis(bar.value)))
            words = f"{row.name}, {condition}: {quantity(bar.value)}"
            parts.append(
                f'<rect class="{style}" x="{a:.1f}" y="{line:.1f}" width="{max(b - a, 0.5):.1f}" height="{BAR}">'
                f"<title>{escape(words)}</title></rect>"
            )
            if bar.ci:
                ends = (axis(bar.ci[0]), axis(bar.ci[1]))
                centre = line + BAR / 2
                parts.append(whisker(ends, (centre, centre), "err"))
                parts += [whisker((end, end), (centre - 2.5, centre + 2.5), "err") for end in ends]
    parts.append(whisker((axis(0.0), axis(0.0)), (top - 4, bottom), "base"))
    if chance is not None:
        x = axis(chance)
        parts.append(whisker((x, x), (top - 6, bottom), "ref"))
        parts.append(text(x, top - 10, "chance", "ref", "end" if x > right - 30 else "middle"))
    return svg(parts, identifier, title, description, (width, round(bottom + 46)))


def bar_keys(conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Legend entries that tell the conditions apart."""
    if len(conditions) < 2:
        return []
    return [
        (key(f'<rect class="bar c7{SHADES[min(place, 2)]}" x="1" y="4" width="14" height="9"/>'), condition)
        for place, condition in enumerate(conditions)
    ]
