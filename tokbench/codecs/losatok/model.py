"""LoSATok put together: audio to a diagonal Gaussian a token, latent to audio."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tokbench.codecs.losatok.config import PATCH_FRAMES, SAMPLES_PER_TOKEN, LosatokConfig
from tokbench.codecs.losatok.frontend import AcousticMel, SemanticMel
from tokbench.codecs.losatok.semantic import SemanticBranch
from tokbench.codecs.losatok.vocos import VocosDecoder

__all__ = ["MIN_SAMPLES", "Embeddings", "Losatok"]

MIN_SAMPLES = 513
"""Reflected edges of the acoustic spectra need more than 512."""
ACOUSTIC_NORM_EPS = 1e-5
_LOG_VARIANCE_LIMIT = 20.0


class Embeddings(NamedTuple):
    """What the two encoders make of audio.

    Attributes:
        semantic: `[B, T, width]`.
        acoustic: `[B, T, width]`.
        semantic_low: the semantic part of the latent, `[B, T, latent]`.
        acoustic_low: the acoustic part.
    """

    semantic: Tensor
    acoustic: Tensor
    semantic_low: Tensor
    acoustic_low: Tensor


class AcousticEncoder(nn.Module):
    """Log-mel patches, projected and normalised."""

    def __init__(self, config: LosatokConfig, front_end: AcousticMel) -> None:
        super().__init__()
        size = (config.acoustic_mels, PATCH_FRAMES)
        self.front_end = front_end
        self.patch_embed = nn.Conv2d(1, config.width, size, stride=size)
        self.norm = nn.LayerNorm(config.width, eps=ACOUSTIC_NORM_EPS)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio `[B, S]` to `[B, T, width]`."""
        patches = self.patch_embed(self.front_end(audio)[:, None])
        return cast(Tensor, self.norm(patches.flatten(2).transpose(1, 2)))


class AcousticCodec(nn.Module):
    """The acoustic encoder and the decoder, under the name that the release gives them together."""

    def __init__(self, config: LosatokConfig, front_end: AcousticMel) -> None:
        super().__init__()
        self.encoder = AcousticEncoder(config, front_end)
        self.upsampler = nn.ConvTranspose1d(config.latent, config.width, config.upsample, stride=config.upsample)
        self.decoder = VocosDecoder(config)


class Losatok(nn.Module):
    """The whole tokenizer, for inference in float32; no mask, so rows of a batch must be equally long.

    Args:
        config: geometry.
        device: "meta" to leave the weights to a loader.
    """

    def __init__(self, config: LosatokConfig, *, device: str = "cpu") -> None:
        super().__init__()
        self.config = config
        semantic_mel, acoustic_mel = SemanticMel(config.semantic_mels), AcousticMel(config.acoustic_mels)
        with torch.device(device):
            self.semantic_encoder = SemanticBranch(config, semantic_mel)
            self.dasheng_tokenizer = AcousticCodec(config, acoustic_mel)
            self.fc_a = nn.Linear(config.width, config.latent)
            self.fc_mu = nn.Linear(config.latent, config.latent)
            self.fc_logvar = nn.Linear(config.latent, config.latent)
        self.requires_grad_(requires_grad=False)

    @staticmethod
    def tokens(n_samples: int) -> int:
        """`(S // 160 + 1) // 4`: mel frames that fill no token are dropped."""
        return (n_samples // 160 + 1) // PATCH_FRAMES

    def embed(self, audio: Tensor) -> Embeddings:
        """Audio float32 `[B, S]` at 16 kHz, S at least `MIN_SAMPLES`, to both embeddings."""
        semantic, semantic_low = self.semantic_encoder(audio)
        acoustic = self.dasheng_tokenizer.encoder(audio)
        return Embeddings(semantic, acoustic, semantic_low, self.fc_a(acoustic))

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `[B, S]` to mean and natural-log variance, each `[B, T, latent]`."""
        made = self.embed(audio)
        unified = made.acoustic_low + made.semantic_low
        return self.fc_mu(unified), self.fc_logvar(unified).clamp(-_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent `[B, T, latent]` to audio `[B, 640 T]`; not clamped."""
        frames = self.dasheng_tokenizer.upsampler(latent.transpose(1, 2))
        audio: Tensor = self.dasheng_tokenizer.decoder(frames)
        assert audio.shape[1] == latent.shape[1] * SAMPLES_PER_TOKEN
        return audio
