"""How a training elsewhere is seen here: its worker writes where it is to a file in the store, the command reads it.

A file, because workers may be processes, or on other machines that see the same store; written at most once a second,
and never fatal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tokbench.training.loop import Log, Point

__all__ = ["Running", "reporter", "running"]

_EVERY = 1.0  # seconds between writes
_SILENT = 60.0  # seconds after which a training that says nothing is taken for gone


@dataclass(frozen=True)
class Running:
    """One training in progress."""

    label: str
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float

    @property
    def words(self) -> str:
        """For a progress bar: the label, loss and speed."""
        return f"{self.label} · loss {self.loss:.3g} · {self.tokens_per_second:,.0f} tokens/s"


def reporter(store: Path, live: Callable[[str], Log] | None = None) -> Callable[[str], Log]:
    """What `TrainingStage.report` is: label of a training -> where its points go.

    Args:
        store: root of the store.
        live: a second place that hears every point.
    """

    def report(label: str) -> Log:
        path = _folder(store) / f"progress-{hashlib.sha256(f'{label} {os.getpid()}'.encode()).hexdigest()[:16]}.json"
        written = 0.0
        also = live(label) if live is not None else None

        def log(point: Point) -> None:
            nonlocal written
            if also is not None:
                also(point)
            if point.step >= point.steps:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            elif time.monotonic() - written >= _EVERY:
                written = time.monotonic()
                now = Running(
                    label, point.step, point.steps, point.values.get("loss", float("nan")), point.tokens_per_second,
                    point.seconds_left,
                )  # fmt: skip
                with contextlib.suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary = path.with_suffix(".new")
                    temporary.write_text(json.dumps(asdict(now)), encoding="utf-8")
                    temporary.replace(path)

        return log

    return report


def running(store: Path) -> list[Running]:
    """The trainings that were heard of in the last minute, by label."""
    found = []
    for path in _folder(store).glob("progress-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            if time.time() - path.stat().st_mtime < _SILENT:
                found.append(Running(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda one: one.label)


def _folder(store: Path) -> Path:
    return store / "tmp"  # `tokbench cache gc` clears what a killed worker leaves there
