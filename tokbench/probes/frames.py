"""Streams as the frames of a probe: one clock for all streams, at a rate that every tokenizer shares.

Streams of several rates (SNAC) are repeated to the finest. Then whole numbers of symbols are folded into a frame, or
each symbol is spread over several, so that the probe sees between `head_rate` and twice `head_rate` frames a second
whatever the tokenizer does: the same budget of frames, and enough of them for the labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tokbench.errors import NotApplicable
from tokbench.streams import StreamSpec

__all__ = ["LONGEST_FOLD", "Clock"]

LONGEST_FOLD = 64
"""Most symbols in a frame: two packets of a coder are, the samples of a waveform are not."""


@dataclass(frozen=True)
class Clock:
    """How the streams of one tokenizer become frames.

    Attributes:
        streams: those that are read, in the order of the card.
        rate: of the finest stream, in Hz.
        fold: symbols of the finest rate in a frame.
        spread: frames that one symbol (or fold) becomes; 1 unless `fold` is 1.
    """

    streams: tuple[StreamSpec, ...]
    rate: Fraction
    fold: int
    spread: int

    @classmethod
    def of(cls, streams: Sequence[StreamSpec], head_rate: Fraction, *, name: str) -> Clock:
        """The clock of a tokenizer called `name`.

        Raises:
            NotApplicable: its tokens are samples of a waveform, or more than 64 of them would be one frame.
        """
        read = tuple(stream for stream in streams if stream.role != "waveform")
        if not read:
            raise NotApplicable(f"{name}'s tokens are samples of the waveform; this probe reads frames of speech")
        rate = max(stream.rate_hz for stream in read)
        fold, spread = (rate // head_rate, 1) if rate >= head_rate else (1, math.ceil(head_rate / rate))
        if fold > LONGEST_FOLD:
            raise NotApplicable(
                f"{name} has {float(rate):g} symbols a second, {fold} in a frame of this probe (at most {LONGEST_FOLD})"
            )
        return cls(read, rate, int(fold), int(spread))

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""
        return self.rate / self.fold * self.spread

    def frames(self, symbols: int) -> int:
        """Frames of an utterance with so many steps of the finest stream."""
        return -(-symbols // self.fold) * self.spread

    def steps(self, streams: Mapping[str, npt.NDArray[np.generic]]) -> int:
        """Steps of the finest rate that the streams cover."""
        return max(math.ceil(len(streams[s.name]) * self.rate / s.rate_hz) for s in self.streams)

    def aligned(self, streams: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
        """Every stream at the finest rate, `[T]` or `[T, D]`: step t holds what the stream says at time t / rate."""
        steps = self.steps(streams)
        made = {}
        for stream in self.streams:
            values = streams[stream.name]
            ratio = stream.rate_hz / self.rate
            places = np.arange(steps, dtype=np.int64) * ratio.numerator // ratio.denominator
            made[stream.name] = values[np.minimum(places, len(values) - 1)] if len(values) else values
        return made
