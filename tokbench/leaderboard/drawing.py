"""What the charts share: markers, axes with grids, whiskers, row labels, and the SVG element around them.

Colours come from the page's style sheet. A family has a colour and a marker shape, so that no chart relies on colour
alone. Every drawing has a title and a description for screen readers; its numbers stand beside it as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from tokbench.leaderboard.numbers import quantity
from tokbench.leaderboard.scales import Axis

__all__ = ["SHAPES", "axes", "key", "marker", "svg", "text", "ticks_below", "whisker"]

SHAPES = 8
"""Number of markers and colours; families beyond it start again with hollow markers."""


def marker(x: float, y: float, family: int, *, hollow: bool = False, size: float = 5.0) -> str:
    """One marker; shape and colour say the family."""
    shape = family % SHAPES
    style = f"m c{shape}" + (" hollow" if hollow or family >= SHAPES else "")
    s = size
    corners: dict[int, Sequence[tuple[float, float]]] = {
        1: [(-s, -s), (s, -s), (s, s), (-s, s)],
        2: [(0, -1.25 * s), (1.15 * s, 0.85 * s), (-1.15 * s, 0.85 * s)],
        3: [(0, -1.35 * s), (1.35 * s, 0), (0, 1.35 * s), (-1.35 * s, 0)],
        4: [(0, 1.25 * s), (1.15 * s, -0.85 * s), (-1.15 * s, -0.85 * s)],
        5: [(-0.45 * s, -1.2 * s), (0.45 * s, -1.2 * s), (0.45 * s, -0.45 * s), (1.2 * s, -0.45 * s),
            (1.2 * s, 0.45 * s), (0.45 * s, 0.45 * s), (0.45 * s, 1.2 * s), (-0.45 * s, 1.2 * s),
            (-0.45 * s, 0.45 * s), (-1.2 * s, 0.45 * s), (-1.2 * s, -0.45 * s), (-0.45 * s, -0.45 * s)],
        6: [(0, -1.25 * s), (1.2 * s, -0.4 * s), (0.75 * s, 1.05 * s), (-0.75 * s, 1.05 * s), (-1.2 * s, -0.4 * s)],
        7: [(-1.3 * s, -0.6 * s), (1.3 * s, -0.6 * s), (1.3 * s, 0.6 * s), (-1.3 * s, 0.6 * s)],
    }  # fmt: skip
    if shape == 0:
        return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{s}"/>'
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon class="{style}" points="{path}"/>'


def key(drawing: str, *, width: int = 16) -> str:
    """A small drawing for a legend."""
    return f'<svg class="key" viewBox="0 0 {width} 16" width="{width}" height="16" aria-hidden="true">{drawing}</svg>'


def text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    """One line of text; `y` is its baseline."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def whisker(x: tuple[float, float], y: tuple[float, float], style: str) -> str:
    """A line between two points, `x` and `y` being both ends' positions."""
    return f'<line class="{style}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


Number = Callable[[float], str]
"""How a tick is printed."""


def ticks_below(
    axis: Axis, top: float, bottom: float, label: str, *, sparse: bool = False, number: Number = quantity
) -> list[str]:
    """Vertical grid lines with numbers under them, and the axis' label under those (36 px in all)."""
    parts: list[str] = []
    for tick in axis.ticks[:: 2 if sparse and len(axis.ticks) > 5 else 1]:
        x = axis(tick)
        parts.append(whisker((x, x), (top, bottom), "grid"))
        parts.append(text(x, bottom + 17, number(tick), "tick", "middle"))
    parts.append(text((axis.start + axis.end) / 2, bottom + 36, label, "axis", "middle"))
    return parts


def axes(
    x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, *, sparse: bool, number: Number = quantity
) -> list[str]:
    """The frame of a chart with two axes: grid, numbers, labels."""
    left, right, bottom, top = x_axis.start, x_axis.end, y_axis.start, y_axis.end
    parts = ticks_below(x_axis, top, bottom, x_label, sparse=sparse, number=number)
    for tick in y_axis.ticks:
        y = y_axis(tick)
        parts.append(whisker((left, right), (y, y), "grid"))
        parts.append(text(left - 8, y + 4, number(tick), "tick", "end"))
    parts.append(whisker((left, right), (bottom, bottom), "base"))
    parts.append(text(6, 14, y_label, "axis"))
    return parts


def svg(parts: Sequence[str], identifier: str, title: str, description: str, size: tuple[int, int]) -> str:
    """The element: `identifier` is unique in the page, `size` is in pixels."""
    width, height = size
    return (
        f'<svg role="img" aria-labelledby="{identifier}-t {identifier}-d" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title id="{identifier}-t">{escape(title)}</title>'
        f'<desc id="{identifier}-d">{escape(description)}</desc>{"".join(parts)}</svg>'
    )
