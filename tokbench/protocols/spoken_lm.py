"""Spoken language model: how predictable are the tokens, and does what predicts them know words?

A small transformer is trained from scratch on the tokens of the training data, with the same utterances, seconds a
step, steps, size and context in seconds for every tokenizer, once a seed. It is then asked what held-out utterances
cost; or, on data that comes in pairs, which recording is the right one. Where the tokenizer decodes, prompts are
continued.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.audio import to_flac
from tokbench.bench import BENCH_MODULES, Bench
from tokbench.clip import Clip
from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import CardError, DatasetError, ItemError, TrainingError
from tokbench.metrics import language_model
from tokbench.metrics.wer import normalise
from tokbench.probes.documents import opening, pieces
from tokbench.probes.layout import Layout
from tokbench.probes.spans import Spans
from tokbench.probes.teaching import Course, decoder_config
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, Take, failed_row
from tokbench.protocols.probing import PROBE_MODULES, Plan, encode_in_slices, evenly, layout_of, over_seeds, taught
from tokbench.training.curves import curve_rows
from tokbench.training.loop import LOOP_MODULES
from tokbench.training.recipe import Recipe
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.probes.token_model import TokenModel
    from tokbench.results import Estimate

__all__ = ["SpokenLanguageModel"]

_COSTS = tuple(m for m in language_model.METRICS if m.name.startswith("lm_"))
_PAIRS = tuple(m for m in language_model.METRICS if m.name.startswith(("swuggy", "sblimp", "storycloze")))
_BITS = 1 / math.log(2)


class SpokenLanguageModel(Protocol):
    """Train on tokens, score held-out tokens or pairs, continue prompts."""

    trains: ClassVar[bool] = True
    optional_params: ClassVar[frozenset[str]] = frozenset({"longest_run_seconds"})
    code_modules: ClassVar[tuple[str, ...]] = (
        *PROBE_MODULES, *BENCH_MODULES, "tokbench.metrics.language_model", "tokbench.metrics.wer",
        "tokbench.probes.sampling", "tokbench.protocols.base", "tokbench.protocols.probing", *LOOP_MODULES,
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.metrics.base", "tokbench.metrics.language_model", "tokbench.protocols.probing", "tokbench.stats",
        "tokbench.bootstrap",
    )  # fmt: skip

    def __init__(self, task: TaskCard, judges: Mapping[str, JudgeCard], params: Mapping[str, Any], seed: int) -> None:
        super().__init__(task, judges, params, seed)
        self.seeds = int(self.params.get("seeds", 3))
        if self.seeds < 1:
            raise CardError("at least one seed is needed", where=f"task {task.name}: seeds")
        self.context = float(self.params.get("context_seconds", 20))
        self.prompt = float(self.params.get("prompt_seconds", 2.4))

    # -- what is measured ----------------------------------------------------------------------------------------

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where the tokens are continuous, or too many for the budget."""
        super().check(card)
        self._layout(card)

    def limitation(self, card: TokenizerCard) -> str | None:
        """Without a decoder there is nothing to listen to."""
        return None if "decode" in card.capabilities else "encode-only: no continuations to listen to"

    def items(self, dataset: Dataset) -> list[Item]:
        """Every utterance, or every pair, once a seed."""
        single = [({"utterance": u}, u.id, u.speaker) for u in dataset.utterances]
        found = _pairs(dataset) or single
        return [
            Item(f"{name}~{seed}", utterances, cluster, seed=seed)
            for seed in range(self.seed, self.seed + self.seeds)
            for utterances, name, cluster in found
        ]

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of tables "items", "continuations" and "curves" of one seed.

        The clips are of continued utterances, which are chosen among those long enough, and not of `keep`.
        """
        seed = items[0].seed
        assert seed is not None
        card = bench.tokenizer.card
        layout = self._layout(card)
        shard = Shard({"items": [], "continuations": [], "curves": []})
        try:
            course, seen = self._course(bench, layout, seed)
            model, trained = taught(bench, course, self._plan(seed), label=f"{card.name} · {self.task.name} · {seed}")
        except TrainingError as error:
            shard.tables["items"] = [failed_row(item, error) for item in items]
            return shard
        shard.tables["curves"] = curve_rows(self.task.name, seed, trained)
        if "right" in items[0].utterances:
            shard.tables["items"] = self._pair_rows(bench, model, items)
            return shard
        encoded = encode_in_slices(bench, [item.utterances["utterance"] for item in items])
        shard.tables["items"] = [
            failed_row(item, tokens) if isinstance(tokens, ItemError) else self._cost_row(bench, model, item, tokens)
            for item, tokens in zip(items, encoded, strict=True)
        ]
        if "decode" in card.capabilities and bench.tokenizer.replay is None:
            good = [(i, t) for i, t in zip(items, encoded, strict=True) if isinstance(t, Encoded)]
            spans = Spans.of(layout, card.stream_specs, [*seen, *(t for _, t in good)], card.input_rate)
            self._continue(bench, model, spans, good, seed, shard)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Costs or pairs over all seeds, and auto-BLEU of the continuations."""
        rows = tables["items"]
        chosen = [m for m in (*_COSTS, *_PAIRS) if m.components[0] in rows.columns]
        how = self._layout(card).describe()
        made = [over_seeds(m, rows, draws=draws, seed=self.seed, note=how) for m in chosen]
        continuations = tables.get("continuations")
        if continuations is not None and len(continuations):
            for name in self.judge_of("asr"):
                metric = next(m for m in language_model.METRICS if m.name == "auto_bleu").of(name)
                if metric.components[0] in continuations.columns:
                    made.append(over_seeds(metric, continuations, draws=draws, seed=self.seed, table="continuations"))
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
        return made

    # -- training ------------------------------------------------------------------------------------------------

    def _layout(self, card: TokenizerCard) -> Layout:
        most = float(self.params.get("most_steps", 200))
        run = 0
        if self.params.get("dedup", False):
            # A fixed longest run in seconds, so that it means the same at every rate.
            plain = layout_of(card, most_steps=most)
            run = max(2, math.ceil(float(self.params.get("longest_run_seconds", 1.0)) * plain.frame_rate))
        return layout_of(card, most_steps=most, longest_run=run)

    def _plan(self, seed: int) -> Plan:
        where = f"task {self.task.name}"
        config = decoder_config(self.params.get("model", {}), where=f"{where}: model")
        recipe = Recipe.of(self.params.get("recipe", {}), where=f"{where}: recipe", seed=seed)
        return Plan(config, recipe, float(self.params.get("row_seconds", self.context)))

    def _frames(self, layout: Layout) -> int:
        """Frames of the context."""
        return max(1, int(Fraction(self.context).limit_denominator(1000) * layout.frame_rate))

    def _course(self, bench: Bench, layout: Layout, seed: int) -> tuple[Course, list[Encoded]]:
        documents, seconds, seen = [], [], []
        assert bench.training.data is not None  # `train_spec` has seen to it
        for utterance, tokens in zip(bench.training.data.utterances, bench.training.tokens(seed=seed), strict=True):
            if isinstance(tokens, ItemError):
                continue
            frames = layout.frames(tokens.streams)
            if not len(frames):
                continue
            seen.append(tokens)
            for document, piece in _cut(layout, frames, most=self._frames(layout), name=utterance.id):
                documents.append(document)
                seconds.append(piece)
        return Course(layout, documents, seconds), seen

    # -- scores --------------------------------------------------------------------------------------------------

    def _costs(self, bench: Bench, model: TokenModel, encoded: Sequence[Encoded]) -> list[dict[str, float]]:
        """What each utterance costs: bits of codes, of lengths of runs and of the end, and how many codes there are."""
        from tokbench.probes.token_model import score

        layout = model.layout
        cut = [pieces(layout, layout.frames(one.streams), most=self._frames(layout)) for one in encoded]
        longest = max((len(d) for part in cut for d in part), default=1)
        scores = score(model, [d for part in cut for d in part], steps=longest, device=bench.device)
        own = np.array([bool(slot.stream) for slot in layout.slots])
        made, at = [], 0
        for part in cut:
            of = slice(at, at := at + len(part))
            codes, runs = scores.codes[of][:, own].sum() * _BITS, scores.codes[of][:, ~own].sum() * _BITS
            made.append(
                {
                    "lm_code_bits": codes,
                    "lm_codes": scores.counts[of][:, own].sum(),
                    "lm_bits": codes + runs,
                    "lm_end_bits": scores.end[of].sum() * _BITS,
                }
                | ({"lm_duration_bits": runs} if layout.longest_run else {})
            )
        return made

    def _cost_row(self, bench: Bench, model: TokenModel, item: Item, tokens: Encoded) -> Row:
        row = Components({"id": item.id, "speaker": item.cluster, "seed": item.seed, "error": None, "stage": None})
        made = self._costs(bench, model, [tokens])[0]
        seconds = tokens.n_samples / bench.tokenizer.card.input_rate
        row.add(_COSTS, lambda: {**made, "lm_seconds": seconds})
        return row.row

    def _pair_rows(self, bench: Bench, model: TokenModel, items: Sequence[Item]) -> list[Row]:
        sides = {
            side: encode_in_slices(bench, [item.utterances[side] for item in items]) for side in ("right", "wrong")
        }
        voices: dict[str, int] = {}
        for item in items:
            voices[item.cluster] = voices.get(item.cluster, 0) + 1
        rows: list[Row] = []
        for item, right, wrong in zip(items, sides["right"], sides["wrong"], strict=True):
            error = right if isinstance(right, ItemError) else wrong if isinstance(wrong, ItemError) else None
            if error is not None or isinstance(right, ItemError) or isinstance(wrong, ItemError):
                assert error is not None
                rows.append(failed_row(item, error))
                continue
            costs = self._costs(bench, model, [right, wrong])
            about = item.utterances["right"].extra
            row = Components(
                {
                    "id": item.id, "speaker": item.cluster, "seed": item.seed, "error": None, "stage": None,
                    "voice": item.utterances["right"].speaker, "band": about.get("band"),
                }
            )  # fmt: skip
            for name in (about["set"], *(["swuggy_known"] if about["set"] == "swuggy" else [])):
                metrics = [m for m in _PAIRS if m.name in (name, f"{name}_normalised")]
                if name == "swuggy_known" and about.get("band") != "known":
                    row.missing(metrics, "the word does not occur in LibriSpeech")
                    continue
                row.add(
                    metrics,
                    lambda n=name, c=costs, item=item: language_model.pair_scores(  # type: ignore[misc]
                        n, -c[0]["lm_bits"], -c[1]["lm_bits"], right_length=c[0]["lm_codes"],
                        wrong_length=c[1]["lm_codes"], voices=voices[item.cluster],
                    ),
                )  # fmt: skip
            rows.append(row.row)
        return rows

    # -- continuations -------------------------------------------------------------------------------------------

    def _continue(
        self,
        bench: Bench,
        model: TokenModel,
        spans: Spans,
        good: Sequence[tuple[Item, Encoded]],
        seed: int,
        shard: Shard,
    ) -> None:
        """Continue the beginnings of some utterances; rows of table "continuations", and clips."""
        from tokbench.probes.sampling import Sampling, write

        rate = bench.tokenizer.card.input_rate
        able = [(i, t) for i, t in good if t.n_samples > (self.prompt + 0.1) * rate]
        chosen = [able[k] for k in evenly(int(self.params.get("continuations", 4)), len(able))]
        if not chosen:
            return
        layout = model.layout
        start = spans.frames(self.prompt)
        given = [_beginning(layout, layout.frames(tokens.streams), start) for _, tokens in chosen]
        most = [len(g) + spans.frames(float(self.params.get("continuation_seconds", 4))) for g in given]
        sampling = Sampling(
            float(self.params.get("temperature", 0.8)), float(self.params.get("top_p", 0.95)), seed=seed
        )
        prompts = [opening(layout, name=item.id) for item, _ in chosen]
        written = write(model, prompts, given, most=most, sampling=sampling, device=bench.device)
        tokens = [
            spans.encoded(made.frames, about.globals) or ItemError("the continuation is shorter than a packet")
            for made, (_, about) in zip(written, chosen, strict=True)
        ]
        clips = bench.decode(tokens)
        begin = float(start / layout.frame_rate)
        tails = [_after(clip, begin) for clip in clips]
        heard = {name: bench.judge(name, tails) for name in self.judge_of("asr")}
        listened = math.ceil(self.task.samples / self.seeds)
        for index, ((item, _), made, clip, tail) in enumerate(zip(chosen, written, clips, tails, strict=True)):
            row = Components({"id": item.id, "speaker": item.cluster, "seed": seed, "ended": made.ended})
            transcript = None
            for name, evidence in heard.items():
                said, metric = evidence[index], language_model.METRICS[-1].of(name)
                if isinstance(said, ItemError):
                    row.missing([metric], str(said))
                    continue
                transcript = str(said["text"])
                row.row[f"transcript[{name}]"] = transcript
                words = normalise(transcript, str(self.params.get("normaliser", "whisper-english"))).split()
                row.add([metric], lambda w=words: language_model.auto_bleu(w), judge=name)  # type: ignore[misc]
            shard.tables["continuations"].append(row.row)
            if index < listened and isinstance(clip, Clip) and isinstance(tail, Clip):
                head = clip.wave[: len(clip.wave) - len(tail.wave)]
                text = item.utterances["utterance"].text
                shard.takes.append(Take(item.id, "prompt", to_flac(head, clip.rate), text))
                shard.takes.append(Take(item.id, "continuation", to_flac(tail.wave, tail.rate), None, transcript))


