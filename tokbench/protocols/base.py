"""The protocol contract: which items a task measures, how a shard of them is measured, and what is estimated.

A protocol reads like the methods section of a paper. `measure` runs in a worker on a shard of items and returns rows;
`derived` and `estimates` run once, on all rows, and depend on nothing else, so that an audit can repeat them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import DatasetError, ItemError, NotApplicable, UndefinedMetric, UserError

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.bench import Bench
    from tokbench.metrics.base import Metric
    from tokbench.results import Estimate

__all__ = ["Components", "Item", "Protocol", "Row", "Shard", "Take", "failed_row", "stable"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """What one row is about: an utterance, or a pair of them.

    Attributes:
        id: unique in the task.
        utterances: by role, for instance {"utterance": ...} or {"source": ..., "reference": ...}.
        cluster: what the bootstrap resamples, normally the speaker.
        seed: of the probe that is trained for the row; None where none is.
    """

    id: str
    utterances: dict[str, Utterance]
    cluster: str
    seed: int | None = None

    def describe(self) -> dict[str, Any]:
        """Everything about the item that decides its row, for store keys."""
        return {
            "id": self.id,
            "cluster": self.cluster,
            "seed": self.seed,
            "utterances": {
                role: [u.id, u.speaker, u.text, u.gender, u.chapter, u.pcm_sha256]
                for role, u in self.utterances.items()
            },
        }


@dataclass(frozen=True)
class Take:
    """A clip to listen to."""

    item: str
    kind: str
    flac: bytes
    text: str | None = None
    transcript: str | None = None


@dataclass
class Shard:
    """What measuring some items gave: rows by table, and clips."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)


def stable(value: float) -> float:
    """The value to ten significant digits.

    The last bits of a sum depend on where its arrays lie in memory; without them, a rerun stores the same bytes.
    """
    return float(f"{value:.10g}")


class Components:
    """Builds one row: components of metrics, or the reason why one has no value for this item."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def add(
        self, metrics: Sequence[Metric], compute: Callable[[], Mapping[str, float]], *, judge: str | None = None
    ) -> None:
        """Call `compute` and add its components; `UndefinedMetric` becomes the reason of the metrics.

        Args:
            metrics: what the components belong to.
            compute: gives components under their plain names.
            judge: put in brackets behind each component's name.
        """
        try:
            made = compute()
        except UndefinedMetric as reason:
            self.missing(metrics, reason.what)
            return
        self.row |= {f"{name}[{judge}]" if judge else name: stable(value) for name, value in made.items()}

    def missing(self, metrics: Sequence[Metric], reason: str) -> None:
        """Record why the metrics have no value here."""
        for metric in metrics:
            self.row |= {component: float("nan") for component in metric.components}
            self.row[f"why[{metric.name}]"] = reason


class Protocol(ABC):
    """How a task is measured.

    Args:
        task: the card.
        judges: cards of the judges in use, by name.
        params: the card's parameters with the suite's and the command line's merged over them.
        seed: decides every draw the protocol makes.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()
    """Modules whose code decides the rows; hashed into store keys."""
    estimate_modules: ClassVar[tuple[str, ...]] = ("tokbench.stats",)
    """Modules whose code decides the estimates."""
    alone: ClassVar[bool] = False
    """Measured after all others with nothing beside it, and never taken from the store or put there: the clock's."""
    optional_params: ClassVar[frozenset[str]] = frozenset()
    """Parameters that it knows and that a card need not state."""
    trains: ClassVar[bool] = False
    """Whether probes are trained, so that the parameter `train` must name data."""

    def __init__(self, task: TaskCard, judges: Mapping[str, JudgeCard], params: Mapping[str, Any], seed: int) -> None:
        self.task = task
        self.judges = dict(judges)
        self.params = dict(params)
        self.seed = seed

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where the tokenizer lacks what the task needs."""
        missing = [need for need in self.task.needs if need not in card.capabilities]
        if missing:
            raise NotApplicable(f"{card.name} lacks {' and '.join(missing)}, which {self.task.name} needs")

    @classmethod
    def for_comparison(cls, params: Mapping[str, Any], cards: Sequence[TokenizerCard]) -> dict[str, Any]:  # noqa: ARG003
        """The parameters under which these tokenizers can be compared with each other; as they are by default."""
        return dict(params)

    def limitation(self, card: TokenizerCard) -> str | None:  # noqa: ARG002 - most protocols have none
        """Why a complete result lacks some of the task's metrics, in words for the tables."""
        return None

    def items(self, dataset: Dataset) -> list[Item]:
        """What is measured, in a fixed order; every utterance by default."""
        return [Item(u.id, {"utterance": u}, u.speaker) for u in dataset.utterances]

    def shards(self, items: Sequence[Item], size: int) -> list[Sequence[Item]]:
        """How the items are cut into jobs: `size` at a time, and never two seeds in one job."""
        parts: list[Sequence[Item]] = []
        for _, group in groupby(items, key=lambda item: item.seed):
            same = list(group)
            step = size if same[0].seed is None else len(same)
            parts += [same[start : start + step] for start in range(0, len(same), step)]
        return parts

    def train_spec(self) -> str | None:
        """The data that probes are trained on, as typed after `--data`; the parameter `train`.

        Raises:
            UserError: the protocol trains, and none is given.
        """
        named = self.params.get("train")
        if named is None and self.trains:
            raise UserError("names no training data", where=f"{self.task.name}: train", hint="Give --set train=DATA")
        return None if named is None else str(named)

    def check_training(self, train: Dataset, test: Dataset) -> None:
        """Raise `DatasetError` where a probe would be tested on what it was trained on; audio, by default."""
        seen = {u.pcm_sha256: u.id for u in train.utterances if u.pcm_sha256 is not None}
        for utterance in test.utterances:
            if utterance.pcm_sha256 in seen:
                raise DatasetError(
                    f"the audio of {utterance.id} is also in the training data (as {seen[utterance.pcm_sha256]})",
                    where=f"{test.name}, trained on {train.name}",
                    hint="Train on another split: --set train=DATA",
                )

    @abstractmethod
    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:
        """Measure a shard; clips are kept for the item ids in `keep`."""

    def derived(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard) -> dict[str, pd.DataFrame]:  # noqa: ARG002
        """Further tables that follow from the rows of all shards (trials between shards), stored beside them."""
        return {}

    @abstractmethod
    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Numbers with intervals, from the rows and the derived tables alone."""

    def outside(self) -> dict[str, str]:
        """Identity of what rows or estimates read beside the data (a checkpoint, a trial list), name -> sha256."""
        return {}

    def judge_of(self, kind: str) -> list[str]:
        """Names of the judges of one kind, in the order of the card."""
        return [name for name, card in self.judges.items() if card.kind == kind]


def failed_row(item: Item, error: ItemError) -> Row:
    """The row of an item that could not be processed."""
    return {"id": item.id, "speaker": item.cluster, "error": str(error), "stage": error.stage or "score"}
