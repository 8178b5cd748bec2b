"""The record of an ablation: which arms were trained, what each reached, how they differ, and what that decides.

`Ablation` is JSON (`ablation.json`, schema by `Ablation.model_json_schema()`) in a folder of results; the leaderboard
draws a page from it. Differences are changed arm minus base arm, paired over seeds and over the items that both arms
scored. Numbers are unscaled, as in `tokbench.results`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tokbench.results import DatasetRecord
from tokbench.streams import Direction

__all__ = ["ABLATION_FILE", "Ablation", "AblationMetric", "Arm", "PaperValue", "Pooled", "Power", "SeedDifference",
           "Verdict"]  # fmt: skip

ABLATION_FILE = "ablation.json"
Verdict = Literal["reproduced", "contradicted", "undecided"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Arm(_Record):
    """One variant that was trained."""

    name: str
    title: str
    """A few words for tables: "with the SSL loss"."""
    changes: dict[str, Any] = {}
    """What differs from the recipe, dotted key -> value; empty for the recipe itself."""
    tokenizers: dict[int, str] = {}
    """Seed -> name under which the trained model was evaluated."""
    parameters: int | None = None
    """Trained parameters."""
    steps: int | None = None
    minutes: float | None = None
    """Training time of one seed."""


class SeedDifference(_Record):
    """Both arms trained from one seed."""

    seed: int
    base: float
    changed: float
    difference: float
    """Changed minus base."""
    ci95: tuple[float, float] | None = None
    """Over items, paired; None where the metric has no items to redraw."""

    @model_validator(mode="after")
    def _subtracts(self) -> SeedDifference:
        _same(self.difference, self.changed - self.base, f"seed {self.seed}")
        return self


class Pooled(_Record):
    """All seeds together."""

    base: float
    changed: float
    difference: float
    ci95: tuple[float, float] | None
    method: str
    """How difference and interval were made, in words; the interval covers the choice of seed as well as of items."""
    n: int
    """Items a seed."""
    p_value: float | None = None

    @model_validator(mode="after")
    def _subtracts(self) -> Pooled:
        _same(self.difference, self.changed - self.base, "pooled")
        return self


class Power(_Record):
    """What a run of this size can find."""

    detectable: float | None = None
    """Smallest true difference (absolute, unscaled) that it would find with a probability of 80 % at the 5 % level."""
    at_paper: float | None = None
    """Probability of finding a difference as large as the paper's."""
    statement: str
    """One or two sentences for readers."""


class PaperValue(_Record):
    """What the paper says, as it prints it but unscaled."""

    base: float | None = None
    changed: float | None = None
    difference: float
    approximate: bool = False
    source: str
    url: str | None = None
    note: str | None = None
    """What must be known before comparing: another tracker, other data, a digest of the paper."""


class AblationMetric(_Record):
    """One metric of one task, compared between two arms."""

    task: str
    metric: str
    """With its judge: `f0_corr[praat-ac]`."""
    title: str
    unit: str = ""
    scale: float = 1.0
    direction: Direction
    base: str
    """Name of the base arm."""
    changed: str
    """Name of the changed arm."""
    seeds: list[SeedDifference] = Field(min_length=1)
    pooled: Pooled
    power: Power | None = None
    paper: PaperValue | None = None
    verdict: Verdict | None = None
    """None where the paper says nothing on this metric."""
    reason: str = ""
    """The rule that gave the verdict, applied to these numbers, in one sentence."""

    @model_validator(mode="after")
    def _consistent(self) -> AblationMetric:
        if self.base == self.changed:
            raise ValueError(f"{self.metric} compares the arm '{self.base}' with itself")
        numbers = [one.seed for one in self.seeds]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"{self.metric} has one seed twice: {numbers}")
        if self.verdict is not None and self.paper is None:
            raise ValueError(f"{self.metric} has the verdict '{self.verdict}' and no paper value to hold it against")
        return self


class Ablation(_Record):
    """An ablation, complete: what its page shows."""

    format: Literal[1] = 1
    name: str
    title: str
    question: str
    """What it asks, in one or two sentences."""
    profile: Literal["mini", "gpu", "paper"]
    recipe: str
    """Path of the recipe or grid inside the repository."""
    arms: list[Arm] = Field(min_length=2)
    metrics: list[AblationMetric]
    trained_on: DatasetRecord | None = None
    evaluated_on: DatasetRecord | None = None
    notes: list[str] = []
    """What limits the conclusion."""
    command: str
    """What makes it again."""
    started: str
    """UTC, ISO 8601."""
    minutes: float
    """Wall-clock time of the whole run."""
    tokbench: str
    git_commit: str | None = None
    git_dirty: bool | None = None
    device: str
    folder: Path | None = Field(default=None, exclude=True)
    """Where it was read from."""

    @model_validator(mode="after")
    def _known_arms(self) -> Ablation:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have the same name: {names}")
        for one in self.metrics:
            unknown = {one.base, one.changed} - set(names)
            if unknown:
                raise ValueError(f"{one.metric} compares the unknown arm '{min(unknown)}'; there are {names}")
        return self

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    @classmethod
    def read(cls, path: Path) -> Ablation:
        """Read `ablation.json`, or the folder that holds it."""
        path = path / ABLATION_FILE if path.is_dir() else path
        ablation = cls.model_validate_json(path.read_text(encoding="utf-8"))
        ablation.folder = path.parent
        return ablation

    def write(self, folder: Path) -> Path:
        """Write `ablation.json` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / ABLATION_FILE
        scratch = target.with_suffix(".tmp")
        scratch.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        scratch.replace(target)
        return target


def _same(told: float, made: float, where: str) -> None:
    if not math.isclose(told, made, rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(f"{where}: the difference {told:g} is not changed minus base, {made:g}")
