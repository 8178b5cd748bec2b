"""Two results of one task on one dataset, compared item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokbench.errors import UserError
from tokbench.metrics.catalogue import metric as metric_named
from tokbench.results import Result
from tokbench.stats import compare, holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Difference", "compare_results", "read_table"]


@dataclass(frozen=True)
class Difference:
    """One metric: `second - first` with its interval; unscaled."""

    metric: str
    unit: str
    scale: float
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    better: str | None
    """Name of the better tokenizer where the corrected p value is below 0.05, else None."""


def read_table(result: Result, table: str) -> pd.DataFrame:
    """The rows of a result that was read from a folder."""
    import pandas as pd

    if result.folder is None or table not in result.tables:
        raise UserError(f"has no table '{table}'", where=str(result.folder))
    return pd.read_parquet(result.folder / result.tables[table].path)


def compare_results(first: Result, second: Result, *, draws: int) -> list[Difference]:
    """Paired differences over shared items for every metric that both have as per-item components.

    Raises:
        UserError: the results are of other tasks, task versions, data or judges.
    """
    for what, a, b in (
        ("task", (first.task.name, first.task.version), (second.task.name, second.task.version)),
        ("data", first.dataset and first.dataset.fingerprint, second.dataset and second.dataset.fingerprint),
        ("judges", first.manifest.judge_identities, second.manifest.judge_identities),
    ):
        if a != b:
            raise UserError(
                f"the two results are of different {what} ({a} and {b})", hint="Only like is compared with like"
            )
    left, right = read_table(first, "items"), read_table(second, "items")
    shared = [e.metric for e in first.estimates if e.table == "items" and second.estimate(e.metric)]
    made = []
    for name in shared:
        one = compare(metric_named(name), right, left, draws=draws)
        if one.ci95 is not None and one.p_value is not None:
            made.append((metric_named(name), one))
    corrected = holm([one.p_value for _, one in made if one.p_value is not None])
    names = {"a": second.tokenizer.name, "b": first.tokenizer.name}
    return [
        Difference(
            metric=metric.name,
            unit=metric.unit,
            scale=metric.scale,
            first=one.b,
            second=one.a,
            difference=one.difference,
            low=one.ci95[0] if one.ci95 else float("nan"),
            high=one.ci95[1] if one.ci95 else float("nan"),
            p=one.p_value if one.p_value is not None else float("nan"),
            p_holm=p,
            n=one.n,
            better=names.get(one.better or "") if p < 0.05 else None,
        )
        for (metric, one), p in zip(made, corrected, strict=True)
    ]
