"""Trainings are seen from another process, and their curves in MLflow, live and afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from tokbench.mlflow_payload import curve_points
from tokbench.results import Result, TableFile
from tokbench.training.live import live_curves
from tokbench.training.loop import Point
from tokbench.training.progress import reporter, running


def point(step: int, loss: float = 2.0) -> Point:
    return Point(step, 20, {"loss": loss, "lr": 0.1}, 1234.0, 5.0)


def test_a_training_is_seen_until_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.training.progress._EVERY", 0.0)
    heard: list[tuple[str, int]] = []
    report = reporter(tmp_path, lambda label: lambda p: heard.append((label, p.step)))
    first, second = report("b: seed 0"), report("a: seed 1")
    first(point(10))
    second(point(3, 0.5))
    there = running(tmp_path)
    assert [(one.label, one.step, one.steps, one.seconds_left) for one in there] == [
        ("a: seed 1", 3, 20, 5.0),
        ("b: seed 0", 10, 20, 5.0),
    ]
    assert there[0].words == "a: seed 1 · loss 0.5 · 1,234 tokens/s"
    first(point(20))
    assert [one.label for one in running(tmp_path)] == ["a: seed 1"]
    assert heard == [("b: seed 0", 10), ("a: seed 1", 3), ("b: seed 0", 20)]
    monkeypatch.setattr("tokbench.training.progress._SILENT", -1.0)
    assert running(tmp_path) == []  # a killed worker's file is no training
    assert running(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("a file where the folder should be")
    reporter(tmp_path)("x")(point(1))


def test_live_curves_arrive_and_a_broken_server_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    got: list[tuple[int, dict[str, float]]] = []
    log = live_curves(lambda _: lambda step, _, values: got.append((step, dict(values))))("probe")
    log(point(10))
    log(point(20))
    deadline = time.monotonic() + 5
    while len(got) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [step for step, _ in got] == [10, 20, 20]
    assert got[0][1] == {"loss": 2.0, "lr": 0.1, "tokens_per_second": 1234.0}
    assert got[2][1] == {}

    def broken(label: str):
        raise OSError("no such server")

    live_curves(broken)("probe")(point(10))
    deadline = time.monotonic() + 5
    while "no such server" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "the curves of probe are not followed in MLflow (no such server)" in caplog.text


def test_mlflow_holds_the_points_of_a_training(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from tokbench.tracking import Tracker

    uri = f"sqlite:///{tmp_path}/live.db"
    send = Tracker(uri, spool=tmp_path / "spool", suite="mini").open_training("a probe")
    send(10, 1_700_000_000_000, {"loss": 2.0})
    send(20, 1_700_000_001_000, {"loss": 1.5})
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mini")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("a probe", "RUNNING")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(10, 2.0), (20, 1.5)]
    send(20, 1_700_000_002_000, {})
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_curves_of_a_result_become_points(tmp_path: Path) -> None:
    rows = [
        {"run": "asr_probe", "seed": 1, "step": 10, "name": "loss", "value": 2.5},
        {"run": "asr_probe", "seed": 1, "step": 20, "name": "loss", "value": float("nan")},
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "curves.parquet")
    result = Result.model_construct(
        tables={"curves": TableFile(path="curves.parquet", sha256="", rows=2)}, folder=tmp_path
    )
    assert list(curve_points(result)) == [("curve/asr_probe/loss/seed 1", 10, 2.5)]
