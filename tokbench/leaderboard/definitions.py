"""What a metric means, in words and as a formula, from the catalogue of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tokbench.errors import UnknownName
from tokbench.metrics.base import Metric
from tokbench.metrics.catalogue import metric

__all__ = ["Definition", "definition", "metric_of"]


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
