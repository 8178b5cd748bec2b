"""From the results of all arms to the record of the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

import tokbench
from tokbench.ablations.grid import ArmChoice, Compared, stages
from tokbench.ablations.jobs import Job, Run, job_done
from tokbench.ablations.pairs import pool, pool_error, power_of, verdict
from tokbench.bootstrap import LEVEL
from tokbench.comparison import read_table
from tokbench.errors import UserError
from tokbench.manifest import git_state
from tokbench.metrics.catalogue import metric as metric_named
from tokbench.reproduction import Ablation, AblationMetric, Arm, SeedDifference
from tokbench.results import Estimate, Result
from tokbench.stats import compare

__all__ = ["make_report", "print_report", "results_of"]

MINI_NOTE = (
    "The mini profile is a model of two million parameters, Whisper's features in place of WavLM's, synthetic or "
    "little speech and a vocoder without weights: it shows that the machinery works, and how large an effect it could "
    "decide."
)


def results_of(run: Run, jobs: Sequence[Job]) -> dict[tuple[str, int], dict[str, Result]]:
    """(arm, seed) -> task -> result.

    Raises:
        UserError: a result is missing or partial.
    """
    found: dict[tuple[str, int], dict[str, Result]] = {}
    for job in jobs:
        record = job_done(run, job)
        if record is None:
            raise UserError("is not complete", where=job.name, hint="Go on with --resume")
        folder = run.folder / "results" / "adhoc" / record["tokenizer"]
        by_task = {}
        for path in sorted(folder.glob("*/*/result.json")):
            result = Result.read(path)
            by_task[result.task.name] = result
        found[(job.arm.name, job.seed)] = by_task
    return found


def make_report(
    run: Run, jobs: Sequence[Job], *, command: str, started: str, minutes: float, draws: int = 2000
) -> Ablation:
    """Compare every arm with the first, metric by metric, in pairs of equal seed."""
    results = results_of(run, jobs)
    base, *others = run.grid.arms
    metrics = [
        made
        for wanted in run.grid.compare
        for arm in others
        for made in _compare(run, wanted, base, arm, results, draws=draws)
    ]
    first = next(iter(results.values()))
    commit, dirty = git_state()
    notes = [*run.grid.notes, *([MINI_NOTE] if run.profile == "mini" else [])]
    absent = [task for task in run.size.tasks if task not in first]
    if absent:
        notes.append(f"Not evaluated, since this version has no such task: {', '.join(absent)}.")
    if len(run.evaluate) > 1:
        notes.append(f"Compared on {run.evaluate[-1]}.")
    return Ablation(
        name=run.grid.name,
        title=run.grid.title,
        question=run.grid.question,
        profile=run.profile,
        recipe=f"reproduce/{run.grid.name}.yaml",
        arms=[_arm(run, arm, jobs) for arm in run.grid.arms],
        metrics=metrics,
        trained_on=_trained_on(run),
        evaluated_on=next((result.dataset for result in first.values()), None),
        notes=notes,
        command=command,
        started=started,
        minutes=minutes,
        tokbench=tokbench.__version__,
        git_commit=commit,
        git_dirty=dirty,
        device=run.device,
    )


def _compare(
    run: Run,
    wanted: Compared,
    base: ArmChoice,
    arm: ArmChoice,
    results: dict[tuple[str, int], dict[str, Result]],
    *,
    draws: int,
) -> list[AblationMetric]:
    """One entry for each judge that the metric was scored by; none where the task was left out."""
    seeds = run.size.seeds
    pairs = {s: (results[(base.name, s)].get(wanted.task), results[(arm.name, s)].get(wanted.task)) for s in seeds}
    if any(first is None or second is None for first, second in pairs.values()):
        return []
    whole: dict[int, tuple[Result, Result]] = {
        s: (a, b) for s, (a, b) in pairs.items() if a is not None and b is not None
    }
    labels = [e.metric for e in whole[seeds[0]][0].estimates if e.metric.partition("[")[0] == wanted.metric]
    made = []
    for label in labels:
        one = _entry(run, wanted, label, base, arm, whole, draws=draws)
        if one is not None:
            made.append(one)
    return made


def _entry(
    run: Run,
    wanted: Compared,
    label: str,
    base: ArmChoice,
    arm: ArmChoice,
    pairs: dict[int, tuple[Result, Result]],
    *,
    draws: int,
) -> AblationMetric | None:
    differences: list[SeedDifference] = []
    errors: list[tuple[float, int]] = []
    items = 0
    estimate: Estimate | None = None
    for seed, (first, second) in pairs.items():
        one, other = first.estimate(label), second.estimate(label)
        if one is None or other is None or one.value is None or other.value is None:
            return None
        estimate = one
        interval, before, after = None, one.value, other.value
        items = min(one.n, other.n)
        if one.table == "items" and metric_named(label).components:
            compared = compare(
                metric_named(label), read_table(second, "items"), read_table(first, "items"), draws=draws
            )
            interval, before, after, items = compared.ci95, compared.b, compared.a, compared.n
            if interval is not None:
                degrees = (compared.clusters or compared.n) - 1
                half = (interval[1] - interval[0]) / 2
                errors.append((half / float(-stdtrit(degrees, LEVEL / 2)), degrees))
        differences.append(
            SeedDifference(seed=seed, base=before, changed=after, difference=after - before, ci95=interval)
        )
    assert estimate is not None
    errors = errors if len(errors) == len(differences) else []
    paper = wanted.paper if arm.name == (wanted.changed or run.grid.arms[1].name) else None
    pooled = pool(differences, errors, items=items)
    error = pool_error([d.difference for d in differences], errors)
    power = power_of(error, paper, seeds=len(differences), unit=estimate.unit, scale=estimate.scale)
    ruling, reason = verdict(pooled, paper, power)
    return AblationMetric(
        task=wanted.task,
        metric=label,
        title=estimate.title or label,
        unit=estimate.unit,
        scale=estimate.scale,
        direction=estimate.direction,
        base=base.name,
        changed=arm.name,
        seeds=differences,
        pooled=pooled,
        power=power,
        paper=paper,
        verdict=ruling,
        reason=reason,
    )


def _arm(run: Run, arm: ArmChoice, jobs: Sequence[Job]) -> Arm:
    mine = [job for job in jobs if job.arm.name == arm.name]
    records = {job.seed: job_done(run, job) or {} for job in mine}
    training = run.folder / "training"
    made = stages(run.grid, run.profile, arm, mine[0].seed, folder=training, settings=run.settings)
    steps = [_steps(training / stage.name) for stage in made]
    seconds = [float(record["seconds"].get("train", 0.0)) for record in records.values()]
    changes: dict[str, Any] = {**arm.changes, **arm.only.get(run.profile, {})}
    if arm.then is not None:
        changes |= {f"then.{key}": value for key, value in arm.then.items()}
    return Arm(
        name=arm.name,
        title=arm.title,
        changes=changes,
        tokenizers={seed: str(record["tokenizer"]) for seed, record in records.items()},
        parameters=_parameters(training / made[-1].name),
        steps=sum(step or 0 for step in steps) or None,
        minutes=sum(seconds) / len(seconds) / 60,
    )


def _steps(folder: Path) -> int | None:
    from tokbench.kanade.training.summary import read_summary

    summary = read_summary(folder)
    return None if summary is None else summary.batches


def _parameters(folder: Path) -> int | None:
    from tokbench.kanade.training.summary import read_summary

    summary = read_summary(folder)
    return None if summary is None else summary.parameters


def _trained_on(run: Run) -> Any:
    from tokbench.commands.train import read_data
    from tokbench.runner import prepare_dataset

    return prepare_dataset(read_data(list(run.data)), run.store.parent / "index").record


def _paper(one: AblationMetric) -> str:
    if one.paper is None:
        return ""
    return f"{'about ' if one.paper.approximate else ''}{one.paper.difference * one.scale:+.3g}"


def print_report(ablation: Ablation) -> None:
    """The table on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{ablation.title} ({ablation.profile})", title_justify="left")
    for column in ("task", "metric", "arm", "base", "changed", "difference [95 %]", "seeds", "paper", "verdict"):
        table.add_column(column, overflow="fold")
    for one in ablation.metrics:
        scale, pooled = one.scale, one.pooled
        interval = "" if pooled.ci95 is None else f" [{pooled.ci95[0] * scale:+.3g}, {pooled.ci95[1] * scale:+.3g}]"
        table.add_row(
            one.task,
            escape(f"{one.metric}{f' ({one.unit})' if one.unit else ''}"),
            one.changed,
            f"{pooled.base * scale:.3g}",
            f"{pooled.changed * scale:.3g}",
            f"{pooled.difference * scale:+.3g}{interval}",
            " ".join(f"{seed.difference * scale:+.3g}" for seed in one.seeds),
            _paper(one),
            one.verdict or "",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)
    for one in ablation.metrics:
        if one.verdict is not None:
            console.print(f"{one.metric}, {one.changed}: {one.verdict}: {one.reason}.", highlight=False, markup=False)
        if one.power is not None and one.paper is not None:
            console.print(f"  {one.power.statement}", highlight=False)
    console.print(f"{ablation.minutes:.0f} min on {ablation.device}", highlight=False)
