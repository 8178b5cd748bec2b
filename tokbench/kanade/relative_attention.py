"""WavLM's attention: everybody sees everybody, with a gated bias of the relative position, in memory linear in length.

The bias is made for some rows of queries at a time. It is one number for all distances beyond its last bucket, and a
softmax does not see what is added to all of its scores: on a CPU, keys so far away are attended to without any bias,
which only weighs them against the near ones. That is exact, and several times as fast over minutes of speech.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["position_bias", "relative_attention"]

_BIAS_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Attention weights that are biased at a time: what stays in a core's cache, and what fills a GPU."""
_MIN_ROWS = 64
"""Rows of queries below which matrix products lose their speed."""
_FAR_ROWS = 1024
"""Queries that share their far keys."""
_NEAR_ELEMENTS = 1 << 21
"""As `_BIAS_ELEMENTS`, for the near keys beside them."""
_FAR_FROM = 4
"""Length from which far keys are worth their own pass, in reaches of the bias on one side."""


def position_bias(attention: Any, frames: int) -> Tensor:
    """Bias of every relative position `-(N - 1) .. N - 1`, `[H, 2 N - 1]`, from the buckets of the T5 scheme."""
    distance = torch.arange(1 - frames, frames, device=attention.rel_attn_embed.weight.device)
    half = attention.num_buckets // 2
    exact = half // 2
    size = distance.abs()
    # Distances beyond `exact` share buckets whose widths grow logarithmically up to `max_distance`.
    logarithmic = torch.log(size.float().clamp(min=1) / exact) / math.log(attention.max_distance / exact)
    far = (exact + logarithmic * (half - exact)).long().clamp(max=half - 1)
    bucket = torch.where(size < exact, size, far) + half * (distance > 0)
    bias: Tensor = attention.rel_attn_embed(bucket).T.contiguous()
    return bias


def relative_attention(attention: Any, x: Tensor, bias: Tensor) -> Tensor:
    """Self-attention with a gated relative position bias (WavLM, section 3.2).

    Args:
        attention: transformers' `WavLMAttention`, for its weights and sizes.
        x: `[B, N, dim]`.
        bias: see `position_bias`.

    Returns:
        `[B, N, dim]`.
    """
    batch, frames, _ = x.shape

    def split(y: Tensor) -> Tensor:
        return y.view(batch, frames, attention.num_heads, -1).transpose(1, 2)

    q, k, v = (split(project(x)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    gates = attention.gru_rel_pos_linear(split(x)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    update, reset = gates.chunk(2, dim=-1)
    gate = update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0  # [B, H, N, 1]
    reach = int(attention.max_distance)
    if x.device.type == "cpu" and x.dtype == torch.float32 and frames > _FAR_FROM * reach:
        out = _near_and_far(q, k, v, gate, bias, reach)
    else:
        out = _all_rows(q, k, v, gate, bias)
    projected: Tensor = attention.out_proj(out.transpose(1, 2).flatten(-2))
    return projected


def _all_rows(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    """Every key under its bias, some heads and rows of queries at a time; `[B, H, N, D]`."""
    batch, heads, frames, _ = q.shape
    elements = _BIAS_ELEMENTS.get(q.device.type, 1 << 24)
    group = min(heads, max(1, elements // (batch * frames * frames)))
    rows = min(frames, max(_MIN_ROWS, elements // (batch * group * frames)))
    out = torch.empty_like(q)
    for h in range(0, heads, group):
        some = slice(h, h + group)
        for start in range(0, frames, rows):
            stop = min(start + rows, frames)
            mask = gate[:, some, start:stop].flip(2) * _runs(bias[some], start, stop, 0, frames)
            mixed = functional.scaled_dot_product_attention(
                q[:, some, start:stop].flip(2), k[:, some], v[:, some], attn_mask=mask
            )
            out[:, some, start:stop] = mixed.flip(2)
    return out


def _near_and_far(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, reach: int) -> Tensor:
    """As `_all_rows` on a CPU: keys within `reach` of some rows under their bias, those before and after without."""
    frames = q.shape[2]
    edges = bias[:, 0], bias[:, -1]  # [H], of all keys that lie far before, and far after
    out = torch.empty_like(q)
    for start in range(0, frames, _FAR_ROWS):
        stop = min(start + _FAR_ROWS, frames)
        rows = slice(start, stop)
        first, last = max(0, start - reach), min(frames, stop + reach)
        parts = [_near(q, k, v, gate, bias, (start, stop), (first, last))]
        for far, edge in ((slice(0, first), edges[0]), (slice(last, frames), edges[1])):
            if far.start < far.stop:
                mixed, weight = _attend(q[:, :, rows], k[:, :, far], v[:, :, far])
                parts.append((mixed, weight + gate[:, :, rows, 0] * edge[:, None]))
        shares = torch.stack([weight for _, weight in parts]).softmax(0)
        out[:, :, rows] = sum(mixed * share[..., None] for (mixed, _), share in zip(parts, shares, strict=True))
    return out


def _near(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, rows: tuple[int, int], keys: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Rows of queries against a range of keys under their bias: `[B, H, R, D]`, and log sums of exponents."""
    batch, heads = q.shape[:2]
    step = max(_MIN_ROWS, _NEAR_ELEMENTS // (batch * heads * (keys[1] - keys[0])))
    near_k, near_v = k[:, :, slice(*keys)], v[:, :, slice(*keys)]
    made = []
    for start in range(rows[0], rows[1], step):
        stop = min(start + step, rows[1])
        mask = gate[:, :, start:stop].flip(2) * _runs(bias, start, stop, *keys)
        mixed, weight = _attend(q[:, :, start:stop].flip(2), near_k, near_v, mask)
        made.append((mixed.flip(2), weight.flip(2)))
    return torch.cat([mixed for mixed, _ in made], dim=2), torch.cat([weight for _, weight in made], dim=2)


def _runs(bias: Tensor, start: int, stop: int, first: int, last: int) -> Tensor:
    """Biases `[H, stop - start, last - first]` of the queries `stop - 1` down to `start` and keys `first .. last - 1`.

    Row i of the bias matrix is the run that begins at relative position `first - i`. Runs that begin later belong to
    earlier rows, so queries go in backwards, and the runs need no copy.
    """
    frames = (bias.shape[1] + 1) // 2
    return bias[:, frames - stop + first : frames - 1 - start + last].unfold(1, last - first, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot products, `[B, H, R, D]`, and the log of the sum of the exponents of their scores, `[B, H, R]`.

    `scaled_dot_product_attention` is this operator on a CPU, but keeps the second result to itself.
    """
    mixed, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
    return mixed, weight
