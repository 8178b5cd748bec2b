"""The transformer of all five nets: local attention with rotary positions, SwiGLU, plain or adaLN-Zero norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.kanade.attention import Backend, local_attention
from tokbench.kanade.config import TransformerConfig

__all__ = ["AdaptiveNorm", "Block", "Transformer", "rotary_table", "rotate"]


def rotary_table(length: int, width: int, *, theta: float, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021, RoFormer, section 3.4.2), float32 `[T, width / 2]`.

    Pair i of a head turns by `position * theta ** (-2 i / width)`.
    """
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the interleaved pairs `(2 i, 2 i + 1)` of `[B, H, T, D]`, in float32; returns the input's dtype."""
    cos, sin = table
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Multi-head local attention without biases."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        self.radius = config.radius
        self.dropout = config.dropout
        self.backend: Backend = "auto"
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], lengths: Tensor | None = None) -> Tensor:
        """`[B, T, dim]` to the same; `lengths` int64 `[B]` counts real frames."""
        q, k, v = (
            project(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for project in (self.wq, self.wk, self.wv)
        )
        out = local_attention(
            rotate(q, table),
            rotate(k, table),
            v,
            radius=self.radius,
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
            lengths=lengths,
        )
        mixed: Tensor = self.wo(out.transpose(1, 2).flatten(-2))
        return mixed


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, GLU Variants Improve Transformer)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, dim]` to the same."""
        out: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return out


class AdaptiveNorm(nn.Module):
    """Layer norm whose shift, scale and gate come from a condition (Peebles and Xie 2023, DiT, adaLN-Zero).

    Args:
        dim: width.
        condition_dim: width of the condition.
        eps: of the layer norm.
        gated: whether there is a gate for the residual branch; the last norm of a net has none.
    """

    def __init__(self, dim: int, condition_dim: int, *, eps: float, gated: bool) -> None:
        super().__init__()
        self.dim, self.eps, self.parts = dim, eps, 3 if gated else 2
        self.condition_proj = nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, self.parts * dim))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalise `[B, T, dim]` under `[B, C]`; also returns the gate `[B, 1, dim]`, None where there is none."""
        shift, scale, *gate = self.condition_proj(condition)[:, None].chunk(self.parts, dim=-1)
        out = functional.layer_norm(x, (self.dim,), eps=self.eps) * (1 + scale) + shift
        return out, gate[0] if gate else None


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and, with a condition, a gate."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config.dim, config.hidden_dim)
        self.attention_norm = _norm(config, gated=True)
        self.ffn_norm = _norm(config, gated=True)

    def forward(
        self, x: Tensor, table: tuple[Tensor, Tensor], condition: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        """`[B, T, dim]` to the same."""
        normed, gate = _apply(self.attention_norm, x, condition)
        x = _residual(x, self.attention(normed, table, lengths), gate)
        normed, gate = _apply(self.ffn_norm, x, condition)
        return _residual(x, self.feed_forward(normed), gate)


class Transformer(nn.Module):
    """A stack of blocks and a final norm; before and behind them a projection, where the config has one."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.input_dim, config.dim) if config.input_dim else None
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = _norm(config, gated=False)
        self.output_proj = nn.Linear(config.dim, config.output_dim) if config.output_dim else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-normal linear maps, zero biases; adaptive norms start as the identity with closed gates."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, AdaptiveNorm):
                nn.init.zeros_(module.condition_proj[1].weight)  # type: ignore[arg-type]
                nn.init.zeros_(module.condition_proj[1].bias)  # type: ignore[arg-type]

    def use_backend(self, backend: Backend) -> None:
        """Choose the attention backend of every block."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = backend

    def forward(self, x: Tensor, condition: Tensor | None = None, *, lengths: Tensor | None = None) -> Tensor:
        """`[B, T, input_dim or dim]` to `[B, T, output_dim or dim]`.

        Args:
            x: input.
            condition: `[B, condition_dim]` for a net with adaptive norms, None for the others.
            lengths: real frames of each item, int64 `[B]`, which then do not depend on the padding behind them; None:
                all are real.
        """
        table = rotary_table(
            x.shape[1], self.config.dim // self.config.n_heads, theta=self.config.rope_theta, device=x.device
        )
        if self.input_proj is not None:
            x = self.input_proj(x)
        x = x.contiguous()  # a compiled block is compiled anew for other strides
        for layer in self.layers:
            x = layer(x, table, condition, lengths)
        x, _ = _apply(self.norm, x, condition)
        return x if self.output_proj is None else self.output_proj(x)


def _norm(config: TransformerConfig, *, gated: bool) -> nn.Module:
    if config.condition_dim is None:
        return nn.LayerNorm(config.dim, eps=config.norm_eps)
    return AdaptiveNorm(config.dim, config.condition_dim, eps=config.norm_eps, gated=gated)


def _apply(norm: nn.Module, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if isinstance(norm, AdaptiveNorm):
        assert condition is not None, "adaptive norms need a condition"
        return norm(x, condition)  # type: ignore[no-any-return]
    return norm(x), None


def _residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return x + branch if gate is None else x + gate * branch
