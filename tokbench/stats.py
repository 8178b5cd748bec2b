"""Estimates with intervals, paired comparisons, ties and ranks, all from one vectorised cluster bootstrap.

Rows are one item each: `id`, the cluster column (`speaker`), one float64 column a component (NaN = missing),
`why[METRIC]` (the reason where a metric is undefined) and `error` (an item that failed as a whole).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr, stdtrit

from tokbench.bootstrap import LEVEL, Clusters, bootstrap, percentile_interval, tail_level
from tokbench.errors import NotApplicable, UserError
from tokbench.metrics.base import Metric
from tokbench.results import Estimate

__all__ = [
    "Comparison",
    "RankInterval",
    "TieGroup",
    "compare",
    "estimate",
    "holm",
    "rank_intervals",
    "tie_group",
]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two systems over the items that both have.

    `difference` is a - b in the metric's own unit, unscaled. `better` names the side that is better by the metric's
    direction, whatever the p value. `p_value` and `ci95` are None where fewer than two items are shared.
    """

    metric: str
    a: float
    b: float
    difference: float
    ci95: tuple[float, float] | None
    p_value: float | None
    better: str | None
    n: int
    clusters: int | None
    method: str


@dataclass(frozen=True)
class TieGroup:
    """The best system of a metric, and those that no paired test tells from it.

    `members` holds the best first, then the others by value. `p_values` are Holm-adjusted, against the best.
    `untested` names systems that share fewer than two items with the best: they are neither in nor out.
    """

    metric: str
    best: str
    members: tuple[str, ...]
    values: dict[str, float]
    p_values: dict[str, float]
    untested: tuple[str, ...]
    method: str


@dataclass(frozen=True)
class RankInterval:
    """Rank of a system (1 is best; equal values share the better rank) and its 95 % interval over the draws."""

    rank: int
    low: int
    high: int
    value: float


def estimate(
    metric: Metric,
    rows: pd.DataFrame,
    *,
    cluster: str | Sequence[str] = "speaker",
    draws: int = 10_000,
    seed: int = 0,
    table: str = "items",
) -> Estimate:
    """The corpus value of a metric with a 95 % interval.

    The interval takes percentiles of the bootstrap draws, at levels widened for few clusters: the 2.5 % of a normal
    tail becomes `Phi(t * sqrt(n / (n - 1)))` with t the 2.5 % point of Student's t with n - 1 degrees of freedom.

    Args:
        metric: what to compute.
        rows: one row an item, see the module.
        cluster: column whose values are drawn together; two columns for trials of two speakers.
        draws: bootstrap draws.
        seed: of the draws.
        table: name of the table the rows lie in.

    Returns:
        The estimate. Items with `error` are left out; items with a missing component are counted in `undefined`
        with their reasons; `value` is None where nothing is left or where the reduce has no value, and `ci95` is
        None where there are fewer than two items. `method` tells all of it.

    Raises:
        UserError: the rows lack a component column.
        NotApplicable: the metric has no components (a number declared on a card).

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3 (expanded percentiles).
    """
    usable, reasons = _usable(metric, rows)
    undefined = sum(reasons.values())
    columns = _columns(metric, usable)
    value: float | None = metric.value(columns) if len(usable) else None
    formula = str(metric.reduce) if not hasattr(metric.reduce, "__name__") else metric.reduce.__name__
    interval, count = None, None
    if value is None:
        method = f"{formula}; no item has a value"
    elif not np.isfinite(value):
        value, method = None, f"{formula}; has no value over these {len(usable)} items"
    elif len(usable) < 2:
        method = f"{formula}; no interval from one item"
    else:
        clusters = Clusters.of(usable, cluster)
        count = None if clusters.by_items else clusters.count
        drawn = bootstrap(metric.reduce, columns, clusters, draws=draws, seed=seed)
        interval, lost = percentile_interval(drawn, clusters.count)
        kind = "bootstrap" if clusters.by_items else "cluster bootstrap"
        method = f"{formula}; {kind} over {clusters.label}, {draws} draws, seed {seed}, expanded 95 % percentiles"
        if lost:
            method += f", {lost} draws without a value left out"
    return Estimate.of(
        metric,
        value,
        ci95=interval,
        method=method,
        n=len(usable),
        clusters=count,
        undefined=undefined,
        reasons=reasons,
        table=table,
    )


