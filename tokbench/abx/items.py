"""ABX items: stretches of speech with a phone, its context and a speaker, from `.item` files or from alignments."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokbench.data.alignment import PHONES, SILENCE
from tokbench.data.dataset import Segment, Utterance
from tokbench.errors import DatasetError

__all__ = ["SCALE", "Items", "Labels", "items_from_alignments", "read_items"]

Int = npt.NDArray[np.int64]

SCALE = 1_000_000_000
"""Times are integers in units of 1 / SCALE seconds, so that slicing is exact."""

_COLUMNS = ("#file", "onset", "offset", "#phone", "prev-phone", "next-phone", "speaker")
_DIGITS = 9
_LONGEST = 1e6


@dataclass(frozen=True)
class Labels:
    """One label an item: `names[codes[i]]`; names are sorted and used."""

    codes: Int
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Labels:
        """Factorise."""
        names = sorted(set(values))
        place = {name: index for index, name in enumerate(names)}
        return cls(np.fromiter((place[v] for v in values), np.int64, len(values)), tuple(names))

    def take(self, keep: npt.NDArray[np.bool_]) -> Labels:
        """The labels of the kept items."""
        used, codes = np.unique(self.codes[keep], return_inverse=True)
        return Labels(codes.astype(np.int64), tuple(self.names[i] for i in used))


@dataclass(frozen=True)
class Items:
    """ABX items in the order of their source.

    Attributes:
        source: file, or name of the dataset, for messages.
        file: the recording (a feature file's name without extension, or an utterance's id).
        onset, offset: int64 `[n]` in units of 1 / SCALE seconds.
        phone, previous, following, speaker: the labels.
        place: int64 `[n]`, line in the file, or index of the segment in its utterance.
        lines: whether `place` counts lines of `source`.
    """

    source: str
    file: Labels
    onset: Int
    offset: Int
    phone: Labels
    previous: Labels
    following: Labels
    speaker: Labels
    place: Int
    lines: bool = True

    def __len__(self) -> int:
        return len(self.onset)

    def where(self, index: int) -> str:
        """`file:line` of an item, or its utterance."""
        if self.lines:
            return f"{self.source}:{self.place[index]}"
        return f"{self.source}: utterance {self.file.names[self.file.codes[index]]}, segment {self.place[index]}"

    def describe(self, index: int) -> str:
        """The item in words."""
        phone = self.phone.names[self.phone.codes[index]]
        name = self.file.names[self.file.codes[index]]
        return f"item '{phone}' of '{name}' ({self.onset[index] / SCALE:g} to {self.offset[index] / SCALE:g} s)"

    def take(self, keep: npt.NDArray[np.bool_]) -> Items:
        """The items where `keep` bool `[n]` is true."""
        return Items(
            self.source,
            self.file.take(keep),
            self.onset[keep],
            self.offset[keep],
            self.phone.take(keep),
            self.previous.take(keep),
            self.following.take(keep),
            self.speaker.take(keep),
            self.place[keep],
            self.lines,
        )


def _ticks(text: str, where: str, column: str) -> int:
    """A decimal number of seconds, exactly."""
    whole, _, fraction = text.partition(".")
    if not (whole.isdecimal() and (fraction == "" or fraction.isdecimal()) and whole.isascii()):
        raise DatasetError(f"{column} '{text}' is not a decimal number of seconds", where=where)
    if len(fraction) > _DIGITS:
        raise DatasetError(f"{column} '{text}' has more than {_DIGITS} decimals", where=where)
    return int(whole) * SCALE + int(fraction.ljust(_DIGITS, "0"))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=str(path)) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def read_items(path: Path) -> Items:
    """Read a ZeroSpeech or Libri-Light `.item` file, `#file onset offset #phone prev-phone next-phone speaker`.

    Raises:
        DatasetError: no such header, a row with other than seven fields, times that are no decimals or are not
            in order, or no rows; with file and line.
    """
    rows = _rows(path)
    header = next(rows, (1, []))
    if tuple(header[1]) != _COLUMNS:
        raise DatasetError(
            "is not an item file: its first line must be the column names",
            where=f"{path}:{header[0]}",
            hint=f"Columns: {' '.join(_COLUMNS)}",
        )
    fields: list[list[str]] = []
    places, onsets, offsets = [], [], []
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) != len(_COLUMNS):
            raise DatasetError(f"has {len(row)} fields, an item has {len(_COLUMNS)}", where=where)
        onset, offset = _ticks(row[1], where, "onset"), _ticks(row[2], where, "offset")
        if offset <= onset:
            raise DatasetError(f"the offset {row[2]} is not after the onset {row[1]}", where=where)
        if offset > _LONGEST * SCALE:
            raise DatasetError(f"the offset {row[2]} is beyond {_LONGEST:g} seconds", where=where)
        onsets.append(onset)
        offsets.append(offset)
        places.append(number)
        fields.append(row)
    if not fields:
        raise DatasetError("has no items", where=str(path))
    columns = list(zip(*fields, strict=True))
    return Items(
        str(path),
        Labels.of(columns[0]),
        np.array(onsets, np.int64),
        np.array(offsets, np.int64),
        Labels.of(columns[3]),
        Labels.of(columns[4]),
        Labels.of(columns[5]),
        Labels.of(columns[6]),
        np.array(places, np.int64),
    )


def items_from_alignments(
    utterances: Iterable[Utterance],
    *,
    unit: Literal["phone", "triphone"] = "phone",
    inventory: Container[str] | None = frozenset(PHONES),
    source: str = "alignments",
) -> Items:
    """Items from the phone alignments of utterances; the speaker and the recording are the utterance's.

    Args:
        utterances: with `phones`, silences labelled "SIL".
        unit: "phone" takes the phone itself, with whatever stands beside it as context (the edge of the utterance
            counts as "SIL"); "triphone" takes the phone with its two neighbours, all three of them speech without a
            gap, and is meant for a fixed context.
        inventory: the phones there may be beside "SIL"; None allows any.
        source: name for messages.

    Raises:
        DatasetError: no alignment, an unknown phone (the message names the utterance and the segment), or no item.
    """
    files, phones, before, after, speakers = [], [], [], [], []
    onsets, offsets, places = [], [], []
    for utterance in utterances:
        if utterance.phones is None:
            raise DatasetError(
                f"utterance {utterance.id} has no phone alignment",
                where=source,
                hint="Give a dataset with alignments, or make them with `tokbench.data.alignment.align`",
            )
        segments = utterance.phones
        for index, segment in enumerate(segments):
            if inventory is not None and segment.label != SILENCE and segment.label not in inventory:
                raise DatasetError(
                    f"'{segment.label}' is not a known phone",
                    where=f"{source}: utterance {utterance.id}, segment {index}",
                    hint="Stress digits and silences are normalised by `tokbench.data.alignment.arpabet`",
                )
            if segment.label == SILENCE:
                continue
            left = _neighbour(segments, index, -1)
            right = _neighbour(segments, index, 1)
            if unit == "triphone" and (left is None or right is None):
                continue
            start = left.start if unit == "triphone" and left is not None else segment.start
            end = right.end if unit == "triphone" and right is not None else segment.end
            files.append(utterance.id)
            phones.append(segment.label)
            before.append(left.label if left is not None else SILENCE)
            after.append(right.label if right is not None else SILENCE)
            speakers.append(utterance.speaker)
            onsets.append(round(start * SCALE))
            offsets.append(round(end * SCALE))
            places.append(index)
    if not files:
        raise DatasetError(f"the alignments hold no {unit}", where=source)
    return Items(
        source,
        Labels.of(files),
        np.array(onsets, np.int64),
        np.array(offsets, np.int64),
        Labels.of(phones),
        Labels.of(before),
        Labels.of(after),
        Labels.of(speakers),
        np.array(places, np.int64),
        lines=False,
    )


def _neighbour(segments: Sequence[Segment], index: int, step: int) -> Segment | None:
    """The phone beside a segment, None where there is silence, a gap, or the end."""
    other = index + step
    if not 0 <= other < len(segments) or segments[other].label == SILENCE:
        return None
    gap = segments[other].start - segments[index].end if step > 0 else segments[index].start - segments[other].end
    return segments[other] if gap < 0.5 / 1000 else None
