"""Charts as inline SVG, made when the pages are built; colours come from the page's style sheet.

A family has a colour and a marker shape, so that no chart relies on colour alone. Every chart has a title and a
description for screen readers, and its numbers stand beside it as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tokbench.leaderboard.numbers import quantity
from tokbench.leaderboard.scales import Axis, Box, linear_axis, log_axis, place_labels
from tokbench.types import Direction

__all__ = ["Interval", "Point", "front", "rank_plot", "scatter"]

SHAPES = 8
"""Number of markers and colours; families beyond it start again with hollow markers."""


@dataclass(frozen=True)
class Point:
    """A tokenizer in a scatter chart; `x_ci` and `y_ci` are ends of the 95 % interval, all in display units."""

    name: str
    x: float
    y: float
    x_ci: tuple[float, float] | None
    y_ci: tuple[float, float] | None
    family: int
    anchor: bool = False


@dataclass(frozen=True)
class Interval:
    """A tokenizer in a rank plot: its rank and the interval of ranks."""

    name: str
    rank: float
    low: float
    high: float
    family: int
    best: bool


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


def scatter(
    points: Sequence[Point],
    *,
    identifier: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    log_x: bool,
    better: Direction = "none",
    lines: Sequence[tuple[str, float]] = (),
    size: tuple[int, int] = (640, 400),
) -> str:
    """A scatter chart with whiskers for both intervals.

    Args:
        points: at least one.
        identifier: unique in the page, for the title and description.
        title: what the chart shows.
        description: what to read from it, for those who do not see it.
        x_label: axis label with unit.
        y_label: axis label with unit and direction.
        log_x: whether the x axis is logarithmic.
        better: direction of y; a stepped line then joins the points that no other beats on both axes (small x is good).
        lines: horizontal reference lines (anchors): name and y.
        size: width and height of the drawing in pixels.
    """
    width, height = size
    font = 12.5
    left, right, top, bottom = 56.0, width - 14.0, 30.0, height - 46.0
    xs = [v for p in points for v in (p.x, *(p.x_ci or ()))]
    ys = [v for p in points for v in (p.y, *(p.y_ci or ()))] + [y for _, y in lines]
    if log_x:
        xs = [v for v in xs if v > 0]
    make_x = log_axis if log_x else linear_axis
    x_axis = make_x(min(xs), max(xs), left, right)
    y_axis = linear_axis(min(ys), max(ys), bottom, top)
    parts = _frame(x_axis, y_axis, x_label, y_label, height, sparse=width < 500)
    obstacles: list[Box] = []
    keep_clear: list[Box] = []
    centres = [(x_axis(p.x), y_axis(p.y)) for p in points]
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    for names, ys_of in _references([(name, y_axis(value)) for name, value in lines]):
        parts += [f'<line class="ref" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in ys_of]
        label, base = ", ".join(names), min(ys_of) - 5
        width_of = len(label) * font * 0.54
        ends = [
            Box(right - 2 - width_of, base - 11, right - 2, base + 3),
            Box(left + 4, base - 11, left + 4 + width_of, base + 3),
        ]
        spot = min(ends, key=lambda box: sum(box.overlap(mark) for mark in marks))
        x, side = (spot.right, "end") if spot is ends[0] else (spot.left, "start")
        parts.append(f'<text class="ref" x="{x:.1f}" y="{base:.1f}" text-anchor="{side}">{escape(label)}</text>')
        keep_clear.append(spot)
        obstacles += [Box(left, y - 1, right, y + 1) for y in ys_of]
    parts += _front_line(centres, better, right)
    for point, (x, y) in zip(points, centres, strict=True):
        if point.x_ci:
            a, b = x_axis(point.x_ci[0]), x_axis(point.x_ci[1])
            parts.append(
                f'<line class="w c{point.family % SHAPES}" x1="{a:.1f}" x2="{b:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            obstacles.append(Box(a, y - 1.5, b, y + 1.5))
        if point.y_ci:
            a, b = y_axis(point.y_ci[0]), y_axis(point.y_ci[1])
            parts.append(
                f'<line class="w c{point.family % SHAPES}" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
            )
            obstacles.append(Box(x - 1.5, min(a, b), x + 1.5, max(a, b)))
    frame = Box(left + 3, top + 2, right - 2, bottom - 2)
    boxes = place_labels(centres, [p.name for p in points], frame, obstacles, keep_clear, size=font)
    for point, (x, y), box in zip(points, centres, boxes, strict=True):
        cx, cy = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if (cx - x) ** 2 + (cy - y) ** 2 > 14**2:
            parts.append(f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{cx:.1f}" y2="{cy:.1f}"/>')
        parts.append(
            f'<text class="lab" x="{(box.left + box.right) / 2:.1f}" y="{box.bottom - font * 0.27:.1f}" '
            f'text-anchor="middle">{escape(point.name)}</text>'
        )
    for point, (x, y) in zip(points, centres, strict=True):
        words = f"{point.name}: {quantity(point.x)}, {quantity(point.y)}"
        parts.append(f"<g><title>{escape(words)}</title>{marker(x, y, point.family, hollow=point.anchor)}</g>")
    return _svg(parts, identifier, title, description, width, height)


def front(points: Sequence[tuple[float, float]], better: Direction) -> list[tuple[float, float]]:
    """The points that no other beats on both axes, small x being good, from small to large x."""
    sign = -1.0 if better == "higher" else 1.0
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], sign * p[1])):
        if not kept or sign * y < sign * kept[-1][1]:
            kept.append((x, y))
    return kept


def _front_line(centres: Sequence[tuple[float, float]], better: Direction, right: float) -> list[str]:
    if better == "none" or len(centres) < 3:
        return []
    # Pixels count downwards, so the better direction is the other one.
    kept = front(centres, "lower" if better == "higher" else "higher")
    path = f"M{kept[0][0]:.1f} {kept[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in kept[1:]) + f"H{right:.1f}"
    return [f'<path class="front" d="{path}"/>']


def _references(lines: Sequence[tuple[str, float]]) -> list[tuple[list[str], list[float]]]:
    """Reference lines grouped so that labels of close lines become one: names and pixel positions."""
    groups: list[tuple[list[str], list[float]]] = []
    for name, y in sorted(lines, key=lambda line: line[1]):
        if groups and y - groups[-1][1][-1] < 24:
            groups[-1][0].append(name)
            groups[-1][1].append(y)
        else:
            groups.append(([name], [y]))
    return groups


def rank_plot(intervals: Sequence[Interval], *, identifier: str, title: str, description: str, width: int = 640) -> str:
    """Rank intervals, one row per tokenizer, the best on top."""
    row, top = 24.0, 12.0
    narrow = width < 500
    left = min(max(len(i.name) for i in intervals) * (6.6 if narrow else 7.0) + 16, width * 0.5)
    right = width - 18.0
    count = len(intervals)
    height = round(top + row * count + 40)
    step = 1 if count <= (8 if narrow else 20) else 2
    bottom, middle = top + row * count, (left + right) / 2
    axis = Axis(0.5, count + 0.5, left, right, tuple(range(1, count + 1, step)))
    parts: list[str] = []
    for tick in axis.ticks:
        x = axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{bottom + 35}" text-anchor="middle">rank (1 is best)</text>')
    for index, item in enumerate(intervals):
        y = top + row * (index + 0.5)
        a, b = axis(item.low), axis(item.high)
        style = "lab strong" if item.best else "lab"
        parts.append(
            f'<text class="{style}" x="{left - 12:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(item.name)}</text>'
        )
        parts.append(
            f'<line class="w thick c{item.family % SHAPES}" x1="{a:.1f}" x2="{b:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts += [
            f'<line class="w c{item.family % SHAPES}" x1="{e:.1f}" x2="{e:.1f}" y1="{y - 4:.1f}" y2="{y + 4:.1f}"/>'
            for e in (a, b)
        ]
        parts.append(marker(axis(item.rank), y, item.family))
    return _svg(parts, identifier, title, description, width, height)


def _frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, height: int, *, sparse: bool) -> list[str]:
    left, right, bottom, top = x_axis.start, x_axis.end, y_axis.start, y_axis.end
    middle = (left + right) / 2
    parts = []
    x_ticks = x_axis.ticks[:: 2 if sparse and len(x_axis.ticks) > 5 else 1]
    for tick in x_ticks:
        x = x_axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        label = quantity(tick)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    for tick in y_axis.ticks:
        y = y_axis(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{quantity(tick)}</text>')
    parts.append(f'<line class="base" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="axis" x="6" y="14">{escape(y_label)}</text>')
    return parts


def _svg(parts: Sequence[str], identifier: str, title: str, description: str, width: int, height: int) -> str:
    return (
        f'<svg role="img" aria-labelledby="{identifier}-t {identifier}-d" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title id="{identifier}-t">{escape(title)}</title>'
        f'<desc id="{identifier}-d">{escape(description)}</desc>{"".join(parts)}</svg>'
    )
