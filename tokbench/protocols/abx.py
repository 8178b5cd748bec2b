"""ABX over phone alignments: within and across speakers, between fixed neighbours and in any context.

Items span three phones where the context is fixed and one phone where it is free. What is empty at any of the card's
`rates`, or at the rate of any tokenizer of the run, is left out, for every tokenizer alike. Each representation is an
estimate of its own: codes as numbers, code vectors, and continuous frames before and after quantisation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.abx.engine import score_abx
from tokbench.abx.features import ArrayFeatures
from tokbench.abx.items import Items, items_from_alignments, read_items
from tokbench.abx.plan import make_plan
from tokbench.abx.representation import DISTANCES
from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import CardError, DatasetError, ItemError, NotApplicable, NothingToCompare
from tokbench.metrics.abx import CONDITIONS, condition_components
from tokbench.metrics.base import under
from tokbench.metrics.catalogue import metric
from tokbench.protocols.base import Item, Protocol, Row, Shard, failed_row, stable
from tokbench.protocols.phones import SHARD, check_alignment, corpus_item, encode_all, frame_streams, utterances_of
from tokbench.results import Estimate
from tokbench.stats import estimate
from tokbench.streams import StreamSpec
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["Abx", "Representation"]


@dataclass(frozen=True)
class Representation:
    """One way to compare frames: its name in brackets behind a metric, and what it is made of."""

    name: str
    kind: str
    """`codes`, `vectors`, `latent`, `pre_quant` or `post_quant`."""
    stream: StreamSpec
    distance: str


class Abx(Protocol):
    """Encode, slice by phones, compare."""

    optional_params: ClassVar[frozenset[str]] = frozenset({"device", "items", "librilight", "threads"})
    code_modules: ClassVar[tuple[str, ...]] = (
        *BENCH_MODULES, "tokbench.protocols.base", "tokbench.protocols.phones", "tokbench.metrics.abx",
        "tokbench.abx.engine", "tokbench.abx.features", "tokbench.abx.items", "tokbench.abx.kernels",
        "tokbench.abx.plan", "tokbench.abx.pool", "tokbench.abx.representation", "tokbench.abx.scheduler",
        "tokbench.abx.slicing", "tokbench.abx.torch_backend",
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.stats", "tokbench.bootstrap", "tokbench.metrics.abx", "tokbench.metrics.base",
    )  # fmt: skip

    def __init__(self, task: TaskCard, judges: Mapping[str, JudgeCard], params: Mapping[str, Any], seed: int) -> None:
        super().__init__(task, judges, params, seed)
        self.conditions = tuple(self.params.get("conditions", CONDITIONS))
        self.distance = str(self.params.get("distance", "angular"))
        unknown = [name for name in self.conditions if name not in CONDITIONS]
        if unknown or self.distance not in DISTANCES:
            raise CardError(
                f"'{unknown[0] if unknown else self.distance}' is not known to ABX",
                where=f"task {task.name}: params",
                hint=f"Conditions: {', '.join(CONDITIONS)}; distances: {', '.join(DISTANCES)}",
            )
        self.min_cells = int(self.params.get("min_cells", 100))
        self.rates = [Fraction(str(rate)) for rate in self.params.get("rates", ())]
        self.item_file = Path(str(self.params["items"])).expanduser() if self.params.get("items") else None

    @classmethod
    def for_comparison(cls, params: Mapping[str, Any], cards: Sequence[TokenizerCard]) -> dict[str, Any]:
        """The parameters with the frame rates of all tokenizers, so that what is empty for one is left out for all."""
        rates = {Fraction(str(rate)) for rate in params.get("rates", ())}
        more: set[Fraction] = set()
        for card in cards:
            try:
                more |= {stream.rate_hz for stream in _streams(card, params)}
            except NotApplicable:
                continue  # it has a row that says why, and no items
        if more <= rates:
            return dict(params)
        return {**params, "rates": [str(rate) for rate in sorted(rates | more)]}

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where no stream holds frames of speech."""
        super().check(card)
        self.representations(card)

    def items(self, dataset: Dataset) -> list[Item]:
        """The corpus, as one item.

        Raises:
            DatasetError: an utterance without a phone alignment; or, with an item file, that the file is none.
            NothingToCompare: no condition finds a phone twice beside another one.
        """
        if self.item_file is None:
            made = corpus_item(dataset)
        else:
            read_items(self.item_file)  # its mistakes are told before anything is computed
            made = [Item("corpus", {f"{i:06d}": u for i, u in enumerate(dataset.utterances)}, "corpus")]
        lacking = [self._lacking(condition, dataset.utterances, dataset.name) for condition in self.conditions]
        if lacking and all(lacking):
            raise NothingToCompare(str(lacking[0]), where=dataset.name)
        return made

    def _lacking(self, condition: str, utterances: Sequence[Utterance], source: str) -> str | None:
        """Why a condition has nothing to compare, or None."""
        speaker, context, _ = CONDITIONS[condition]
        try:
            make_plan(self._sounds(condition, utterances, source), speaker=speaker, context=context)  # type: ignore[arg-type]
        except NothingToCompare as reason:
            return reason.what
        except DatasetError:
            return None  # an utterance's wrong alignment becomes its failed row
        return None

    def _sounds(self, condition: str, utterances: Sequence[Utterance], source: str) -> Items:
        """The items of the item file, or of the utterances' alignments."""
        if self.item_file is not None:
            return read_items(self.item_file)
        return items_from_alignments(utterances, unit=CONDITIONS[condition][2], source=source)  # type: ignore[arg-type]

    def outside(self) -> dict[str, str]:
        """The item file, where one is named."""
        if self.item_file is None:
            return {}
        return {"items": hashlib.sha256(self.item_file.read_bytes()).hexdigest()}

    def representations(self, card: TokenizerCard) -> list[Representation]:
        """What is compared: of the semantic streams, or else of the first one.

        Raises:
            NotApplicable: there are no frames.
        """
        made: list[Representation] = []
        streams = _streams(card, self.params)
        for stream in streams:
            if stream.kind == "latent":
                made.append(Representation(f"{stream.name}:latent", "latent", stream, self.distance))
                continue
            made.append(Representation(f"{stream.name}:codes", "codes", stream, "identical"))
            if "codebook" in card.capabilities:
                made.append(Representation(f"{stream.name}:vectors", "vectors", stream, self.distance))
        if "features" in card.capabilities:
            made += [
                Representation(f"{streams[0].name}:{kind}", kind, streams[0], self.distance)
                for kind in ("pre_quant", "post_quant")
            ]
        return made

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of table "items" (a speaker and a pair of phones) and "conditions" (what was counted)."""
        shard = Shard({"items": [], "conditions": []})
        for item in items:
            self._corpus(bench, utterances_of(item), shard)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Errors with bootstrap intervals over speakers."""
        items = tables["items"]
        counts = {row["metric"]: row for row in tables["conditions"].to_dict("records")}
        made: list[Estimate] = []
        for place, representation in enumerate(self.representations(card)):
            for condition in self.conditions:
                name = f"{condition}[{representation.name}]"
                if name not in counts:
                    continue
                row = counts[name]
                if row.get("lacking"):  # a column that earlier results do not have
                    reason, count = str(row["lacking"]), int(row["items"])
                    made.append(
                        Estimate.of(metric(name), None, method=reason, n=0, undefined=count, reasons={reason: count})
                    )
                    continue
                one = estimate(metric(name), items[items[name].notna()], draws=draws, seed=self.seed)
                if row["cells"] < self.min_cells:
                    # Two or three comparisons are no measurement, and would be printed as 0 or 75 %.
                    few = f"{row['cells']:.0f} cells, at least {self.min_cells} are needed"
                    one = one.model_copy(
                        update={"value": None, "ci95": None, "method": few, "undefined": one.n, "reasons": {few: one.n}}
                    )
                one.note = (
                    f"{row['items']:.0f} items ({row['empty']:.0f} empty ones left out), {row['cells']:.0f} cells, "
                    f"{row['triplets']:.0f} triplets, {row['distance']} distance"
                )
                one.headline = condition in self.task.headline and place == 0
                made.append(one)
        return made

    def _corpus(self, bench: Bench, utterances: Sequence[Utterance], shard: Shard) -> None:
        card = bench.tokenizer.card
        rows: dict[tuple[str, str, str], Row] = {}
        good: list[tuple[Utterance, Encoded]] = []
        for utterance, tokens in zip(utterances, encode_all(bench, utterances), strict=True):
            if isinstance(tokens, Encoded):
                try:
                    if self.item_file is None:
                        check_alignment(
                            utterance,
                            tokens.n_samples / card.input_rate,
                            tolerance=float(self.params.get("tolerance", 0.02)),
                        )
                    good.append((utterance, tokens))
                    continue
                except ItemError as error:
                    tokens = error
            shard.tables["items"].append(failed_row(Item(utterance.id, {}, utterance.speaker), tokens))
        if not good:
            return
        known = [utterance for utterance, _ in good]
        for representation in self.representations(card):
            frames = dict(self._frames(bench, good, representation, shard))
            codebook = bench.codebook(representation.stream.name) if representation.kind == "vectors" else None
            for condition in self.conditions:
                self._score(
                    f"{condition}[{representation.name}]",
                    condition,
                    representation,
                    known,
                    frames,
                    codebook,
                    rows,
                    shard,
                )
        shard.tables["items"] += rows.values()

    def _frames(
        self, bench: Bench, good: Sequence[tuple[Utterance, Encoded]], representation: Representation, shard: Shard
    ) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        """Frames by utterance; an utterance without them fails."""
        if representation.kind in ("codes", "vectors", "latent"):
            for utterance, tokens in good:
                yield utterance.id, tokens.streams[representation.stream.name]
            return
        utterances = [utterance for utterance, _ in good]
        for start in range(0, len(utterances), SHARD):
            part = utterances[start : start + SHARD]
            which: Any = representation.kind
            for utterance, made in zip(part, bench.features(part, which), strict=True):
                if isinstance(made, ItemError):
                    shard.tables["items"].append(failed_row(Item(utterance.id, {}, utterance.speaker), made))
                else:
                    yield utterance.id, made

    def _score(
        self,
        name: str,
        condition: str,
        representation: Representation,
        utterances: Sequence[Utterance],
        frames: Mapping[str, npt.NDArray[np.generic]],
        codebook: npt.NDArray[np.float32] | None,
        rows: dict[tuple[str, str, str], Row],
        shard: Shard,
    ) -> None:
        speaker, context, _ = CONDITIONS[condition]
        items = self._sounds(condition, [u for u in utterances if u.id in frames], self.task.name)
        if self.item_file is not None:
            items = _without(items, {str(row["id"]) for row in shard.tables["items"]})
        counted: Row = {"metric": name, "distance": representation.distance, "lacking": ""}
        try:
            found = score_abx(
                items,
                ArrayFeatures(frames, source=name),
                rate=representation.stream.rate_hz,
                speaker=speaker,  # type: ignore[arg-type]
                context=context,  # type: ignore[arg-type]
                distance=representation.distance,  # type: ignore[arg-type]
                codebook=codebook,
                drop_last=bool(self.params.get("librilight", False)),
                also_rates=self.rates,
                pad=int(self.params.get("pad", 1)),
                device=str(self.params.get("device", "cpu")),
                threads=int(self.params["threads"]) if "threads" in self.params else None,
            )
        except NothingToCompare as reason:
            # Other conditions may have what this one lacks.
            nothing = {"items": len(items), "compared": 0, "empty": 0, "cells": 0, "triplets": 0, "error": None}
            shard.tables["conditions"].append(counted | nothing | {"lacking": reason.what})
            return
        phones = {label: number for number, label in enumerate(found.phones)}
        for s, a, b, error, cells in zip(
            found.speaker, found.phone_a, found.phone_b, found.row_error, found.row_cells, strict=True
        ):
            key = (found.speakers[s], found.phones[a], found.phones[b])
            row = rows.setdefault(
                key,
                {
                    "id": "/".join(key),
                    "speaker": key[0],
                    "phone": key[1],
                    "other": key[2],
                    "error": None,
                    "stage": None,
                },
            )
            weight = float(cells) if context == "any" else 1.0
            pair = phones[key[1]] * len(phones) + phones[key[2]]
            row |= under(condition_components(condition, stable(error), pair, weight), representation.name)
        shard.tables["conditions"].append(
            counted
            | {
                "items": found.items,
                "compared": found.compared,
                "empty": found.empty,
                "cells": found.cells,
                "triplets": found.triplets,
                "error": found.error,
            }
        )


def _without(items: Items, failed: set[str]) -> Items:
    """The items of recordings that did not fail; a recording that is not in the data stays, and is an error."""
    keep = np.array([name not in failed for name in items.file.names])[items.file.codes]
    return items.take(keep)


def _streams(card: TokenizerCard, params: Mapping[str, Any]) -> list[StreamSpec]:
    return frame_streams(card, kinds=("codes", "latent"), max_rate=float(params.get("max_rate", 150)))
