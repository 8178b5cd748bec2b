"""`tokbench reproduce`: the ablations that ship with tokbench, at three sizes."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokbench.commands.options import StorePath, parse_settings, store_path
from tokbench.errors import UserError

if TYPE_CHECKING:
    from tokbench.ablations.grid import Grid, Profile, ProfileName
    from tokbench.kanade.training.recipe import Recipe

__all__ = ["app"]

app = typer.Typer(
    help="Reproduce what Kanade's paper claims: trainings that differ in one thing.", no_args_is_help=True
)

DEFAULT_WORK = Path("tokbench-training/ablations")
DEFAULT_OUTPUT = Path("tokbench-results/ablations")


@app.command("list")
def list_() -> None:
    """List the recipes and the ablations."""
    from tokbench.ablations.grid import find_grid, grids
    from tokbench.kanade.training.recipe import load_recipe
    from tokbench.registry import package_folder

    sys.stdout.write("ablations (tokbench reproduce run NAME)\n")
    for name in grids():
        grid = find_grid(name)
        sys.stdout.write(f"  {name:<18} {grid.summary} [{', '.join(grid.profiles)}]\n")
    sys.stdout.write("recipes (tokbench train --recipe NAME --data DATA)\n")
    for path in sorted((package_folder("reproduce") / "kanade").glob("*.yaml")):
        if not path.stem.startswith("_"):
            sys.stdout.write(f"  {path.stem:<18} {load_recipe(path).summary}\n")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="An ablation or a recipe.")]) -> None:
    """Show everything an ablation or a recipe says, and what its profiles cost."""
    import yaml

    from tokbench.ablations.grid import find_grid, grids
    from tokbench.commands.train import find_recipe
    from tokbench.kanade.training.recipe import load_recipe

    if name in grids():
        grid = find_grid(name)
        plain = grid.model_dump(mode="json", exclude_defaults=True)
        sys.stdout.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))
        for profile in grid.profiles:
            for line in _cost(grid, profile):
                sys.stdout.write(f"# {line}\n")
        return
    recipe = load_recipe(find_recipe(name))
    sys.stdout.write(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110))
    for line in _recipe_cost(recipe):
        sys.stdout.write(f"# {line}\n")


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="An ablation: its name, or its file.")],
    profile: Annotated[
        str, typer.Option("--profile", help="mini (CPU, no network), gpu (full size, bounded time), paper.")
    ] = "mini",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe field of all arms, batches=500 (repeatable).")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Train on this instead of the profile's data (repeatable).")
    ] = None,
    evaluate: Annotated[
        list[str] | None, typer.Option("--evaluate", help="Evaluate on this instead of the profile's (repeatable).")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Evaluate by these of the profile's tasks alone (repeatable).")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help="Judge of tasks that have any, for the profile's (repeatable).")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.01, help="Limit of one training.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="The first seeds of the profile only.")] = None,
    parallel: Annotated[int | None, typer.Option("--parallel", min=1, help="Trainings side by side.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run of this ablation was stopped.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    work: Annotated[Path, typer.Option("--work", help="Folder of checkpoints and results of arms.")] = DEFAULT_WORK,
    output: Annotated[Path, typer.Option("--output", help="Folder of the finished record.")] = DEFAULT_OUTPUT,
    store: StorePath = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON on stdout.")] = False,
) -> None:
    """Train all arms, evaluate them by the ordinary tasks, compare them in pairs, print the table.

    The record goes to OUTPUT/NAME-PROFILE/ablation.json, where `tokbench leaderboard build` finds it.
    """
    from tokbench.ablations.grid import find_grid
    from tokbench.ablations.jobs import Run, check_plan, plan_jobs, run_jobs
    from tokbench.ablations.report import make_report, print_report
    from tokbench.commands.train import read_data, require_lightning
    from tokbench.manifest import started_now

    require_lightning()
    grid = find_grid(name)
    if profile not in grid.profiles:
        raise UserError(f"has no profile '{profile}'", where=grid.name, hint=f"There are {', '.join(grid.profiles)}")
    chosen: ProfileName = profile
    size = grid.profiles[chosen]
    kind = _device(device, needs_gpu=size.gpu, profile=profile)
    size = _asked(size, tasks=task, judges=judge, seeds=seeds, minutes=minutes)
    grid = grid.model_copy(update={"profiles": {**grid.profiles, chosen: size}})
    train_on = tuple(data or size.data)
    judge_on = tuple(evaluate or size.evaluate)
    for option, value in (("--data", train_on), ("--evaluate", judge_on)):
        if not value:
            raise UserError(f"the profile '{profile}' needs data", where=option, hint=f"Type: {option} libritts:FOLDER")
    for spec in (*train_on, *judge_on):
        read_data([spec])
    for line in _cost(grid, chosen):
        sys.stderr.write(f"{line}\n")
    plan = Run(
        grid=grid,
        profile=chosen,
        folder=(work / f"{grid.name}-{profile}").absolute(),
        data=train_on,
        evaluate=judge_on,
        settings=parse_settings(setting or []),
        device=kind,
        minutes=size.minutes,
        store=store_path(store).absolute(),
    )
    check_plan(plan, resume=resume)
    started, began = started_now(), time.monotonic()
    jobs = plan_jobs(plan)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side_by_side = min(parallel or (1 if kind == "cuda" else min(size.parallel, cores)), len(jobs))
    run_jobs(
        plan,
        jobs,
        parallel=side_by_side,
        threads=max(1, cores // side_by_side),
        progress=lambda line: _say(line, began),
    )
    spent = _minutes_so_far(plan.folder, (time.monotonic() - began) / 60)
    ablation = make_report(plan, jobs, command=shlex.join(["tokbench", *sys.argv[1:]]), started=started, minutes=spent)
    path = ablation.write(output / f"{grid.name}-{profile}")
    if json:
        sys.stdout.write(ablation.model_dump_json(indent=1) + "\n")
    else:
        print_report(ablation)
    sys.stderr.write(f"{path}; `tokbench leaderboard build` shows it\n")


def _asked(
    size: Profile, *, tasks: list[str] | None, judges: list[str] | None, seeds: int | None, minutes: float | None
) -> Profile:
    """The profile with what was typed in place of its own."""
    from tokbench.config import JudgeCard, TaskCard
    from tokbench.registry import find_card, names

    for name in tasks or ():
        if name not in size.tasks:
            raise UserError(f"the profile has no task '{name}'", where="--task", hint=f"It has {', '.join(size.tasks)}")
    for name in judges or ():
        find_card(JudgeCard, name)
    chosen = tuple(tasks or size.tasks)
    changes: dict[str, Any] = {"tasks": chosen}
    if judges:
        present = [find_card(TaskCard, name) for name in chosen if name in names(TaskCard)]
        changes["judges"] = {card.name: tuple(judges) for card in present if card.judges}
    if seeds is not None:
        changes["seeds"] = size.seeds[:seeds]
    if minutes is not None:
        changes["minutes"] = minutes
    return size.model_copy(update=changes)


def _say(line: str, began: float) -> None:
    sys.stderr.write(f"[{(time.monotonic() - began) / 60:5.1f} min] {line}\n")
    sys.stderr.flush()


def _minutes_so_far(folder: Path, minutes: float) -> float:
    """Wall-clock time of this and of the calls before it."""
    path = folder / "minutes.txt"
    total = minutes + (float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0)
    path.write_text(f"{total}", encoding="utf-8")
    return total


def _device(device: str, *, needs_gpu: bool, profile: str) -> str:
    from tokbench.manifest import resolve_device

    kind = resolve_device(device)
    if needs_gpu and kind == "cpu":
        raise UserError(
            f"the profile '{profile}' trains the full-size model and needs a CUDA GPU, and there is none",
            where="--profile",
            hint="Use --profile mini on a CPU",
        )
    return kind


def _cost(grid: Grid, profile: ProfileName) -> list[str]:
    """What a profile takes, as far as it has been measured."""
    from tokbench.ablations.cost import describe_cost

    return describe_cost(grid, profile)


def _recipe_cost(recipe: Recipe) -> list[str]:
    from tokbench.ablations.cost import recipe_cost

    found: Any = recipe_cost(recipe)
    return [found] if found else []
