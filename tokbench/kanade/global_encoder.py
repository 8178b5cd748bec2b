"""The speaker vector: ConvNeXt over SSL features, then attentive statistics pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokbench.kanade.config import GlobalEncoderConfig
from tokbench.kanade.padding import real_frames

__all__ = ["AttentiveStatistics", "ConvNeXt", "ConvNeXtBlock", "GlobalEncoder"]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, two pointwise layers, a learnt scale, residual (Liu et al. 2022, ConvNeXt; 1-D).

    Args:
        dim: channels.
        hidden: channels between the pointwise layers.
        scale: initial value of the scale.
    """

    def __init__(self, dim: int, hidden: int, *, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """`[B, dim, T]` to the same; `real` `[B, 1, T]` is False where there is padding."""
        x = x if real is None else x * real
        h = self.norm(self.dwconv(x).transpose(1, 2))
        h = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(h)))
        out: Tensor = x + h.transpose(1, 2)
        return out


class ConvNeXt(nn.Module):
    """Embedding convolution, blocks and norms; also the backbone of Vocos."""

    def __init__(self, inputs: int, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(inputs, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList(ConvNeXtBlock(dim, hidden, scale=1 / layers) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """`[B, inputs, T]` to `[B, T, dim]`; `real` `[B, 1, T]` is False where there is padding."""
        x = x if real is None else x * real
        x = self.norm(self.embed(x).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x, real)
        out: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return out


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation over time, each channel with its own weights (Okabe et al. 2018)."""

    def __init__(self, channels: int, attention: int, outputs: int) -> None:
        super().__init__()
        self.attn = nn.Sequential(nn.Conv1d(channels, attention, 1), nn.Tanh(), nn.Conv1d(attention, channels, 1))
        self.proj = nn.Linear(2 * channels, outputs)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """`[B, channels, T]` to `[B, outputs]`; `real` `[B, 1, T]` is False where there is padding."""
        scores = self.attn(x)
        weights = (scores if real is None else scores.masked_fill(~real, -torch.inf)).softmax(dim=-1)
        mean = (weights * x).sum(-1)
        variance = (weights * x.square()).sum(-1) - mean.square()
        deviation = variance.clamp(1e-4, 1e4).sqrt()
        out: Tensor = self.norm(self.proj(torch.cat((mean, deviation), dim=-1)))
        return out


class GlobalEncoder(nn.Module):
    """SSL features to one vector an utterance."""

    def __init__(self, config: GlobalEncoderConfig) -> None:
        super().__init__()
        self.backbone = ConvNeXt(config.input_channels, config.dim, config.intermediate_dim, config.num_layers)
        self.pooling = AttentiveStatistics(config.dim, config.attention_channels, config.output_channels)

    def forward(self, features: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """`[B, T, input_channels]` to `[B, output_channels]`; `lengths` int64 `[B]` counts real frames, None: all."""
        real = None if lengths is None else real_frames(lengths, features.shape[1])[:, None]
        out: Tensor = self.pooling(self.backbone(features.transpose(1, 2), real).transpose(1, 2), real)
        return out
