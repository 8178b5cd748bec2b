"""A Kanade small enough to train in tests: 24-d features of the waveform itself, 16 kHz, 50 Hz mel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench.audio import write_audio
from tokbench.data.dataset import Dataset, Utterance
from tokbench.kanade.config import (
    GlobalEncoderConfig,
    KanadeConfig,
    MelConfig,
    PostNetConfig,
    QuantizerConfig,
    TransformerConfig,
)
from tokbench.kanade.mel import log_mel
from tokbench.kanade.training.parts import Features, Parts
from tokbench.kanade.training.recipe import Recipe

BANDS = 24


def _net(dim: int, window: int, **more: Any) -> TransformerConfig:
    return TransformerConfig(dim=dim, n_layers=1, n_heads=2, window=window, multiple_of=16, dropout=0.0, **more)


TINY = KanadeConfig(
    local_layers=(1,),
    global_layers=(1,),
    downsample=2,
    mel_upsample=2,
    local_encoder=_net(BANDS, 9),
    quantizer=QuantizerConfig(input_dim=BANDS, output_dim=BANDS, levels=(8, 5, 5)),
    feature_decoder=_net(BANDS, 9),
    global_encoder=GlobalEncoderConfig(
        input_channels=BANDS, output_channels=16, num_layers=1, dim=16, intermediate_dim=32, attention_channels=8
    ),
    mel_prenet=_net(BANDS, 9, output_dim=32),
    mel_decoder=_net(32, 9, output_dim=BANDS, condition_dim=16),
    mel_postnet=PostNetConfig(input_channels=BANDS, channels=16, kernel_size=3, num_layers=2, dropout=0.0),
    mel=MelConfig(style="hift", sample_rate=16000, n_fft=640, hop=320, n_mels=BANDS, padding="same"),
    vocoder="hift",
)
"""Trains in seconds."""


class TinyParts(Parts):
    """The log-mel spectrogram is content feature, speaker feature and target."""

    content_hop = speaker_hop = 320
    stores_mel = True

    def features(self, waves: Tensor, n_samples: Tensor) -> Features:  # noqa: ARG002
        mel = self.log_mel(waves).transpose(1, 2)
        return Features(mel, mel)

    def log_mel(self, waves: Tensor) -> Tensor:
        whole = torch.nn.functional.pad(waves, (0, -waves.shape[1] % 320))
        return log_mel(whole, self.config.mel)

    def identity(self) -> dict[str, str]:
        return {"features": "log-mel", "bands": str(BANDS)}


def recipe(**changes: Any) -> Recipe:
    """A recipe of the tiny model; nested fields as mappings."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "summary": "For tests.",
        "model": {"base": "kanade.training_support:TINY"},
        "parts": "kanade.training_support:TinyParts",
        "data": {"crop_seconds": 0.64, "hop_seconds": 0.32, "batch_size": 4, "workers": 0, "held_out_speakers": 0},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup": 0.5},
        "precision": "fp32",
        "batches": 6,
        "log_every": 1,
        "save_every": 2,
        "validate_every": 3,
    }
    for key, value in changes.items():
        fields[key] = {**fields.get(key, {}), **value} if isinstance(value, dict) else value
    return Recipe.model_validate(fields)


def corpus(folder: Path, *, speakers: int = 2, each: int = 2, seconds: float = 1.6) -> Dataset:
    """Harmonic glides, one pitch range a speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for speaker in range(speakers):
        for number in range(each):
            t = np.arange(int(seconds * 16000)) / 16000
            f0 = 100 + 60 * speaker + 30 * np.sin(2 * np.pi * (number + 1) * t)
            phase = 2 * np.pi * np.cumsum(f0) / 16000
            wave = sum(np.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
            path = folder / f"s{speaker}_{number}.flac"
            write_audio(path, (0.2 * wave).astype(np.float32), 16000)
            utterances.append(Utterance(path.stem, path, f"s{speaker}"))
    return Dataset("glides", tuple(utterances))


def padded_batch(lengths: list[int]) -> dict[str, Tensor]:
    """Noise of these lengths in samples, padded to the longest."""
    generator = torch.Generator().manual_seed(1)
    wave = torch.zeros(len(lengths), max(lengths))
    for item, n in enumerate(lengths):
        wave[item, :n] = torch.randn(n, generator=generator)
    return {"wave": wave, "n_samples": torch.tensor(lengths)}
