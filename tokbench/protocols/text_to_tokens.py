"""Text to tokens: can a model that reads a text write the tokens of its speech?

A small transformer is trained from scratch on pairs of text and tokens: the text is a prompt and not predicted, the ids
of a frame are written one after the other, each among those of its slot, and a tokenizer's global vector stands before
the text. It is asked what the tokens of held-out utterances cost under their own text and under another one; and where
the tokenizer decodes, it speaks, and judges listen to that, to the original, and to the original after the tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset
from tokbench.errors import CardError, ItemError, TrainingError
from tokbench.metrics import text_to_speech
from tokbench.probes.characters import Characters, plain
from tokbench.probes.documents import Document, written
from tokbench.probes.layout import Layout
from tokbench.probes.spans import Spans
from tokbench.probes.teaching import Course, decoder_config
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, failed_row
from tokbench.protocols.probing import (
    PROBE_MODULES,
    Plan,
    encode_in_slices,
    evenly,
    layout_of,
    other_texts,
    over_seeds,
    taught,
    text_of,
    with_references,
)
from tokbench.protocols.spoken import Speech, speech_metrics, speech_rows
from tokbench.training.curves import curve_rows
from tokbench.training.loop import LOOP_MODULES
from tokbench.training.recipe import Recipe
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.probes.token_model import TokenModel
    from tokbench.results import Estimate

__all__ = ["TextToTokens"]

_TEACHER_FORCED = tuple(m for m in text_to_speech.METRICS if m.name in ("tts_information_gain", "tts_bps"))
_BITS = 1 / math.log(2)


class TextToTokens(Protocol):
    """Train on text and tokens, compare texts, and speak."""

    trains: ClassVar[bool] = True
    code_modules: ClassVar[tuple[str, ...]] = (
        *PROBE_MODULES, *BENCH_MODULES, "tokbench.metrics.mos", "tokbench.metrics.speaker",
        "tokbench.metrics.text_to_speech", "tokbench.metrics.wer", "tokbench.probes.characters",
        "tokbench.probes.sampling", "tokbench.protocols.base", "tokbench.protocols.probing",
        "tokbench.protocols.spoken", *LOOP_MODULES,
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.bootstrap", "tokbench.metrics.base", "tokbench.metrics.mos", "tokbench.metrics.text_to_speech",
        "tokbench.protocols.probing", "tokbench.protocols.spoken", "tokbench.stats",
    )  # fmt: skip

    def __init__(self, task: TaskCard, judges: Mapping[str, JudgeCard], params: Mapping[str, Any], seed: int) -> None:
        super().__init__(task, judges, params, seed)
        self.seeds = int(self.params.get("seeds", 3))
        if self.seeds < 1:
            raise CardError("at least one seed is needed", where=f"task {task.name}: seeds")

    # -- what is measured ----------------------------------------------------------------------------------------

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where the tokens are continuous, or too many for the budget."""
        super().check(card)
        self._layout(card, text=0)

    def limitation(self, card: TokenizerCard) -> str | None:
        """Without a decoder there is nothing to listen to."""
        return None if "decode" in card.capabilities else "encode-only: the probe's speech cannot be heard"

    def items(self, dataset: Dataset) -> list[Item]:
        """Every utterance once a seed, with another one of its speaker (itself where there is no other)."""
        return with_references(dataset, range(self.seed, self.seed + self.seeds))

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of tables "items" (teacher forced), "generated" and "floors" (speech) and "curves" of one seed.

        The clips are of generated utterances, chosen evenly, and not of `keep`.
        """
        seed = items[0].seed
        assert seed is not None
        card = bench.tokenizer.card
        shard = Shard({"items": [], "generated": [], "curves": []})
        if seed == self.seed:  # the same for every seed
            shard.tables["floors"] = []
        try:
            reader, course, seen = self._course(bench, seed)
            label = f"{card.name} · {self.task.name} · {seed}"
            model, trained = taught(bench, course, self._plan(seed), label=label)
        except TrainingError as error:
            shard.tables["items"] = [failed_row(item, error) for item in items]
            return shard
        shard.tables["curves"] = curve_rows(self.task.name, seed, trained)
        encoded = encode_in_slices(bench, [item.utterances["utterance"] for item in items])
        shard.tables["items"] = self._gains(bench, model, reader, items, encoded)
        if "decode" in card.capabilities and bench.tokenizer.replay is None:
            able = [
                (i, t) for i, t in zip(items, encoded, strict=True) if isinstance(t, Encoded) and text_of(i) is not None
            ]
            chosen = [able[k] for k in evenly(int(self.params.get("utterances", 4)), len(able))]
            spans = Spans.of(course.layout, card.stream_specs, [*seen, *(t for _, t in able)], card.input_rate)
            if chosen:
                self._speak(bench, model, reader, spans, chosen, seed, shard)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Information gain over all utterances and seeds, and metrics of the speech over those that were spoken."""
        how = self._layout(card, text=0).describe()
        made = [
            over_seeds(m, tables["items"], draws=draws, seed=self.seed, note=how)
            for m in _TEACHER_FORCED
            if m.components[0] in tables["items"].columns
        ]
        for name in ("generated", "floors"):
            rows = tables.get(name)
            if rows is not None and len(rows):
                made += [
                    over_seeds(m, rows, draws=draws, seed=self.seed, table=name)
                    for m in speech_metrics(self.judges)
                    if all(component in rows.columns for component in m.components)
                ]
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
        return made

    # -- training ------------------------------------------------------------------------------------------------

    def _layout(self, card: TokenizerCard, *, text: int) -> Layout:
        return layout_of(card, most_steps=float(self.params.get("most_steps", 200)), text=text)

    def _plan(self, seed: int) -> Plan:
        where = f"task {self.task.name}"
        config = decoder_config(self.params.get("model", {}), where=f"{where}: model")
        recipe = Recipe.of(self.params.get("recipe", {}), where=f"{where}: recipe", seed=seed)
        return Plan(config, recipe, float(self.params.get("row_seconds", 20)))

    def _course(self, bench: Bench, seed: int) -> tuple[_Reader, Course, list[Encoded]]:
        """Documents of all training utterances that have a text and are not longer than `longest_seconds`."""
        card = bench.tokenizer.card
        assert bench.training.data is not None  # `train_spec` has seen to it
        utterances = bench.training.data.utterances
        alphabet = Characters.of(u.text for u in utterances if u.text)
        if not alphabet.letters:
            raise TrainingError(
                "no utterance of the training data has a text", where=bench.training.data.name,
                hint="Name data with transcripts: --set train=DATA",
            )  # fmt: skip
        layout = self._layout(card, text=alphabet.size)
        longest = float(self.params.get("longest_seconds", 20))
        used, seen = [], []
        for utterance, tokens in zip(utterances, bench.training.tokens(seed=seed), strict=True):
            if isinstance(tokens, ItemError):
                continue
            seen.append(tokens)
            audio = tokens.n_samples / card.input_rate
            if not utterance.text or not plain(utterance.text) or audio > longest:
                continue
            used.append((utterance, tokens, audio))
        symbols = sum(len(alphabet(u.text or "")) for u, _, _ in used)
        pace = sum(audio for _, _, audio in used) * layout.steps_per_second / max(1, symbols)
        reader = _Reader(layout, alphabet, pace, card)
        documents = [reader(u.text or "", tokens, u.id) for u, tokens, _ in used]
        voice = sum(g.dim for g in card.globals)
        return reader, Course(layout, documents, [audio for _, _, audio in used], voice=voice), seen

    # -- teacher forced ------------------------------------------------------------------------------------------

    def _gains(
        self,
        bench: Bench,
        model: TokenModel,
        reader: _Reader,
        items: Sequence[Item],
        encoded: Sequence[Encoded | ItemError],
    ) -> list[Row]:
        from tokbench.probes.token_model import score

        seed = items[0].seed
        texts = other_texts([text_of(item) for item in items], seed=seed or 0)
        rows: list[Row] = []
        documents: list[Document] = []
        asked: list[tuple[Components, int, float]] = []
        for item, tokens, other in zip(items, encoded, texts, strict=True):
            if isinstance(tokens, ItemError):
                rows.append(failed_row(item, tokens))
                continue
            row = Components(
                {
                    "id": item.id, "speaker": item.cluster, "seed": seed, "error": None, "stage": None,
                    "text": text_of(item), "other_text": other,
                }
            )  # fmt: skip
            rows.append(row.row)
            own = text_of(item)
            if own is None or other is None:
                row.missing(_TEACHER_FORCED, "the utterance has no text" if own is None else "there is no other text")
                continue
            documents += [reader(text, tokens, item.id) for text in (own, other)]
            asked.append((row, len(own.split()), tokens.n_samples / reader.card.input_rate))
        longest = max(map(len, documents), default=1)
        made = score(model, documents, steps=longest, device=bench.device)
        bits = (made.codes.sum(axis=1) + made.end) * _BITS
        for k, (row, words, seconds) in enumerate(asked):
            true, shuffled = float(bits[2 * k]), float(bits[2 * k + 1])
            row.add(
                _TEACHER_FORCED,
                lambda t=true, s=shuffled, w=words, sec=seconds: {  # type: ignore[misc]
                    "tts_bits": t, "tts_bits_other_text": s, "tts_gain_bits": s - t, "tts_words": float(w),
                    "tts_seconds": sec,
                },
            )  # fmt: skip
        return rows

    # -- speech --------------------------------------------------------------------------------------------------

    def _speak(
        self,
        bench: Bench,
        model: TokenModel,
        reader: _Reader,
        spans: Spans,
        chosen: Sequence[tuple[Item, Encoded]],
        seed: int,
        shard: Shard,
    ) -> None:
        from tokbench.probes.sampling import Sampling, write

        layout = model.layout
        references = bench.encode([item.utterances["reference"] for item, _ in chosen])
        voices = [
            voice if isinstance(voice, Encoded) else own for voice, (_, own) in zip(references, chosen, strict=True)
        ]
        nothing = np.zeros((0, len(layout.slots)), np.int64)
        prompts = [
            reader(text_of(item) or "", voice, item.id, spoken=False)
            for (item, _), voice in zip(chosen, voices, strict=True)
        ]
        most = [max(1, 2 * int(layout.lengths(layout.frames(t.streams)).sum())) for _, t in chosen]
        sampling = Sampling(float(self.params.get("temperature", 1.0)), float(self.params.get("top_p", 0.9)), seed=seed)
        made = write(model, prompts, [nothing] * len(prompts), most=most, sampling=sampling, device=bench.device)
        tokens = [
            spans.encoded(one.frames, voice.globals) or ItemError("the speech is shorter than a packet")
            for one, voice in zip(made, voices, strict=True)
        ]
        utterances = [item.utterances["utterance"] for item, _ in chosen]
        speech = Speech(
            generated=bench.decode(tokens),
            resynthesised=bench.decode([t for _, t in chosen]),
            originals=bench.clips(utterances),
            references=bench.clips([item.utterances["reference"] for item, _ in chosen]),
            ended=[one.ended for one in made],
        )
        listened = math.ceil(self.task.samples / self.seeds)
        normaliser = str(self.params.get("normaliser", "whisper-english"))
        speech_rows(bench, self.judges, [item for item, _ in chosen], speech, shard, listened, normaliser)


@dataclass(frozen=True)
class _Reader:
    """Makes documents of texts and tokens; `pace` is the mean number of steps that a symbol lasts."""

    layout: Layout
    alphabet: Characters
    pace: float
    card: TokenizerCard

    def __call__(self, text: str, tokens: Encoded, name: str, *, spoken: bool = True) -> Document:
        frames = self.layout.frames(tokens.streams)
        voice = [tokens.globals[g.name] for g in self.card.globals]
        return written(
            self.layout, self.alphabet(text), frames if spoken else frames[:0], steps_per_symbol=self.pace,
            voice=np.concatenate(voice).astype(np.float32) if voice else None, name=name,
        )  # fmt: skip
