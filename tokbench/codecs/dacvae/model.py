"""DAC-VAE put together: audio to a diagonal Gaussian a frame, latent to audio."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.dacvae.config import DacVaeConfig
from tokbench.codecs.dacvae.nets import Decoder, Encoder, conv

__all__ = ["DacVae"]

_LOG_SIGMA_LIMIT = 14.0


class DacVae(nn.Module):
    """Encoder, bottleneck and decoder, for inference; rows of a batch must be equally long.

    Args:
        config: geometry.
        device: "meta" to leave the weights to a loader.
    """

    def __init__(self, config: DacVaeConfig, *, device: str = "cpu") -> None:
        super().__init__()
        self.config = config
        with torch.device(device):
            self.encoder = Encoder(config)
            self.en_conv_post = conv(config.latent_dim, 2 * config.latent_dim, 1)
            self.de_conv_pre = conv(config.latent_dim, config.latent_dim, 1)
            self.decoder = Decoder(config)
        self.requires_grad_(requires_grad=False)

    def pad(self, audio: Tensor) -> Tensor:
        """Zeros after `[B, 1, S]` up to a multiple of the hop."""
        return functional.pad(audio, (0, -audio.shape[-1] % self.config.hop))

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `[B, 1, S]` to mean and natural log of the standard deviation, each `[B, D, T]`.

        T is S / hop for whole frames; other lengths are not padded here: an even stride s makes `L // s`, an odd one
        `(L + 1) // s`, as in the reference's `encode`.
        """
        features = functional.leaky_relu(self.encoder(audio))
        mean, log_sigma = cast(Tensor, self.en_conv_post(features)).chunk(2, dim=1)
        return mean, log_sigma.clamp(-_LOG_SIGMA_LIMIT, _LOG_SIGMA_LIMIT)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent `[B, D, T]` to audio `[B, 1, hop * T]`."""
        return cast(Tensor, self.decoder(self.de_conv_pre(latent)))
