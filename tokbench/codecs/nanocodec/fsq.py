"""Grouped finite scalar quantisation (Mentzer et al. 2024, section 3; NeMo's `GroupFiniteScalarQuantizer`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GroupFsq"]

_EPS = 1e-3


class GroupFsq(nn.Module):
    """Channels in consecutive groups of `len(levels)`, one token a group and frame.

    With L levels, `s = (L - 1) / 2 * (1 - 1e-3)`, `o = 1/2` for even L and 0 for odd, a value x becomes the integer
    `round(s * tanh(x + tan(o / s)) - o)`, halves to even. NeMo shifts by the tangent where the paper has the inverse
    hyperbolic tangent. The first level varies fastest in a token.

    Args:
        num_groups: tokens a frame.
        levels: of every group.
    """

    levels: Tensor
    base: Tensor
    scale: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, num_groups: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.num_groups, self.width = num_groups, len(levels)
        count = torch.tensor(levels, dtype=torch.int64)
        scale = (count.float() - 1) / 2 * (1 - _EPS)
        offset = torch.where(count % 2 == 0, 0.5, 0.0)
        base = torch.cat([torch.ones(1, dtype=torch.int64), torch.cumprod(count, 0)[:-1]])
        for name, value in (
            ("levels", count),
            ("base", base),
            ("scale", scale),
            ("offset", offset),
            ("shift", torch.tan(offset / scale)),
        ):
            self.register_buffer(name, value[:, None], persistent=False)

    @property
    def vocab(self) -> int:
        """Number of codes of a group."""
        return int(self.levels.prod())

    def compress(self, latent: Tensor) -> Tensor:
        """Latent `[B, G * d, T]` to bounded values before rounding, `[B, G, d, T]`."""
        grouped = latent.view(latent.shape[0], self.num_groups, self.width, -1)
        return self.scale * torch.tanh(grouped + self.shift) - self.offset

    def tokens(self, latent: Tensor) -> Tensor:
        """Latent `[B, G * d, T]` to tokens, int64 `[B, G, T]`."""
        digits = torch.round(self.compress(latent)).to(torch.int64) + self.levels // 2
        return (digits * self.base).sum(dim=2)

    def values(self, tokens: Tensor) -> Tensor:
        """Tokens int64 `[B, G, T]` in `0 .. vocab-1` to latent float32 `[B, G * d, T]`.

        An even L reaches -1, but not +1.
        """
        half = self.levels // 2
        digits = torch.div(tokens[:, :, None], self.base, rounding_mode="floor") % self.levels
        return ((digits - half) / half).flatten(1, 2)
