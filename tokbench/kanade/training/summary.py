"""The end of a training run in one small file. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = ["SUMMARY", "Summary", "read_summary"]

SUMMARY = "summary.json"


class Summary(BaseModel):
    """What a run has made, from what.

    `parameters` counts what was trained, the discriminator not included. `seconds` is the last call's wall-clock time,
    `seconds_per_batch` the mean of the loss table without its first rows.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    batches: int
    complete: bool
    parameters: int
    seed: int
    data: str
    device: str
    precision: str
    seconds: float
    seconds_per_batch: float | None
    tokbench: str
    git_commit: str | None
    git_dirty: bool | None


def read_summary(folder: Path) -> Summary | None:
    """The summary in a run's folder, None where the run has not ended."""
    path = folder / SUMMARY
    return Summary.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
