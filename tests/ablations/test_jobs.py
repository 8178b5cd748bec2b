"""Running the jobs of an ablation: side by side, once, and the record that is made of their results."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kanade.training_support import corpus
from leaderboard.fakes import CROWD, write_result

from tokbench.ablations import jobs
from tokbench.ablations.grid import find_grid
from tokbench.ablations.jobs import Job, Run, check_plan, job_done, plan_jobs, run_jobs
from tokbench.ablations.report import make_report
from tokbench.errors import UserError
from tokbench.reproduction import Ablation


@pytest.fixture
def run(tmp_path: Path) -> Run:
    corpus(tmp_path / "corpus", speakers=1, each=1)
    return Run(
        grid=find_grid("ssl_loss"),
        profile="mini",
        folder=tmp_path / "work",
        data=(f"folder:{tmp_path / 'corpus'}",),
        evaluate=("mini-en:test",),
        settings={},
        device="cpu",
        minutes=None,
        store=tmp_path / "store" / "units",
    )


def _scripted(monkeypatch: pytest.MonkeyPatch, codes: dict[str, list[str]]) -> None:
    """Replace the command lines by small programs; the sixth word says what a command is."""
    monkeypatch.setattr(jobs, "write_card", lambda _, job: f"card-{job.name}")
    monkeypatch.setattr(
        jobs,
        "commands",
        lambda _, job: [[sys.executable, "-c", code, "", "", "train"] for code in codes.get(job.name, ["pass"])],
    )


def test_jobs_run_once_and_a_failure_stops_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    count = run.folder / "count"
    run.folder.mkdir()
    add = f"open({str(count)!r}, 'a').write('x')"
    bad = "import sys; sys.stderr.write('tokbench: the disk is full\\n'); sys.exit(1)"
    _scripted(monkeypatch, {"with-s0": [add, bad], "without-s2": [add]})
    said: list[str] = []
    with pytest.raises(UserError, match=r"1 of 6 .* failed; the first says: the disk is full.*--resume"):
        run_jobs(run, plan_jobs(run), parallel=3, threads=1, progress=said.append)
    assert sum("done in" in line for line in said) == 5
    assert job_done(run, Job(run.grid.arms[0], 0)) is None
    _scripted(monkeypatch, {"with-s0": [add, "pass"], "without-s2": [add]})
    run_jobs(run, plan_jobs(run), parallel=3, threads=1, progress=said.append)
    # The first command of the failed job is not repeated, nor is any other job.
    assert count.read_text() == "xx"
    record = job_done(run, Job(run.grid.arms[0], 0))
    assert record is not None
    assert record["tokenizer"] == "card-with-s0"


def test_a_common_training_is_done_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms begin with the training of their seed: one does it, the other comes when it is there."""
    count = run.folder / "count"
    run.folder.mkdir()

    def lines(_: Run, job: Job) -> list[list[str]]:
        def line(text: str, kind: str, *more: str) -> list[str]:
            code = f"import time; time.sleep(0.2); open({str(count)!r}, 'a').write({text + ' '!r})"
            return [sys.executable, "-c", code, "", "", kind, *more]

        first = line(f"first-{job.seed}", "train", "--recipe", f"first-{job.seed}.yaml")
        then = line(f"then-{job.name}", "train", "--recipe", f"then-{job.name}.yaml")
        return [first, then, line(f"task-{job.name}", "run")]

    _scripted(monkeypatch, {})
    monkeypatch.setattr(jobs, "commands", lines)
    run_jobs(run, plan_jobs(run), parallel=2, threads=1)
    done = count.read_text().split()
    assert sorted(done) == sorted(
        [f"first-{seed}" for seed in (0, 1, 2)]
        + [f"{kind}-{job.name}" for kind in ("then", "task") for job in plan_jobs(run)]
    )
    for job in plan_jobs(run):
        assert done.index(f"first-{job.seed}") < done.index(f"then-{job.name}") < done.index(f"task-{job.name}")
        record = job_done(run, job)
        assert record is not None
        assert record["seconds"]["train"] > 0.4  # the common training counts for both


def test_another_plan_is_refused(run: Run) -> None:
    check_plan(run, resume=False)
    check_plan(run, resume=True)
    with pytest.raises(UserError, match=r"holds a run of this ablation.*--resume"):
        check_plan(run, resume=False)
    with pytest.raises(UserError, match=r'settings: \{\} -> \{"batches": 5\}'):
        check_plan(replace(run, settings={"batches": 5}), resume=True)


def test_commands_are_ordinary_command_lines(run: Run) -> None:
    lines = jobs.commands(run, Job(run.grid.arms[1], 2))
    assert [line[5] for line in lines] == ["train", *["run"] * (len(lines) - 1)]
    assert "--resume" in lines[0]
    recipe = (run.folder / "recipes" / "ssl_loss-without-s2.yaml").read_text()
    assert "ssl: 0" in recipe
    card = (run.folder / "content" / "tokenizers" / "kanade-mini-ssl-loss-without-s2.yaml").read_text()
    assert "without the SSL loss, seed 2" in card


def test_cards_follow_the_arm(run: Run) -> None:
    grid = find_grid("bottleneck")
    name = jobs.write_card(replace(run, grid=grid), Job(grid.arms[1], 0))
    card = (run.folder / "content" / "tokenizers" / f"{name}.yaml").read_text()
    assert "vocab: 1000" in card


@pytest.mark.parametrize(("voice", "verdict"), [(0.70, "reproduced"), (0.90, "contradicted")])
def test_the_record_compares_pairs(run: Run, voice: float, verdict: str, tmp_path: Path) -> None:
    """The invented F0 correlation follows `voice`: 0.80 with the loss."""
    for job in plan_jobs(run):
        name = f"kanade-mini-ssl-loss-{job.name}"
        fake = replace(CROWD[9], name=name, voice=0.80 if job.arm.name == "with" else voice)
        write_result(run.folder / "results" / "adhoc" / name, fake, clips=0)
        done: dict[str, Any] = {"complete": True, "finished": 2, "seconds": {"train": 60.0}, "tokenizer": name}
        path = run.folder / "done" / f"{job.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(done))
    made = make_report(run, plan_jobs(run), command="x", started="2026-01-01T00:00:00Z", minutes=3.0, draws=300)
    f0 = next(one for one in made.metrics if one.metric == "f0_corr[praat-ac]")
    assert f0.pooled.difference == pytest.approx(voice - 0.80, abs=0.01)
    assert f0.verdict == verdict
    assert f0.power is not None
    assert "paper" in f0.power.statement
    assert [seed.seed for seed in f0.seeds] == [0, 1, 2]
    assert all(seed.ci95 is not None for seed in f0.seeds)
    words = next(one for one in made.metrics if one.metric.startswith("wer["))
    assert words.verdict is None
    assert made.arm("without").changes == {"losses.ssl": 0}
    assert made.arm("without").minutes == 1.0
    assert any("mini profile" in note for note in made.notes)
    assert Ablation.read(made.write(tmp_path / "out")).name == "ssl_loss"
