"""Documents, and how they are packed into rows.

A document is what one model reads without looking elsewhere: an utterance, a piece of a long one, or a text with its
utterance. Rows hold several; attention never crosses from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tokbench.probes.layout import BEGIN, CONTINUE, PAD, SPECIALS, TEXT_END, VOICE, Layout

__all__ = ["Document", "Rows", "opening", "pack", "pieces", "spoken", "written"]

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Document:
    """Ids in steps and columns.

    Attributes:
        ids: int64 `[L, columns]`.
        slots: which slot each id was chosen in, -1 where it is not predicted, int64 `[L, columns]`.
        positions: where each step stands for the rotary embedding, float32 `[L]`; frames count up from `first`.
        first: position of the first step of the frames.
        voice: vector that stands at the step whose id is `VOICE`, float32 `[D]`; None where there is none.
        name: of the utterance.
    """

    ids: Int
    slots: Int
    positions: npt.NDArray[np.float32]
    first: int
    voice: npt.NDArray[np.float32] | None = None
    name: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def voice_step(self) -> int:
        """The step at which the voice stands."""
        return int(np.flatnonzero(self.ids[:, 0] == VOICE)[0])


@dataclass(frozen=True)
class Rows:
    """Packed documents.

    Attributes:
        ids, slots: int64 `[B, L, columns]`.
        documents: number of each step's document within all of this batch, from 1; 0 is padding; int64 `[B, L]`.
        positions: of each step in its document, float32 `[B, L]`.
        voices: float32 `[n, D]`, and `voice_at`: int64 `[n, 2]`, the row and step where each stands.
    """

    ids: Int
    slots: Int
    documents: Int
    positions: npt.NDArray[np.float32]
    voices: npt.NDArray[np.float32] | None = None
    voice_at: Int = field(default_factory=lambda: np.zeros((0, 2), np.int64))


def spoken(layout: Layout, frames: Int, *, name: str = "") -> Document:
    """An utterance alone: begin, frames, end."""
    return _joined(layout, [BEGIN], frames, end=True, voice=None, name=name)


def pieces(layout: Layout, frames: Int, *, most: int, name: str = "") -> list[Document]:
    """A long utterance in consecutive documents of `most` frames (a merged run may go beyond); the last has the end.

    The first begins with `BEGIN`, the others with `CONTINUE`; none sees the others, so that no tokenizer looks back
    further than its context allows.
    """
    lengths = layout.lengths(frames)
    piece = (np.cumsum(lengths) - lengths) // most
    parts = [frames[piece == k] for k in np.unique(piece)] or [frames]
    return [
        _joined(layout, [BEGIN if k == 0 else CONTINUE], part, end=k == len(parts) - 1, voice=None, name=name)
        for k, part in enumerate(parts)
    ]


def opening(layout: Layout, *, name: str = "") -> Document:
    """What stands before an utterance that is to be continued."""
    return _joined(layout, [BEGIN], np.zeros((0, len(layout.slots)), np.int64), end=False, voice=None, name=name)


def written(
    layout: Layout,
    text: Sequence[int],
    frames: Int,
    *,
    steps_per_symbol: float = 1.0,
    voice: npt.NDArray[np.float32] | None = None,
    name: str = "",
) -> Document:
    """A text and its utterance: begin, voice, text, end of text, frames, end; only the frames are predicted.

    Text and frames both begin at position 0, and symbols are as far apart as they last on average: a step of the frames
    finds what is said at that time near its own position. Without it, small models spend their budget on finding it.

    Args:
        text: symbols, `0 .. layout.text - 1`.
        frames: int64 `[F, slots]`; none for a prompt to be spoken.
        steps_per_symbol: mean over the training data.
        voice: the tokenizer's globals, float32 `[D]`.
    """
    prefix = [BEGIN, *([VOICE] if voice is not None else []), *(SPECIALS + symbol for symbol in text), TEXT_END]
    start = len(prefix) - 1 - len(text)
    places = [0.0] * start + [k * steps_per_symbol for k in range(len(text) + 1)]
    return _joined(layout, prefix, frames, end=len(frames) > 0, voice=voice, name=name, places=places, first=0)


def _joined(
    layout: Layout,
    prefix: Sequence[int],
    frames: Int,
    *,
    end: bool,
    voice: npt.NDArray[np.float32] | None,
    name: str,
    places: Sequence[float] = (0.0,),
    first: int = 1,
) -> Document:
    ids, slots = layout.steps(frames, end=end)
    before = np.full((len(prefix), layout.columns), PAD, np.int64)
    before[:, 0] = prefix
    return Document(
        np.concatenate([before, ids]),
        np.concatenate([np.full_like(before, -1), slots]),
        np.concatenate([np.asarray(places, np.float32), np.arange(first, first + len(ids), dtype=np.float32)]),
        first,
        voice=voice,
        name=name,
    )


def pack(rows: Sequence[Sequence[Document]], *, length: int = 0) -> Rows:
    """Documents side by side in rows, padded with `PAD` to the fullest row, or to `length` steps."""
    length = max(length, *(sum(map(len, row)) for row in rows))
    columns = rows[0][0].ids.shape[1]
    ids = np.full((len(rows), length, columns), PAD, np.int64)
    slots = np.full((len(rows), length, columns), -1, np.int64)
    numbers, positions = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.float32)
    voices, voice_at = [], []
    number = 0
    for i, row in enumerate(rows):
        stop = 0
        for document in row:
            at, stop = stop, stop + len(document)
            number += 1
            ids[i, at:stop], slots[i, at:stop] = document.ids, document.slots
            numbers[i, at:stop], positions[i, at:stop] = number, document.positions
            if document.voice is not None:
                voices.append(document.voice)
                voice_at.append((i, at + document.voice_step))
    return Rows(
        ids,
        slots,
        numbers,
        positions,
        np.stack(voices).astype(np.float32) if voices else None,
        np.array(voice_at, np.int64).reshape(-1, 2),
    )
