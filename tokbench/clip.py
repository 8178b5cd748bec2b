"""Audio with an identity, as it goes from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokbench.audio import pcm_sha256, resample
from tokbench.errors import ItemError
from tokbench.types import Wave

__all__ = ["Clip", "finite"]


@dataclass(frozen=True)
class Clip:
    """Audio with an identity: float32 `[n]`, rate in Hz, sha256 of both."""

    wave: Wave
    rate: int

    @cached_property
    def sha256(self) -> str:
        """Identity of the samples and the rate."""
        return pcm_sha256(self.wave, self.rate)

    def at(self, rate: int) -> Clip:
        """The clip at another rate (soxr HQ)."""
        return self if rate == self.rate else Clip(resample(self.wave, self.rate, rate), rate)


def finite(wave: Wave) -> Wave:
    """A decoder's wave as contiguous float32 `[n]`.

    Raises:
        ItemError: another shape, or samples that are NaN or infinite.
    """
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise ItemError(f"the decoder gave {'NaN or infinite samples' if wave.ndim == 1 else f'shape {wave.shape}'}")
    return wave
