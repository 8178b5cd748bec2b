"""Alignments for a dataset that has none: TextGrid files, as aligners and `tokbench data make` write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokbench.data.alignment import arpabet, read_textgrid
from tokbench.data.dataset import Utterance
from tokbench.errors import DatasetError

__all__ = ["attach_alignments"]


def attach_alignments(utterances: Sequence[Utterance], folder: Path) -> tuple[Utterance, ...]:
    """Give every utterance the phones and words of `ID.TextGrid`, found anywhere below the folder.

    The tiers are called "phones" and "words". Phones become ARPAbet without stress, what is no speech becomes "SIL".

    Raises:
        DatasetError: no folder, an utterance without a file, a file without a tier "phones", or impossible times.
    """
    if not folder.is_dir():
        raise DatasetError("is not a folder", where=str(folder), hint="alignments= takes a folder of TextGrid files")
    files = {path.stem: path for path in sorted(folder.rglob("*.TextGrid"))}
    missing = [u.id for u in utterances if u.id not in files]
    if missing:
        raise DatasetError(
            f"has no {missing[0]}.TextGrid, and none for {len(missing)} of {len(utterances)} utterances",
            where=str(folder),
            hint="Type: tokbench data make DATASET -o FOLDER",
        )
    return tuple(_aligned(utterance, files[utterance.id]) for utterance in utterances)


def _aligned(utterance: Utterance, path: Path) -> Utterance:
    tiers = read_textgrid(path, duration=utterance.duration)
    if "phones" not in tiers:
        raise DatasetError(f"has the tiers {', '.join(tiers) or 'none'}, but no 'phones'", where=str(path))
    phones = tuple(replace(segment, label=arpabet(segment.label)) for segment in tiers["phones"])
    return replace(utterance, phones=phones, words=tiers.get("words"))
