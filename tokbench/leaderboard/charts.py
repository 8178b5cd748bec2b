"""Scatter charts and rank plots as inline SVG, made when the pages are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tokbench.leaderboard.drawing import SHAPES, axes, marker, svg, text, ticks_below, whisker
from tokbench.leaderboard.numbers import quantity
from tokbench.leaderboard.scales import Axis, Box, linear_axis, log_axis, place_labels
from tokbench.types import Direction

__all__ = ["Interval", "Point", "front", "rank_plot", "scatter"]

FONT = 12.5
CROWDED = 12
"""More points than this get fainter whiskers."""


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
    x_lines: Sequence[tuple[str, float]] = (),
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
        x_lines: vertical reference lines: name and x.
        size: width and height of the drawing in pixels.
    """
    width, height = size
    left, right, top, bottom = 56.0, width - 14.0, 30.0, height - 46.0
    xs = [v for p in points for v in (p.x, *(p.x_ci or ()))] + [x for _, x in x_lines]
    ys = [v for p in points for v in (p.y, *(p.y_ci or ()))] + [y for _, y in lines]
    if log_x:
        xs = [v for v in xs if v > 0]
    make_x = log_axis if log_x else linear_axis
    x_axis = make_x(min(xs), max(xs), left, right)
    y_axis = linear_axis(min(ys), max(ys), bottom, top)
    parts = axes(x_axis, y_axis, x_label, y_label, sparse=width < 500)
    obstacles: list[Box] = []
    keep_clear: list[Box] = []
    centres = [(x_axis(p.x), y_axis(p.y)) for p in points]
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    for names, ys_of in _references([(name, y_axis(value)) for name, value in lines]):
        parts += [whisker((left, right), (y, y), "ref") for y in ys_of]
        label, base = ", ".join(names), min(ys_of) - 5
        width_of = len(label) * FONT * 0.54
        ends = [
            Box(right - 2 - width_of, base - 11, right - 2, base + 3),
            Box(left + 4, base - 11, left + 4 + width_of, base + 3),
        ]
        spot = min(ends, key=lambda box: sum(box.overlap(mark) for mark in marks))
        x, side = (spot.right, "end") if spot is ends[0] else (spot.left, "start")
        parts.append(text(x, base, label, "ref", side))
        keep_clear.append(spot)
        obstacles += [Box(left, y - 1, right, y + 1) for y in ys_of]
    for names, xs_of in _references([(name, x_axis(value)) for name, value in x_lines], apart=17):
        parts += [whisker((x, x), (top, bottom), "ref") for x in xs_of]
        name, x = ", ".join(names), max(xs_of)
        # Upright text along the line, read from below; at its upper end, which a stepped front rarely reaches.
        parts.append(
            f'<text class="ref" text-anchor="end" transform="translate({x + 12:.1f} {top + 4:.1f}) rotate(-90)">'
            f"{escape(name)}</text>"
        )
        keep_clear.append(Box(x + 1, top, x + 15, top + 6 + len(name) * FONT * 0.54))
        obstacles += [Box(x - 1, top, x + 1, bottom) for x in xs_of]
    parts += _front_line(centres, better, right)
    for point, (x, y) in zip(points, centres, strict=True):
        style = f"w c{point.family % SHAPES}{' faint' if len(points) > CROWDED else ''}"
        if point.x_ci:
            ends_x = (x_axis(point.x_ci[0]), x_axis(point.x_ci[1]))
            parts.append(whisker(ends_x, (y, y), style))
            obstacles.append(Box(ends_x[0], y - 1.5, ends_x[1], y + 1.5))
        if point.y_ci:
            ends_y = (y_axis(point.y_ci[0]), y_axis(point.y_ci[1]))
            parts.append(whisker((x, x), ends_y, style))
            obstacles.append(Box(x - 1.5, min(ends_y), x + 1.5, max(ends_y)))
    frame = Box(left + 3, top + 2, right - 2, bottom - 2)
    boxes = place_labels(centres, [p.name for p in points], frame, obstacles, keep_clear, size=FONT)
    for point, (x, y), box in zip(points, centres, boxes, strict=True):
        cx, cy = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if (cx - x) ** 2 + (cy - y) ** 2 > 14**2:
            parts.append(whisker((x, cx), (y, cy), "leader"))
        parts.append(text((box.left + box.right) / 2, box.bottom - FONT * 0.27, point.name, "lab", "middle"))
    for point, (x, y) in zip(points, centres, strict=True):
        words = f"{point.name}: {quantity(point.x)}, {quantity(point.y)}"
        parts.append(f"<g><title>{escape(words)}</title>{marker(x, y, point.family, hollow=point.anchor)}</g>")
    return svg(parts, identifier, title, description, size)


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


def _references(lines: Sequence[tuple[str, float]], *, apart: float = 24) -> list[tuple[list[str], list[float]]]:
    """Reference lines grouped so that labels of close lines become one: names and pixel positions."""
    groups: list[tuple[list[str], list[float]]] = []
    for name, place in sorted(lines, key=lambda line: line[1]):
        if groups and place - groups[-1][1][-1] < apart:
            groups[-1][0].append(name)
            groups[-1][1].append(place)
        else:
            groups.append(([name], [place]))
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
    axis = Axis(0.5, count + 0.5, left, right, tuple(range(1, count + 1, step)))
    parts = ticks_below(axis, top - 6, top + row * count, "rank (1 is best)")
    for index, item in enumerate(intervals):
        y = top + row * (index + 0.5)
        a, b = axis(item.low), axis(item.high)
        style = f"c{item.family % SHAPES}"
        parts.append(text(left - 12, y + 4, item.name, "lab strong" if item.best else "lab", "end"))
        parts.append(whisker((a, b), (y, y), f"w thick {style}"))
        parts += [whisker((end, end), (y - 4, y + 4), f"w {style}") for end in (a, b)]
        parts.append(marker(axis(item.rank), y, item.family))
    return svg(parts, identifier, title, description, (width, height))
