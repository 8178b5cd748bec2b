"""Convolutions in time with half the multiplications, by the algorithm of Toom and Cook.

Four taps over seven frames give four outputs: sixteen products. But a convolution is a product of polynomials, seven
values of a polynomial of degree 6 tell what it is, and each value is one product: seven in all. Transposed, that is how
four taps filter (Winograd 1980; Lavin and Gray 2016, F(4, 4)). A longer kernel is a sum of such parts, added up before
the way back to frames, so that at each point there is left a convolution of a quarter of the taps over a quarter of the
frames. A dilation of d makes d sequences of their own, which lie side by side in a row of `d C` numbers.

In float32 errors are 2.5 times those of the plain sum.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.nanocodec import kernels

__all__ = ["ToomCook"]

_POINTS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where the polynomials are evaluated, beside infinity."""

_SIDE = 4
_VALUES = 2 * _SIDE - 1


def _powers(terms: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Values `[7, terms]` of the monomials at the points; at infinity only the highest counts."""
    finite = np.vander(np.array(_POINTS), terms, increasing=True)
    return np.concatenate([finite, np.eye(terms)[-1:]])


_OUT = np.ascontiguousarray(_powers(_SIDE).T.astype(np.float32))
_IN = np.ascontiguousarray(np.linalg.inv(_powers(_VALUES)).T.astype(np.float32))


class ToomCook:
    """A convolution of stride 1 and equally many channels in and out, time first.

    Args:
        conv: with a bias; its weights must not change afterwards.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        outputs, inputs, taps = conv.weight.shape
        self.channels, self.dilation, self.reach = outputs, conv.dilation[0], (taps - 1) * conv.dilation[0]
        self.parts = -(-taps // _SIDE)
        weight = functional.pad(conv.weight.detach().double(), (0, self.parts * _SIDE - taps))
        parts = weight.view(outputs, inputs, self.parts, _SIDE)
        values = torch.einsum("oigs,ps->pogi", parts, torch.from_numpy(_powers(_SIDE)))
        # [7, outputs, inputs, 1, parts] as convolutions see it, channels last in memory.
        self.weights = values.float().contiguous().transpose(2, 3)[:, :, :, None]
        assert conv.bias is not None, "every convolution of a NanoCodec has a bias"
        self.bias = np.ascontiguousarray(np.tile(conv.bias.detach().numpy(), self.dilation))

    def padding(self, frames: int) -> tuple[int, int]:
        """Frames of zeros that `__call__` wants left and right of so many frames, for a causal convolution."""
        step = _SIDE * self.dilation
        tiles = -(-frames // step)
        needed = (tiles + self.parts - 1) * step + (_SIDE - 1) * self.dilation
        return self.reach, needed - self.reach - frames

    def __call__(self, padded: Tensor) -> Tensor:
        """`[B, left + T + right, C]`, contiguous, to `[B, T', C]` with T' at least T; the first T are valid."""
        width = self.dilation * self.channels
        rows = padded.view(padded.shape[0], -1, width)
        tiles = (rows.shape[1] - _SIDE + 1) // _SIDE - self.parts + 1
        out = padded.new_empty(padded.shape[0], tiles * _SIDE, width)
        values = padded.new_empty(_VALUES, (tiles + self.parts - 1) * self.dilation, self.channels)
        for taken, made in zip(rows, out, strict=True):
            kernels.to_points(taken.numpy(), values.view(_VALUES, -1, width).numpy(), _IN)
            products = [
                functional.conv2d(value.T[None, :, None], weight, dilation=(1, self.dilation))[0, :, 0].T.contiguous()
                for value, weight in zip(values, self.weights, strict=True)
            ]
            each = tuple(product.view(tiles, width).numpy() for product in products)
            kernels.from_points(each, made.numpy(), _OUT, self.bias)
        return out.view(padded.shape[0], -1, self.channels)
