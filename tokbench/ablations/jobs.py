"""Training and evaluating the arms of an ablation, several at a time, each in a process of its own.

Everything is kept in the run's folder and done once: a run that was killed, started again with `--resume`, trains on
from the last checkpoints and evaluates what is missing.

    plan.json                 what was asked; a resumed run must ask the same
    recipes/ARM.yaml          the resolved recipes
    training/ARM-sSEED/       as `tokbench train` leaves it
    content/tokenizers/       a card for every trained model
    results/                  as `tokbench run` leaves it
    done/ARM-sSEED.json       what a job has behind it: its finished commands and their seconds
    done/trainings/NAME.json  the seconds of a finished training, which another arm may have in common
    logs/ARM-sSEED.txt        what the job's process said
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokbench.ablations.grid import ArmChoice, Grid, Profile, ProfileName, stages
from tokbench.config import TaskCard, TokenizerCard
from tokbench.errors import StoreError, UserError
from tokbench.registry import find_card, names

__all__ = ["Job", "Run", "check_plan", "job_done", "plan_jobs", "run_jobs", "tasks_of", "write_card"]

_POLL = 0.5
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Run:
    """One run of one ablation.

    Attributes:
        grid: the ablation.
        profile: its size.
        folder: see the module.
        data, evaluate: datasets, as typed.
        settings: recipe fields that the user has set.
        device: "cpu" or "cuda".
        minutes: limit of one training.
        store: artefact store.
    """

    grid: Grid
    profile: ProfileName
    folder: Path
    data: tuple[str, ...]
    evaluate: tuple[str, ...]
    settings: dict[str, Any]
    device: str
    minutes: float | None
    store: Path

    @property
    def size(self) -> Profile:
        """The profile."""
        return self.grid.profiles[self.profile]


@dataclass(frozen=True)
class Job:
    """One arm from one seed."""

    arm: ArmChoice
    seed: int

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.arm.name}-s{self.seed}"


def plan_jobs(run: Run) -> list[Job]:
    """All jobs, the arms of a seed next to each other, so that a run cut short has whole pairs."""
    return [Job(arm, seed) for seed in run.size.seeds for arm in run.grid.arms]


def check_plan(run: Run, *, resume: bool) -> None:
    """Write down what is asked, or compare it with what was asked when the folder was begun.

    Raises:
        UserError: the folder holds a run and `resume` is not given, or a run of another plan; names the difference.
    """
    plan = {
        "grid": run.grid.model_dump(mode="json", exclude={"summary", "notes"}),
        "profile": run.profile,
        "data": list(run.data),
        "evaluate": list(run.evaluate),
        "settings": run.settings,
        "minutes": run.minutes,
    }
    path = run.folder / "plan.json"
    if path.is_file():
        if not resume:
            raise UserError(
                "holds a run of this ablation", where=str(run.folder), hint="Add --resume, or name another --work"
            )
        before = json.loads(path.read_text(encoding="utf-8"))
        plan = json.loads(json.dumps(plan))
        changed = [key for key in plan if plan[key] != before.get(key)]
        if changed:
            shown = "; ".join(
                f"{key}: {json.dumps(before.get(key))[:80]} -> {json.dumps(plan[key])[:80]}" for key in changed
            )
            raise UserError(
                f"was begun with another plan: {shown}", where=str(run.folder), hint="Name another --work folder"
            )
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=1), encoding="utf-8")


def job_done(run: Run, job: Job) -> dict[str, Any] | None:
    """The job's record, None where it is not complete."""
    record = _read_record(run, job)
    return record if record["complete"] else None


def _read_record(run: Run, job: Job) -> dict[str, Any]:
    path = run.folder / "done" / f"{job.name}.json"
    if not path.is_file():
        return {"complete": False, "finished": 0, "seconds": {}}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write_record(run: Run, job: Job, record: dict[str, Any]) -> None:
    _write_json(run.folder / "done" / f"{job.name}.json", record)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(record), encoding="utf-8")
    scratch.replace(path)


