"""What a tokenizer declares about its output: streams, globals, capabilities.

No numpy here, so that listing cards is instant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

__all__ = ["Capability", "Direction", "GlobalSpec", "Role", "StreamSpec"]

Capability = Literal["discrete", "continuous", "decode", "swap_global", "codebook", "features", "posterior", "fit"]
Role = Literal["semantic", "acoustic", "mixed", "prosody", "detail", "side", "waveform"]
Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class StreamSpec:
    """One time-aligned sequence of codes or latents.

    Attributes:
        name: unique in the tokenizer, for instance "content" or "q0".
        kind: "codes" (int64 `[T]`) or "latent" (float32 `[T, D]`).
        rate_hz: frames per second, exact.
        vocab: number of codes, ids are `0 .. vocab-1`; None for a latent.
        dim: width D of a latent; None for codes.
        role: what the stream is meant to carry; "side" is what a decoder needs beside frames of speech, such as levels.
        levels: FSQ factorisation, first level fastest; None where there is none.
    """

    name: str
    kind: Literal["codes", "latent"]
    rate_hz: Fraction
    vocab: int | None = None
    dim: int | None = None
    role: Role = "mixed"
    levels: tuple[int, ...] | None = None

    @property
    def nominal_bps(self) -> float | None:
        """`rate_hz * log2(vocab)` in bit/s; None for a latent, which has no finite rate."""
        return float(self.rate_hz) * math.log2(self.vocab) if self.vocab else None


@dataclass(frozen=True)
class GlobalSpec:
    """One vector per utterance beside the streams, such as a speaker embedding.

    Attributes:
        name: unique in the tokenizer.
        dim: length of the vector.
        bits_per_dim: what a component is charged in the bit rate; 16 unless the tokenizer quantises it.
    """

    name: str
    dim: int
    bits_per_dim: int = 16
