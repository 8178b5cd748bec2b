"""What the phone protocols share: one item for the whole corpus, tokens in shards, alignments checked against audio."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.bench import Bench
from tokbench.config import TokenizerCard
from tokbench.data.alignment import PHONES, SILENCE, check_segments
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import DatasetError, ItemError, NotApplicable
from tokbench.protocols.base import Item
from tokbench.streams import StreamSpec
from tokbench.types import Encoded

__all__ = ["SHARD", "check_alignment", "corpus_item", "encode_all", "frame_streams", "utterances_of"]

SHARD = 8
"""Utterances encoded at a time; as the runner's shards, so that tasks share what is in the store."""


def corpus_item(dataset: Dataset) -> list[Item]:
    """One item that holds every utterance, because phones are compared across all of them.

    Raises:
        DatasetError: an utterance without a phone alignment.
    """
    for utterance in dataset.utterances:
        if utterance.phones is None:
            raise DatasetError(
                f"utterance {utterance.id} has no phone alignment, which this task needs",
                where=dataset.name,
                hint="mini-en ships alignments; give others as TextGrid or CTM, or make them with pocketsphinx",
            )
    return [Item("corpus", {f"{i:06d}": u for i, u in enumerate(dataset.utterances)}, "corpus")]


def utterances_of(item: Item) -> list[Utterance]:
    """The utterances of a corpus item, in order."""
    return [item.utterances[role] for role in sorted(item.utterances)]


def encode_all(bench: Bench, utterances: Sequence[Utterance]) -> list[Encoded | ItemError]:
    """Tokens of every utterance."""
    return [
        one for start in range(0, len(utterances), SHARD) for one in bench.encode(utterances[start : start + SHARD])
    ]


def check_alignment(utterance: Utterance, seconds: float, *, tolerance: float) -> None:
    """Refuse an alignment that is not the audio's.

    Args:
        utterance: with `phones`.
        seconds: length of the audio.
        tolerance: seconds by which the last phone may end after the audio.

    Raises:
        ItemError: an unknown phone, impossible times, or another length than the audio has.
    """
    segments = utterance.phones or ()
    for index, segment in enumerate(segments):
        if segment.label != SILENCE and segment.label not in PHONES:
            raise ItemError(
                f"'{segment.label}' is not a known phone", where=f"utterance {utterance.id}, segment {index}"
            )
    try:
        check_segments(segments, where=f"utterance {utterance.id}", duration=seconds, tolerance=tolerance)
    except DatasetError as error:
        raise ItemError(
            f"the alignment does not match its audio: {error.what}", where=error.where, hint=error.hint
        ) from None


def frame_streams(card: TokenizerCard, *, kinds: Sequence[str], max_rate: float) -> list[StreamSpec]:
    """The streams whose tokens are frames of speech: the semantic ones, or else the first.

    Raises:
        NotApplicable: there is none; the reason says why.
    """
    usable = [s for s in card.stream_specs if s.kind in kinds and s.role not in ("waveform", "side")]
    if not usable:
        what = (
            "are samples of the waveform" if any(s.role == "waveform" for s in card.stream_specs) else "have no codes"
        )
        raise NotApplicable(f"{card.name}'s tokens {what}, this task compares frames of speech")
    slow = [s for s in usable if float(s.rate_hz) <= max_rate]
    if not slow:
        raise NotApplicable(
            f"{card.name}'s stream '{usable[0].name}' has {float(usable[0].rate_hz):g} symbols a second, parts of "
            f"packets or of frames; this task compares frames (at most {max_rate:g} a second)"
        )
    semantic = [s for s in slow if s.role == "semantic"]
    return semantic or slow[:1]
