"""Speaker discrimination: the same trials scored by the global vector, by pooled content, and by a probe on it.

Trials are all pairs of utterances, without pairs of one chapter (one channel) and without pairs of one text, or those
of a published list. The list's sha256 stands beside every number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import TokenizerCard
from tokbench.data.dataset import Dataset
from tokbench.errors import DatasetError, ItemError, NotApplicable, UndefinedMetric
from tokbench.metrics.catalogue import metric
from tokbench.metrics.discrimination import VARIANTS, histogram, probe_eers
from tokbench.protocols.base import Item, Protocol, Shard, failed_row, stable
from tokbench.results import Estimate
from tokbench.stats import estimate
from tokbench.streams import StreamSpec
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SpeakerDiscrimination", "read_trials", "trial_hash"]

Float = npt.NDArray[np.float64]


class SpeakerDiscrimination(Protocol):
    """Encode, pool, compare in pairs."""

    optional_params: ClassVar[frozenset[str]] = frozenset({"trials"})
    code_modules: ClassVar[tuple[str, ...]] = (*BENCH_MODULES, "tokbench.protocols.base")
    estimate_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.stats", "tokbench.bootstrap", "tokbench.metrics.eer", "tokbench.metrics.discrimination",
        "tokbench.metrics.base",
    )  # fmt: skip

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` where there is neither a global vector nor a stream to pool."""
        super().check(card)
        if not card.globals and not _content(card):
            raise NotApplicable(f"{card.name} has no global vector, and its tokens are samples of the waveform")

    def items(self, dataset: Dataset) -> list[Item]:
        """Every utterance.

        Raises:
            DatasetError: one speaker only, or no speaker with two utterances.
        """
        if len(dataset.speakers) < 2:
            raise DatasetError(
                f"all utterances are of the speaker '{dataset.speakers[0]}', telling speakers apart needs two",
                where=dataset.name,
            )
        if len(dataset.speakers) == len(dataset.utterances):
            raise DatasetError("no speaker has two utterances, so there is no same-speaker trial", where=dataset.name)
        return super().items(dataset)

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of table "items" (utterances) and "vectors" (what is compared of each)."""
        utterances = [item.utterances["utterance"] for item in items]
        card = bench.tokenizer.card
        shard = Shard({"items": [], "vectors": []})
        books = {s.name: bench.codebook(s.name) for s in _content(card) if s.kind == "codes" and _has_book(bench, card)}
        for item, utterance, tokens in zip(items, utterances, bench.encode(utterances), strict=True):
            if isinstance(tokens, ItemError):
                shard.tables["items"].append(failed_row(item, tokens))
                continue
            made = _vectors(tokens, card, books)
            bad = [name for name, _, vector in made if not np.any(vector) and name.endswith((":pooled", ":global"))]
            if bad:
                error = ItemError(
                    f"the vector '{bad[0]}' is zero and has no direction", where=f"utterance {utterance.id}"
                )
                shard.tables["items"].append(failed_row(item, error))
                continue
            shard.tables["items"].append(
                {"id": item.id, "speaker": item.cluster, "gender": utterance.gender, "chapter": utterance.chapter,
                 "text": _key(utterance.text), "error": None, "stage": None}
            )  # fmt: skip
            shard.tables["vectors"] += [
                {"id": item.id, "vector_of": name, "kind": kind, "values": [stable(v) for v in vector.tolist()]}
                for name, kind, vector in made
            ]
        return shard

    def derived(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard) -> dict[str, pd.DataFrame]:  # noqa: ARG002
        """Table "trials": pairs of utterances, whether of one speaker, in which variants, and a score for each vector.

        `score[VECTOR]` is a cosine; `same_gender` and `balanced` are there where every gender is known.
        """
        items, vectors = _scored_items(tables), tables["vectors"]
        if not len(items):
            return {}
        i, j, trials = self._trials(items)
        for name in vectors["vector_of"].unique():
            matrix = _vectors_of(vectors, name, items)
            unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
            scores = np.empty(len(i))
            for start in range(0, len(i), 1 << 16):
                part = slice(start, start + (1 << 16))
                scores[part] = np.einsum("nd,nd->n", unit[i[part]], unit[j[part]])
            trials[f"score[{name}]"] = scores.round(9)
        return {"trials": trials}

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:  # noqa: ARG002
        """Equal error rates with bootstrap intervals over both speakers of a trial."""
        items, vectors = _scored_items(tables), tables["vectors"]
        if not len(items):
            return []
        trials = tables["trials"]
        variants = {"": trials}
        if "same_gender" in trials:
            variants |= {"_same_gender": trials[trials["same_gender"]], "_balanced": trials[trials["balanced"]]}
        made: list[Estimate] = []
        kinds = vectors.drop_duplicates("vector_of").set_index("vector_of")["kind"]
        for name, kind in kinds.items():
            base = "eer_speaker" if kind == "global" else "eer_leakage"
            for suffix, chosen in variants.items():
                made.append(self._scored(f"{base}{suffix}[{name}]", chosen, draws))
            if base == "eer_leakage":
                made.append(self._probe(f"eer_probe[{name}]", _vectors_of(vectors, str(name), items), items))
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
        return made

    def outside(self) -> dict[str, str]:
        """The published list, where one is named."""
        listed = self.params.get("trials")
        if listed is None:
            return {}
        lines = [f"{int(target)} {a} {b}" for target, a, b, _ in read_trials(Path(str(listed)))]
        return {"trials": trial_hash(lines)}

    def _trials(self, items: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], pd.DataFrame]:
        """Places of both utterances of every trial, and the table of trials without scores."""
        import pandas as pd

        listed = self.params.get("trials")
        if listed is not None:
            i, j, target = _listed(Path(str(listed)), items["id"].tolist())
        else:
            i, j = np.triu_indices(len(items), 1)
            speaker = items["speaker"].to_numpy()
            target = speaker[i] == speaker[j]
            allowed = np.ones(len(i), np.bool_)
            for column in ("chapter", "text"):
                values = items[column].to_numpy(object)
                known = np.array([v is not None and v == v for v in values])
                allowed &= ~(known[i] & known[j] & (values[i] == values[j]))
            i, j, target = i[allowed], j[allowed], target[allowed]
        ids, speakers = items["id"].to_numpy(object), items["speaker"].to_numpy(object)
        trials = pd.DataFrame(
            {"id_a": ids[i], "id_b": ids[j], "speaker_a": speakers[i], "speaker_b": speakers[j], "target": target}
        )
        gender = items["gender"].to_numpy(object)
        if all(g in ("f", "m") for g in gender):
            same = np.asarray(gender[i] == gender[j], np.bool_)
            trials["same_gender"] = same
            trials["balanced"] = _balanced(same, target, self.seed)
        return i, j, trials

    def _scored(self, name: str, trials: pd.DataFrame, draws: int) -> Estimate:
        label = name.partition("[")[2][:-1]
        lines = _lines(trials)
        rows = trials[["speaker_a", "speaker_b", f"score[{label}]"]].copy()
        rows["id"] = lines
        rows[f"target[{label}]"] = trials["target"].astype(np.float64)
        one = estimate(
            metric(name), rows, cluster=("speaker_a", "speaker_b"), draws=draws, seed=self.seed, table="trials"
        )
        targets = int(trials["target"].sum())
        variant = name.partition("[")[0].removeprefix("eer_speaker").removeprefix("eer_leakage")
        one.note = (
            f"{targets} same-speaker and {len(trials) - targets} different-speaker trials ({VARIANTS[variant]}), "
            f"list sha256 {trial_hash(lines)}"
        )
        return one

    def _probe(self, name: str, matrix: Float, items: pd.DataFrame) -> Estimate:
        definition = metric(name)
        _, speakers = np.unique(items["speaker"].to_numpy(str), return_inverse=True)
        seeds = range(self.seed, self.seed + int(self.params.get("probe_seeds", 3)))
        value: float | None = None
        reasons: dict[str, int] = {}
        try:
            by_seed = [float(np.mean(probe_eers(matrix, speakers.astype(np.int64), seed=seed))) for seed in seeds]
            value = float(np.mean(by_seed))
            spread = f"by split {', '.join(f'{100 * v:.1f} %' for v in by_seed)}"
        except UndefinedMetric as reason:
            reasons, spread = {reason.what: len(items)}, reason.what
        return Estimate.of(
            definition, value, method=f"linear probe on disjoint speakers, {len(seeds)} splits; {spread}",
            n=len(items), undefined=len(items) if value is None else 0, reasons=reasons, table="vectors",
        )  # fmt: skip


def _scored_items(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    items = tables["items"]
    return items[items["error"].isna()].reset_index(drop=True)


def _vectors_of(vectors: pd.DataFrame, name: str, items: pd.DataFrame) -> Float:
    """The vectors `[n, D]` of that name, in the order of the items."""
    own = vectors[vectors["vector_of"] == name].set_index("id").loc[items["id"]]
    return _matrix(own["values"].tolist(), str(own["kind"].iloc[0]))


def _lines(trials: pd.DataFrame) -> list[str]:
    """Trials as lines of a VoxCeleb1-O list."""
    columns = (trials["target"], trials["id_a"], trials["id_b"])
    return [f"{int(target)} {a} {b}" for target, a, b in zip(*columns, strict=True)]


def _content(card: TokenizerCard) -> list[StreamSpec]:
    """Streams to pool: the semantic ones, or else the first; none where tokens are samples."""
    usable = [s for s in card.stream_specs if s.role not in ("waveform", "side")]
    return [s for s in usable if s.role == "semantic"] or usable[:1]


def _has_book(bench: Bench, card: TokenizerCard) -> bool:
    return "codebook" in card.capabilities and bench.tokenizer.replay is None


def _vectors(
    tokens: Encoded, card: TokenizerCard, books: Mapping[str, npt.NDArray[np.float32]]
) -> list[tuple[str, str, npt.NDArray[Any]]]:
    """Name, kind and values of everything that is compared of an utterance; codes are kept as they are."""
    made: list[tuple[str, str, npt.NDArray[Any]]] = [
        (f"{name}:global", "global", np.asarray(vector)) for name, vector in tokens.globals.items()
    ]
    for stream in _content(card):
        values = tokens.streams[stream.name]
        if stream.kind == "latent":
            made.append((f"{stream.name}:pooled", "pooled", np.asarray(values, np.float64).mean(axis=0)))
            continue
        made.append((f"{stream.name}:histogram", "codes", np.asarray(values, np.int64)))
        if stream.name in books:
            pooled = books[stream.name][np.asarray(values, np.int64)].astype(np.float64).mean(axis=0)
            made.append((f"{stream.name}:pooled", "pooled", pooled))
    return made


def _matrix(values: Sequence[Any], kind: str) -> Float:
    """Vectors `[n, D]`; code sequences become histograms over the codes that occur."""
    if kind != "codes":
        return np.stack([np.asarray(v, np.float64) for v in values])
    sequences = [np.asarray(v, np.float64).astype(np.int64) for v in values]
    used = np.unique(np.concatenate(sequences))
    return np.stack([histogram(sequence, used) for sequence in sequences])


def _key(text: str | None) -> str | None:
    """What was said, comparable: without case and punctuation."""
    return None if text is None else " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _balanced(same_gender: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.bool_]:
    """All targets, and as many non-targets of one gender as of two, drawn by the seed."""
    inside, across = np.flatnonzero(~target & same_gender), np.flatnonzero(~target & ~same_gender)
    count = min(len(inside), len(across))
    rng = np.random.default_rng(seed)
    keep = target.copy()
    keep[rng.permutation(inside)[:count]] = True
    keep[rng.permutation(across)[:count]] = True
    return keep


def trial_hash(lines: Sequence[str]) -> str:
    """Sha256 of the sorted trial lines `LABEL ID ID`, first 16 digits."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def read_trials(path: Path) -> list[tuple[bool, str, str, int]]:
    """Trials of a VoxCeleb1-O list, lines `1 ID ID` (same speaker) or `0 ID ID`, with line numbers.

    Raises:
        DatasetError: unreadable, a line of another form, or no trials; with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=str(path)) from None
    trials = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DatasetError("is not a trial, which is '0 ID ID' or '1 ID ID'", where=f"{path}:{number}")
        trials.append((fields[0] == "1", fields[1], fields[2], number))
    if not trials:
        raise DatasetError("has no trials", where=str(path))
    return trials


def _listed(
    path: Path, ids: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    place = {name: index for index, name in enumerate(ids)}
    # Published lists name files; datasets name utterances without the suffix.
    pairs = []
    for target, a, b, number in read_trials(path):
        found = [place.get(name, place.get(name.rpartition(".")[0])) for name in (a, b)]
        if None in found:
            missing = a if found[0] is None else b
            raise DatasetError(f"names '{missing}', which is not among the scored utterances", where=f"{path}:{number}")
        pairs.append((found[0], found[1], target))
    i, j, target_list = zip(*pairs, strict=True)
    return np.array(i, np.int64), np.array(j, np.int64), np.array(target_list, np.bool_)
