"""Judging generated speech beside its original and the original's resynthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tokbench.audio import to_flac
from tokbench.bench import Bench
from tokbench.clip import Clip
from tokbench.config import JudgeCard
from tokbench.errors import ItemError, UndefinedMetric
from tokbench.judges.base import Evidence
from tokbench.metrics import mos, text_to_speech, wer
from tokbench.metrics.base import Metric
from tokbench.metrics.speaker import cosine
from tokbench.protocols.base import Components, Item, Shard, Take

__all__ = ["Speech", "speech_metrics", "speech_rows"]

Heard = Mapping[str, Evidence | ItemError]
_FACTS = ("tts_failures", "tts_duration_ratio")


@dataclass(frozen=True)
class Speech:
    """Clips of the same utterances.

    Attributes:
        generated: what the probe said; an error where the tokenizer could not decode it.
        resynthesised, originals: the utterance after encoding and decoding, and itself.
        references: another utterance of the speaker.
        ended: whether the probe ended the speech itself.
    """

    generated: Sequence[Clip | ItemError]
    resynthesised: Sequence[Clip | ItemError]
    originals: Sequence[Clip | ItemError]
    references: Sequence[Clip | ItemError]
    ended: Sequence[bool]


def speech_metrics(judges: Mapping[str, JudgeCard]) -> list[Metric]:
    """The metrics of the speech under the judges, in print order."""
    known = {m.name: m for m in text_to_speech.METRICS}
    chosen = [known[name] for name in _FACTS]
    for source in text_to_speech.SOURCES:
        for judge, card in judges.items():
            chosen += [known[name].of(judge) for name in _names(card.kind, source) if name in known]
    return chosen


def speech_rows(
    bench: Bench,
    judges: Mapping[str, JudgeCard],
    items: Sequence[Item],
    speech: Speech,
    shard: Shard,
    listened: int,
    normaliser: str,
) -> None:
    """Add rows of table "generated", of table "floors" where it is there, and the first `listened` clips to the shard.

    Speech that cannot be decoded counts as a failure without a single right word; its other metrics have no value.
    """
    clips_of = (speech.generated, speech.resynthesised, speech.originals)
    sources = dict(zip(text_to_speech.SOURCES, clips_of, strict=True))
    floors = "floors" in shard.tables
    if not floors:
        del sources["_resynthesised"]
    heard: dict[str, dict[str, list[Evidence | ItemError]]] = {}
    for name, card in judges.items():
        heard[name] = {source: bench.judge(name, clips) for source, clips in sources.items()}
        if card.kind == "speaker":
            heard[name]["reference"] = bench.judge(name, speech.references)
    asr = next((name for name, card in judges.items() if card.kind == "asr"), None)
    for index, item in enumerate(items):
        text = item.utterances["utterance"].text or ""
        made, original = speech.generated[index], speech.originals[index]
        failed = isinstance(made, ItemError) or not speech.ended[index]
        row = Components(
            {
                "id": item.id, "speaker": item.cluster, "seed": item.seed, "text": text, "tts_failed": float(failed),
                "failure": str(made) if isinstance(made, ItemError) else None if speech.ended[index] else "no end",
                "tts_generated_seconds": _seconds(made), "tts_original_seconds": _seconds(original),
            }
        )  # fmt: skip
        floor = Components({"id": item.id.rpartition("~")[0], "speaker": item.cluster, "text": text})
        for name, card in judges.items():
            by_source = {source: evidence[index] for source, evidence in heard[name].items()}
            for source in text_to_speech.SOURCES if floors else ("",):
                _JUDGED[card.kind](floor if source else row, name, source, by_source, text, normaliser)
        shard.tables["generated"].append(row.row)
        if floors:
            shard.tables["floors"].append(floor.row)
        if index < listened:
            for kind, clip, source in (("generated", made, ""), ("original", original, "_original")):
                if isinstance(clip, Clip):
                    transcript = (floor if source else row).row.get(f"transcript{source}[{asr}]")
                    shard.takes.append(Take(item.id, kind, to_flac(clip.wave, clip.rate), text, transcript))


def _seconds(clip: Clip | ItemError) -> float:
    return 0.0 if isinstance(clip, ItemError) else len(clip.wave) / clip.rate


def _names(kind: str, source: str) -> list[str]:
    """Names of the metrics that judges of a kind decide."""
    plain = {
        "asr": ["tts_wer", "tts_cer"],
        "speaker": ["tts_similarity"],
        "mos": [f"tts_{m.name}" for m in mos.METRICS],
        "pitch": ["tts_f0_shift", "tts_f0_spread"],
    }[kind]
    return [f"{name}{source}" for name in plain]


def _metrics(kind: str, source: str, judge: str) -> list[Metric]:
    known = {m.name: m for m in text_to_speech.METRICS}
    return [known[name].of(judge) for name in _names(kind, source) if name in known]


def _recognised(row: Components, judge: str, source: str, heard: Heard, text: str, normaliser: str) -> None:
    said = heard[source]
    transcript = "" if isinstance(said, ItemError) else str(said["text"])
    row.row[f"transcript{source}[{judge}]"] = transcript
    for metric, errors in zip(_metrics("asr", source, judge), (wer.word_errors, wer.character_errors), strict=True):
        name = metric.name.partition("[")[0]
        row.add([metric], partial(errors, text, transcript, normaliser=normaliser, name=name), judge=judge)


def _voices(row: Components, judge: str, source: str, heard: Heard, _text: str, _normaliser: str) -> None:
    def compute() -> dict[str, float]:
        one, two = _evidence(heard[source]), _evidence(heard["reference"])
        return {f"tts_similarity{source}": cosine(np.asarray(one["embedding"]), np.asarray(two["embedding"]))}

    row.add(_metrics("speaker", source, judge), compute, judge=judge)


def _opinions(row: Components, judge: str, source: str, heard: Heard, _text: str, _normaliser: str) -> None:
    # What the judge scores is seen on the item's other clips where it cannot hear this one.
    known = {k for one in heard.values() if not isinstance(one, ItemError) for k in one if k in mos.EVIDENCE}
    names = {f"tts_{mos.EVIDENCE[k]}{source}" for k in known}

    def compute() -> dict[str, float]:
        said = _evidence(heard[source])
        scores = mos.opinion_scores({k: float(v) for k, v in said.items() if k in known})
        return {f"tts_{name}{source}": value for name, value in scores.items()}

    row.add([m for m in _metrics("mos", source, judge) if m.name.partition("[")[0] in names], compute, judge=judge)


def _pitches(row: Components, judge: str, source: str, heard: Heard, _text: str, _normaliser: str) -> None:
    tracks = {
        name: None if isinstance(one, ItemError) else np.asarray(one["f0"], np.float64) for name, one in heard.items()
    }
    for metric in _metrics("pitch", source, judge):

        def compute(metric: Metric = metric) -> dict[str, float]:
            own, original = tracks[source], tracks["_original"]
            if own is None or original is None:
                raise UndefinedMetric("there is no audio")
            name = metric.name.partition("[")[0]
            if "spread" in name:
                return {name: text_to_speech.pitch_spread(own)}
            return {name: text_to_speech.pitch_shift(own, original)}

        row.add([metric], compute, judge=judge)


def _evidence(one: Evidence | ItemError) -> Evidence:
    if isinstance(one, ItemError):
        raise UndefinedMetric(str(one))
    return one


_JUDGED = {"asr": _recognised, "speaker": _voices, "mos": _opinions, "pitch": _pitches}
"""Kind of judge -> what adds its metrics of one source to a row."""
