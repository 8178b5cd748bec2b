"""Reading some columns of the rows beside a result."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.results import Result

__all__ = ["read_columns"]


def read_columns(result: Result, table: str, columns: Sequence[str]) -> pd.DataFrame | None:
    """These columns of a table of rows; None where the result has no such table, or the table lacks one of them."""
    import pyarrow.parquet as pq

    if result.folder is None or table not in result.tables:
        return None
    path = result.folder / result.tables[table].path
    if not path.is_file() or not set(columns) <= set(pq.read_schema(path).names):
        return None
    return pd.read_parquet(path, columns=list(columns))
