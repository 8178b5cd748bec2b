"""A small Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

Sequences are packed: several documents share a row, and a step attends to earlier steps of its own document alone. On
the CPU, and wherever a cache is used, that is a mask for scaled dot-product attention; on CUDA it is flex_attention,
which skips what the mask excludes. Sources: Touvron et al., "LLaMA", 2023; Su et al., "RoFormer", 2021 (the halves of
a head are rotated, as transformers' Llama does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["Cache", "Decoder", "DecoderConfig", "document_mask", "flex_mask"]


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a decoder.

    Attributes:
        layers, width, heads: of the transformer; `width / heads` is even.
        kv_heads: heads of keys and values; divides `heads`.
        hidden: width of the SwiGLU layer; 8/3 of the width, rounded up to 32, where it is 0.
        rope_base: base of the rotary frequencies.
        dropout: of the residual branches, in training.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 4
    hidden: int = 0
    rope_base: float = 10_000.0
    dropout: float = 0.0

    @property
    def hidden_width(self) -> int:
        """Width of the SwiGLU layer."""
        return self.hidden or -(-self.width * 8 // 3 // 32) * 32


class Cache:
    """Keys and values of the steps so far, of a batch whose rows end at the same step.

    Args:
        config: of the decoder.
        rows: batch size.
        steps: room.
        like: a tensor of the device and dtype to use.
    """

    def __init__(self, config: DecoderConfig, rows: int, steps: int, like: Tensor) -> None:
        shape = (config.layers, 2, rows, config.kv_heads, steps, config.width // config.heads)
        self.memory = like.new_zeros(shape)
        self.used = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values `[B, H, L, D]` behind the others of the layer; returns all of them."""
        stop = self.used + keys.shape[2]
        self.memory[layer, 0, :, :, self.used : stop] = keys
        self.memory[layer, 1, :, :, self.used : stop] = values
        return self.memory[layer, 0, :, :, :stop], self.memory[layer, 1, :, :, :stop]


class Decoder(nn.Module):
    """Hidden states from embeddings.

    Args:
        config: its size.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        half = config.width // config.heads // 2
        self.frequencies: Tensor
        self.register_buffer("frequencies", config.rope_base ** (-torch.arange(half) / half), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # GPT-2's rule: branches that are added to the residual start smaller, the deeper the model.
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * config.layers) ** 0.5 if last else 0.02)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | BlockMask | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states `[B, L, width]`, normed.

        Args:
            x: embeddings `[B, L, width]`.
            positions: of each step in its document, float32 `[B, L]`.
            mask: bool `[B, 1, L, keys]`, True where a step may look; or a block mask of flex_attention; None: causal.
            cache: keys and values so far; extended by these steps.
        """
        angles = positions[..., None] * self.frequencies
        rotation = (angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype))
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, mask, cache, layer)
        if cache is not None:
            cache.used += x.shape[1]
        normed: Tensor = self.norm(x)
        return normed


class Block(nn.Module):
    """Attention and SwiGLU, each behind its norm and added to the residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, head = config.width, config.width // config.heads
        self.heads, self.kv_heads, self.head = config.heads, config.kv_heads, head
        self.before_attention = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, (config.heads + 2 * config.kv_heads) * head, bias=False)
        self.out = nn.Linear(config.heads * head, width, bias=False)
        self.before_mlp = nn.RMSNorm(width, eps=1e-6)
        self.gate_up = nn.Linear(width, 2 * config.hidden_width, bias=False)
        self.down = nn.Linear(config.hidden_width, width, bias=False)
        self.dropout = config.dropout

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        cache: Cache | None,
        layer: int,
    ) -> Tensor:
        """The next residual `[B, L, width]`."""
        rows, steps, _ = x.shape
        qkv = self.qkv(self.before_attention(x)).view(rows, steps, -1, self.head).transpose(1, 2)
        queries, keys, values = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        # Under autocast the projections are bf16 and the rotation is not.
        queries, keys = (_rotate(one, *rotation).type_as(values) for one in (queries, keys))
        if cache is not None:
            keys, values = cache.extend(layer, keys, values)
        mixed = _attend(queries, keys, values, mask).transpose(1, 2).reshape(rows, steps, -1)
        x = x + F.dropout(self.out(mixed), self.dropout, self.training)
        gate, up = self.gate_up(self.before_mlp(x)).chunk(2, dim=-1)
        return x + F.dropout(self.down(F.silu(gate) * up), self.dropout, self.training)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    grouped = queries.shape[1] != keys.shape[1]
    if mask is None or isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )
    from torch.nn.attention.flex_attention import flex_attention

    attended: Any = flex_attention(queries, keys, values, block_mask=mask, enable_gqa=grouped)
    return attended  # type: ignore[no-any-return]


def document_mask(documents: Tensor) -> Tensor:
    """Where a step may look, bool `[B, 1, L, L]`: earlier steps of its own document, and itself.

    Args:
        documents: number of the document that each step belongs to, int64 `[B, L]`; padding has its own number, 0.
    """
    steps = documents.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal)[:, None]


def flex_mask(documents: Tensor) -> BlockMask:
    """The same as `document_mask`, for flex_attention: blocks without a visible pair cost nothing."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, steps = documents.shape

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return (query >= key) & (documents[row, query] == documents[row, key])

    return create_block_mask(visible, rows, None, steps, steps, device=documents.device)
