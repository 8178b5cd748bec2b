"""Finite scalar quantisation (Mentzer et al. 2023, FSQ: VQ-VAE Made Simple) between two projections."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokbench.errors import TokensError
from tokbench.kanade.config import QuantizerConfig
from tokbench.kanade.constants import constant

__all__ = ["FiniteScalarQuantizer"]

_MARGIN = 1e-3
"""The outermost levels are approached to this share, so that rounding never leaves the grid."""


class FiniteScalarQuantizer(nn.Module):
    """Rounds each of a few bounded coordinates to its levels; the digits, first one fastest, make the token.

    There is no learnt codebook: token `k` stands for the point of the grid with digits `(k // basis) % levels`.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.levels = config.levels
        self.basis = tuple(math.prod(self.levels[:i]) for i in range(len(self.levels)))
        self.proj_in = nn.Linear(config.input_dim, len(self.levels))
        self.proj_out = nn.Linear(len(self.levels), config.output_dim)

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return math.prod(self.levels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise `[..., input_dim]`; gradients pass the rounding unchanged.

        Returns:
            Embedding `[..., output_dim]` and tokens int64 `[...]`.
        """
        # Rounding decides the token: keep the bounded coordinates in float32 under autocast.
        codes = self.quantize(self.bound(self.proj_in(x).float()))
        return self.proj_out(codes), self.tokens(codes)

    def bound(self, z: Tensor) -> Tensor:
        """Squash coordinates `[..., n]` into the levels' range: section 3.1 of the paper, `tan` in the shift."""
        half = self._row([(level - 1) * (1 - _MARGIN) / 2 for level in self.levels], z)
        offset = self._row([0.5 if level % 2 == 0 else 0.0 for level in self.levels], z)
        shift = torch.tan(offset / half)
        return torch.tanh(z + shift) * half - offset

    def quantize(self, bounded: Tensor) -> Tensor:
        """Round half to even, straight through, and scale to codes in `[-1, 1]`."""
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._row([level // 2 for level in self.levels], bounded)

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes `[..., n]` to tokens int64 `[...]`."""
        halves = self._row([level // 2 for level in self.levels], codes)
        digits = (codes.detach() * halves + halves).round()
        return (digits * self._row(list(self.basis), codes)).sum(-1).long()

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens int64 `[...]` to codes float32 `[..., n]`.

        Raises:
            TokensError: a token outside `0 .. vocab - 1`.
        """
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.vocab):
            raise TokensError(f"tokens outside 0..{self.vocab - 1}")
        basis, levels = (torch.tensor(x, device=tokens.device) for x in (self.basis, self.levels))
        halves = levels // 2
        digits = tokens[..., None] // basis % levels
        return (digits - halves) / halves

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens int64 `[...]` to embeddings `[..., output_dim]`."""
        out: Tensor = self.proj_out(self.codes(tokens).to(self.proj_out.weight.dtype))
        return out

    def _row(self, values: list[float] | list[int], like: Tensor) -> Tensor:
        return _constants(tuple(map(float, values)), like.device)


@constant
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A float32 row; made once, since a copy to the GPU in every step would wait, and breaks captured CUDA graphs."""
    return torch.tensor(values, dtype=torch.float32, device=device)
