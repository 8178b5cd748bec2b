"""The decoder: a Vocos (Siuzdak 2024) from latent frames to spectra, and their inverse transform."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.losatok.config import DECODER_HOP, LosatokConfig

__all__ = ["SpectralHead", "VocosDecoder"]

LAYER_NORM_EPS = 1e-6
_MAX_MAGNITUDE = 100.0


class ConvNext(nn.Module):
    """Depthwise convolution, norm, two pointwise layers, a gain a channel, residual (Liu et al. 2022)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.pwconv1, self.pwconv2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, T]` to the same shape."""
        hidden = self.norm(self.dwconv(x).transpose(1, 2))
        made: Tensor = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(hidden)))
        return x + made.transpose(1, 2)


class Backbone(nn.Module):
    """Convolution, norm, ConvNeXt blocks, norm."""

    def __init__(self, config: LosatokConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Conv1d(config.width, width, 7, padding=3)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.convnext = nn.ModuleList(ConvNext(width, config.decoder_mlp) for _ in range(config.decoder_depth))
        self.final_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, T, width]`."""
        x = self.norm(self.embed(x).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        return cast(Tensor, self.final_layer_norm(x.transpose(1, 2)))


class SpectralHead(nn.Module):
    """Log-magnitude and phase of every bin, and the samples that they make; the ends are cut to whole hops."""

    window: Tensor

    def __init__(self, width: int, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.out = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to samples `[B, T * hop]`."""
        log_magnitude, phase = self.out(x).chunk(2, dim=2)
        return self.samples(torch.polar(log_magnitude.exp().clamp(max=_MAX_MAGNITUDE), phase))

    def samples(self, spectrum: Tensor) -> Tensor:
        """Windowed inverse transforms, added, over the sum of squared windows: `[B, T, bins]` to `[B, T * hop]`."""
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=2) * self.window
        total = self._overlap_add(frames)
        weight = self._overlap_add(self.window.square().expand(1, frames.shape[1], -1))
        cut = (self.n_fft - DECODER_HOP) // 2
        return (total[:, cut:-cut] / weight[:, cut:-cut]).contiguous()

    def _overlap_add(self, frames: Tensor) -> Tensor:
        size = (frames.shape[1] - 1) * DECODER_HOP + self.n_fft
        summed = functional.fold(frames.transpose(1, 2), (1, size), (1, self.n_fft), stride=(1, DECODER_HOP))
        return summed[:, 0, 0]


class VocosDecoder(nn.Module):
    """Backbone and head."""

    def __init__(self, config: LosatokConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.head = SpectralHead(config.decoder_width, config.n_fft)

    def forward(self, x: Tensor) -> Tensor:
        """Frames `[B, C, T]` to samples `[B, T * hop]`."""
        return cast(Tensor, self.head(self.backbone(x)))
