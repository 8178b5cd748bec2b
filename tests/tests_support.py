"""A toy tokenizer that several tests use: 3-bit samples at 8 kHz, failing where it is told to."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from tokbench.errors import ItemError
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

TOY_CARD = """\
name: toy
summary: Three-bit samples at 8 kHz.
adapter: tests_support:Toy
family: toys
capabilities: [discrete, decode]
streams:
  - {name: q0, rate_hz: 8000, vocab: 8}
input_rate: 8000
output_rate: 8000
licence: MIT
"""


class Toy(Tokenizer):
    """Three-bit linear quantiser; its parameters make it fail on long input, or die on a loud one."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            wave = self.prepare(wave)
            limit = self.card.params.get("fail_longer_than")
            if limit is not None and len(wave) > limit * self.card.input_rate:
                raise ItemError(f"longer than {limit} s")
            if self.card.params.get("die_on_loudest") and float(np.abs(wave).max()) > 0.7:
                os._exit(9)  # as a crash inside a library does
            codes = np.clip(np.round((np.clip(wave, -1, 1) + 1) * 3.5), 0, 7).astype(np.int64)
            made.append(Encoded({"q0": codes}, len(wave)))
        return made

    def decode(
        self,
        items: Sequence[Encoded],
        *,
        globals_from: Sequence[Encoded] | None = None,  # noqa: ARG002
    ) -> list[Wave]:
        return [(item.streams["q0"] / 3.5 - 1).astype(np.float32) for item in items]


class ToyLatent(Tokenizer):
    """A variational latent at 100 Hz: the root mean square of each 10 ms, with unit variance; no decoder."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        return [Encoded({"z": mean}, len(wave)) for wave, (mean, _) in zip(wavs, self.posterior(wavs), strict=True)]

    def posterior(self, wavs: Sequence[Wave]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for wave in wavs:
            frames = wave[: len(wave) // 80 * 80].reshape(-1, 80)
            mean = np.sqrt((frames**2).mean(axis=1, keepdims=True)).astype(np.float32)
            found.append((mean, np.zeros_like(mean)))
        return found
