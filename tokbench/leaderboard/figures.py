"""Which charts a table gets, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokbench.leaderboard.board import Board, ChartDef
from tokbench.leaderboard.charts import Interval, Point, marker, rank_plot, scatter
from tokbench.leaderboard.model import Column, Row, Table
from tokbench.leaderboard.standing import rank_intervals

__all__ = ["Figure", "make_figures"]


@dataclass(frozen=True)
class Figure:
    """A chart in a wide and a narrow drawing, its legend, and its numbers as a table."""

    id: str
    title: str
    caption: str
    wide: str
    narrow: str
    legend: list[tuple[str, str]]
    """Marker (SVG) and family."""
    head: list[str]
    body: list[list[str]]
    left_out: list[str]
    """Ranked tokenizers that the chart cannot show, each with its reason."""


def make_figures(table: Table, board: Board, families: Mapping[str, int]) -> list[Figure]:
    """The board's charts for one table: one for each pair of columns that at least two tokenizers have."""
    figures: list[Figure] = []
    for chart in board.charts:
        for x in table.column(chart.x):
            for y in table.column(chart.y):
                figure = _scatter(table, chart, x, y, families)
                if figure is not None:
                    figures.append(figure)
    for base in board.ranks:
        for column in table.column(base):
            figure = _ranks(table, column, families)
            if figure is not None:
                figures.append(figure)
    return figures


def _scatter(table: Table, chart: ChartDef, x: Column, y: Column, families: Mapping[str, int]) -> Figure | None:
    rows = [r for r in table.rows if r.anchor != "ceiling" and _complete(r, x, y)]
    rows = [r for r in rows if not chart.log_x or (r.cells[x.id].value or 0) > 0]
    if len(rows) < 2:
        return None
    points = [
        Point(
            name=row.name,
            x=_shown(row, x),
            y=_shown(row, y),
            x_ci=_ends(row, x),
            y_ci=_ends(row, y),
            family=families[row.result.tokenizer.family],
            anchor=row.anchor is not None,
        )
        for row in rows
    ]
    ceilings = [r for r in table.anchors if r.anchor == "ceiling" and r.cells[y.id].value is not None]
    lines = [(r.name, _shown(r, y)) for r in ceilings]
    identifier = f"{table.id}-{x.id}-{y.id}"
    judge = f" ({y.judge})" if y.judge else ""
    title = f"{chart.title}{judge}"
    arrow = {"higher": "↑", "lower": "↓", "none": ""}[y.direction]
    y_label = f"{y.title}{f', {y.unit}' if y.unit else ''} {arrow}"
    x_label = f"{x.title}{f', {x.unit}' if x.unit else ''}{' (logarithmic)' if chart.log_x else ''}"
    description = (
        f"{len(points)} tokenizers; horizontal axis {x_label}, vertical axis {y_label}. "
        "Whiskers are 95 % intervals. The numbers follow as a table."
    )
    drawings = [
        scatter(points, identifier=f"{identifier}-{kind}", title=title, description=description, x_label=x_label,
                y_label=y_label, log_x=chart.log_x, better=y.direction, lines=lines, size=size)
        for kind, size in (("wide", (640, 400)), ("narrow", (360, 400)))
    ]  # fmt: skip
    return Figure(
        id=identifier,
        title=title,
        caption=chart.caption,
        wide=drawings[0],
        narrow=drawings[1],
        legend=_legend(rows, families),
        head=["Tokenizer", x_label.removesuffix(" (logarithmic)"), y_label],
        body=[[r.name, _words(r, x), _words(r, y)] for r in [*rows, *ceilings]],
        left_out=[f"{r.name} ({_why(r, x, y)})" for r in table.ranked if not _complete(r, x, y)],
    )


def _ranks(table: Table, column: Column, families: Mapping[str, int]) -> Figure | None:
    found = rank_intervals(table, column)
    if len(found) < 2:
        return None
    rows = {row.name: row for row in table.ranked}
    intervals = [
        Interval(name, rank, low, high, families[rows[name].result.tokenizer.family],
                 best=bool(rows[name].cells[column.id].mark))
        for name, (rank, low, high) in sorted(found.items(), key=lambda item: (item[1], item[0]))
    ]  # fmt: skip
    judge = f" ({column.judge})" if column.judge else ""
    title = f"Rank intervals: {column.title}{judge}"
    description = f"Rank of {len(intervals)} tokenizers with 95 % intervals; the numbers follow as a table."
    identifier = f"{table.id}-rank-{column.id}"
    drawings = [
        rank_plot(intervals, identifier=f"{identifier}-{kind}", title=title, description=description, width=width)
        for kind, width in (("wide", 640), ("narrow", 360))
    ]
    return Figure(
        id=identifier,
        title=title,
        caption="Where each tokenizer could stand if the test had been made with other speakers: the whisker holds "
        "95 % of its ranks over redrawn data, the marker its rank on all data. Names in bold are the best, or not "
        "separable from it.",
        wide=drawings[0],
        narrow=drawings[1],
        legend=_legend([rows[i.name] for i in intervals], families),
        head=["Tokenizer", "Rank", "Best rank (95 %)", "Worst rank (95 %)"],
        body=[[i.name, f"{i.rank:g}", f"{i.low:g}", f"{i.high:g}"] for i in intervals],
        left_out=[f"{r.name} ({_why(r, column)})" for r in table.ranked if not _complete(r, column)],
    )


def _complete(row: Row, *columns: Column) -> bool:
    return all(row.cells[c.id].value is not None for c in columns)


def _why(row: Row, *columns: Column) -> str:
    return next(row.cells[c.id].reason or "no value" for c in columns if row.cells[c.id].value is None)


def _shown(row: Row, column: Column) -> float:
    return (row.cells[column.id].value or 0.0) * column.scale


def _ends(row: Row, column: Column) -> tuple[float, float] | None:
    estimate = row.cells[column.id].estimate
    if estimate is None or estimate.ci95 is None:
        return None
    return estimate.ci95[0] * column.scale, estimate.ci95[1] * column.scale


def _words(row: Row, column: Column) -> str:
    cell = row.cells[column.id]
    return f"{cell.text} ± {cell.half}" if cell.half else cell.text


def _legend(rows: list[Row], families: Mapping[str, int]) -> list[tuple[str, str]]:
    entries: list[tuple[str, str]] = []
    for family in sorted({r.result.tokenizer.family for r in rows}, key=lambda f: families[f]):
        hollow = all(r.anchor for r in rows if r.result.tokenizer.family == family)
        drawing = marker(8, 8, families[family], hollow=hollow)
        head = '<svg class="key" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        entries.append((f"{head}{drawing}</svg>", family))
    return entries
