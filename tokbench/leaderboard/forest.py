"""Forest plots: differences with intervals around zero, a published value beside each, and what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tokbench.leaderboard.drawing import key, svg, text, ticks_below, whisker
from tokbench.leaderboard.numbers import format_number
from tokbench.leaderboard.scales import Axis, linear_axis

__all__ = ["ForestGroup", "ForestRow", "forest_keys", "forest_plot", "signed"]


@dataclass(frozen=True)
class ForestRow:
    """One difference, in display units.

    Attributes:
        label: a few words: a seed, "all seeds".
        value: the difference.
        low: lower end of its 95 % interval, None where there is none.
        high: upper end.
        reference: a published value of the same difference.
        verdict: "reproduced", "contradicted", "undecided", or any other word.
        summary: drawn as a diamond and in bold: what the rows above it add up to.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    reference: float | None = None
    verdict: str | None = None
    summary: bool = False


@dataclass(frozen=True)
class ForestGroup:
    """Rows under one heading."""

    title: str
    rows: tuple[ForestRow, ...]


def forest_plot(
    groups: Sequence[ForestGroup],
    *,
    identifier: str,
    title: str,
    description: str,
    label: str,
    decimals: int = 3,
    sides: tuple[str, str] | None = None,
    width: int = 640,
) -> str:
    """Rows of differences on one axis with a line at zero.

    Args:
        groups: at least one row in all; the rows of all groups share the axis, and so the unit.
        identifier: unique in the page.
        title: what the chart shows.
        description: what to read from it, for those who do not see it.
        label: of the axis, with its unit.
        decimals: of the numbers beside the rows.
        sides: words for both sides of zero, left and right.
        width: of the drawing in pixels; under 500 the labels stand above their rows and the numbers are left out.
    """
    narrow = width < 500
    rows = [row for group in groups for row in group.rows]
    verdicts = any(row.verdict for row in rows)
    numbers = {id(row): _numbers(row, decimals) for row in rows}
    if narrow:
        left, right = 12.0, width - 12.0
    else:
        left = min(max(len(row.label) for row in rows) * 6.8 + 26, width * 0.3)
        right = width - max(map(len, numbers.values())) * 6.6 - (96 if verdicts else 0) - 14
    step, head, top = (36.0 if narrow else 23.0), 26.0, 26.0 if sides else 8.0
    bottom = top + sum(head + step * len(group.rows) for group in groups)
    values = [v for r in rows for v in (r.value, r.low, r.high, r.reference) if v is not None]
    axis = linear_axis(min(0.0, *values), max(0.0, *values), left, right, count=4 if narrow else 5)
    parts = ticks_below(axis, top - 4, bottom, label, sparse=narrow)
    zero = axis(0.0)
    parts.append(whisker((zero, zero), (top - 6, bottom), "zero"))
    if sides:
        parts.append(text(max(zero - 8, left + len(sides[0]) * 6.2), top - 12, f"← {sides[0]}", "tick", "end"))
        parts.append(text(min(zero + 8, right - len(sides[1]) * 6.2), top - 12, f"{sides[1]} →", "tick"))
    y = top
    for group in groups:
        parts.append(text(0 if narrow else 4, y + 18, group.title, "lab strong"))
        y += head
        for row in group.rows:
            line = y + (step - 10 if narrow else step / 2)
            parts += _row(row, axis, line)
            style = "lab strong" if row.summary else "lab"
            verdict = f"verdict {_verdict_class(row.verdict)}"
            if narrow:
                parts.append(text(8, y + 13, f"{row.label}: {signed(row.value, decimals)}", style))
                if row.verdict:
                    parts.append(text(width - 4, y + 13, row.verdict, verdict, "end"))
            else:
                parts.append(text(left - 10, line + 4, row.label, style, "end"))
                parts.append(text(right + 12, line + 4, numbers[id(row)], "tick"))
                if row.verdict:
                    parts.append(text(width - 4, line + 4, row.verdict, verdict, "end"))
            y += step
    return svg(parts, identifier, title, description, (width, round(bottom + 46)))


def forest_keys(rows: Sequence[ForestRow]) -> list[tuple[str, str]]:
    """Legend entries for the marks that occur."""
    keys = [(key('<rect class="est" x="4" y="4" width="8" height="8"/>'), "measured, with 95 % interval")]
    if any(row.summary for row in rows):
        keys.append((key('<path class="est" d="M0 8L8 3L16 8L8 13Z"/>'), "all seeds, with 95 % interval"))
    if any(row.reference is not None for row in rows):
        keys.append((key(_reference(8, 8)), "published"))
    return keys


def signed(value: float, decimals: int) -> str:
    """A number with its sign; zero has none."""
    words = format_number(value, decimals)
    return words if words.startswith("\N{MINUS SIGN}") or not words.strip("0.") else f"+{words}"


def _numbers(row: ForestRow, decimals: int) -> str:
    if row.low is None or row.high is None:
        return signed(row.value, decimals)
    return f"{signed(row.value, decimals)} ({signed(row.low, decimals)} to {signed(row.high, decimals)})"


def _row(row: ForestRow, axis: Axis, y: float) -> list[str]:
    x = axis(row.value)
    parts: list[str] = []
    ends = None if row.low is None or row.high is None else (axis(row.low), axis(row.high))
    if row.summary and ends:
        a, b = ends
        shape = f'<path class="est" d="M{a:.1f} {y:.1f}L{x:.1f} {y - 5:.1f}L{b:.1f} {y:.1f}L{x:.1f} {y + 5:.1f}Z"/>'
    else:
        shape = f'<rect class="est" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
        if ends:
            parts.append(whisker(ends, (y, y), "err"))
            parts += [whisker((end, end), (y - 4, y + 4), "err") for end in ends]
    parts.append(f"<g><title>{escape(f'{row.label}: {_numbers(row, 3)}')}</title>{shape}</g>")
    if row.reference is not None:
        parts.append(_reference(axis(row.reference), y))
    return parts


def _reference(x: float, y: float) -> str:
    high, low, left, right = y - 7, y + 7, x - 3.5, x + 3.5
    strokes = f"M{x:.1f} {high:.1f}V{low:.1f}M{left:.1f} {high:.1f}H{right:.1f}M{left:.1f} {low:.1f}H{right:.1f}"
    return f'<path class="pub" d="{strokes}"/>'


def _verdict_class(verdict: str | None) -> str:
    return verdict if verdict in ("reproduced", "contradicted") else "undecided"
