"""Voice conversion: the content of a source in the voice of another speaker's reference.

Pairs of different speakers are drawn by the seed; what they are is in the rows, and the sha256 of their list stands
beside every number. A tokenizer with a global vector decodes the source's streams with the reference's vector; in the
variant for stacks of codebooks the first stream is the source's and the others are the reference's, repeated in a
circle to its length. A replay gives the audio of `PAIR`; its data may be a folder with `src/PAIR` and `tgt/PAIR`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.audio import to_flac
from tokbench.bench import BENCH_MODULES, Bench
from tokbench.clip import Clip
from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import CardError, DatasetError, ItemError, NotApplicable
from tokbench.judges.base import Evidence
from tokbench.metrics import conversion, mos, pitch, wer
from tokbench.metrics.base import Metric
from tokbench.metrics.catalogue import metric
from tokbench.metrics.speaker import cosine
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, Take, failed_row, stable
from tokbench.protocols.reconstruction import JUDGED, METRIC_RATE
from tokbench.stats import estimate
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.results import Estimate

__all__ = ["VoiceConversion", "draw_pairs", "first_codebook", "folder_pairs", "pairs_hash"]

MODES = ("swap_global", "first_codebook")
REPLAY = "tokbench.tokenizers.replay"
_TRIAL = ("judge", "role", "id", "reference", "speaker", "speaker_b", "score", "target")
"""Columns of table "trials"; `speaker` is whose voice is expected, `speaker_b` whose the reference is."""


class VoiceConversion(Protocol):
    """Encode source and reference, decode across, judge."""

    code_modules: ClassVar[tuple[str, ...]] = (
        *BENCH_MODULES, "tokbench.protocols.base", "tokbench.protocols.reconstruction", "tokbench.metrics.conversion",
        "tokbench.metrics.mos", "tokbench.metrics.pitch", "tokbench.metrics.speaker", "tokbench.metrics.wer",
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = (
        *code_modules, "tokbench.stats", "tokbench.bootstrap", "tokbench.metrics.base", "tokbench.metrics.eer",
    )  # fmt: skip

    def __init__(self, task: TaskCard, judges: Mapping[str, JudgeCard], params: Mapping[str, Any], seed: int) -> None:
        super().__init__(task, judges, params, seed)
        self.mode = str(self.params.get("mode", "swap_global"))
        if self.mode not in MODES:
            raise CardError(
                f"'{self.mode}' is no way to convert", where=f"task {task.name}: mode", hint=", ".join(MODES)
            )

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where the tokenizer cannot convert in the task's mode."""
        super().check(card)
        if card.adapter.startswith(REPLAY):
            return
        if "decode" not in card.capabilities:
            raise NotApplicable(f"{card.name} turns speech into tokens only; it has no decoder")
        if self.mode == "swap_global" and "swap_global" not in card.capabilities:
            raise NotApplicable(f"{card.name} has no global vector that could be swapped")
        stacked = [s for s in card.stream_specs if s.kind == "codes" and s.role != "side"]
        if self.mode == "first_codebook" and (len(stacked) < 2 or len({s.rate_hz for s in stacked}) != 1):
            raise NotApplicable(f"{card.name} has no stack of codebooks of one rate")

    def items(self, dataset: Dataset) -> list[Item]:
        """Pairs: those of a folder with `src` and `tgt`, else drawn.

        Raises:
            DatasetError: one speaker only.
        """
        made = folder_pairs(dataset)
        return made or draw_pairs(dataset, count=int(self.params.get("pairs", 40)), seed=self.seed)

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:
        """Rows of table "items" (conversions) and "vectors" (embeddings for target verification)."""
        shard = Shard({"items": [], "vectors": []})
        roles = {role: [item.utterances.get(role) for item in items] for role in ("source", "reference", "real")}
        clips: dict[str, list[Clip | ItemError | None]] = {}
        for role, utterances in roles.items():
            found = iter(bench.clips([u for u in utterances if u is not None]))
            clips[role] = [_at_metric_rate(next(found)) if u is not None else None for u in utterances]
        clips["converted"] = list(self._converted(bench, items))
        heard: dict[str, dict[str, list[Evidence | ItemError | None]]] = {}
        for name, card in self.judges.items():
            wanted = ("source", "converted", *(("reference", "real") if card.kind == "speaker" else ()))
            heard[name] = {role: _judged(bench, name, clips[role]) for role in wanted}
        for index, item in enumerate(items):
            evidence = {name: {role: made[index] for role, made in by.items()} for name, by in heard.items()}
            everything = [made[index] for made in clips.values()] + [e for by in evidence.values() for e in by.values()]
            error = next((one for one in everything if isinstance(one, ItemError)), None)
            if error is not None:
                shard.tables["items"].append(failed_row(item, error))
                continue
            row = self._row(item, evidence, shard.tables["vectors"])
            shard.tables["items"].append(row)
            if item.id in keep:
                asr = next(iter(self.judge_of("asr")), None)
                for role in ("source", "reference", "converted"):
                    clip = clips[role][index]
                    assert isinstance(clip, Clip)
                    text = item.utterances["reference" if role == "reference" else "source"].text
                    transcript = row.get(f"transcript[{asr}]") if role == "converted" else None
                    shard.takes.append(Take(item.id, role, to_flac(clip.wave, clip.rate), text, transcript))
        return shard

    def derived(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard) -> dict[str, pd.DataFrame]:  # noqa: ARG002
        """Table "trials" of the target verification: a conversion (or real utterance), a reference, a score."""
        import pandas as pd

        parts = [
            _verification(tables["vectors"], judge, role)
            for judge in self.judge_of("speaker")
            for role in ("converted", "real")
        ]
        return {"trials": pd.DataFrame([row for part in parts for row in part], columns=list(_TRIAL))}

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:  # noqa: ARG002
        """Metrics of the conversions, and target verification over all pairs of a conversion and a reference."""
        items = tables["items"]
        digest = pairs_hash(items["id"].tolist())
        made = [
            estimate(one, items, draws=draws, seed=self.seed)
            for one in self.metrics()
            if any(component in items.columns for component in one.components)
        ]
        for judge in self.judge_of("speaker"):
            for role, suffix in (("converted", ""), ("real", "_real")):
                trials = tables["trials"]
                trials = trials[(trials["judge"] == judge) & (trials["role"] == role)]
                if len(trials):
                    name = f"vc_eer_verification{suffix}[{judge}]"
                    rows = trials[["speaker", "speaker_b"]].copy()
                    rows["id"] = trials["id"] + " " + trials["reference"]
                    rows[f"score[{judge}]"] = trials["score"]
                    rows[f"target[{judge}]"] = trials["target"].astype(np.float64)
                    sides = ("speaker", "speaker_b")
                    made.append(
                        estimate(metric(name), rows, cluster=sides, draws=draws, seed=self.seed, table="trials")
                    )
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
            if one.metric.startswith("vc_eer"):
                one.note = f"{len(items)} pairs, list sha256 {digest}"
        return made

    def metrics(self) -> list[Metric]:
        """The metrics of table "items", in print order."""
        chosen: list[Metric] = []
        for name in self.judge_of("speaker"):
            chosen += [m.of(name) for m in conversion.METRICS if "verification" not in m.name]
        for name in self.judge_of("asr"):
            chosen += [m.of(name) for m in wer.METRICS]
        for name in self.judge_of("pitch"):
            chosen += [m.of(name) for m in pitch.METRICS]
        for name in self.judge_of("mos"):
            chosen += [m.of(name) for m in mos.METRICS]
        return chosen

    def _converted(self, bench: Bench, items: Sequence[Item]) -> Sequence[Clip | ItemError]:
        if bench.tokenizer.replay is not None:
            return [_at_metric_rate(clip) for clip in bench.replayed([item.id for item in items])]
        sources = bench.encode([item.utterances["source"] for item in items])
        references = bench.encode([item.utterances["reference"] for item in items])
        if self.mode == "swap_global":
            return [_at_metric_rate(clip) for clip in bench.decode(sources, globals_from=references)]
        names = [s.name for s in bench.tokenizer.card.stream_specs]
        mixed = [
            next((one for one in pair if isinstance(one, ItemError)), None) or first_codebook(pair[0], pair[1], names)  # type: ignore[arg-type]
            for pair in zip(sources, references, strict=True)
        ]
        return [_at_metric_rate(clip) for clip in bench.decode(mixed)]

    def _row(self, item: Item, evidence: Mapping[str, Mapping[str, Any]], vectors: list[Row]) -> Row:
        source, reference = item.utterances["source"], item.utterances["reference"]
        row = Components(
            {
                "id": item.id, "speaker": item.cluster, "target_speaker": reference.speaker, "source": source.id,
                "reference": reference.id, "real": item.utterances["real"].id if "real" in item.utterances else None,
                "same_gender": None if None in (source.gender, reference.gender) else source.gender == reference.gender,
                "text": source.text, "error": None, "stage": None,
            }
        )  # fmt: skip
        normaliser = str(self.params.get("normaliser", "whisper-english"))
        for name, by_role in evidence.items():
            kind = self.judges[name].kind
            if kind != "speaker":
                JUDGED[kind](row, name, by_role["source"], by_role["converted"], source.text, normaliser)
                continue
            voice = {role: np.asarray(e["embedding"], np.float64) for role, e in by_role.items() if e is not None}
            row.add(
                [
                    m.of(name)
                    for m in conversion.METRICS
                    if m.name in ("similarity_target", "similarity_source", "vc_eer")
                ],
                lambda v=voice: {  # type: ignore[misc]
                    "similarity_target": cosine(v["converted"], v["reference"]),
                    "similarity_source": cosine(v["converted"], v["source"]),
                },
                judge=name,
            )
            if "real" in voice:
                row.add(
                    [m.of(name) for m in conversion.METRICS if m.name in ("similarity_real_target", "vc_eer_real")],
                    lambda v=voice: {  # type: ignore[misc]
                        "similarity_real_target": cosine(v["real"], v["reference"]),
                        "similarity_real_source": cosine(v["real"], v["source"]),
                    },
                    judge=name,
                )
            vectors += [
                {"id": item.id, "judge": name, "role": role, "speaker": reference.speaker,
                 "utterance": item.utterances[role].id if role in item.utterances else item.id,
                 "values": [stable(v) for v in voice[role]]}
                for role in ("converted", "reference", "real") if role in voice
            ]  # fmt: skip
        return row.row


