"""An ablation as a YAML file of `reproduce/`: arms, profiles, and what is compared. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tokbench.card_files import load_card
from tokbench.config import Card, Strict
from tokbench.errors import UnknownName
from tokbench.kanade.training.recipe import Recipe, load_recipe
from tokbench.registry import package_folder
from tokbench.reproduction import PaperValue

__all__ = ["ArmChoice", "Compared", "Grid", "Profile", "ProfileName", "Stage", "find_grid", "grids", "stages"]

ProfileName = Literal["mini", "gpu", "paper"]


class ArmChoice(Strict):
    """One variant.

    Attributes:
        title: a few words for tables.
        changes: recipe fields that differ, by dotted name; empty for the recipe itself.
        only: further changes in one profile, where the geometry needs another spelling.
        then: changes of a second training that begins with the weights of the first; None: there is one training.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    changes: dict[str, Any] = Field(default_factory=dict)
    only: dict[ProfileName, dict[str, Any]] = Field(default_factory=dict)
    then: dict[str, Any] | None = None

    def first_changes(self, profile: ProfileName) -> dict[str, Any]:
        """Fields of the first training that differ from the recipe."""
        return {**self.changes, **self.only.get(profile, {})}


class Profile(Strict):
    """One size of the experiment.

    Attributes:
        recipe: name of a recipe in `reproduce/kanade/`.
        tokenizer: card that runs the trained models.
        data: to train on; empty: named with `--data`.
        evaluate: datasets of the tasks; empty: named with `--evaluate`.
        tasks: by name; one that this version lacks is left out if it is in `where_present`.
        where_present: tasks that may be absent.
        judges: of a task, instead of its own.
        params: of a task, over its own.
        settings: recipe fields, by dotted name, for all arms.
        then_settings: the same for the second training of arms that have one.
        seeds: of the trainings.
        gpu: whether it needs one.
        minutes: limit of one training; None: its batches decide.
        parallel: trainings side by side, each with an equal share of the cores.
    """

    recipe: str
    tokenizer: str
    data: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    tasks: tuple[str, ...]
    where_present: tuple[str, ...] = ()
    judges: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    then_settings: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field(min_length=1)
    gpu: bool = False
    minutes: float | None = Field(default=None, gt=0)
    parallel: int = Field(default=1, ge=1)


class Compared(Strict):
    """A metric of a task, without its judge, and what the paper says on it.

    Attributes:
        changed: arm that the paper's value is about; None: the second.
    """

    task: str
    metric: str
    paper: PaperValue | None = None
    changed: str | None = None


class Grid(Card):
    """An ablation."""

    title: str
    question: str
    arms: tuple[ArmChoice, ...] = Field(min_length=2)
    """The first is what the others are compared with."""
    compare: tuple[Compared, ...] = Field(min_length=1)
    profiles: dict[ProfileName, Profile]

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have the same name: {names}")
        for one in self.compare:
            if one.changed is not None and one.changed not in names[1:]:
                raise ValueError(f"compare names the arm '{one.changed}'; there are {names[1:]}")
        return self


@dataclass(frozen=True)
class Stage:
    """One training of an arm: its name, and the recipe."""

    name: str
    recipe: Recipe


def grids() -> dict[str, Path]:
    """Name -> file of the ablations that ship with tokbench."""
    folder = package_folder("reproduce")
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.stem.startswith("_")}


def find_grid(name: str) -> Grid:
    """The ablation of that name, or in that file.

    Raises:
        UnknownName: with the closest names.
        CardError: `file:line: field`.
    """
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return load_card(Path(name), Grid)
    known = grids()
    if name not in known:
        raise UnknownName("ablation", name, known, listed_by="tokbench reproduce list")
    return load_card(known[name], Grid)


def stages(
    grid: Grid, profile: ProfileName, arm: ArmChoice, seed: int, *, folder: Path, settings: dict[str, Any]
) -> list[Stage]:
    """The trainings of an arm, in order; the second starts from the first's weights.

    Arms that differ in the second training alone have the first one in common, named after the first such arm: they
    are compared from the same weights, and it is paid for once.

    Args:
        grid: the ablation.
        profile: its size.
        arm: which variant.
        seed: of both.
        folder: where the trainings' folders lie.
        settings: what the user has set, over everything else.

    Raises:
        CardError: a change is not a field of a recipe.
    """
    from tokbench.commands.train import find_recipe

    size = grid.profiles[profile]
    path = find_recipe(size.recipe)
    base = {**size.settings, **arm.first_changes(profile), **settings, "seed": seed}
    owner = next(one for one in grid.arms if one.first_changes(profile) == arm.first_changes(profile))
    first = f"{grid.name}-{owner.name}-s{seed}"
    made = [Stage(first, load_recipe(path, settings={**base, "name": first}))]
    if arm.then is not None:
        second = f"{grid.name}-{arm.name}-s{seed}-then"
        changes = {**size.then_settings, **arm.then, "name": second, "start_from": str(folder / first / "last.ckpt")}
        made.append(Stage(second, load_recipe(path, settings={**base, **changes})))
    return made
