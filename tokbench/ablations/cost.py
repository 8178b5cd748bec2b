"""What a run costs, from step times that `benchmarks/kanade_training.py` measured."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from tokbench.ablations.grid import Grid, ProfileName, stages
from tokbench.config import Strict
from tokbench.kanade.training.recipe import Recipe
from tokbench.registry import package_folder

__all__ = ["StepTime", "describe_cost", "recipe_cost", "step_times"]


class StepTime(Strict):
    """A measurement.

    Attributes:
        model: base geometry, "25hz".
        adversarial: whether the discriminator took part.
        batch_size: items a step.
        seconds: a step.
        device, attention: what it was measured on.
        measured: date.
    """

    model: str
    adversarial: bool
    batch_size: int
    seconds: float
    device: str
    attention: str
    measured: str


@lru_cache
def step_times() -> tuple[StepTime, ...]:
    """All measurements that ship with tokbench."""
    path = package_folder("reproduce") / "step_times" / "measured.yaml"
    if not path.is_file():
        return ()
    return tuple(StepTime.model_validate(one) for one in yaml.safe_load(path.read_text(encoding="utf-8")) or ())


def recipe_cost(recipe: Recipe) -> str | None:
    """One line on a recipe's GPU hours; None for models that train on a CPU."""
    hours = _gpu_hours(recipe)
    if recipe.data.features == "stored":
        return None
    if hours is None:
        return "cost: no step time was measured for this model (python benchmarks/kanade_training.py --device cuda)"
    value, time = hours
    return (
        f"cost: {recipe.batches} batches of {recipe.data.batch_size} x {time.seconds / time.batch_size:.4f} s an item "
        f"= {value:.0f} GPU hours ({time.device}, {time.attention}, batch {time.batch_size}, {time.measured})"
    )


def describe_cost(grid: Grid, profile: ProfileName) -> list[str]:
    """Lines on a profile's cost."""
    size = grid.profiles[profile]
    seed = size.seeds[0]
    trainings = {
        stage.name: stage.recipe
        for arm in grid.arms
        for stage in stages(grid, profile, arm, seed, folder=Path(), settings={})
    }
    count = len(trainings) * len(size.seeds)
    lines = [f"{grid.name}, {profile}: {len(grid.arms)} arms x {len(size.seeds)} seeds"]
    if profile != "paper":
        if size.minutes is not None:
            lines.append(f"at most {size.minutes:g} min a training, {count * size.minutes / 60:.1f} h in all")
        return lines
    total, known = 0.0, True
    for recipe in trainings.values():
        hours = _gpu_hours(recipe)
        known = known and hours is not None
        total += len(size.seeds) * (hours[0] if hours else 0.0)
    lines.append(
        f"{total:.0f} GPU hours by measured step times"
        if known
        else "cost unknown: no step time was measured (python benchmarks/kanade_training.py --device cuda)"
    )
    return lines


def _gpu_hours(recipe: Recipe) -> tuple[float, StepTime] | None:
    """Hours on one GPU for all batches of one device's size; the fastest measurement of that model."""
    fitting = [
        time
        for time in step_times()
        if time.model == recipe.model.base and time.adversarial == recipe.losses.uses_discriminator
    ]
    if not fitting:
        return None
    best = min(fitting, key=lambda time: time.seconds / time.batch_size)
    seconds = recipe.batches * recipe.data.batch_size * best.seconds / best.batch_size
    return seconds / 3600, best
