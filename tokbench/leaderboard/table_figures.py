"""Which charts a table gets: those of the board whose metrics at least two tokenizers have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

from tokbench.errors import UndefinedMetric
from tokbench.leaderboard.bars import Bar, BarRow, bar_chart, bar_keys
from tokbench.leaderboard.board import BarDef, Board, ChartDef, DetDef
from tokbench.leaderboard.ceiling import reference_lines
from tokbench.leaderboard.charts import Interval, Point, rank_plot, scatter
from tokbench.leaderboard.det import Trade, det_plot
from tokbench.leaderboard.drawing import SHAPES
from tokbench.leaderboard.figures import (
    Figure,
    arrow,
    axis_label,
    both_widths,
    ends,
    family_keys,
    left_out,
    said_once,
    shown,
    why,
    words,
)
from tokbench.leaderboard.model import Cell, Column, Row, Table
from tokbench.leaderboard.standing import rank_intervals
from tokbench.leaderboard.trials import trial_scores
from tokbench.metrics.eer import det_curve

__all__ = ["make_figures"]

MOST_CURVES = 9
"""Named curves in one DET chart; beyond it every family gets a chart, with the others in grey."""


def make_figures(table: Table, tables: Sequence[Table], board: Board, families: Mapping[str, int]) -> list[Figure]:
    """The board's charts for one table; `tables` are all of them, for charts across tasks."""
    figures: list[Figure] = []
    for chart in board.charts:
        if chart.task not in (None, table.task.name):
            continue
        beside = table if chart.x_task is None else _same_data(table, tables, chart.x_task)
        if beside is not None:
            pairs = product(_first(beside, chart.x), _first(table, chart.y))
            figures += said_once([_scatter(table, beside, chart, x, y, families) for x, y in pairs])
    for bars in board.bars:
        figures += said_once(_bars(table, bars, families))
    for det in board.dets:
        dets = [figure for c in table.column(det.metric) for figure in _dets(table, det, c, families)]
        figures += said_once(dets)
    ranks = [_ranks(table, column, families) for base in board.ranks for column in table.column(base)]
    return figures + said_once(ranks)


def _same_data(table: Table, tables: Sequence[Table], task: str) -> Table | None:
    """The table of another task on the same data."""
    if table.dataset is None:
        return None
    return next(
        (t for t in tables
         if t.task.name == task and t.dataset is not None and t.dataset.fingerprint == table.dataset.fingerprint),
        None,
    )  # fmt: skip


def _first(table: Table, metrics: Sequence[str]) -> list[Column]:
    """The columns of the first of these metrics that two tokenizers have."""
    for base in metrics:
        columns = [c for c in table.column(base) if sum(r.cells[c.id].value is not None for r in table.rows) >= 2]
        if columns:
            return columns
    return []


def _scatter(
    table: Table, beside: Table, chart: ChartDef, x: Column, y: Column, families: Mapping[str, int]
) -> Figure | None:
    places = {row.name: row.cells[x.id] for row in beside.rows}
    cells: dict[str, tuple[Row, Cell, Cell]] = {
        row.name: (row, places[row.name], row.cells[y.id]) for row in table.rows if row.name in places
    }
    complete = [entry for entry in cells.values() if entry[1].value is not None and entry[2].value is not None]
    drawn = [
        (row, a, b) for row, a, b in complete if row.anchor != "ceiling" and (not chart.log_x or (a.value or 0) > 0)
    ]
    if len(drawn) < 2:
        return None
    points = [
        Point(row.name, shown(a), shown(b), ends(a), ends(b), families[row.result.tokenizer.family],
              anchor=row.anchor is not None)
        for row, a, b in drawn
    ]  # fmt: skip
    # On a logarithmic axis of cost the ceilings lie far out: they are lines at their height alone.
    x_lines = [] if chart.log_x else reference_lines(beside, x)
    identifier = f"{table.id}-{x.id}-{y.id}"
    qualifiers = ", ".join(dict.fromkeys(c.label for c in (y, x) if c.label and (c is y or chart.x_task is None)))
    title = f"{chart.title}{f' ({qualifiers})' if qualifiers else ''}"
    x_label = f"{axis_label(x)}{' (logarithmic)' if chart.log_x else ''}"
    description = (
        f"{len(points)} tokenizers; horizontal axis {x_label}, vertical axis {axis_label(y)}. "
        "Whiskers are 95 % intervals. The numbers follow as a table."
    )

    draw = partial(
        scatter, points, title=title, description=description, x_label=x_label, y_label=axis_label(y),
        log_x=chart.log_x, better=y.direction, x_lines=x_lines, lines=reference_lines(table, y),
    )  # fmt: skip
    crowded = len(points) > 12
    wide, narrow = both_widths(draw, identifier, (480, 560) if crowded else (400, 400))
    ceilings = [entry for entry in complete if entry[0].anchor == "ceiling"]
    return Figure(
        id=identifier,
        title=title,
        caption=chart.caption,
        wide=wide,
        narrow=narrow,
        legend=family_keys([row for row, _, _ in drawn], families),
        head=["Tokenizer", axis_label(x), axis_label(y)],
        body=[[row.name, words(a), words(b)] for row, a, b in [*drawn, *ceilings]],
        left_out=left_out(
            [(row, why(cells[row.name][1], cells[row.name][2])) for row in table.ranked
             if row.name in cells and cells[row.name] not in complete]
            + [(row, f"not run: {beside.task.title}") for row in table.ranked if row.name not in cells]
        ),
        front=chart.front,
    )  # fmt: skip


