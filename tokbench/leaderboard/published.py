"""Numbers from papers and model cards, each with its source; they never share a table with measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from tokbench.card_files import load_card
from tokbench.config import Card, Strict
from tokbench.registry import package_folder

__all__ = ["Published", "PublishedColumn", "PublishedRow", "PublishedTable", "Source", "load_published"]


class Source(Strict):
    """Where numbers were read."""

    id: str
    title: str
    url: str | None = None
    seen: Literal["original", "digest", "audio"]
    """"original": the document itself; "digest": somebody's summary of it; "audio": scored from published audio."""
    note: str | None = None


class PublishedColumn(Strict):
    """One metric of a published table."""

    id: str
    title: str
    unit: str = ""
    direction: Literal["higher", "lower", "none"]
    scorer: str
    """Judge or code that made the numbers; says so where it is not known."""


class PublishedRow(Strict):
    """One system."""

    system: str
    values: dict[str, float | None]
    """Column -> number as printed by the source; None: the source has a gap there."""
    rate: str | None = None
    """Bit rate as the source states it."""
    note: str | None = None


class PublishedTable(Strict):
    """Numbers of one source on one data set: the only ones that may be compared with each other."""

    id: str
    title: str
    source: str
    data: str
    """Data set and number of items, or that they are not told."""
    notes: tuple[str, ...] = ()
    unknown: str | None = None
    """What the source does not tell."""
    columns: tuple[PublishedColumn, ...]
    rows: tuple[PublishedRow, ...]

    def printed(self, column: PublishedColumn, value: float) -> str:
        """A value with as many decimals as the column's most precise one: 0.9 beside 0.97 is printed 0.90."""
        values = [row.values.get(column.id) for row in self.rows]
        return f"{value:.{max(len(f'{v:g}'.partition('.')[2]) for v in values if v is not None)}f}"

    @model_validator(mode="after")
    def _known_columns(self) -> PublishedTable:
        known = {column.id for column in self.columns}
        for row in self.rows:
            extra = set(row.values) - known
            if extra:
                raise ValueError(f"row '{row.system}' of table '{self.id}' has unknown columns {sorted(extra)}")
        return self


class Published(Card):
    """The whole file."""

    title: str
    sources: tuple[Source, ...]
    tables: tuple[PublishedTable, ...]

    @model_validator(mode="after")
    def _known_sources(self) -> Published:
        known = [source.id for source in self.sources]
        if len(set(known)) < len(known):
            raise ValueError("two sources have the same id")
        for table in self.tables:
            if table.source not in known:
                raise ValueError(f"table '{table.id}' names the unknown source '{table.source}'")
        if len({table.id for table in self.tables}) < len(self.tables):
            raise ValueError("two tables have the same id")
        return self

    def source(self, name: str) -> Source:
        """The source of that id."""
        return next(source for source in self.sources if source.id == name)


def load_published(path: Path | None = None) -> Published:
    """Read and check `leaderboards/published.yaml`, or another file.

    Raises:
        CardError: the file is wrong; file, line and field are named.
    """
    return load_card(path or package_folder("leaderboards") / "published.yaml", Published)
