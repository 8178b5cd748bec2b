"""The engine contract: run jobs somewhere, give outcomes back as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tokbench.jobs import Job, Outcome

__all__ = ["Engine"]


class Engine(Protocol):
    """Where jobs run."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield one outcome a job, in any order; a job whose worker died is tried once more, then reported."""
        ...
