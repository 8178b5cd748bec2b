"""Local-window attention: frame i sees frames j with `|i - j| <= radius`, in memory linear in the length.

Three backends compute the same function: flash-attn (where it is installed, half precision on CUDA), torch's
flex_attention (CUDA), and scaled dot products over blocks of queries with their windows of keys (everywhere).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from tokbench.errors import MissingBackend, UserError
from tokbench.kanade.constants import constant

__all__ = ["Backend", "local_attention", "resolve_backend"]

Backend = Literal["auto", "flash", "flex", "sdpa"]

# Asked once: the question would cut a compiled net in two.
_FLASH_INSTALLED = find_spec("flash_attn") is not None

_MARKS = 8
_OUT_OF_SIGHT = -3e4
"""Added to a padded key's logit before the scale: far below any other, and finite in half precision."""

_FLEX_BLOCK = 128
"""Block size of flex_attention's sparsity; its default."""
_FLEX_WIDTH = 16
"""Width of a head from which flex_attention has a kernel on CUDA."""


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    radius: int,
    dropout: float = 0.0,
    backend: Backend = "auto",
    lengths: Tensor | None = None,
) -> Tensor:
    """Bidirectional attention inside a window, scaled by `1 / sqrt(D)`.

    Args:
        q: queries `[B, H, T, D]`; k and v likewise.
        k: keys.
        v: values.
        radius: frames seen on either side.
        dropout: probability of dropping an attention weight; 0 outside training.
        backend: see `resolve_backend`.
        lengths: real frames of each item, int64 `[B]`; real frames do not see those behind them. None: all are real.

    Returns:
        `[B, H, T, D]`, in the dtype of v.
    """
    chosen = resolve_backend(backend, q, dropout=dropout)
    width = v.shape[-1]
    scale = width**-0.5
    if lengths is not None:
        q, k, v = _with_padding_marked(q, k, v, lengths)
    if chosen == "flash":
        out = _flash(q, k, v, radius, dropout, scale)
    elif radius >= q.shape[2] - 1:  # everybody sees everybody
        out = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
    elif chosen == "flex":
        out = _flex(q, k, v, radius, scale)
    else:
        out = _blocked(q, k, v, radius, dropout, scale)
    return out[..., :width]


