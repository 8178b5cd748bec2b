"""The terms of Kanade's training loss, each a mean over what is real; padding counts where no mask is given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tokbench.kanade.discriminator import adversarial_loss, discriminator_loss, feature_matching_loss

__all__ = [
    "adversarial_loss",
    "discriminator_loss",
    "feature_loss",
    "feature_matching_loss",
    "mel_loss",
    "normalize_over",
    "perplexity",
]


def feature_loss(made: Tensor, target: Tensor, *, kind: Literal["mse", "l1"] = "mse", mask: Tensor | None) -> Tensor:
    """Distance between content features `[B, N, D]`; `mask` bool `[B, N]`, None: every frame counts."""
    error = made.float() - target.float()
    error = error.square() if kind == "mse" else error.abs()
    return _mean(error, mask)


def mel_loss(made: Tensor, target: Tensor, *, mask: Tensor | None) -> Tensor:
    """L1 between log-mel spectrograms `[B, n_mels, M]`; `mask` bool `[B, M]`, None: every frame counts."""
    return _mean((made.float() - target.float()).abs().transpose(1, 2), mask)


def normalize_over(features: Tensor, mask: Tensor | None) -> Tensor:
    """`model.normalize_features` of `[B, N, D]` over real frames alone; padding becomes zero."""
    features = features.float()
    if mask is None:
        mean = features.mean(dim=1, keepdim=True)
        return (features - mean) / (features.std(dim=1, keepdim=True) + 1e-8)
    weights = mask[..., None].to(features.dtype)
    count = weights.sum(dim=1, keepdim=True)
    mean = (features * weights).sum(dim=1, keepdim=True) / count
    centred = (features - mean) * weights
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + 1e-8)


def perplexity(tokens: Tensor, vocab: int, *, mask: Tensor | None) -> Tensor:
    """Exponential of the entropy (nats) of a batch's tokens int64 `[B, T]`."""
    chosen = tokens.flatten() if mask is None else tokens[mask]
    share = torch.bincount(chosen, minlength=vocab).float() / max(1, chosen.numel())
    return torch.exp(-torch.special.xlogy(share, share).sum())


def _mean(error: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over frames and the last dimension of `[B, T, C]`."""
    if mask is None:
        return error.mean()
    # A sum over real frames; padded ones may hold anything, NaN excepted.
    return (error * mask[..., None]).sum() / (mask.sum().clamp(min=1) * error.shape[-1])