def draw_pairs(dataset: Dataset, *, count: int, seed: int) -> list[Item]:
    """Pairs of a source and a reference by another speaker, with another real utterance of that speaker.

    Sources go round a random order of all utterances; the target speaker is drawn among the others that have two
    utterances, and neither its reference nor its other utterance says what the source says.

    Raises:
        DatasetError: one speaker only, or no pair that satisfies this.
    """
    if len(dataset.speakers) < 2:
        raise DatasetError(
            f"all utterances are of the speaker '{dataset.speakers[0]}', voice conversion needs two", where=dataset.name
        )
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in sorted(dataset.utterances, key=lambda u: u.id):
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    rng = np.random.default_rng(seed)
    ordered = sorted(dataset.utterances, key=lambda u: u.id)
    made: dict[str, Item] = {}
    for attempt in range(4 * max(1, -(-count // len(ordered)))):
        del attempt
        for place in rng.permutation(len(ordered)):
            if len(made) == count:
                return list(made.values())
            source = ordered[place]
            others = [s for s in sorted(by_speaker) if s != source.speaker and len(by_speaker[s]) >= 2]
            if not others:
                continue
            target = others[int(rng.integers(len(others)))]
            usable = [u for u in by_speaker[target] if u.text is None or u.text != source.text]
            if len(usable) < 2:
                continue
            first, second = (usable[int(k)] for k in rng.choice(len(usable), 2, replace=False))
            name = f"{source.id}__{first.id}"
            made.setdefault(name, Item(name, {"source": source, "reference": first, "real": second}, source.speaker))
    if not made:
        raise DatasetError("no speaker has two utterances with other words than a source", where=dataset.name)
    return list(made.values())


def folder_pairs(dataset: Dataset) -> list[Item]:
    """Pairs of a published set: `src/PAIR` and `tgt/PAIR`; none where the data is no such folder.

    Raises:
        DatasetError: a source without its reference, or the other way round.
    """
    sides: dict[str, dict[str, Utterance]] = {"src": {}, "tgt": {}}
    for utterance in dataset.utterances:
        side, _, name = utterance.id.partition("/")
        if side in sides and name:
            sides[side][name] = utterance
    if not sides["src"] or not sides["tgt"]:
        return []
    alone = sorted(set(sides["src"]) ^ set(sides["tgt"]))
    if alone:
        raise DatasetError(f"'{alone[0]}' is in only one of src and tgt", where=dataset.name)
    return [
        Item(name, {"source": source, "reference": sides["tgt"][name]}, source.speaker)
        for name, source in sorted(sides["src"].items())
    ]


def first_codebook(source: Encoded, reference: Encoded, names: Sequence[str]) -> Encoded:
    """The first stream of the source with the reference's others, repeated in a circle to the source's lengths."""
    streams: dict[str, npt.NDArray[np.generic]] = {names[0]: source.streams[names[0]]}
    for name in names[1:]:
        streams[name] = np.resize(reference.streams[name], source.streams[name].shape)
    return Encoded(streams, source.n_samples, dict(reference.globals), source.n_samples_coded, source.side_info_bits)


def pairs_hash(ids: Sequence[str]) -> str:
    """Sha256 of the sorted names of the pairs, first 16 digits."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def _verification(vectors: pd.DataFrame, judge: str, role: str) -> list[Row]:
    """Trials of each utterance of a role against its own reference and those of all other speakers."""
    if not len(vectors):
        return []
    chosen = vectors[vectors["judge"] == judge].sort_values("id")
    rows: list[dict[Any, Any]] = chosen.to_dict("records")
    own = {row["id"]: row for row in rows if row["role"] == "reference"}
    references = {row["utterance"]: row for row in own.values()}
    trials: list[Row] = []
    for probe in rows:
        if probe["role"] != role:
            continue
        strangers = [other for other in references.values() if other["speaker"] != probe["speaker"]]
        for other in (own[probe["id"]], *strangers):
            similarity = cosine(np.asarray(probe["values"], np.float64), np.asarray(other["values"], np.float64))
            line = (judge, role, probe["id"], other["utterance"], probe["speaker"], other["speaker"])
            trials.append(
                dict(zip(_TRIAL, (*line, stable(similarity), other["speaker"] == probe["speaker"]), strict=True))
            )
    return trials


def _at_metric_rate(clip: Clip | ItemError) -> Clip | ItemError:
    if isinstance(clip, ItemError):
        return clip
    return clip.at(METRIC_RATE) if clip.wave.size else ItemError("the converted audio has no samples")


def _judged(bench: Bench, name: str, clips: Sequence[Clip | ItemError | None]) -> list[Evidence | ItemError | None]:
    found = iter(bench.judge(name, [clip for clip in clips if clip is not None]))
    return [next(found) if clip is not None else None for clip in clips]
