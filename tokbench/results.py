"""The record of a run: what was asked, what came out, and the evidence to compute it again.

`Result` is one tokenizer on one task on one dataset. It is JSON with a schema (`Result.model_json_schema()`); its
per-item rows lie beside it as Parquet, named with their sha256.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.streams import Direction

if TYPE_CHECKING:
    from tokbench.metrics.base import Metric

__all__ = ["Coverage", "DatasetRecord", "Estimate", "Failure", "Manifest", "Result", "SampleClip", "TableFile"]

RESULT_FILE = "result.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Estimate(_Record):
    """One number with its uncertainty.

    `value` and `ci95` are unscaled (a WER of 12 % is 0.12); `scale` and `unit` say how to print them.
    """

    metric: str
    title: str = ""
    value: float | None
    unit: str
    scale: float = 1.0
    direction: Direction
    ci95: tuple[float, float] | None = None
    method: str
    """How value and interval were made: "cluster bootstrap over 8 speakers, 10000 draws, seed 0"."""
    n: int
    """Items that the value rests on."""
    clusters: int | None = None
    undefined: int = 0
    """Items for which the metric has no value by its definition; `reasons` says why."""
    reasons: dict[str, int] = {}
    table: str = "items"
    """The table of rows that it is computed from."""
    headline: bool = False
    note: str | None = None

    @classmethod
    def of(
        cls,
        metric: Metric,
        value: float | None,
        *,
        method: str,
        n: int,
        ci95: tuple[float, float] | None = None,
        clusters: int | None = None,
        undefined: int = 0,
        reasons: Mapping[str, int] | None = None,
        table: str = "items",
        headline: bool = False,
    ) -> Estimate:
        """A value of a metric, under the metric's name, title, unit, scale and direction."""
        return cls(
            metric=metric.name,
            title=metric.title,
            value=value,
            unit=metric.unit,
            scale=metric.scale,
            direction=metric.direction,
            ci95=ci95,
            method=method,
            n=n,
            clusters=clusters,
            undefined=undefined,
            reasons=dict(reasons or {}),
            table=table,
            headline=headline,
        )


class Failure(_Record):
    """One item that could not be processed."""

    id: str
    stage: str
    error: str


class Coverage(_Record):
    """How many of the items were scored."""

    expected: int
    scored: int
    failed: list[Failure] = []


class DatasetRecord(_Record):
    """The data a result rests on."""

    name: str
    fingerprint: str
    utterances: int
    speakers: int
    seconds: float
    licence: str
    language: str
    synthetic: bool


class Manifest(_Record):
    """Everything needed to make the number again."""

    tokbench: str
    git_commit: str | None
    git_dirty: bool | None
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    torch: dict[str, Any] = {}
    """Version, CUDA, GPU name and precision flags; empty where torch was not used."""
    attention: str | None = None
    seeds: list[int]
    draws: int
    """Bootstrap draws."""
    argv: list[str]
    started: str
    """UTC, ISO 8601."""
    judges: dict[str, JudgeCard] = {}
    judge_identities: dict[str, dict[str, str]] = {}
    tokenizer_weights: dict[str, str] = {}
    normaliser: str | None = None
    resampler: str
    params: dict[str, Any] = {}


class TableFile(_Record):
    """Rows beside the result."""

    path: str
    sha256: str
    rows: int


class SampleClip(_Record):
    """One clip to listen to."""

    item: str
    kind: str
    """Recordings that all tokenizers share: "original", "source", "reference", "truth"; a tokenizer's own: "decoded",
    "converted", "resynthesis", "prompt", "continuation", "generated". Pages show any other under its own name."""
    path: str
    text: str | None = None
    transcript: str | None = None


class Result(_Record):
    """One tokenizer on one task on one dataset."""

    format: Literal[1] = 1
    status: Literal["complete", "partial", "not_applicable"]
    reason: str | None = None
    """Why it is not applicable."""
    suite: str | None = None
    tokenizer: TokenizerCard
    task: TaskCard
    dataset: DatasetRecord | None
    train: DatasetRecord | None = None
    """What the task's probes were trained on."""
    estimates: list[Estimate]
    coverage: Coverage | None
    manifest: Manifest
    timings: dict[str, float] = {}
    """Seconds by stage, made in this run and not read from the store."""
    tables: dict[str, TableFile] = {}
    samples: list[SampleClip] = []
    folder: Path | None = Field(default=None, exclude=True)
    """Where it was read from."""

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read `result.json`, or the folder that holds it."""
        path = path / RESULT_FILE if path.is_dir() else path
        result = cls.model_validate_json(path.read_text(encoding="utf-8"))
        result.folder = path.parent
        return result

    def estimate(self, metric: str) -> Estimate | None:
        """The estimate of that name, or None."""
        return next((e for e in self.estimates if e.metric == metric), None)
