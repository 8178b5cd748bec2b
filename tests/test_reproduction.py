"""The record of an ablation: it refuses what contradicts itself, and survives a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tokbench.reproduction import ABLATION_FILE, Ablation


def record(**changes: Any) -> dict[str, Any]:
    metric = {
        "task": "reconstruction", "metric": "f0_corr[praat-ac]", "title": "F0 correlation", "direction": "higher",
        "base": "with", "changed": "without",
        "seeds": [{"seed": 0, "base": 0.5, "changed": 0.4, "difference": -0.1, "ci95": (-0.2, 0.0)}],
        "pooled": {"base": 0.5, "changed": 0.4, "difference": -0.1, "ci95": (-0.3, 0.1), "method": "t", "n": 40},
        "paper": {"base": 0.84, "changed": 0.76, "difference": -0.08, "source": "the paper"},
        "verdict": "undecided",
    }  # fmt: skip
    metric |= changes.pop("metric", {})
    return {
        "name": "ssl_loss", "title": "Without the SSL loss", "question": "What is it worth?", "profile": "mini",
        "recipe": "kanade/ablations/ssl_loss.yaml", "arms": [{"name": "with", "title": "with"},
        {"name": "without", "title": "without", "changes": {"loss.ssl": 0}}], "metrics": [metric],
        "command": "tokbench reproduce run ssl_loss", "started": "2026-01-02T03:04:05Z", "minutes": 40,
        "tokbench": "0.1", "device": "cpu",
    } | changes  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    ablation = Ablation.model_validate(record())
    path = ablation.write(tmp_path / "new")
    assert path.name == ABLATION_FILE
    assert Ablation.read(path) == Ablation.read(tmp_path / "new")
    assert Ablation.read(path).metrics == ablation.metrics
    assert [p.name for p in path.parent.iterdir()] == [ABLATION_FILE]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": {"changed": "with"}}, "with itself"),
        ({"metric": {"changed": "gan"}}, "unknown arm 'gan'"),
        ({"metric": {"paper": None}}, "no paper value"),
        ({"metric": {"seeds": []}}, "at least 1 item"),
        ({"metric": {"seeds": [{"seed": 0, "base": 0.5, "changed": 0.4, "difference": 1}]}}, "not changed minus base"),
        ({"metric": {"seeds": 2 * [{"seed": 0, "base": 0.5, "changed": 0.4, "difference": -0.1}]}}, "one seed twice"),
        ({"arms": 2 * [{"name": "with", "title": "with"}]}, "same name"),
        ({"minutes": float("nan")}, "finite"),
        ({"mean": 1}, "Extra inputs"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Ablation.model_validate(record(**changes))
