"""What a table consists of: columns, cells, rows, and the table itself; how each prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tokbench.config import TaskCard
from tokbench.leaderboard.load import Refused
from tokbench.leaderboard.numbers import base_name, format_number, half_width, slug
from tokbench.results import DatasetRecord, Estimate, Result
from tokbench.types import Direction

__all__ = ["Cell", "Column", "Row", "Table"]


@dataclass(frozen=True)
class Column:
    """One metric under one judge, or of one kind of representation; `id` is unique in the table and safe in anchors."""

    id: str
    metric: str
    identity: str | None
    title: str
    judge: str | None
    unit: str
    scale: float
    direction: Direction
    decimals: int
    group: str
    headline: bool
    rate: bool
    latent: bool
    stream: str | None = None
    """The stream that it is about, where it is about one only; such columns stand on tokenizers' pages alone."""
    kind: str | None = None
    """Kind of representation ("codes", "vectors", "" for the stream as it is) of whichever stream has it first."""
    variant: str | None = None
    """What tells it from other columns of the metric beside a judge, in words: the representation, a decoding."""

    @property
    def base(self) -> str:
        """The metric's name without its judge."""
        return base_name(self.metric)

    @property
    def label(self) -> str | None:
        """What stands under the title in a table's head: the judge, or the variant."""
        return self.judge or self.variant

    @property
    def name(self) -> str:
        """Title and label in one line."""
        return f"{self.title} [{self.label}]" if self.label else self.title


@dataclass
class Cell:
    """One number, or the reason why there is none."""

    column: Column
    estimate: Estimate | None
    reason: str | None = None
    mark: str = ""
    """ "best", "tied" (not separable from the best), or empty."""

    @property
    def metric(self) -> str:
        """The estimate's own name, where a stream may stand in place of the column's kind of representation."""
        return self.estimate.metric if self.estimate else self.column.metric

    @property
    def value(self) -> float | None:
        """The estimate's value, unscaled, or None."""
        return self.estimate.value if self.estimate else None

    @property
    def text(self) -> str:
        """The value as printed, without its unit."""
        if self.value is None:
            return "n/a"
        return format_number(self.value * self.column.scale, self.column.decimals)

    @property
    def half(self) -> str | None:
        """Half-width of the interval as printed; None without one, or where the interval is a point."""
        width = half_width(self.estimate) if self.estimate else None
        return None if not width else format_number(width * self.column.scale, self.column.decimals)

    @property
    def ends(self) -> tuple[str, str] | None:
        """Both ends of the interval as printed."""
        if self.estimate is None or self.estimate.ci95 is None:
            return None
        low, high = (format_number(v * self.column.scale, self.column.decimals) for v in self.estimate.ci95)
        return low, high


@dataclass
class Row:
    """One tokenizer in one table."""

    result: Result
    index: int
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def familiarity(self) -> str | None:
        """How the tokenizer knows this dataset: "trained on this dataset", "... on another part ...", or None."""
        if self.result.dataset is None:
            return None
        name, seen = self.result.dataset.name, self.result.tokenizer.trained_on
        corpus, _, split = name.partition(":")
        parts = {other.partition(":")[0] for other in seen}
        if name in seen or corpus in seen or (corpus in parts and split == "all"):
            return "trained on this dataset"
        return "trained on another part of this corpus" if corpus in parts else None

    @property
    def name(self) -> str:
        """The tokenizer's name."""
        return self.result.tokenizer.name

    @property
    def slug(self) -> str:
        """The name as used in files and anchors."""
        return slug(self.name)

    @property
    def anchor(self) -> str | None:
        """Its part as an anchor, "ceiling" or "floor", or None."""
        return self.result.tokenizer.anchor

    @property
    def kind(self) -> str:
        """What its tokens are, "discrete", "continuous", or both."""
        found = [c for c in ("discrete", "continuous") if c in self.result.tokenizer.capabilities]
        return " and ".join(found)

    @property
    def frame_rate(self) -> float:
        """The fastest stream's rate in Hz."""
        return max((float(s.rate_hz) for s in self.result.tokenizer.streams), default=0.0)

    @property
    def frame_rate_text(self) -> str:
        """The streams' rates in Hz, each once."""
        rates = sorted({s.rate_hz for s in self.result.tokenizer.streams})
        shown = [_rate(rates[0]), _rate(rates[-1])] if len(rates) > 2 else [_rate(r) for r in rates]
        return ("–" if len(rates) > 2 else ", ").join(shown) if rates else "none"

    @property
    def applicable(self) -> bool:
        """Whether there are numbers."""
        return self.result.status != "not_applicable"

    def answers(self, columns: Sequence[Column]) -> bool:
        """Whether any of these columns has a value for this tokenizer."""
        return any(self.cells[column.id].value is not None for column in columns)

    def has_any(self, columns: Sequence[Column]) -> bool:
        """Whether any of these columns was estimated for this tokenizer."""
        return any(self.cells[column.id].estimate is not None for column in columns)


