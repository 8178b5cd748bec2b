"""Padded batches: which frames are real, and interpolation that gives each item the frames it has alone."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["interpolate", "real_frames"]


def real_frames(lengths: Tensor, frames: int) -> Tensor:
    """Bool `[B, frames]`, True for the first `lengths[i]` frames of item i."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def interpolate(x: Tensor, lengths: Tensor, targets: Tensor, frames: int) -> Tensor:
    """Linear interpolation in time, item by item: `lengths[i]` frames become `targets[i]`, the rest is arbitrary.

    Half-pixel centres, edges repeated: `functional.interpolate(mode="linear", align_corners=False)` of each item alone.

    Args:
        x: `[B, C, T]`.
        lengths, targets: int64 `[B]`.
        frames: of the result, `[B, C, frames]`.
    """
    ratio = (lengths / targets)[:, None]
    place = (torch.arange(frames, device=x.device) + 0.5) * ratio - 0.5
    last = (lengths - 1)[:, None]
    place = torch.minimum(place.clamp(min=0.0), last.to(place.dtype))
    left = place.floor().long()
    right = torch.minimum(left + 1, last)
    share = (place - left).to(x.dtype)[:, None]
    shape = (x.shape[0], x.shape[1], frames)
    before, after = (x.gather(2, index[:, None].expand(shape)) for index in (left, right))
    return before * (1 - share) + after * share
