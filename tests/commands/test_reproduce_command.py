"""`tokbench train` and `tokbench reproduce` as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from kanade.training_support import corpus
from typer.testing import CliRunner

from tokbench.ablations.grid import find_grid, grids
from tokbench.cli import app
from tokbench.commands.reproduce import _asked
from tokbench.errors import UnknownName, UserError


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_list_and_show_name_everything_that_ships() -> None:
    listed = _run("reproduce", "list")
    for name in (*grids(), "25hz_pretrain", "12.5hz_gan", "25hz_clean", "mini"):
        assert name in listed
    shown = _run("reproduce", "show", "ssl_loss")
    assert "losses.ssl: 0" in shown
    assert "2 arms x 3 seeds" in shown
    assert "hinge" in _run("reproduce", "show", "25hz_gan")


def test_train_writes_a_model_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path / "corpus")
    plan = {
        "name": "small",
        "summary": "For tests.",
        "model": {"base": "kanade.training_support:TINY"},
        "parts": "kanade.training_support:TinyParts",
        "data": {"crop_seconds": 0.64, "hop_seconds": 0.32, "batch_size": 4, "workers": 0, "held_out_speakers": 1},
        "schedule": {"warmup": 0.5},
        "precision": "fp32",
        "batches": 4,
        "validate_every": 2,
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(plan))
    data = ["--data", "folder:corpus?speaker=(s.)_"]
    output = _run("train", "--recipe", "small.yaml", *data, "--output", "runs", "--no-track", "--device", "cpu")
    assert "4 batches, exported to runs/small/export" in output
    folder = tmp_path / "runs" / "small"
    assert (folder / "export" / "model.safetensors").is_file()
    assert (folder / "samples" / "0000002" / "0.png").is_file()
    with pytest.raises(UserError, match="holds a training run"):
        _run("train", "--recipe", "small.yaml", *data, "--output", "runs", "--no-track", "--device", "cpu")


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UnknownName, match="Did you mean"):
        _run("train", "--recipe", "25hz_pretrian", "--data", "mini-en")
    with pytest.raises(UserError, match="has no profile 'huge'"):
        _run("reproduce", "run", "ssl_loss", "--profile", "huge")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"needs a CUDA GPU, and there is none.*--profile mini"):
            _run("reproduce", "run", "ssl_loss", "--profile", "gpu")
    with pytest.raises(UserError, match=r"no task 'vcc'.*It has reconstruction"):
        _run("reproduce", "run", "ssl_loss", "--task", "vcc")
    with pytest.raises(UnknownName, match=r"whisper-tiny\.en"):
        _run("reproduce", "run", "ssl_loss", "--judge", "whisper-tiny.enn")


def test_what_is_typed_takes_the_place_of_the_profiles() -> None:
    size = find_grid("ssl_loss").profiles["gpu"]
    asked = _asked(size, tasks=["speaker", "vc"], judges=["praat-ac"], seeds=1, minutes=2.5)
    assert (asked.tasks, asked.minutes, asked.seeds) == (("speaker", "vc"), 2.5, size.seeds[:1])
    assert asked.judges == {"vc": ("praat-ac",)}  # `speaker` has no judges
    assert _asked(size, tasks=None, judges=None, seeds=None, minutes=None) == size
