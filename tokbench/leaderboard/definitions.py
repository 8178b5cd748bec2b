"""What a metric means, in words and as a formula, from the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokbench.errors import UnknownName
from tokbench.leaderboard.model import Column
from tokbench.metrics.base import Metric
from tokbench.metrics.catalogue import metric

__all__ = ["Definition", "Meaning", "definition", "meanings", "metric_of"]


@dataclass(frozen=True)
class Definition:
    """A few sentences, and the source of the formula."""

    text: str
    source: str


@lru_cache(maxsize=1024)
def metric_of(name: str) -> Metric | None:
    """The metric that was printed under this name (judge included); None for one that another package brought."""
    try:
        return metric(name)
    except UnknownName:
        return None


def definition(name: str) -> Definition:
    """The description and source of a metric; empty for one that the catalogue does not know."""
    found = metric_of(name)
    return Definition(found.description, found.source) if found else Definition("", "")


@dataclass(frozen=True)
class Meaning:
    """One metric of a table, whatever judges, representations and streams it was measured with."""

    column: Column
    """The first of its columns."""
    title: str
    of: tuple[str, ...]
    """Judges, representations and streams, in words."""
    definition: Definition


def meanings(columns: Sequence[Column]) -> list[Meaning]:
    """The metrics behind some columns, each once, in their order."""
    by_base: dict[str, list[Column]] = {}
    for column in columns:
        by_base.setdefault(column.base, []).append(column)
    made = []
    for base, own in by_base.items():
        found = metric_of(base)
        named = tuple(dict.fromkeys(c.label or c.stream or "" for c in own))
        title = found.title if found and found.title else own[0].title
        made.append(Meaning(own[0], title, tuple(n for n in named if n), definition(base)))
    return made
