"""Reconstruction: what survives the way into tokens and back, and what it costs in bits.

Original and decoded audio are brought to 16 kHz by one resampler; no alignment, no loudness change. Each judge hears
both whole. Intrusive metrics compare the waves, cut to the shorter; the rest compares the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokbench.audio import to_flac
from tokbench.bench import BENCH_MODULES, Bench
from tokbench.clip import Clip
from tokbench.config import TokenizerCard
from tokbench.errors import ItemError
from tokbench.judges.base import Evidence
from tokbench.metrics import duration, intelligibility, mos, pesq, pitch, speaker, spectral, wer
from tokbench.metrics.align import cut_to_shorter
from tokbench.metrics.base import Metric
from tokbench.metrics.tokens import token_estimates, token_rows
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, Take, failed_row, stable
from tokbench.stats import estimate
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.results import Estimate

__all__ = ["JUDGED", "METRIC_RATE", "Reconstruction"]

METRIC_RATE = 16000
"""Rate in Hz at which waves are compared; PESQ wide band and STOI are defined there."""


class Reconstruction(Protocol):
    """Encode, decode, judge, compare; and account for the tokens."""

    optional_params: ClassVar[frozenset[str]] = frozenset({"waveform_tokens"})
    code_modules: ClassVar[tuple[str, ...]] = (
        *BENCH_MODULES,
        "tokbench.protocols.base",
        "tokbench.metrics.duration",
        "tokbench.metrics.intelligibility",
        "tokbench.metrics.mos",
        "tokbench.metrics.pesq",
        "tokbench.metrics.pitch",
        "tokbench.metrics.speaker",
        "tokbench.metrics.bitrate",
        "tokbench.metrics.spectral",
        "tokbench.metrics.token_components",
        "tokbench.metrics.tokens",
        "tokbench.metrics.wer",
    )
    estimate_modules: ClassVar[tuple[str, ...]] = (
        *code_modules, "tokbench.stats", "tokbench.bootstrap", "tokbench.metrics.base", "tokbench.metrics.coder",
        "tokbench.metrics.token_metrics",
    )  # fmt: skip

    def limitation(self, card: TokenizerCard) -> str | None:
        """An encode-only tokenizer has token statistics and nothing to listen to."""
        return None if "decode" in card.capabilities else "encode-only: metrics of audio do not apply"

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:
        """Rows of table "items" (audio) and "tokens" (bit rate)."""
        utterances = [item.utterances["utterance"] for item in items]
        shard = Shard()
        originals = bench.clips(utterances)
        encoded, decoded = bench.reconstruct(utterances)
        if encoded is not None and self._counts_tokens(bench.tokenizer.card):
            shard.tables["tokens"] = self._token_rows(bench, items, encoded)
        if decoded is None:
            shard.tables["items"] = [
                failed_row(item, tokens) if isinstance(tokens, ItemError) else {"id": item.id, "speaker": item.cluster}
                for item, tokens in zip(items, encoded or [], strict=True)
            ]
            return shard
        card = bench.tokenizer.card
        nothing: list[Encoded | ItemError | None] = [None] * len(items)
        pairs = [
            _pair(original, copy, tokens, card)
            for original, copy, tokens in zip(originals, decoded, encoded or nothing, strict=True)
        ]
        references = [pair if isinstance(pair, ItemError) else pair[0] for pair in pairs]
        copies = [pair if isinstance(pair, ItemError) else pair[1] for pair in pairs]
        evidence = {name: (bench.judge(name, references), bench.judge(name, copies)) for name in self.judges}
        rows = shard.tables["items"] = []
        for index, (item, pair) in enumerate(zip(items, pairs, strict=True)):
            heard: dict[str, tuple[Evidence, Evidence]] = {}
            error = pair if isinstance(pair, ItemError) else None
            for name, (before, after) in evidence.items():
                one, two = before[index], after[index]
                if isinstance(one, ItemError) or isinstance(two, ItemError):
                    error = error or (one if isinstance(one, ItemError) else two)  # type: ignore[assignment]
                else:
                    heard[name] = (one, two)
            if error is not None or isinstance(pair, ItemError):
                rows.append(failed_row(item, error or pair))  # type: ignore[arg-type]
                continue
            rows.append(self._measure_pair(item, *pair, heard))
            if item.id in keep:
                shard.takes += self._takes(item, pair[0], pair[1], rows[-1])
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:
        """Audio metrics over table "items", token statistics over table "tokens"."""
        made: list[Estimate] = []
        items = tables["items"]
        if "decode" in card.capabilities:
            made = [
                estimate(metric, items, draws=draws, seed=self.seed)
                for metric in self.metrics()
                if any(component in items.columns for component in metric.components)
            ]
        tokens = tables.get("tokens")
        if tokens is not None and len(tokens):
            made += token_estimates(tokens, card, draws=draws, seed=self.seed)
        headline = set(self.task.headline)
        for one in made:
            one.headline = one.metric in headline or one.metric.partition("[")[0] in headline
        return made

    def metrics(self) -> list[Metric]:
        """The metrics of table "items", in print order."""
        chosen: list[Metric] = []
        for name in self.judge_of("asr"):
            chosen += [metric.of(name) for metric in wer.METRICS]
        for name in self.judge_of("speaker"):
            chosen += [metric.of(name) for metric in speaker.METRICS]
        chosen += [*intelligibility.METRICS, *pesq.METRICS, *spectral.METRICS]
        for name in self.judge_of("pitch"):
            chosen += [metric.of(name) for metric in pitch.METRICS]
        for name in self.judge_of("mos"):
            chosen += [metric.of(name) for metric in mos.METRICS]
        return [*chosen, *duration.METRICS]

    def _measure_pair(
        self, item: Item, reference: Clip, copy: Clip, heard: Mapping[str, tuple[Evidence, Evidence]]
    ) -> Row:
        text = item.utterances["utterance"].text
        row = Components({"id": item.id, "speaker": item.cluster, "text": text, "error": None, "stage": None})
        before, after = cut_to_shorter(reference.wave, copy.wave)
        row.add(duration.METRICS, lambda: duration.duration(len(reference.wave), len(copy.wave)))
        row.add(_named(intelligibility, "stoi"), lambda: intelligibility.stoi(before, after, rate=METRIC_RATE))
        row.add(_named(intelligibility, "estoi"), lambda: intelligibility.estoi(before, after, rate=METRIC_RATE))
        row.add(_named(pesq, "pesq_wb"), lambda: pesq.pesq_wb(before, after))
        row.add(_named(pesq, "pesq_nb"), lambda: pesq.pesq_nb(before, after))
        for metric in spectral.METRICS:
            function = getattr(spectral, metric.name)
            row.add((metric,), partial(function, before, after))
        for name, (original, decoded) in heard.items():
            JUDGED[self.judges[name].kind](row, name, original, decoded, text, self.normaliser)
        return row.row

    def _counts_tokens(self, card: TokenizerCard) -> bool:
        """Samples as tokens are sixteen thousand a second: on a large corpus their rows are not worth their room."""
        return bool(self.params.get("waveform_tokens", True)) or all(s.role != "waveform" for s in card.streams)

    @property
    def normaliser(self) -> str:
        """Name of the text normaliser, applied to both sides."""
        return str(self.params.get("normaliser", "whisper-english"))

    def _token_rows(self, bench: Bench, items: Sequence[Item], encoded: Sequence[Encoded | ItemError]) -> list[Row]:
        card = bench.tokenizer.card
        good = [(item, tokens) for item, tokens in zip(items, encoded, strict=True) if isinstance(tokens, Encoded)]
        posteriors = None
        latents = [stream.name for stream in card.streams if stream.kind == "latent"]
        # A variational tokenizer here has one latent; its posterior gives the KL rate.
        if bench.tokenizer.replay is None and "posterior" in card.capabilities and len(latents) == 1:
            found = bench.posteriors([item.utterances["utterance"] for item, _ in good])
            shown = [(pair, one) for pair, one in zip(good, found, strict=True) if not isinstance(one, ItemError)]
            good = [pair for pair, _ in shown]
            posteriors = [{latents[0]: one} for _, one in shown]
        return token_rows(
            [item.id for item, _ in good],
            [item.cluster for item, _ in good],
            [tokens for _, tokens in good],
            card.input_rate,
            posteriors=posteriors,
            bits_per_dim={entry.name: entry.bits_per_dim for entry in card.globals},
        )

    def _takes(self, item: Item, reference: Clip, copy: Clip, row: Row) -> list[Take]:
        asr = next(iter(self.judge_of("asr")), None)
        return [
            Take(item.id, kind, to_flac(clip.wave, clip.rate), row["text"], row.get(f"{column}[{asr}]"))
            for kind, clip, column in (
                ("original", reference, "transcript_original"),
                ("decoded", copy, "transcript"),
            )
        ]


def _pair(
    original: Clip | ItemError, decoded: Clip | ItemError, tokens: Encoded | ItemError | None, card: TokenizerCard
) -> tuple[Clip, Clip] | ItemError:
    """Original and copy at the metric rate, each whole; what the tokenizer padded beyond the utterance is cut off."""
    if isinstance(original, ItemError):
        return original
    if isinstance(tokens, ItemError):
        return tokens
    if isinstance(decoded, ItemError):
        return decoded
    if tokens is not None:
        wanted = round(tokens.n_samples * decoded.rate / card.input_rate)
        decoded = Clip(decoded.wave[:wanted], decoded.rate)
    if decoded.wave.size == 0:
        return ItemError("the decoded audio has no samples")
    return original.at(METRIC_RATE), decoded.at(METRIC_RATE)


def _named(module: ModuleType, name: str) -> tuple[Metric, ...]:
    return tuple(metric for metric in module.METRICS if metric.name == name)


def _recognised(
    row: Components, judge: str, original: Evidence, decoded: Evidence, text: str | None, normaliser: str
) -> None:
    before, after = str(original["text"]), str(decoded["text"])
    row.row |= {f"transcript_original[{judge}]": before, f"transcript[{judge}]": after}
    for suffix, truth in (("", text), ("_vs_original", before)):
        metrics = [metric.of(judge) for metric in wer.METRICS if metric.name in (f"wer{suffix}", f"cer{suffix}")]
        if truth is None:
            row.missing(metrics, "the utterance has no text")
            continue
        for metric, function in zip(metrics, (wer.word_errors, wer.character_errors), strict=True):
            base = metric.name.partition("[")[0]
            row.add((metric,), partial(function, truth, after, normaliser=normaliser, name=base), judge=judge)


def _voices(
    row: Components, judge: str, original: Evidence, decoded: Evidence, _text: str | None, _normaliser: str
) -> None:
    metrics = [metric.of(judge) for metric in speaker.METRICS if metric.name == "speaker_similarity"]
    pair = (np.asarray(original["embedding"]), np.asarray(decoded["embedding"]))
    row.add(metrics, lambda: speaker.speaker_similarity(*pair), judge=judge)


def _pitches(
    row: Components, judge: str, original: Evidence, decoded: Evidence, _text: str | None, _normaliser: str
) -> None:
    tracks = (np.asarray(original["f0"], np.float64), np.asarray(decoded["f0"], np.float64))
    for metric in pitch.METRICS:
        row.add((metric.of(judge),), partial(getattr(pitch, metric.name), *tracks), judge=judge)


def _opinions(
    row: Components, judge: str, original: Evidence, decoded: Evidence, _text: str | None, _normaliser: str
) -> None:
    for kind, scores in (("", decoded), ("_original", original)):
        plain = {name: float(value) for name, value in scores.items() if not isinstance(value, str)}
        metrics = [m.of(judge) for m in mos.METRICS if m.name in {mos.EVIDENCE.get(name) for name in plain}]
        if kind:  # what the judge says of the original is told beside, and is no metric of the tokenizer
            row.row |= {f"{mos.EVIDENCE[name]}{kind}[{judge}]": stable(value) for name, value in plain.items()}
        else:
            row.add(metrics, partial(mos.opinion_scores, plain), judge=judge)


JUDGED = {"asr": _recognised, "speaker": _voices, "pitch": _pitches, "mos": _opinions}
"""Kind of judge -> what adds its metrics to a row, from the evidence on the original and on the decoded audio."""
