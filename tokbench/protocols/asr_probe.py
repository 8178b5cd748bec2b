"""Lexical availability: a small recogniser is trained on tokens, and reads utterances it has not seen.

Encode the training data, fit text units on its transcripts, train the same reader for every tokenizer and seed, read
the test with and without a beam, count word and character errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import DatasetError, ItemError, NotApplicable, TrainingError, UserError
from tokbench.metrics.catalogue import metric
from tokbench.metrics.wer import character_errors, word_errors
from tokbench.probes.frames import Clock
from tokbench.probes.units import Units, spoken
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, failed_row
from tokbench.results import Estimate
from tokbench.stats import estimate
from tokbench.store.code import modules_hash
from tokbench.store.units import Payload, canonical_json
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.curves import curve_rows
from tokbench.training.loop import LOOP_MODULES, Log, load_weights
from tokbench.training.recipe import Recipe
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.probes.reader import Reader, Shape
    from tokbench.probes.reading import Heard, Lesson

__all__ = ["AsrProbe"]

_WEIGHTS = ("tokbench.probes.units", "tokbench.probes.frames", "tokbench.probes.reader", "tokbench.probes.reading")
_WAYS = ("greedy", "beam")
_SLICE = 8  # utterances encoded at a time, as every task does, so that they share what is in the store


class AsrProbe(Protocol):
    """Tokens to text, by a reader that is trained for it."""

    trains: ClassVar[bool] = True
    code_modules: ClassVar[tuple[str, ...]] = (
        *_WEIGHTS, "tokbench.probes.ctc", "tokbench.metrics.wer", *BENCH_MODULES, "tokbench.protocols.base",
        *LOOP_MODULES, "tokbench.training.curves",
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = ("tokbench.stats", "tokbench.bootstrap", "tokbench.metrics.lexical")

    # -- what is asked -------------------------------------------------------------------------------------------

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where tokens are samples, or do not fit into the budget."""
        from tokbench.probes.reader import code_width

        super().check(card)
        self._recipe(self.seed)  # a mistake in it is told before anything is encoded
        code_width(self._clock(card), self._shape(), name=card.name)

    def items(self, dataset: Dataset) -> list[Item]:
        """Every utterance once a seed.

        Raises:
            DatasetError: an utterance has no text.
        """
        _texts(dataset)
        return [
            Item(f"{u.id}~{seed}", {"utterance": u}, u.speaker, seed)
            for seed in self._seeds()
            for u in dataset.utterances
        ]

    def check_training(self, train: Dataset, test: Dataset) -> None:
        """Refuse training data without texts, with audio of the test, or too small for the units."""
        super().check_training(train, test)
        self._units(train)

    # -- rows ----------------------------------------------------------------------------------------------------

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of "items" (utterances), "probes" (the trained reader) and "curves" (its training)."""
        from tokbench.probes.reading import lessons, read

        seed = items[0].seed
        assert seed is not None
        utterances = [item.utterances["utterance"] for item in items]
        tokens = [one for k in range(0, len(utterances), _SLICE) for one in bench.encode(utterances[k : k + _SLICE])]
        try:
            probe = _Probe.trained(self, bench, seed)
        except ItemError as error:
            return Shard({"items": [failed_row(item, error) for item in items]})
        good = [(item, one) for item, one in zip(items, tokens, strict=True) if isinstance(one, Encoded)]
        asked = lessons(
            probe.clock, probe.units, [one.streams for _, one in good],
            [str(item.utterances["utterance"].text) for item, _ in good],
        )  # fmt: skip
        beam = int(self.params.get("beam", 16))
        heard = read(probe.model, asked, probe.units, beam=beam, device=bench.device)
        found = {item.id: pair for (item, _), pair in zip(good, zip(asked, heard, strict=True), strict=True)}
        rows = [
            self._row(item, *found[item.id], probe) if item.id in found else failed_row(item, _error(one))
            for item, one in zip(items, tokens, strict=True)
        ]
        return Shard({"items": rows, "probes": [probe.row], "curves": curve_rows("asr_probe", seed, probe.payload)})

    def _row(self, item: Item, asked: Lesson, heard: Heard, probe: _Probe) -> Row:
        utterance = item.utterances["utterance"]
        text = str(utterance.text)
        row = Components(
            {"id": item.id, "speaker": item.cluster, "seed": item.seed, "utterance": utterance.id, "text": text,
             "transcript": heard.beam, "transcript_greedy": heard.greedy, "error": None, "stage": None,
             "speaker_seen": utterance.speaker in probe.speakers, "text_seen": spoken(text) in probe.texts,
             "infeasible": float(not asked.feasible), "utterances": 1.0}
        )  # fmt: skip
        for way, said in (("greedy", heard.greedy), ("beam", heard.beam)):
            label = f"{_kind(probe.clock.streams)}:{way}"
            for function, name in ((word_errors, "probe_wer"), (character_errors, "probe_cer")):
                made = function(text, said, normaliser=self._normaliser)
                row.add((metric(name),), lambda made=made: made, judge=label)  # type: ignore[misc]
        return row.row

    # -- numbers -------------------------------------------------------------------------------------------------

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Errors over the rows of all seeds, drawn by speaker; the spread over seeds stands in the note."""
        rows = tables["items"]
        good = rows[rows["error"].isna()]
        if not len(good):
            return []
        kind = _kind(self._clock(card).streams)
        names = [f"{name}[{kind}:{way}]" for name in ("probe_wer", "probe_cer") for way in _WAYS]
        made = []
        for name in (*names, "probe_infeasible"):
            one = estimate(metric(name), good, draws=draws, seed=self.seed)
            one.note = self._note(name, good, tables["probes"])
            one.headline = name.partition("[")[0] in self.task.headline
            made.append(one)
        return made

    def _note(self, name: str, rows: pd.DataFrame, probes: pd.DataFrame) -> str:
        definition = metric(name)
        by_seed = [
            definition.scale * definition.value({c: part[c].to_numpy(np.float64) for c in definition.components})
            for _, part in rows.groupby("seed")
        ]
        first = rows[rows["seed"] == rows["seed"].min()]
        spread = f"by seed {', '.join(f'{v:.1f}' for v in by_seed)} {definition.unit}"
        if len(by_seed) > 1:
            spread += f" (standard deviation {np.std(by_seed, ddof=1):.1f})"
        return (
            f"{spread}; {int(first['speaker_seen'].sum())} of {len(first)} utterances by voices of the training data, "
            f"{int(first['text_seen'].sum())} with its texts; trained on {int(probes['taught'].iloc[0])} utterances of "
            f"{self.params.get('train')}, {int(probes['left_out'].iloc[0])} left out; "
            f"{int(probes['parameters'].iloc[0])} parameters"
        )

    # -- parameters ----------------------------------------------------------------------------------------------

    def _seeds(self) -> range:
        return range(self.seed, self.seed + int(self.params.get("seeds", 3)))

    @property
    def _normaliser(self) -> str:
        return str(self.params.get("normaliser", "whisper-english"))

    def _clock(self, card: TokenizerCard) -> Clock:
        return Clock.of(card.stream_specs, Fraction(str(self.params.get("head_rate", 25))), name=card.name)

    def _shape(self) -> Shape:
        from tokbench.probes.reader import Shape

        given = self.params.get("reader", {})
        try:
            return Shape(**given)
        except TypeError as error:
            raise UserError(str(error).partition("() ")[2], where=f"{self.task.name}: reader") from None

    def _recipe(self, seed: int) -> Recipe:
        return Recipe.of(self.params.get("recipe"), where=f"{self.task.name}: recipe", seed=seed)

    def _units(self, train: Dataset) -> Units:
        return Units.fit(map(spoken, _texts(train)), int(self.params.get("units", 300)), where=train.name)


