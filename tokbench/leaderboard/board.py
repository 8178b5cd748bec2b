"""The definition of a board: which tasks, which columns go where, which charts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tokbench.config import Card, Strict, load_card
from tokbench.errors import UserError
from tokbench.registry import package_folder

__all__ = ["Board", "ChartDef", "MetricGroup", "load_board"]


class MetricGroup(Strict):
    """Metrics that share a table on a task's page; names are given without judges."""

    title: str
    metrics: tuple[str, ...]


class ChartDef(Strict):
    """A scatter chart of two metrics, named without judges; drawn once for every judge there is."""

    title: str
    x: str
    y: str
    log_x: bool = False
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