def _bars(table: Table, chart: BarDef, families: Mapping[str, int]) -> list[Figure]:
    """One figure for each judge or kind of representation that the conditions have."""
    by_label: dict[str | None, dict[str, Column]] = defaultdict(dict)
    for condition, base in chart.conditions.items():
        for column in table.column(base):
            by_label[column.label][condition] = column
    figures: list[Figure] = []
    for label, columns in by_label.items():
        present = {
            condition: column for condition, column in columns.items()
            if any(row.cells[column.id].value is not None for row in table.rows)
        }  # fmt: skip
        rows = [r for r in table.rows if any(r.cells[c.id].value is not None for c in present.values())]
        if len(rows) < 2:
            continue
        first = present.get(chart.order, next(iter(present.values())))
        sign = -1.0 if first.direction == "higher" else 1.0
        rows.sort(key=lambda r: (r.cells[first.id].value is None, sign * (r.cells[first.id].value or 0.0), r.name))
        drawn = [
            BarRow(
                row.name,
                tuple(
                    Bar(shown(row.cells[c.id]), ends(row.cells[c.id])) if row.cells[c.id].value is not None else None
                    for c in present.values()
                ),
                families[row.result.tokenizer.family],
                best=any(row.cells[c.id].mark for c in present.values()),
                anchor=row.anchor is not None,
            )
            for row in rows
        ]
        identifier = f"{table.id}-bars-{'-'.join(c.id for c in present.values())}"
        title = f"{chart.title}{f' ({label})' if label else ''}"
        absent = [condition for condition in chart.conditions if condition not in present]
        caption = chart.caption + (f" No tokenizer has a value for: {', '.join(absent)}." if absent else "")
        axis = f"{chart.axis} {arrow(first)}"
        description = f"{len(rows)} tokenizers, {' and '.join(present)}; {axis}. Whiskers are 95 % intervals."

        draw = partial(
            bar_chart, drawn, conditions=tuple(present), title=title, description=description, label=axis,
            chance=chart.chance,
        )  # fmt: skip
        wide, narrow = both_widths(draw, identifier)
        figures.append(
            Figure(
                id=identifier,
                title=title,
                caption=caption,
                wide=wide,
                narrow=narrow,
                legend=bar_keys(tuple(present)) + family_keys(rows, families),
                head=["Tokenizer", *(f"{axis_label(c)}" for c in present.values())],
                body=[[row.name, *(words(row.cells[c.id]) for c in present.values())] for row in rows],
                left_out=left_out(
                    [(r, why(*(r.cells[c.id] for c in present.values()))) for r in table.ranked if r not in rows]
                ),
                front=chart.front and not any(f.front for f in figures),
            )
        )
    return figures