@dataclass
class Table:
    """One protocol on one dataset: everything in it may be compared."""

    id: str
    task: TaskCard
    dataset: DatasetRecord | None
    columns: list[Column]
    ranked: list[Row]
    anchors: list[Row]
    not_run: list[str]
    refused: list[Refused]
    wanted: tuple[str, ...] = ()
    """Headline metrics in order, without judges."""
    distinct: str | None = None
    """What tells this table from another of the same task and dataset."""

    @property
    def rows(self) -> list[Row]:
        """Ranked rows, then anchors."""
        return self.ranked + self.anchors

    @property
    def measured(self) -> list[Row]:
        """Rows with numbers."""
        return [row for row in self.rows if row.applicable]

    @property
    def unanswered(self) -> list[tuple[str, list[Column]]]:
        """Shared columns in which nobody has a value, by the reason: told below the tables instead of shown in them."""
        found: dict[str, list[Column]] = defaultdict(list)
        if self.measured:
            for column in self.columns:
                if column.stream is None and not self._answered(column):
                    cells = [row.cells[column.id] for row in self.measured]
                    tried = next((cell for cell in cells if cell.estimate is not None), cells[0])
                    found[tried.reason or "no value"].append(column)
        return list(found.items())

    def without(self, columns: Sequence[Column]) -> list[tuple[str, list[Row]]]:
        """Tokenizers with results, and none in these columns, by the reason."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.measured:
            if not row.answers(columns):
                found[row.cells[columns[0].id].reason or "no value"].append(row)
        return list(found.items())

    def _answered(self, column: Column) -> bool:
        return any(row.cells[column.id].value is not None for row in self.rows)

    @property
    def front(self) -> list[Column]:
        """Columns of the front page: rates, the first rate of latents, headline metrics."""
        whole = self.shared
        headline = [c for c in whole if c.headline and not c.rate and not c.latent]
        return (
            [c for c in whole if c.rate]
            + [c for c in whole if c.latent][:1]
            + sorted(headline, key=lambda c: self.wanted.index(c.base) if c.base in self.wanted else len(self.wanted))
        )

    @property
    def shared(self) -> list[Column]:
        """Columns that mean the same for every tokenizer and have a value: all but those of single streams."""
        return [c for c in self.columns if c.stream is None and self._answered(c)]

    @property
    def groups(self) -> list[tuple[str, list[Column]]]:
        """Shared columns by group, in the board's order."""
        return _grouped(self.shared)

    def groups_of(self, row: Row) -> list[tuple[str, list[Column]]]:
        """Columns by group for one tokenizer's page: the shared ones, and its own streams'."""
        own = [c for c in self.columns if c.stream is not None and row.cells[c.id].estimate is not None]
        kept = {c.id for c in (*self.shared, *own)}
        return _grouped([c for c in self.columns if c.id in kept])

    def column(self, base: str) -> list[Column]:
        """Every column of a metric, one per judge."""
        return [c for c in self.shared if c.base == base]


def _grouped(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    grouped: dict[str, list[Column]] = defaultdict(list)
    for column in columns:
        grouped[column.group].append(column)
    return list(grouped.items())


def _rate(rate: Fraction) -> str:
    return f"{float(rate):.2f}".rstrip("0").rstrip(".")
