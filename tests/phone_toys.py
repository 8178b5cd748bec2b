"""Toy phones: tones of a pitch, a corpus of them with alignments, and a tokenizer that hears them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from tokbench.data.dataset import Dataset, Segment, Utterance
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

RATE = 16000
PHONES = ("AA", "IY", "UW", "S")
PITCH = {"AA": 700.0, "IY": 2200.0, "UW": 350.0, "S": 5000.0, "SIL": 0.0}

EARS_CARD = """\
name: ears
summary: The loudest of sixteen bands, 50 times a second.
adapter: phone_toys:Ears
family: toys
capabilities: [discrete, codebook, features]
streams:
  - {name: band, rate_hz: 50, vocab: 17, role: semantic}
input_rate: 16000
licence: MIT
"""

DEAF_CARD = """\
name: deaf
summary: Random codes, 50 times a second.
adapter: phone_toys:Deaf
family: toys
capabilities: [discrete]
streams:
  - {name: band, rate_hz: 50, vocab: 17}
input_rate: 16000
licence: MIT
"""


def spectra(wave: Wave) -> np.ndarray:
    """Energy in sixteen bands of 500 Hz, float32 `[T, 16]`, 50 Hz."""
    frames = len(wave) // 320
    blocks = wave[: frames * 320].reshape(frames, 320)
    return np.abs(np.fft.rfft(blocks, axis=1))[:, :160].reshape(frames, 16, 10).sum(axis=2).astype(np.float32)


class Ears(Tokenizer):
    """Code 16 is silence."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            bands = spectra(self.prepare(wave))
            codes = np.where(bands.max(axis=1) < 0.5, 16, bands.argmax(axis=1)).astype(np.int64)
            made.append(Encoded({"band": codes}, len(wave)))
        return made

    def features(self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]) -> list[np.ndarray]:
        book = self.codebook("band")
        if which == "post_quant":
            return [book[item.streams["band"]] for item in self.encode(wavs)]
        return [spectra(wave) for wave in wavs]

    def codebook(self, stream: str) -> np.ndarray:
        assert stream == "band"
        return np.eye(17, dtype=np.float32)


class Deaf(Tokenizer):
    """Codes that have nothing to do with the sound."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            rng = np.random.default_rng(abs(int(wave.sum() * 1e4)) % (1 << 32))
            made.append(Encoded({"band": rng.integers(17, size=len(wave) // 320)}, len(wave)))
        return made


def corpus(folder: Path, *, speakers: int = 3, utterances: int = 4, phones: int = 12) -> Dataset:
    """Strings of tones, each speaker a little higher than the one before."""
    rng = np.random.default_rng(0)
    made = []
    for s in range(speakers):
        for u in range(utterances):
            labels = ["SIL", *rng.choice(PHONES, phones), "SIL"]
            edges = np.concatenate([[0], np.cumsum(rng.integers(4, 9, len(labels)))]) * 0.02
            parts, segments = [], []
            for label, start, end in zip(labels, edges[:-1], edges[1:], strict=True):
                t = np.arange(round((end - start) * RATE)) / RATE
                pitch = PITCH[str(label)] * (1 + 0.01 * s)
                parts.append(0.3 * np.sin(2 * np.pi * pitch * t) + 0.001 * rng.standard_normal(len(t)))
                segments.append(Segment(str(label), float(start), float(end)))
            path = folder / f"s{s}u{u}.wav"
            soundfile.write(path, np.concatenate(parts), RATE)
            made.append(Utterance(f"s{s}u{u}", path, f"s{s}", text="la", phones=tuple(segments)))
    return Dataset("tones", tuple(made), licence="CC0-1.0")
