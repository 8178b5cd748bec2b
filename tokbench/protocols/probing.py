"""What protocols with a token model share: items of several seeds, tokens in slices, the trained model, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokbench.config import TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import ItemError, NotApplicable, TrainingError
from tokbench.metrics.base import Metric
from tokbench.probes.characters import plain
from tokbench.probes.layout import Layout, choose_layout
from tokbench.probes.teaching import Course, rebuilt, teach
from tokbench.protocols.base import Item
from tokbench.stats import estimate
from tokbench.store.code import modules_hash
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.bench import Bench
    from tokbench.probes.decoder import DecoderConfig
    from tokbench.probes.token_model import TokenModel
    from tokbench.results import Estimate
    from tokbench.store.units import Payload
    from tokbench.training.checkpoint import Checkpoint
    from tokbench.training.loop import Log
    from tokbench.training.recipe import Recipe

__all__ = [
    "PROBE_MODULES", "Plan", "encode_in_slices", "evenly", "layout_of", "other_texts", "over_seeds", "taught",
    "text_of", "with_references",
]  # fmt: skip

PROBE_MODULES = tuple(
    f"tokbench.probes.{name}" for name in ("decoder", "documents", "layout", "spans", "teaching", "token_model")
)
"""Modules that decide a trained token model."""

_SLICE = 8


@dataclass(frozen=True)
class Plan:
    """How a token model is trained: its size, its recipe, and seconds of audio in a row."""

    config: DecoderConfig
    recipe: Recipe
    row_seconds: float


def layout_of(card: TokenizerCard, *, most_steps: float, text: int = 0, longest_run: int = 0) -> Layout:
    """The layout that the rule gives a tokenizer.

    Raises:
        NotApplicable: its tokens cannot be written; says why, with its name.
    """
    try:
        return choose_layout(card.stream_specs, most_steps=most_steps, text=text, longest_run=longest_run)
    except NotApplicable as reason:
        raise NotApplicable(f"{card.name}: {reason.what}") from None


def encode_in_slices(bench: Bench, utterances: Sequence[Utterance]) -> list[Encoded | ItemError]:
    """Tokens in slices of eight, which other tasks on the same data find in the store."""
    made: list[Encoded | ItemError] = []
    for start in range(0, len(utterances), _SLICE):
        made += bench.encode(utterances[start : start + _SLICE])
    return made


def evenly(count: int, among: int) -> list[int]:
    """`count` indices spread evenly over `range(among)`; all where there are fewer."""
    if among <= count:
        return list(range(among))
    return [(2 * k + 1) * among // (2 * count) for k in range(count)]


def taught(bench: Bench, course: Course, plan: Plan, *, label: str) -> tuple[TokenModel, Payload]:
    """The trained model and what is known of its training, from the store or trained now.

    Raises:
        TrainingError: nothing to train on, or as `teach`.
    """
    if not course.documents:
        raise TrainingError("no utterance of the training data could be used", where=label)

    def run(checkpoint: Checkpoint, log: Log | None) -> Payload:
        return teach(
            course, plan.config, plan.recipe,
            row_seconds=plan.row_seconds, device=bench.device, checkpoint=checkpoint, log=log,
        )[1]  # fmt: skip

    parts = {
        "course": course.sha256(),
        "model": asdict(plan.config),
        "recipe": plan.recipe.identity(),
        "row_seconds": plan.row_seconds,
        "code": modules_hash(PROBE_MODULES),
    }
    payload = bench.training.fit(parts, label, run)
    return rebuilt(course, plan.config, payload, device=bench.device), payload


def with_references(dataset: Dataset, seeds: Iterable[int]) -> list[Item]:
    """Every utterance once a seed, with another one of its speaker (itself where there is no other)."""
    own: dict[str, list[Utterance]] = {}
    for u in dataset.utterances:
        own.setdefault(u.speaker, []).append(u)
    other = {u.id: them[(k + 1) % len(them)] for them in own.values() for k, u in enumerate(them)}
    return [
        Item(f"{u.id}~{seed}", {"utterance": u, "reference": other[u.id]}, u.speaker, seed=seed)
        for seed in seeds
        for u in dataset.utterances
    ]


def text_of(item: Item) -> str | None:
    """The utterance's text, None where it has no word."""
    text = item.utterances["utterance"].text
    return text if text and plain(text) else None


def other_texts(texts: Sequence[str | None], *, seed: int) -> list[str | None]:
    """For each text one of the others that says something else, drawn by the seed; None where there is none."""
    rng = np.random.default_rng([seed, 2])
    known = sorted({text for text in texts if text is not None}, key=plain)
    made: list[str | None] = []
    for text in texts:
        others = [other for other in known if text is not None and plain(other) != plain(text)]
        made.append(others[int(rng.integers(len(others)))] if others else None)
    return made


def over_seeds(
    metric: Metric, rows: pd.DataFrame, *, draws: int, seed: int, table: str = "items", note: str | None = None
) -> Estimate:
    """The estimate over the rows of all seeds, speakers drawn whole, with the value of each seed in the note."""
    made = estimate(metric, rows, draws=draws, seed=seed, table=table)
    values = []
    for _, part in rows.groupby("seed", sort=True) if "seed" in rows.columns else ():
        columns = {name: part[name].to_numpy(np.float64) for name in metric.components}
        good = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
        if good.any():
            values.append(metric.value({name: column[good] for name, column in columns.items()}) * metric.scale)
    if len(values) > 1:
        spread = f"seeds: {', '.join(f'{value:.4g}' for value in values)}"
        note = f"{note}; {spread}" if note else spread
    made.note = note
    return made
