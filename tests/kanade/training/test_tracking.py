"""A training's curves and pictures lie where those of all other runs do."""

from __future__ import annotations

from pathlib import Path

import pytest
from kanade.training_support import recipe

pytest.importorskip("mlflow")


def test_artifacts_lie_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.kanade.training.tracking import EXPERIMENT, make_loggers

    monkeypatch.chdir(tmp_path)
    (logger,) = make_loggers(recipe(), tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "note.txt").write_text("heard")
    logger.experiment.log_artifact(logger.run_id, str(tmp_path / "note.txt"))
    assert next((tmp_path / "mlartifacts" / EXPERIMENT).rglob("note.txt")).read_text() == "heard"
    assert not (tmp_path / "mlruns").exists()
    (again,) = make_loggers(recipe(), tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db")
    assert again.run_id == logger.run_id
