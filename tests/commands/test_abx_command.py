"""`tokbench abx` as a function of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tokbench.commands.abx import abx
from tokbench.errors import DatasetError, UnknownName, UserError

pytest.importorskip("numba")


def called(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(abx)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_prints_json_and_words(shared: Path) -> None:
    folder = shared / "parity" / "abx"
    options = ("--frequency", "50", "--distance", "angular", "--speaker", "within")
    record = json.loads(called(folder / "items.item", folder / "features", *options, "--json"))
    assert record["error"] == pytest.approx(0.265432, abs=1e-6)
    assert (record["items"], record["cells"], record["triplets"], record["empty"]) == (54, 36, 648, 0)
    dropped = json.loads(called(folder / "items.item", folder / "features", "--librilight", "--json"))
    assert dropped["error"] == pytest.approx(0.327160, abs=1e-6)
    assert "ABX error 26.543 %" in called(folder / "items.item", folder / "features")


def test_mistakes_are_typed(shared: Path, tmp_path: Path) -> None:
    folder = shared / "parity" / "abx"
    with pytest.raises(UnknownName, match=r"no distance is called 'angulr'\. Did you mean angular"):
        called(folder / "items.item", folder / "features", "--distance", "angulr")
    with pytest.raises(UserError, match="'fast' is not a frame rate"):
        called(folder / "items.item", folder / "features", "--frequency", "fast")
    with pytest.raises(DatasetError, match="is not a folder of features"):
        called(folder / "items.item", tmp_path / "none")
    with pytest.raises(DatasetError, match=r"items\.item:\d+: item .* needs frames"):
        called(folder / "items.item", folder / "features", "--frequency", "500")
