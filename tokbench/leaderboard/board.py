"""The definition of a board: which tasks, which columns go where, which charts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tokbench.card_files import load_card
from tokbench.config import Card, Strict
from tokbench.errors import UserError
from tokbench.registry import package_folder

__all__ = ["BarDef", "Board", "ChartDef", "DetDef", "MetricGroup", "load_board"]


class MetricGroup(Strict):
    """Metrics that share a table on a task's page; names are given without judges."""

    title: str
    metrics: tuple[str, ...]


class ChartDef(Strict):
    """A scatter chart of two metrics, named without judges; drawn once for every judge or representation there is."""

    title: str
    x: tuple[str, ...]
    """The first of these that two tokenizers have."""
    y: tuple[str, ...]
    log_x: bool = False
    task: str | None = None
    """On this task's tables only."""
    x_task: str | None = None
    """The task whose table on the same data gives x; the chart's own where there is none."""
    front: bool = False
    """Whether the front page shows it, too."""
    caption: str


class BarDef(Strict):
    """A chart of bars with one row per tokenizer, drawn once for every judge or representation there is."""

    title: str
    conditions: dict[str, str]
    """What a bar is called -> metric without judge."""
    order: str
    """The condition that orders the rows."""
    axis: str
    chance: float | None = None
    """Where guessing would be, in display units."""
    front: bool = False
    caption: str


class DetDef(Strict):
    """A chart of DET curves for an equal error rate, drawn once for every judge or representation there is."""

    title: str
    metric: str
    x_label: str
    """What a false alarm is."""
    y_label: str
    """What a miss is."""
    caption: str


class Board(Card):
    """A board, one YAML file in `leaderboards/`."""

    title: str
    introduction: tuple[str, ...] = ()
    """Paragraphs of the front page."""
    tasks: tuple[str, ...] = ()
    """Order of the tasks; any others follow by name."""
    rates: tuple[str, ...] = ()
    """Columns of rate and cost that stand before the headline metrics."""
    latent_rates: tuple[str, ...] = ()
    """Bit rates of continuous latents: columns of their own, never compared with bits of codes."""
    headline: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Task -> metrics on the front page, where they differ from the task card's."""
    groups: tuple[MetricGroup, ...] = ()
    charts: tuple[ChartDef, ...] = ()
    bars: tuple[BarDef, ...] = ()
    dets: tuple[DetDef, ...] = ()
    ranks: tuple[str, ...] = ()
    """Metrics that get a plot of rank intervals."""


def load_board(board: str | Path) -> Board:
    """Read a board by name (`leaderboards/NAME.yaml`) or by path.

    Raises:
        UserError: no board of that name.
        CardError: the file is wrong; file, line and field are named.
    """
    path = Path(board)
    if path.suffix not in (".yaml", ".yml"):
        folder = package_folder("leaderboards")
        path = folder / f"{board}.yaml"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "published"))
            raise UserError(f"no board is called '{board}'", hint=f"There are {names}; a path of a YAML file works too")
    return load_card(path, Board)
