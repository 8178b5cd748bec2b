"""Residual convolutions that sharpen the mel spectrogram (Shen et al. 2018, Tacotron 2, with layer norms)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from tokbench.kanade.config import PostNetConfig
from tokbench.kanade.padding import real_frames

__all__ = ["PostNet"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of `[B, C, T]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same."""
        out: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return out


class PostNet(nn.Module):
    """Convolution, channel norm, tanh (not after the last) and dropout, a few times; the input is added."""

    def __init__(self, config: PostNetConfig) -> None:
        super().__init__()
        widths = [config.input_channels, *[config.channels] * (config.num_layers - 1), config.input_channels]
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, after, config.kernel_size, padding=config.kernel_size // 2), ChannelNorm(after)
            )
            for before, after in pairwise(widths)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, mel: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """`[B, n_mels, T]` to the same; `lengths` int64 `[B]` counts real frames, None: all are real."""
        real = None if lengths is None else real_frames(lengths, mel.shape[2])[:, None]
        x = mel
        for i, layer in enumerate(self.convolutions, start=1):
            x = layer(x if real is None else x * real)
            x = self.dropout(torch.tanh(x) if i < len(self.convolutions) else x)
        return mel + x
