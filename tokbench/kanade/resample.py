"""The 24 to 16 kHz resampler inside Kanade's encoder: the windowed sinc that torchaudio's `Resample` defaults to.

It is part of the model (the SSL features were learnt behind it), so it stays exactly as defined instead of being the
core's resampler.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["resample"]

_ZEROS, _ROLLOFF = 6, 0.99
"""Zero crossings either side, and the cutoff as a share of the lower Nyquist frequency."""


def resample(wave: Tensor, source: int, target: int) -> Tensor:
    """Resample `[B, n]` from `source` to `target` Hz; returns `[B, ceil(n * target / source)]`.

    Band-limited interpolation (Smith, Digital Audio Resampling) with a squared-cosine window, as one strided
    convolution whose channels are the output phases.
    """
    if source == target:
        return wave
    divisor = math.gcd(source, target)
    old, new = source // divisor, target // divisor
    base = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / base)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    phase = -torch.arange(new, dtype=torch.float64) / new
    t = ((phase[:, None] + taps) * base).clamp(-_ZEROS, _ZEROS)
    kernel = torch.sinc(t) * torch.cos(t * math.pi / _ZEROS / 2).square() * base / old
    padded = functional.pad(wave[:, None], (width, width + old))
    out = functional.conv1d(padded, kernel[:, None].to(wave), stride=old)
    return out.transpose(1, 2).flatten(1)[:, : -(-wave.shape[-1] * new // old)]
