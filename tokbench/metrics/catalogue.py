"""Metrics by name: `wer`, `wer[whisper-tiny.en]`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import lru_cache

import tokbench.metrics
from tokbench.errors import UnknownName
from tokbench.metrics.base import Metric

__all__ = ["describe", "metric", "metrics"]


@lru_cache(maxsize=1)
def metrics() -> dict[str, Metric]:
    """Every metric, by name: the `METRICS` of all modules of this package, in the order of their files."""
    found: dict[str, Metric] = {}
    for module in pkgutil.iter_modules(tokbench.metrics.__path__):
        if module.name.startswith("_"):
            continue
        for entry in getattr(importlib.import_module(f"tokbench.metrics.{module.name}"), "METRICS", ()):
            if found.get(entry.name, entry) is not entry:
                raise ValueError(f"metric '{entry.name}' is defined twice, the second time in {module.name}")
            found[entry.name] = entry
    return found


def metric(name: str) -> Metric:
    """The metric called `name`; with a judge or a stream in brackets, the metric under it.

    Raises:
        UnknownName: with the closest names.
    """
    base, judge = _split(name)
    known = metrics()
    if base not in known:
        raise UnknownName("metric", base, known, listed_by="tokbench list metrics")
    return known[base].of(judge) if judge else known[base]


def describe(name: str) -> str:
    """What the metric means, which direction is good, and what it misses. Errors as `metric`."""
    return metric(name).description


def _split(name: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"([^\[\]]+)\[(.+)\]", name)
    return (match[1], match[2]) if match else (name, None)