def _with_padding_marked(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Columns that put padded keys out of sight: ones in the queries, a large negative number in padded keys.

    Unlike a mask it is understood by every backend, takes no memory that grows with the square of the window, and
    leaves a padded query a finite row. Kernels want widths that are multiples of 8, and equal ones.
    """
    padded = torch.arange(k.shape[2], device=k.device) >= lengths[:, None]
    mark = (padded * _OUT_OF_SIGHT).to(k.dtype)[:, None, :, None].expand(*k.shape[:3], 1)
    zeros = k.new_zeros(*k.shape[:3], _MARKS - 1)
    ones = torch.ones_like(mark)
    return (
        torch.cat((q, ones.to(q.dtype), zeros.to(q.dtype)), dim=-1),
        torch.cat((k, mark, zeros), dim=-1),
        functional.pad(v, (0, _MARKS)),
    )


def resolve_backend(backend: Backend, q: Tensor, *, dropout: float = 0.0) -> Literal["flash", "flex", "sdpa"]:
    """The backend that "auto" stands for; anything else is checked and returned.

    flash-attn takes float16 and bfloat16 on CUDA only; flex_attention knows no dropout and no narrow heads.

    Raises:
        MissingBackend: flash-attn was asked for and is not installed.
        UserError: the backend cannot do what is asked.
    """
    half = q.dtype in (torch.float16, torch.bfloat16)
    if backend == "auto":
        if not q.is_cuda:
            return "sdpa"
        if half and _FLASH_INSTALLED:
            return "flash"
        return "flex" if dropout == 0.0 and q.shape[-1] >= _FLEX_WIDTH else "sdpa"
    if backend == "flash":
        if not _FLASH_INSTALLED:
            raise MissingBackend("flash-attn", extra="flash", needed_by="attention backend 'flash'")
        if not (half and q.is_cuda):
            raise UserError(f"flash-attn needs half precision on CUDA, has {q.dtype} on {q.device.type}")
    if backend == "flex" and dropout > 0.0:
        raise UserError("flex_attention has no dropout", hint="Use the backend 'sdpa' or dropout 0")
    return backend


def _flash(q: Tensor, k: Tensor, v: Tensor, radius: int, dropout: float, scale: float) -> Tensor:
    from flash_attn import flash_attn_func

    # flash-attn keeps time before heads.
    swapped = (x.transpose(1, 2) for x in (q, k, v))
    out: Tensor = flash_attn_func(*swapped, dropout_p=dropout, softmax_scale=scale, window_size=(radius, radius))
    return out.transpose(1, 2)


def _blocked(q: Tensor, k: Tensor, v: Tensor, radius: int, dropout: float, scale: float) -> Tensor:
    """Blocks of `size` queries against the `size + 2 radius` keys around them: T (1 + 2 radius / size) keys in all."""
    batch, heads, length, width = q.shape
    size = max(32, min(2 * radius, 128))
    blocks = -(-length // size)
    tail = blocks * size - length
    queries = functional.pad(q, (0, 0, 0, tail)).view(batch, heads, blocks, size, width)
    # [blocks, batch * heads, ...]: the mask differs from block to block and from nothing else.
    queries = queries.permute(2, 0, 1, 3, 4).flatten(1, 2)
    windows = []
    for x in (k, v):
        padded = functional.pad(x, (0, 0, radius, radius + tail))
        unfolded = padded.unfold(2, size + 2 * radius, size)  # [B, H, blocks, D, size + 2 radius]
        windows.append(unfolded.permute(2, 0, 1, 4, 3).flatten(1, 2))
    mask = _band(length, size, radius, q.device)
    keys, values = windows
    out = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask[:, None], dropout_p=dropout, scale=scale
    )
    joined = out.view(blocks, batch, heads, size, width).permute(1, 2, 0, 3, 4).flatten(2, 3)
    return joined[:, :, :length]


@constant
def _band(length: int, size: int, radius: int, device: torch.device) -> Tensor:
    """Bool `[blocks, size, size + 2 radius]`: which keys of a block's window its queries see."""
    start = torch.arange(0, length, size, device=device)[:, None]
    query = start + torch.arange(size, device=device)
    key = start - radius + torch.arange(size + 2 * radius, device=device)
    near = (query[0, :, None] - key[0]).abs() <= radius
    real = (key >= 0) & (key < length)
    # Queries beyond the end are cut off afterwards; they see padding, since a row without keys would be NaN and
    # would poison the gradients of all others.
    return near & (real[:, None, :] | (query >= length)[:, :, None])


def _flex(q: Tensor, k: Tensor, v: Tensor, radius: int, scale: float) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    # Inside a compiled net it is compiled with it. On a CPU it stays the slow definition that tests compare with.
    alone = q.is_cuda and not torch.compiler.is_compiling()
    kernel: Any = _compiled_flex_attention() if alone else flex_attention
    out: Tensor = kernel(q, k, v, block_mask=_block_mask(q.shape[2], radius, q.device), scale=scale)
    return out


@lru_cache(maxsize=1)
def _compiled_flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@constant
def _block_mask(length: int, radius: int, device: torch.device) -> Any:
    """Which blocks of keys a block of queries needs, listed directly: `create_block_mask` would visit all T^2 pairs."""
    from torch.nn.attention.flex_attention import BlockMask

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return (query - key).abs() <= radius

    blocks = -(-length // _FLEX_BLOCK)
    reach = -(-radius // _FLEX_BLOCK)
    index = torch.arange(blocks, device=device)
    first, last = (index - reach).clamp(min=0), (index + reach).clamp(max=blocks - 1)
    count = (last - first + 1).to(torch.int32)
    columns = ((first[:, None] + index) % blocks).to(torch.int32)  # wanted blocks first, the others after them
    return BlockMask.from_kv_blocks(
        count[None, None], columns[None, None], BLOCK_SIZE=_FLEX_BLOCK, mask_mod=near, seq_lengths=(length, length)
    )
