"""Ceilings: 16-bit PCM as tokens, at the input rate (`identity`) or at a lower one (`resample-RATE`).

They bound what any tokenizer can score behind the same judges: `identity` is the original itself, and
`resample-RATE` is what the bandwidth alone costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokbench.audio import RESAMPLER, resample
from tokbench.errors import CardError, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, IntArray, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["LOWEST_RATE", "PcmAnchor"]

LOWEST_RATE = 1000
"""Below this, in Hz, nothing of speech is left to score."""

_OFFSET = 1 << 15


class PcmAnchor(Tokenizer):
    """16-bit PCM codes, one a sample, at `card.params["rate"]` Hz; code 32768 is silence.

    Audio that was read from a 16-bit file at the input rate comes back bit for bit where the rates are equal. The
    way down and back up is the thing measured, so this adapter resamples, with the core's resampler.
    """

    code_modules: ClassVar[tuple[str, ...]] = ("tokbench.audio",)

    def __init__(
        self,
        card: TokenizerCard,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        rate = card.params.get("rate")
        if not isinstance(rate, int) or not LOWEST_RATE <= rate <= card.input_rate:
            raise CardError(
                f"the rate must be a whole number from {LOWEST_RATE} to {card.input_rate} Hz, is {rate}",
                where=f"tokenizer '{card.name}'",
                hint="For instance resample-8000",
            )
        self.rate: int = rate

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """The version of the resampler library where the card needs it."""
        if card.params.get("rate") == card.input_rate:
            return super().weights_identity(card, weights)
        from importlib.metadata import version

        return {RESAMPLER: version("soxr")}

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """Codes int64 `[round(n * rate / input_rate)]`, at least one, clipped to full scale."""
        return [Encoded({"pcm": self._codes(self.prepare(wave))}, n_samples=wave.size) for wave in wavs]

    def _codes(self, wave: Wave) -> IntArray:
        wave = np.pad(wave, (0, max(0, -(-self.card.input_rate // self.rate) - wave.size)))
        low = resample(wave, self.card.input_rate, self.rate)
        return np.clip(np.rint(low.astype(np.float64) * _OFFSET), -_OFFSET, _OFFSET - 1).astype(np.int64) + _OFFSET

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """Float32 `[n_samples]` at the input rate."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no global vector to swap")
        waves = []
        for item in items:
            item.check(self.card.stream_specs, self.card.global_specs)
            codes = item.streams["pcm"].astype(np.int32)
            if codes.size * self.card.input_rate < (item.n_samples - self.card.input_rate / self.rate) * self.rate:
                raise TokensError(f"{codes.size} codes are too few for {item.n_samples} samples")
            low = ((codes - _OFFSET) / _OFFSET).astype(np.float32)
            wave = resample(low, self.rate, self.card.input_rate)[: item.n_samples]
            waves.append(np.pad(wave, (0, item.n_samples - wave.size)))
        return waves
