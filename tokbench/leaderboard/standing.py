"""Who is best in a column, who cannot be told from the best, and where each could rank.

Computed from the rows beside the results, by the same metrics and the same bootstrap as every interval. Anchors take
no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pandas as pd

from tokbench.leaderboard.definitions import metric_of
from tokbench.leaderboard.model import Column, Row, Table
from tokbench.metrics.base import Metric
from tokbench.stats import rank_intervals as stats_rank_intervals
from tokbench.stats import tie_group

__all__ = ["DRAWS", "mark_ties", "rank_intervals"]

DRAWS = 2_000
"""Bootstrap draws of a tie or rank; the intervals that are printed have their own 10,000."""


def mark_ties(table: Table) -> None:
    """Mark the best of every column, with all that equal it, and what no paired test (Holm-corrected) tells from it."""
    for column in table.columns:
        if column.direction == "none" or column.rate or column.latent:
            continue
        metric = metric_of(column.metric)
        rows = _comparable(table, column)
        if metric is None or len(rows) < 2:
            continue
        group = tie_group(metric, _frames(rows, column, metric), draws=DRAWS)
        values = {row.name: estimate.value for row in rows if (estimate := row.cells[column.id].estimate) is not None}
        for row in rows:
            if values[row.name] == values[group.best]:
                row.cells[column.id].mark = "best"
            elif row.name in group.members:
                row.cells[column.id].mark = "tied"


def rank_intervals(table: Table, column: Column) -> dict[str, tuple[float, float, float]]:
    """Rank and ends of its 95 % interval for every ranked tokenizer; {} where fewer than two can be compared."""
    metric = metric_of(column.metric)
    rows = _comparable(table, column)
    if metric is None or len(rows) < 2 or column.direction == "none":
        return {}
    found = stats_rank_intervals(metric, _frames(rows, column, metric), draws=DRAWS)
    return {name: (float(r.rank), float(r.low), float(r.high)) for name, r in found.items()}


def _comparable(table: Table, column: Column) -> list[Row]:
    """Ranked rows with a value and with the rows that it was computed from."""
    return [
        row
        for row in table.ranked
        if (estimate := row.cells[column.id].estimate) is not None
        and estimate.value is not None
        and estimate.table == "items"
        and estimate.table in row.result.tables
    ]


def _frames(rows: list[Row], column: Column, metric: Metric) -> Mapping[str, pd.DataFrame]:
    frames = {}
    for row in rows:
        estimate = row.cells[column.id].estimate
        folder = row.result.folder
        own = metric_of(estimate.metric) if estimate is not None else None
        if estimate is None or own is None or folder is None:
            continue
        path = folder / row.result.tables[estimate.table].path
        frame = _read(path, path.stat().st_mtime_ns)
        # Streams have other names in other tokenizers; the comparison needs one.
        named = {f"why[{own.name}]": f"why[{metric.name}]"} | dict(zip(own.components, metric.components, strict=True))
        wanted = ["id", "speaker", "error", *named]
        frames[row.name] = frame[[name for name in wanted if name in frame.columns]].rename(columns=named)
    return frames


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> pd.DataFrame:  # noqa: ARG001 - a file that changed is read again
    return pd.read_parquet(path)