def compare(
    metric: Metric,
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    cluster: str | Sequence[str] = "speaker",
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two systems over the items (`id`) for which both have a value.

    Both systems see the same draws of clusters. The standard error is that of the drawn differences, times
    `sqrt(n / (n - 1))` for n clusters; interval and two-sided p value come from Student's t with n - 1 degrees of
    freedom. (A p value counted from the draws alone cannot fall below 2 / draws, too coarse for Holm.)

    Raises:
        UserError: an id occurs twice, a column is missing, or the tables disagree about an item's cluster.
    """
    tables = _shared(metric, {"a": a, "b": b}, cluster)
    first, second = tables["a"], tables["b"]
    columns_a, columns_b = _columns(metric, first), _columns(metric, second)
    value_a, value_b = metric.value(columns_a), metric.value(columns_b)
    difference = value_a - value_b
    n = len(first)
    better = None
    if metric.direction != "none" and difference != 0 and np.isfinite(difference):
        better = "a" if (difference > 0) == (metric.direction == "higher") else "b"
    untested = Comparison(
        metric.name, value_a, value_b, difference, None, None, better, n, None, f"paired over {n} shared items; no test"
    )
    if n < 2 or not np.isfinite(difference):
        return untested
    clusters = Clusters.of(first, cluster)
    drawn = bootstrap(metric.reduce, columns_a, clusters, draws=draws, seed=seed)
    drawn = drawn - bootstrap(metric.reduce, columns_b, clusters, draws=draws, seed=seed)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return untested
    degrees = clusters.count - 1
    error = float(np.std(drawn)) * float(np.sqrt(clusters.count / degrees))
    half = float(-stdtrit(degrees, LEVEL / 2)) * error
    tiny = 1e-12 * max(abs(value_a), abs(value_b))
    if abs(difference) <= tiny:
        p_value = 1.0
    elif error <= tiny:
        p_value = 0.0
    else:
        p_value = float(2 * stdtr(degrees, -abs(difference) / error))
    kind = "bootstrap" if clusters.by_items else "cluster bootstrap"
    method = (
        f"paired over {n} shared items; {kind} over {clusters.label}, {draws} draws, seed {seed}; "
        f"two-sided Student's t, {degrees} degrees of freedom, bootstrap standard error"
    )
    return Comparison(
        metric=metric.name,
        a=value_a,
        b=value_b,
        difference=difference,
        ci95=(difference - half, difference + half),
        p_value=p_value,
        better=better,
        n=n,
        clusters=None if clusters.by_items else clusters.count,
        method=method,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given.

    Raises:
        ValueError: a value is not in 0..1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979.
    """
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values must lie in 0..1")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(v) for v in adjusted]


def tie_group(
    metric: Metric,
    tables: Mapping[str, pd.DataFrame],
    *,
    cluster: str | Sequence[str] = "speaker",
    draws: int = 10_000,
    seed: int = 0,
    level: float = LEVEL,
) -> TieGroup:
    """The best system by the metric's direction, and all that are not significantly different from it.

    Each other system is compared with the best over the items both have (`compare`); p values are Holm-adjusted
    over those comparisons. The best is chosen by each system's own value over its own items.

    Raises:
        NotApplicable: the metric has no direction, or no system has a value.
        UserError: as `compare`.
    """
    if metric.direction == "none":
        raise NotApplicable(f"'{metric.name}' has no better and worse, so no tie group")
    values = {}
    for name, rows in tables.items():
        usable, _ = _usable(metric, rows)
        value = metric.value(_columns(metric, usable)) if len(usable) else float("nan")
        if np.isfinite(value):
            values[name] = value
    if not values:
        raise NotApplicable(f"no system has a value of '{metric.name}'")
    sign = -1.0 if metric.direction == "higher" else 1.0
    order = sorted(values, key=lambda name: (sign * values[name], name))
    best = order[0]
    raw = {
        name: compare(metric, tables[best], tables[name], cluster=cluster, draws=draws, seed=seed).p_value
        for name in order[1:]
    }
    tested = {name: p for name, p in raw.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return TieGroup(
        metric=metric.name,
        best=best,
        members=(best, *(name for name, p in adjusted.items() if p >= level)),
        values=values,
        p_values=adjusted,
        untested=tuple(name for name, p in raw.items() if p is None),
        method=f"paired cluster bootstrap against the best, {draws} draws, seed {seed}, Holm at {level:g}",
    )


def rank_intervals(
    metric: Metric,
    tables: Mapping[str, pd.DataFrame],
    *,
    cluster: str | Sequence[str] = "speaker",
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, RankInterval]:
    """Rank of every system over the items that all have, with the 95 % interval of its rank over common draws.

    Systems whose metric has no value over these items are left out.

    Raises:
        NotApplicable: the metric has no direction.
        UserError: fewer than two items are shared by all, or as `compare`.

    Source: Goldstein & Spiegelhalter, "League tables and their limitations", J. Royal Stat. Soc. A 159, 1996.
    """
    if metric.direction == "none":
        raise NotApplicable(f"'{metric.name}' has no better and worse, so no ranks")
    shared = _shared(metric, tables, cluster)
    names = list(shared)
    if not names:
        return {}
    if len(shared[names[0]]) < 2:
        raise UserError("fewer than two items are shared by all systems", where=metric.name)
    clusters = Clusters.of(shared[names[0]], cluster)
    sign = -1.0 if metric.direction == "higher" else 1.0
    found = {name: metric.value(_columns(metric, shared[name])) for name in names}
    names = [name for name in names if np.isfinite(found[name])]
    if not names:
        return {}
    columns = [_columns(metric, shared[name]) for name in names]
    values = np.array([found[name] for name in names])
    drawn = np.stack([bootstrap(metric.reduce, c, clusters, draws=draws, seed=seed) for c in columns])
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)] * sign
    if not drawn.shape[1]:
        raise UserError("no draw of the shared items has a value for all systems", where=metric.name)
    ranks = np.stack([1 + (drawn < drawn[i]).sum(axis=0) for i in range(len(names))])
    tail = tail_level(clusters.count)
    low = np.quantile(ranks, tail, axis=1, method="inverted_cdf")
    high = np.quantile(ranks, 1 - tail, axis=1, method="inverted_cdf")
    own = 1 + (values * sign < (values * sign)[:, None]).sum(axis=1)
    return {
        name: RankInterval(int(own[i]), int(low[i]), int(high[i]), float(values[i])) for i, name in enumerate(names)
    }