def _cut(layout: Layout, frames: Any, *, most: int, name: str) -> list[tuple[Any, float]]:
    """Documents of an utterance with the seconds that each describes."""
    documents = pieces(layout, frames, most=most, name=name)
    total = int(layout.lengths(frames).sum())
    left = [min(most, total - k * most) for k in range(len(documents))]
    return [(document, float(n / layout.frame_rate)) for document, n in zip(documents, left, strict=True)]


def _beginning(layout: Layout, frames: Any, count: int) -> Any:
    """The first rows of `frames` that end within `count` frames of audio; at least one."""
    kept = int((np.cumsum(layout.lengths(frames)) <= count).sum())
    return frames[: max(1, kept)]


def _after(clip: Clip | ItemError, seconds: float) -> Clip | ItemError:
    if isinstance(clip, ItemError):
        return clip
    tail = clip.wave[round(seconds * clip.rate) :]
    if len(tail) < clip.rate // 100:
        return ItemError("the model ended the utterance with its prompt")
    return Clip(tail, clip.rate)


def _pairs(dataset: Dataset) -> list[tuple[dict[str, Utterance], str, str]]:
    """Right and wrong recordings, id and group of every pair; none where the data is no paired test.

    Raises:
        DatasetError: a recording without its partner (a limit cut through a pair).
    """
    pairs: dict[str, dict[str, Utterance]] = {}
    for utterance in dataset.utterances:
        if "pair" not in utterance.extra or utterance.extra.get("set") not in ("swuggy", "sblimp", "storycloze"):
            continue
        side = "right" if utterance.extra["right"] == "1" else "wrong"
        pairs.setdefault(utterance.extra["pair"], {})[side] = utterance
    whole = [(both, name, both["right"].extra["group"]) for name, both in pairs.items() if len(both) == 2]
    if pairs and not whole:
        raise DatasetError("has no whole pair", where=dataset.name)
    return whole
