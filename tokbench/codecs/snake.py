"""The periodic activation that the codecs share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Snake"]

_EPS = 1e-9


class Snake(nn.Module):
    """`x + sin^2(alpha x) / (alpha + 1e-9)`, alpha a channel (Ziyin et al. 2020, equation 3); for inference only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1), requires_grad=False)

    @property
    def gain(self) -> Tensor:
        """`1 / (alpha + 1e-9)`, `[1, C, 1]`."""
        return 1 / (self.alpha + _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same shape."""
        return self.write(x, torch.empty_like(x))

    def write(self, x: Tensor, out: Tensor) -> Tensor:
        """The same into `out`, which may be part of a larger tensor but not of x."""
        wave = torch.mul(x, self.alpha).sin_()
        return torch.addcmul(x, wave.mul_(wave), self.gain, out=out)