def _usable(metric: Metric, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with every component, and the reasons of those without."""
    if not metric.components:
        raise NotApplicable(f"'{metric.name}' is not computed from rows")
    absent = [name for name in metric.components if name not in rows.columns]
    if absent:
        raise UserError(f"the rows have no column '{absent[0]}'", where=metric.name)
    if "error" in rows.columns:
        rows = rows[rows["error"].isna()]
    defined = np.isfinite(rows[list(metric.components)].to_numpy(np.float64)).all(axis=1)
    why = f"why[{metric.name}]"
    reasons: dict[str, int] = {}
    if not defined.all():
        told = rows[why][~defined] if why in rows.columns else pd.Series([None] * int((~defined).sum()), dtype=object)
        for reason in told:
            text = reason if isinstance(reason, str) and reason else "no reason recorded"
            reasons[text] = reasons.get(text, 0) + 1
    return rows[defined], reasons


def _columns(metric: Metric, rows: pd.DataFrame) -> dict[str, Float]:
    return {name: rows[name].to_numpy(np.float64) for name in metric.components}


def _shared(
    metric: Metric, tables: Mapping[str, pd.DataFrame], cluster: str | Sequence[str]
) -> dict[str, pd.DataFrame]:
    """The usable rows of every table for the ids that all have, in the order of the ids."""
    indexed = {}
    for name, rows in tables.items():
        usable = _usable(metric, rows)[0].set_index("id")
        if not usable.index.is_unique:
            twice = usable.index[usable.index.duplicated()][0]
            raise UserError(f"id '{twice}' occurs twice", where=f"{name}, {metric.name}")
        indexed[name] = usable
    ids: pd.Index | None = None
    for table in indexed.values():
        ids = table.index if ids is None else ids.intersection(table.index)
    if ids is None:
        return {}
    aligned = {name: table.loc[ids.sort_values()] for name, table in indexed.items()}
    reference = next(iter(aligned.values()))
    for name, table in aligned.items():
        for column in [cluster] if isinstance(cluster, str) else cluster:
            if column in table.columns and column in reference.columns and not table[column].equals(reference[column]):
                raise UserError(
                    f"items have another '{column}' than in the first table", where=f"{name}, {metric.name}"
                )
    return aligned