class _Probe:
    """A trained reader, with what it was trained on."""

    def __init__(self, model: Reader, clock: Clock, units: Units, payload: Payload, train: Dataset, seed: int) -> None:
        self.model = model
        self.clock = clock
        self.units = units
        self.payload = payload
        self.speakers = set(train.speakers)
        self.texts = {spoken(text) for text in _texts(train)}
        facts = payload.record["facts"]
        self.row: Row = {
            "seed": seed,
            "taught": payload.record["taught"],
            "left_out": len(train) - payload.record["taught"],
            "infeasible": payload.record["infeasible"],
            "units": units.size,
            "units_sha256": units.sha256,
            "frame_rate": float(clock.frame_rate),
            "parameters": facts["parameters"],
            "steps": facts["steps"],
            "tokens": facts["tokens"],
        }

    @classmethod
    def trained(cls, protocol: AsrProbe, bench: Bench, seed: int) -> _Probe:
        """The reader of a seed, from the store or trained now.

        Raises:
            TrainingError: a training utterance has no tokens, nothing can be learnt, or the loss is not finite.
        """
        from tokbench.probes.reading import latent_statistics, lessons, make_reader, train_reader

        assert bench.training.data is not None
        train, card = bench.training.data, bench.tokenizer.card
        tokens = _whole(bench.training.tokens(seed=seed), train.utterances)
        texts = _texts(train)
        units, clock, shape, recipe = (
            protocol._units(train),
            protocol._clock(card),
            protocol._shape(),
            protocol._recipe(seed),
        )
        books = _codebooks(bench, clock) if protocol.params.get("init", "learned") == "codebook" else {}
        label = f"{card.name}: reader, seed {seed}"
        latents = latent_statistics(clock, [one.streams for one in tokens])
        model = make_reader(clock, shape, units, recipe, name=card.name, latents=latents, codebooks=books)

        def run(checkpoint: Checkpoint, log: Log | None) -> Payload:
            taught = lessons(clock, units, [one.streams for one in tokens], texts)
            fitted = train_reader(
                model, taught, recipe, where=label, units=units, device=bench.device, checkpoint=checkpoint, log=log
            )
            made = fitted.payload()
            counts = {
                "taught": sum(bool(one.labels) and one.feasible for one in taught),
                "infeasible": sum(not one.feasible for one in taught),
            }
            return Payload(made.arrays, made.record | counts)

        payload = bench.training.fit(
            {
                "tokens": _tokens_sha256(tokens, clock),
                "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
                "units": units.sha256,
                "clock": [[s.name, s.kind, str(s.rate_hz), s.vocab, s.dim] for s in clock.streams],
                "head_rate": str(protocol.params.get("head_rate", 25)),
                "shape": canonical_json(vars(shape)),
                "codebooks": {name: hashlib.sha256(book.tobytes()).hexdigest() for name, book in books.items()},
                "recipe": recipe.identity(),
                "code": modules_hash(_WEIGHTS),
            },
            label,
            run,
        )
        load_weights(model, payload)
        return cls(model.to(bench.device), clock, units, payload, train, seed)


