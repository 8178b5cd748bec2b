"""How long audio is that written codes describe: the tokenizer's own law of lengths, read off what it encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tokbench.probes.layout import Layout
from tokbench.streams import StreamSpec
from tokbench.types import Encoded

__all__ = ["Spans"]

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """What whole packets are, and how much of their time is padding.

    Attributes:
        layout: of the frames.
        input_rate: in Hz.
        packet: frames are decodable in multiples of this (codecs have packets of several codes).
        margin: seconds by which codes describe more than the audio, at most, in what was encoded.
    """

    layout: Layout
    input_rate: int
    packet: int
    margin: Fraction

    @classmethod
    def of(cls, layout: Layout, streams: Sequence[StreamSpec], seen: Sequence[Encoded], input_rate: int) -> Spans:
        """From encoded utterances; packets are seen where their lengths differ."""
        packet, margin = 1, None
        for spec in streams:
            lengths = [len(one.streams[spec.name]) for one in seen]
            codes = math.gcd(*lengths) if len(set(lengths)) > 1 else 1  # one length says nothing about packets
            per_frame = sum(slot.stream == spec.name for slot in layout.slots)
            packet = math.lcm(packet, max(1, codes) // math.gcd(max(1, codes), per_frame))
            for one, length in zip(seen, lengths, strict=True):
                beyond = Fraction(length) / spec.rate_hz - Fraction(one.n_samples, input_rate)
                margin = beyond if margin is None else max(margin, beyond)
        return cls(layout, input_rate, packet, margin or Fraction(0))

    def frames(self, seconds: float) -> int:
        """Whole frames, in whole packets, that fit into a time; at least one packet."""
        count = int(Fraction(seconds).limit_denominator(1000) * self.layout.frame_rate)
        return max(self.packet, count // self.packet * self.packet)

    def encoded(self, frames: Int, globals_: Mapping[str, npt.NDArray[np.float32]]) -> Encoded | None:
        """Written frames as tokens, cut to whole packets; None where no packet, or no sample, is left.

        The number of samples is the largest that these codes are enough for, and that no utterance contradicts.
        """
        codes = self.layout.streams(frames)
        first = next(iter(codes))
        per_frame = sum(slot.stream == first for slot in self.layout.slots)
        count = len(codes[first]) // per_frame // self.packet * self.packet
        samples = int((Fraction(count) / self.layout.frame_rate - self.margin) * self.input_rate)
        if count < 1 or samples < 1:
            return None
        kept: dict[str, npt.NDArray[np.generic]] = {}
        for name, values in codes.items():
            kept[name] = values[: count * sum(slot.stream == name for slot in self.layout.slots)]
        return Encoded(kept, samples, dict(globals_))
