"""From streams of codes to one sequence: frames, slots, steps.

A frame holds the ids of all streams in one period of the slowest: one id a stream where the rates are equal, 1 + 2 + 4
for SNAC's. Every place in a frame is a slot with its own block of ids, and a model chooses among the ids of the slot
alone. Two patterns turn frames into steps:

- interleave: one id a step, slot after slot, frame after frame;
- delay: one frame a step, slot `k` held back by `k` steps, so that a slot is still written after those before it.
  Source: Copet et al., "Simple and Controllable Music Generation", NeurIPS 2023, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokbench.errors import NotApplicable, TokensError
from tokbench.streams import StreamSpec

__all__ = ["BEGIN", "CONTINUE", "PAD", "SPECIALS", "TEXT_END", "VOICE", "Layout", "Slot", "choose_layout"]

Int = npt.NDArray[np.int64]
Pattern = Literal["interleave", "delay"]

PAD, BEGIN, CONTINUE, VOICE, TEXT_END = range(5)
"""Ids before all others: nothing; an utterance begins; it goes on; a soft vector stands here; the text is over."""

SPECIALS = 5
MISSING = -1


@dataclass(frozen=True)
class Slot:
    """One place in a frame.

    Attributes:
        stream: whose code stands here; "" for the length of a run.
        place: which of the stream's codes in the frame, 0 for the first.
        size: number of codes.
        first: id of code 0.
    """

    stream: str
    place: int
    size: int
    first: int


@dataclass(frozen=True)
class Layout:
    """How the streams of one tokenizer are written as a sequence.

    Attributes:
        slots: in the order in which they are written.
        frame_rate: frames a second, exact.
        pattern: see the module.
        text: number of text symbols, whose ids follow the special ones.
        longest_run: 0, or the longest run of equal frames that is written as one frame and a length (in the last slot).
    """

    slots: tuple[Slot, ...]
    frame_rate: Fraction
    pattern: Pattern = "interleave"
    text: int = 0
    longest_run: int = 0

    @classmethod
    def of(
        cls,
        streams: Sequence[StreamSpec],
        *,
        pattern: Pattern = "interleave",
        text: int = 0,
        longest_run: int = 0,
        fold: int = 1,
    ) -> Layout:
        """The layout of a card's streams.

        Args:
            streams: of kind "codes"; others are refused.
            pattern: see the module.
            text: number of text symbols.
            longest_run: 0 for no de-duplication.
            fold: how many frames of the common rate make one.

        Raises:
            NotApplicable: there are no codes, or the rates have no common frame of at most 64 ids.
        """
        codes = [s for s in streams if s.kind == "codes"]
        if not codes or len(codes) != len(streams):
            raise NotApplicable("its streams are continuous: a model of discrete tokens has nothing to predict")
        frame_rate = _common(codes) / fold
        places = [
            (Fraction(place) / count, number, spec, place)
            for number, spec in enumerate(codes)
            for count in (int(spec.rate_hz / frame_rate),)
            for place in range(count)
        ]
        if len(places) > 64:
            rate = sum(float(s.rate_hz) for s in codes)
            raise NotApplicable(
                f"its {rate:g} ids a second need {len(places)} in a common frame; at most 64 can be written"
            )
        # In order of time, and at the same time in the order of the card.
        places.sort(key=lambda one: one[:2])
        slots: list[Slot] = []
        first = SPECIALS + text
        for _, _, spec, place in places:
            slots.append(Slot(spec.name, place, spec.vocab or 0, first))
            first += (spec.vocab or 0) + (len(slots) == 1)  # the end of the utterance is chosen in the first slot
        if longest_run:
            slots.append(Slot("", 0, longest_run, first))
        return cls(tuple(slots), frame_rate, pattern, text, longest_run)

    @property
    def end(self) -> int:
        """Id of the end of the utterance; stands in slot 0, behind its codes."""
        return self.slots[0].first + self.slots[0].size

    @property
    def size(self) -> int:
        """Number of ids."""
        last = self.slots[-1]
        return last.first + last.size + (len(self.slots) == 1)

    @property
    def columns(self) -> int:
        """Ids a step."""
        return len(self.slots) if self.pattern == "delay" else 1

    @property
    def steps_per_second(self) -> float:
        """Steps of a second of audio without de-duplication."""
        return float(self.frame_rate) * (len(self.slots) if self.pattern == "interleave" else 1)

    def block(self, slot: int) -> tuple[int, int]:
        """First id and number of ids that slot `slot` chooses among; the end is one of slot 0's."""
        return self.slots[slot].first, self.slots[slot].size + (slot == 0)

    def describe(self) -> str:
        """The rule in words, for tables and manifests."""
        ids = f"{len(self.slots)} ids a frame of {1000 / float(self.frame_rate):g} ms"
        order = "delayed columns, one frame a step" if self.pattern == "delay" else "one id a step"
        runs = f", runs of up to {self.longest_run} frames as one" if self.longest_run else ""
        return f"{ids}, {order}{runs}"

    # -- frames --------------------------------------------------------------------------------------------------

    def frames(self, streams: Mapping[str, npt.NDArray[np.generic]]) -> Int:
        """Ids of all slots, int64 `[F, slots]`; -1 where a stream has ended before the frame has.

        Codes are offset into their slot's block. With de-duplication, runs of equal frames become one.

        Raises:
            TokensError: a code outside its stream's vocabulary.
        """
        own = [slot for slot in self.slots if slot.stream]
        per_frame = {slot.stream: 0 for slot in own}
        for slot in own:
            per_frame[slot.stream] += 1
        count = max(-(-len(streams[name]) // n) for name, n in per_frame.items())
        made = np.full((count, len(own)), MISSING, np.int64)
        for column, slot in enumerate(own):
            codes = np.asarray(streams[slot.stream][slot.place :: per_frame[slot.stream]], np.int64)
            if len(codes) and (codes.min() < 0 or codes.max() >= slot.size):
                raise TokensError(f"stream '{slot.stream}' has ids outside 0..{slot.size - 1}")
            made[: len(codes), column] = codes + slot.first
        return self._runs(made) if self.longest_run else made

    def streams(self, frames: Int) -> dict[str, Int]:
        """Codes of every stream from whole frames `[F, slots]`; the inverse of `frames`.

        Raises:
            TokensError: an id outside its slot's block.
        """
        if self.longest_run:
            frames = np.repeat(frames[:, :-1], self.lengths(frames), axis=0)
        own = [slot for slot in self.slots if slot.stream]
        parts: dict[str, list[Int]] = {}
        for column, slot in enumerate(own):
            codes = frames[:, column] - slot.first
            if len(codes) and (codes.min() < 0 or codes.max() >= slot.size):
                raise TokensError(f"an id of slot {column} lies outside the codes of stream '{slot.stream}'")
            parts.setdefault(slot.stream, []).append(codes)
        return {name: np.stack(columns, axis=1).reshape(-1) for name, columns in parts.items()}

    def lengths(self, frames: Int) -> Int:
        """How many frames of audio each row of `frames` stands for, int64 `[F]`: 1, or the length of the run."""
        if not self.longest_run:
            return np.ones(len(frames), np.int64)
        return np.asarray(frames[:, -1] - self.slots[-1].first + 1, np.int64)

    def _runs(self, frames: Int) -> Int:
        """One row a run of equal frames, at most `longest_run` of them, with its length in the last column."""
        if not len(frames):
            return np.zeros((0, frames.shape[1] + 1), np.int64)
        change = np.concatenate([[True], (frames[1:] != frames[:-1]).any(axis=1)])
        place = np.arange(len(frames)) - np.maximum.accumulate(np.where(change, np.arange(len(frames)), 0))
        starts = np.flatnonzero(place % self.longest_run == 0)
        lengths = np.diff(np.append(starts, len(frames)))
        return np.column_stack([frames[starts], lengths - 1 + self.slots[-1].first])

    # -- steps ---------------------------------------------------------------------------------------------------

    def steps(self, frames: Int, *, end: bool = True) -> tuple[Int, Int]:
        """Frames `[F, slots]` as steps: ids and slots, both int64 `[L, columns]`.

        A place without a code has id `PAD` and slot -1, which is never predicted. The end follows the last frame.
        """
        slot_of = np.broadcast_to(np.arange(len(self.slots)), frames.shape)
        slot_of = np.where(frames == MISSING, -1, slot_of)
        ids = np.where(frames == MISSING, PAD, frames)
        if self.pattern == "interleave":
            ids, slot_of = ids.reshape(-1), slot_of.reshape(-1)
            ids, slot_of = ids[slot_of >= 0], slot_of[slot_of >= 0]
            if end:
                ids, slot_of = np.append(ids, self.end), np.append(slot_of, 0)
            return ids[:, None], slot_of[:, None]
        count, width = frames.shape
        length = count + width - 1 if count else 0
        length = max(length, count + 1) if end else length
        laid, where = np.full((length, width), PAD, np.int64), np.full((length, width), -1, np.int64)
        for k in range(width):
            laid[k : k + count, k], where[k : k + count, k] = ids[:, k], slot_of[:, k]
        if end:
            laid[count, 0], where[count, 0] = self.end, 0
        return laid, where


def choose_layout(streams: Sequence[StreamSpec], *, most_steps: float, text: int = 0, longest_run: int = 0) -> Layout:
    """Interleaved where that makes at most `most_steps` steps a second, else in delayed columns.

    Frames that are faster still are folded: as many of them make a frame as bring it below.

    Raises:
        NotApplicable: as `Layout.of`; or the tokens are samples.
    """
    waves = [s for s in streams if s.role == "waveform"]
    if waves:
        raise NotApplicable(
            f"its tokens are samples, {float(waves[0].rate_hz):g} a second: nothing to model but a wave"
        )
    plain = Layout.of(streams, text=text, longest_run=longest_run)
    if plain.steps_per_second <= most_steps:
        return plain
    fold = max(1, math.ceil(float(plain.frame_rate) / most_steps))
    return Layout.of(streams, pattern="delay", text=text, longest_run=longest_run, fold=fold)


def _common(streams: Sequence[StreamSpec]) -> Fraction:
    """The fastest rate of which every stream's is a multiple."""
    denominator = math.lcm(*(s.rate_hz.denominator for s in streams))
    return Fraction(math.gcd(*(int(s.rate_hz * denominator) for s in streams)), denominator)