def _finished(run: Run, training: str) -> Path:
    """Where it is written that a training is done."""
    return run.folder / "done" / "trainings" / f"{training}.json"


def _training(line: list[str]) -> str | None:
    """Name of the training that a command line does."""
    return Path(line[line.index("--recipe") + 1]).stem if line[5] == "train" and "--recipe" in line else None


def tasks_of(run: Run) -> list[str]:
    """The tasks that are evaluated: those of the profile that this version has."""
    known = names(TaskCard)
    return [task for task in run.size.tasks if task in known or task not in run.size.where_present]


def write_card(run: Run, job: Job) -> str:
    """A tokenizer card for the job's model, made from the profile's; returns its name.

    Streams and globals follow the trained geometry, so that bit rates are those of the arm.
    """
    recipe = stages(run.grid, run.profile, job.arm, job.seed, folder=run.folder / "training", settings=run.settings)[-1]
    config = recipe.recipe.model.config
    base = find_card(TokenizerCard, run.size.tokenizer)
    name = f"{run.size.tokenizer}-{run.grid.name.replace('_', '-')}-{job.name}"
    card = base.model_dump(mode="json", exclude_defaults=True)
    card |= {"name": name, "summary": f"{run.grid.title}: {job.arm.title}, seed {job.seed}."}
    vocab = 1
    for level in config.quantizer.levels:
        vocab *= level
    stream = card["streams"][0] | {
        "rate_hz": str(config.token_rate),
        "vocab": vocab,
        "levels": list(config.quantizer.levels),
    }
    card["streams"] = [stream, *card["streams"][1:]]
    card["globals"][0]["dim"] = config.global_encoder.output_channels
    # The files' hashes are those of the shipped weights.
    if "weights" in card:
        card["weights"] = {k: v for k, v in card["weights"].items() if k != "files"}
    folder = run.folder / "content" / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    path = folder / f"{name}.yaml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return name


def commands(run: Run, job: Job) -> list[list[str]]:
    """The command lines of a job: its trainings, then one `tokbench run` a task."""
    tokbench = [sys.executable, "-m", "tokbench", "--path", str(run.folder / "content")]
    training = run.folder / "training"
    lines = []
    made = stages(run.grid, run.profile, job.arm, job.seed, folder=training, settings=run.settings)
    for stage in made:
        path = run.folder / "recipes" / f"{stage.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(stage.recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        line = [*tokbench, "train", "--recipe", str(path), "--output", str(training), "--resume", "--no-track"]
        line += [part for spec in run.data for part in ("--data", spec)]
        line += ["--device", run.device, "--store", str(run.store)]
        lines.append(line + (["--minutes", str(run.minutes)] if run.minutes is not None else []))
    weights = training / made[-1].name / "export"
    for task in tasks_of(run):
        line = [*tokbench, "run", "--tokenizer", write_card(run, job), "--weights", str(weights), "--task", task]
        line += [part for spec in run.evaluate for part in ("--data", spec)]
        line += [part for judge in run.size.judges.get(task, ()) for part in ("--judge", judge)]
        line += [part for k, v in run.size.params.get(task, {}).items() for part in ("--set", f"{k}={json.dumps(v)}")]
        line += ["--output", str(run.folder / "results"), "--store", str(run.store), "--no-track", "--json"]
        lines.append([*line, "--device", run.device, "--workers", "1"])
    return lines