def _dets(table: Table, chart: DetDef, column: Column, families: Mapping[str, int]) -> list[Figure]:
    """DET curves of every tokenizer whose rows hold the scores: in one chart, or in one for each family."""
    trades: dict[str, Trade] = {}
    absent: list[tuple[Row, str]] = []
    rows = {row.name: row for row in table.rows}
    for row in table.rows:
        cell = row.cells[column.id]
        if cell.estimate is None or cell.value is None:
            absent.append((row, why(cell)))
            continue
        scores = trial_scores(row.result, cell.estimate)
        if scores is None:
            absent.append((row, "the rows hold no scores of trials"))
        elif not 0 < cell.value < 1:
            absent.append((row, f"{'no' if cell.value == 0 else 'nothing but'} errors, so there is no curve"))
        else:
            try:
                curve = det_curve(*scores)
            except UndefinedMetric as error:
                absent.append((row, error.what))
                continue
            family = families[row.result.tokenizer.family]
            trades[row.name] = Trade(row.name, curve.far, curve.frr, cell.value, family)
    if len(trades) < 2:
        return []
    order = sorted(trades.values(), key=lambda t: (-t.eer if column.direction == "higher" else t.eer, t.name))
    groups = _by_family(order, rows)
    figures: list[Figure] = []
    for number, (part, members) in enumerate(groups):
        identifier = f"{table.id}-det-{column.id}{f'-{number}' if part else ''}"
        title = f"{chart.title}{f' ({column.label})' if column.label else ''}{f', {part}' if part else ''}"
        others = [trade for trade in order if trade not in members]
        chosen = _told_apart(members)
        description = (
            f"{len(chosen)} curves; horizontal axis {chart.x_label}, vertical axis {chart.y_label}, in percent."
        )

        draw = partial(
            det_plot, chosen, others=others, title=title, description=description,
            x_label=f"{chart.x_label}, %", y_label=f"{chart.y_label}, %",
        )  # fmt: skip
        wide, narrow = both_widths(draw, identifier, (500, 380))
        figures.append(
            Figure(
                id=identifier,
                title=title,
                caption=chart.caption + (" The other tokenizers are drawn in grey." if part else ""),
                wide=wide,
                narrow=narrow,
                legend=family_keys([rows[t.name] for t in chosen], families),
                head=["Tokenizer", axis_label(column)],
                body=[[t.name, words(rows[t.name].cells[column.id])] for t in chosen],
                left_out=left_out(absent) if number == 0 else [],
            )
        )
    return figures


def _by_family(order: Sequence[Trade], rows: Mapping[str, Row]) -> list[tuple[str, list[Trade]]]:
    """All in one chart without a name, or a chart for each family, in several parts where one is large."""
    if len(order) <= MOST_CURVES:
        return [("", list(order))]
    families: dict[str, list[Trade]] = defaultdict(list)
    for trade in order:
        families[rows[trade.name].result.tokenizer.family].append(trade)
    made = []
    for family, members in families.items():
        parts = [members[i : i + MOST_CURVES] for i in range(0, len(members), MOST_CURVES)]
        made += [(f"{family} {i} of {len(parts)}" if len(parts) > 1 else family, p) for i, p in enumerate(parts, 1)]
    return made


def _told_apart(trades: Sequence[Trade]) -> list[Trade]:
    """Line styles for the members of a family; colours, too, where all are of one family and colour says nothing."""
    if len({trade.family for trade in trades}) == 1:
        return [replace(trade, family=number % SHAPES, place=number // SHAPES) for number, trade in enumerate(trades)]
    seen: Counter[int] = Counter()
    made = []
    for trade in trades:
        made.append(replace(trade, place=seen[trade.family]))
        seen[trade.family] += 1
    return made


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
    title = f"Rank intervals: {column.title}{f' ({column.label})' if column.label else ''}"
    description = f"Rank of {len(intervals)} tokenizers with 95 % intervals; the numbers follow as a table."

    draw = partial(rank_plot, intervals, title=title, description=description)
    identifier = f"{table.id}-rank-{column.id}"
    wide, narrow = both_widths(draw, identifier)
    figure = Figure(
        id=identifier,
        title=title,
        caption="Where each tokenizer could stand if the test had been made with other speakers: the whisker holds "
        "95 % of its ranks over redrawn data, the marker its rank on all data. Names in bold are the best, or not "
        "separable from it.",
        wide=wide,
        narrow=narrow,
        legend=family_keys([rows[i.name] for i in intervals], families),
        head=["Tokenizer", "Rank", "Best rank (95 %)", "Worst rank (95 %)"],
        body=[[i.name, f"{i.rank:g}", f"{i.low:g}", f"{i.high:g}"] for i in intervals],
    )
    missing = [(r, why(r.cells[column.id])) for r in table.ranked if r.cells[column.id].value is None]
    return replace(figure, left_out=left_out(missing))
