"""A figure: a chart in two widths with its legend, and the numbers behind it as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tokbench.leaderboard.drawing import key, marker
from tokbench.leaderboard.model import Cell, Column, Row

__all__ = [
    "NARROW",
    "WIDE",
    "Figure",
    "arrow",
    "axis_label",
    "both_widths",
    "ends",
    "family_keys",
    "left_out",
    "said_once",
    "shown",
    "why",
    "words",
]

WIDE, NARROW = 640, 360
"""Widths of the two drawings in pixels."""


@dataclass(frozen=True)
class Figure:
    """A chart in a wide and a narrow drawing, its legend, and its numbers as a table."""

    id: str
    title: str
    caption: str
    wide: str
    narrow: str
    head: list[str]
    body: list[list[str]]
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Marks (SVG) and what they stand for."""
    left_out: list[str] = field(default_factory=list)
    """Ranked tokenizers that the chart cannot show, with their reasons."""
    front: bool = False
    """Whether the front page shows it."""
    topic: str = ""
    """What it is called among links, where the title says too much."""


def both_widths(draw: Callable[..., str], identifier: str, heights: tuple[int, int] | None = None) -> tuple[str, str]:
    """The wide and the narrow drawing.

    Args:
        draw: gets an `identifier` of its own for each, and `width`; or `size`, where heights are given.
        identifier: unique in the page.
        heights: of the wide and of the narrow drawing; None for charts whose rows decide.
    """
    made = []
    for kind, width, height in (("wide", WIDE, (heights or (0, 0))[0]), ("narrow", NARROW, (heights or (0, 0))[1])):
        own = f"{identifier}-{kind}"
        made.append(draw(identifier=own, size=(width, height)) if heights else draw(identifier=own, width=width))
    return made[0], made[1]


def arrow(column: Column) -> str:
    """Which way is better."""
    return {"higher": "↑", "lower": "↓", "none": ""}[column.direction]


def axis_label(column: Column) -> str:
    """Title, unit and direction."""
    return f"{column.title}{f', {column.unit}' if column.unit else ''} {arrow(column)}".strip()


def shown(cell: Cell) -> float:
    """The value in display units."""
    return (cell.value or 0.0) * cell.column.scale


def ends(cell: Cell) -> tuple[float, float] | None:
    """Ends of the interval in display units."""
    if cell.estimate is None or cell.estimate.ci95 is None:
        return None
    return cell.estimate.ci95[0] * cell.column.scale, cell.estimate.ci95[1] * cell.column.scale


def words(cell: Cell) -> str:
    """The value with its half-width, as in a table."""
    return f"{cell.text} ± {cell.half}" if cell.half else cell.text


def why(*cells: Cell) -> str:
    """Why the first cell without a value has none."""
    return next((cell.reason or "no value" for cell in cells if cell.value is None), "no value")


def left_out(cells: Sequence[tuple[Row, str]]) -> list[str]:
    """Tokenizers that a chart cannot show, by reason; those to which the task does not apply are in its table."""
    by_reason: dict[str, list[str]] = {}
    for row, reason in cells:
        if row.applicable:
            by_reason.setdefault(reason, []).append(row.name)
    return [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]


def said_once(figures: Sequence[Figure | None]) -> list[Figure]:
    """The charts that could be drawn; what a kind of chart means is told at the first of them."""
    drawn = [figure for figure in figures if figure is not None]
    return [replace(figure, caption=figure.caption if i == 0 else "") for i, figure in enumerate(drawn)]


def family_keys(rows: Sequence[Row], families: Mapping[str, int]) -> list[tuple[str, str]]:
    """Marker and name of every family among the rows, where there are several."""
    names = sorted({r.result.tokenizer.family for r in rows}, key=lambda f: families[f])
    if len(names) < 2:
        return []
    return [
        (key(marker(8, 8, families[name],
                    hollow=all(r.anchor for r in rows if r.result.tokenizer.family == name))), name)
        for name in names
    ]  # fmt: skip