def run_jobs(
    run: Run, jobs: Sequence[Job], *, parallel: int, threads: int, progress: Callable[[str], None] | None = None
) -> None:
    """Run what is not done; a job that fails stops no other, and is told when the others have ended.

    Args:
        run: the run.
        jobs: its jobs.
        parallel: processes at a time.
        threads: of each.
        progress: told one line now and then.

    Raises:
        UserError: a job failed; names its log.
    """
    say = progress or (lambda _: None)
    waiting = [_Work(run, job, threads) for job in jobs if job_done(run, job) is None]
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings are there already")
    active: list[_Work] = []
    failed: list[Job] = []
    try:
        while waiting or active:
            for one in list(waiting):
                # A job whose training another one is at comes later, when that is done.
                taken = {other.training for other in active} - {None}
                if len(active) < parallel and one.training not in taken:
                    waiting.remove(one)
                    active.append(one)
                    one.begin()
                    say(f"{one.job.name}: started")
            time.sleep(_POLL)
            for one in list(active):
                if one.must_wait(active):
                    continue
                state = one.advance()
                if state is None:
                    continue
                active.remove(one)
                if state:
                    say(f"{one.job.name}: done in {one.minutes:.1f} min")
                else:
                    failed.append(one.job)
                    say(f"{one.job.name}: failed, see {one.log}")
    finally:
        for one in active:
            one.stop()
    if failed:
        log = run.folder / "logs" / f"{failed[0].name}.txt"
        raise UserError(
            f"{len(failed)} of {len(jobs)} trainings or evaluations failed; the first says: {_last_line(log)}",
            where=str(log),
            hint="Put it right and go on with --resume",
        )


class _Work:
    """A job: one command after the other."""

    def __init__(self, run: Run, job: Job, threads: int) -> None:
        self.run, self.job = run, job
        self.lines = commands(run, job)
        self.record = _read_record(run, job)
        self.log = run.folder / "logs" / f"{job.name}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        share = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.environment = os.environ | share | {"TOKENIZERS_PARALLELISM": "false"}
        self.began = time.monotonic()
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.began

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.began) / 60

    @property
    def training(self) -> str | None:
        """Name of the training that is under way or next; None where that is no training."""
        finished: int = self.record["finished"]
        return _training(self.lines[finished]) if finished < len(self.lines) else None

    def begin(self) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def must_wait(self, active: Sequence[_Work]) -> bool:
        """Whether another job is at the training that comes next."""
        if self.process is not None or self.training is None:
            return False
        return any(one.process is not None and one.training == self.training for one in active)

    def advance(self) -> bool | None:
        """True when the job is complete, False when it has failed, None while it goes on."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return None
            if code != 0:
                return False
            self.process = None
            spent = time.monotonic() - self.started
            if self.training is not None:
                _write_json(_finished(self.run, self.training), {"seconds": spent})
            self._count(spent)
        while self.training is not None and _finished(self.run, self.training).is_file():
            self._count(json.loads(_finished(self.run, self.training).read_text(encoding="utf-8"))["seconds"])
        if self.record["finished"] >= len(self.lines):
            self.record |= {"complete": True, "tokenizer": write_card(self.run, self.job)}
            _write_record(self.run, self.job, self.record)
            return True
        line = self.lines[self.record["finished"]]
        self.started = time.monotonic()
        try:
            with self.log.open("ab") as log:
                log.write(f"$ {' '.join(line)}\n".encode())
                log.flush()
                self.process = subprocess.Popen(
                    line,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=self.environment,
                    preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one system call
                )
        except OSError as error:
            raise StoreError(f"the job cannot be started ({error.strerror})", where=str(self.log)) from error
        return None

    def _count(self, seconds: float) -> None:
        """Take the next command for finished."""
        kind = self.lines[self.record["finished"]][5]
        self.record["seconds"][kind] = self.record["seconds"].get(kind, 0.0) + seconds
        self.record["finished"] += 1
        _write_record(self.run, self.job, self.record)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def _end_with_parent() -> None:
    """In a new child: be terminated when the parent dies, however it dies, so that a resumed run has no rival."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    _LIBC.prctl(set_death_signal, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("tokbench: ")]
    return (told or lines or ["nothing"])[-1].removeprefix("tokbench: ")[:300]
