"""Curves of a training as rows of the result table `curves`."""

from __future__ import annotations

from typing import Any

from tokbench.protocols.base import Row, stable
from tokbench.store.units import Payload

__all__ = ["curve_rows"]


def curve_rows(run: str, seed: int, trained: Payload) -> list[Row]:
    """Rows {run, seed, step, name, value}; `run` names the probe where a task trains several."""
    points: list[dict[str, Any]] = trained.record["curves"]
    return [
        {"run": run, "seed": seed, "step": p["step"], "name": p["name"], "value": stable(p["value"])} for p in points
    ]
