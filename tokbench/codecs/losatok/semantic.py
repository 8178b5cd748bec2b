"""The semantic encoder: MiDashengLM's audio transformer over mel patches, and the bottleneck behind it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.losatok.config import PATCH_FRAMES, LosatokConfig
from tokbench.codecs.losatok.frontend import SemanticMel

__all__ = ["SemanticBranch", "SemanticEncoder"]

LAYER_NORM_EPS = 1e-6
BATCH_NORM_EPS = 1e-5


class FrozenBatchNorm(nn.Module):
    """Batch normalisation of mel bands by stored statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(bands))
        self.bias = nn.Parameter(torch.zeros(bands))
        self.register_buffer("running_mean", torch.zeros(bands))
        self.register_buffer("running_var", torch.ones(bands))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, bands, F]` to the same shape."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=BATCH_NORM_EPS
        )


class PatchEmbed(nn.Module):
    """One vector a patch of all bands and four frames; frames that fill no patch are dropped."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        size = (bands, PATCH_FRAMES)
        self.proj = nn.Conv2d(1, width, size, stride=size)

    def forward(self, mels: Tensor) -> Tensor:
        """`[B, bands, F]` to `[B, width, 1, F // 4]`."""
        return cast(Tensor, self.proj(mels[:, None]))


class Attention(nn.Module):
    """Full self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to the same shape."""
        batch, frames, width = x.shape
        q, k, v = self.qkv(x).view(batch, frames, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(batch, frames, width)))


class Mlp(nn.Module):
    """Two layers around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same shape."""
        return cast(Tensor, self.fc2(functional.gelu(self.fc1(x))))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: LosatokConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.width, config.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class SemanticEncoder(nn.Module):
    """Patches to embeddings; tokens attend inside chunks of fixed length from the start, so they depend on position."""

    def __init__(self, config: LosatokConfig) -> None:
        super().__init__()
        self.chunk = config.chunk
        self.init_bn = FrozenBatchNorm(config.semantic_mels)
        self.patch_embed = PatchEmbed(config.width, config.semantic_mels)
        self.time_pos_embed = nn.Parameter(torch.zeros(1, config.width, 1, config.chunk))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, config.width, 1, 1))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, mels: Tensor) -> Tensor:
        """Mel bands in dB, `[B, mels, F]`, to embeddings `[B, F // 4, width]`."""
        patches = self.patch_embed(self.init_bn(mels))
        return torch.cat([self._attend(piece) for piece in patches.split(self.chunk, dim=3)], dim=1)

    def _attend(self, patches: Tensor) -> Tensor:
        placed = patches + self.time_pos_embed[..., : patches.shape[3]] + self.freq_pos_embed
        x = placed.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.norm(x))


class Bottleneck(nn.Module):
    """Embedding to latent width; the way back serves training alone, and is here because checkpoints hold it."""

    def __init__(self, config: LosatokConfig) -> None:
        super().__init__()
        width, hidden, latent = config.width, config.bottleneck, config.latent
        self.downsample = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, latent))
        self.upsample = nn.Sequential(nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to `[B, T, latent]`."""
        return cast(Tensor, self.downsample(x))


class SemanticBranch(nn.Module):
    """Front end, encoder and bottleneck."""

    def __init__(self, config: LosatokConfig, front_end: SemanticMel) -> None:
        super().__init__()
        self.front_end = front_end
        self.encoder = SemanticEncoder(config)
        self.bottleneck = Bottleneck(config)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `[B, S]` to embeddings `[B, T, width]` and what the latent gets of them, `[B, T, latent]`."""
        embedding = self.encoder(self.front_end(audio))
        return embedding, self.bottleneck(embedding)
