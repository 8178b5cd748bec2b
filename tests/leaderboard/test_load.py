from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from leaderboard.fakes import Fake, judges, task_card, write_result

from tokbench.errors import UserError
from tokbench.leaderboard import load_results
from tokbench.leaderboard.board import load_board
from tokbench.leaderboard.load import read_folders
from tokbench.leaderboard.model import Table
from tokbench.leaderboard.tables import make_tables
from tokbench.results import DatasetRecord

A = Fake("alpha", "one", 0.1, 0.8)
B = Fake("beta", "two", 0.2, 0.7)
OTHER_DATA = DatasetRecord(
    name="mini-en", fingerprint="77" * 32, utterances=64, speakers=8, seconds=166.4, licence="CC0-1.0", language="en",
    synthetic=True,
)  # fmt: skip


def tables(root: Path) -> list[Table]:
    return make_tables(read_folders([root]), load_board("main"))


def write(root: Path, fake: Fake, **changes: object) -> None:
    write_result(root, fake, clips=0, draws=50, **changes)  # type: ignore[arg-type]


def test_partial_results_are_refused_unless_asked(tmp_path: Path) -> None:
    write(tmp_path, A)
    write(tmp_path, Fake("broken", "one", 0.1, 0.8, failed=3))
    assert [r.tokenizer.name for r in load_results([tmp_path])] == ["alpha"]
    assert [r.tokenizer.name for r in load_results([tmp_path], partial=True)] == ["alpha", "broken"]
    refused = read_folders([tmp_path]).refused
    assert [(r.result.tokenizer.name, r.reason) for r in refused] == [("broken", "partial, 3 of 64 failed")]


def test_an_older_run_gives_way_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "new", A, started="2026-11-20T12:00:00Z")
    write(tmp_path / "old", A, started="2026-11-19T12:00:00Z")
    loaded = read_folders([tmp_path])
    assert [r.manifest.started for r in loaded.published] == ["2026-11-20T12:00:00Z"]
    assert loaded.refused[0].reason == "superseded by the run started 2026-11-20T12:00:00Z"


@pytest.mark.parametrize("copy", ["a-copy", "z-copy"])
def test_a_copy_without_rows_is_not_another_run(tmp_path: Path, copy: str) -> None:
    write(tmp_path / "results", A)
    original = next(tmp_path.rglob("result.json"))
    (tmp_path / copy).mkdir()
    shutil.copyfile(original, tmp_path / copy / "result.json")
    loaded = read_folders([tmp_path])
    assert [r.folder for r in loaded.published] == [original.parent]
    assert loaded.refused == []


def test_another_seed_does_not_replace_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a", A, started="2026-11-19T12:00:00Z", seeds=[0])
    write(tmp_path / "b", A, started="2026-11-20T12:00:00Z", seeds=[1])
    loaded = read_folders([tmp_path])
    assert [r.manifest.seeds for r in loaded.published] == [[0]]
    assert loaded.refused[0].reason == "seed 1: the table shows seed 0"


@pytest.mark.parametrize("difference", ["version", "data", "params", "normaliser", "resampler"])
def test_what_differs_never_shares_a_table(tmp_path: Path, difference: str) -> None:
    write(tmp_path, A)
    changes: dict[str, object] = {
        "version": {"task": task_card(version=2)},
        "data": {"dataset": OTHER_DATA},
        "params": {"params": {"normaliser": "none"}},
        "normaliser": {"normaliser": "none"},
        "resampler": {"resampler": "other"},
    }[difference]  # type: ignore[assignment]
    write(tmp_path, B, **changes)  # type: ignore[arg-type]
    found = tables(tmp_path)
    assert [[r.name for r in t.rows] for t in found] in ([["alpha"], ["beta"]], [["beta"], ["alpha"]])
    assert len({t.id for t in found}) == 2
    assert sorted(t.not_run[0] for t in found) == ["alpha", "beta"]


def test_one_judge_of_two_identities_makes_two_columns(tmp_path: Path) -> None:
    write(tmp_path, A)
    identities = {name: {"version": "1"} for name in judges()} | {"whisper-tiny.en": {"model.bin": "99" * 32}}
    write(tmp_path, B, judge_identities=identities)
    (table,) = tables(tmp_path)
    columns = table.column("wer")
    assert len(columns) == 2
    assert all("identity" in (c.judge or "") for c in columns)
    for row in table.rows:
        cells = [row.cells[c.id] for c in columns]
        assert sorted(c.value is None for c in cells) == [False, True]
        missing = next(c for c in cells if c.value is None)
        assert missing.reason == "measured with another identity of the judge; it has a column of its own"
    assert len(table.column("dnsmos_ovrl")) == 2
    assert len(table.column("stoi")) == 1


def test_not_applicable_joins_the_table_of_its_task(tmp_path: Path) -> None:
    write(tmp_path, A)
    write(tmp_path, Fake("mute", "one", 0, 0, decodes=False, skipped="it has no decoder"))
    (table,) = tables(tmp_path)
    assert [(r.name, r.applicable) for r in table.ranked] == [("alpha", True), ("mute", False)]
    assert {c.reason for c in table.ranked[1].cells.values()} == {"it has no decoder"}


def test_single_streams_stay_out_of_shared_columns(tmp_path: Path) -> None:
    write(tmp_path, A)
    write(tmp_path, Fake("many", "rvq", 0.1, 0.8, streams=3))
    (table,) = tables(tmp_path)
    assert {c.stream for c in table.shared} == {None}
    many = next(r for r in table.rows if r.name == "many")
    alpha = next(r for r in table.rows if r.name == "alpha")
    assert {c.stream for _, g in table.groups_of(many) for c in g} == {None, "q0", "q1", "q2"}
    assert {c.stream for _, g in table.groups_of(alpha) for c in g} == {None}


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no result\.json"):
        load_results([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        load_results([tmp_path / "nowhere"])


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": 1, "status": "complete"}')
    with pytest.raises(UserError, match=r"result\.json: is not a result: tokenizer"):
        load_results([tmp_path])


def test_an_unknown_board_lists_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no board is called 'mian'\. There are main"):
        load_board("mian")
