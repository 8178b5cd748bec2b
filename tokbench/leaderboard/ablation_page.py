"""The page of one ablation: where it lies, and what its template needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokbench.leaderboard.ablation_figures import ablation_figures, ablation_lines
from tokbench.leaderboard.numbers import slug
from tokbench.reproduction import Ablation

__all__ = ["AblationPage"]


@dataclass(frozen=True)
class AblationPage:
    """A record and its places in the site."""

    record: Ablation

    @property
    def path(self) -> str:
        """Of the page, inside the site."""
        return f"ablations/{slug(self.record.name)}-{self.record.profile}.html"

    @property
    def file(self) -> str:
        """Of the record among the downloads."""
        return f"ablation-{slug(self.record.name)}-{self.record.profile}.json"

    def context(self) -> dict[str, Any]:
        """Variables of the template."""
        seeds = sorted({seed.seed for one in self.record.metrics for seed in one.seeds})
        return {
            "ablation": self.record,
            "file": self.file,
            "lines": ablation_lines(self.record),
            "figures_here": ablation_figures(self.record),
            "seeds": seeds,
            "data": self.record.evaluated_on,
        }