def _texts(dataset: Dataset) -> list[str]:
    """The transcript of every utterance.

    Raises:
        DatasetError: one has none.
    """
    for utterance in dataset.utterances:
        if utterance.text is None:
            raise DatasetError(
                f"utterance {utterance.id} has no text, which this task needs",
                where=dataset.name,
                hint="Give transcripts, or another dataset",
            )
    return [str(utterance.text) for utterance in dataset.utterances]


def _whole(tokens: Sequence[Encoded | ItemError], utterances: Sequence[Utterance]) -> list[Encoded]:
    """The tokens, if every utterance has them: probes that learnt from different utterances cannot be compared."""
    failed = [(u.id, one) for u, one in zip(utterances, tokens, strict=True) if isinstance(one, ItemError)]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(tokens)} training utterances have no tokens, the first is {failed[0][0]}: "
            f"{failed[0][1]}"
        )
    return [one for one in tokens if isinstance(one, Encoded)]


def _error(one: Encoded | ItemError) -> ItemError:
    assert isinstance(one, ItemError)
    return one


def _kind(streams: Sequence[Any]) -> str:
    """What the reader sees: "codes", "latents", or "codes+latents"; the three never share a column."""
    kinds = {stream.kind for stream in streams}
    return "+".join(word for kind, word in (("codes", "codes"), ("latent", "latents")) if kind in kinds)


def _codebooks(bench: Bench, clock: Clock) -> dict[str, Any]:
    if bench.tokenizer.replay is not None or "codebook" not in bench.tokenizer.card.capabilities:
        raise NotApplicable(f"{bench.tokenizer.card.name} does not show its codebook; use init=learned")
    return {s.name: np.ascontiguousarray(bench.codebook(s.name)) for s in clock.streams if s.kind == "codes"}


def _tokens_sha256(tokens: Sequence[Encoded], clock: Clock) -> str:
    digest = hashlib.sha256()
    for one in tokens:
        for stream in clock.streams:
            values = np.ascontiguousarray(one.streams[stream.name])
            digest.update(f"{stream.name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
