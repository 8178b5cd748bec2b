"""The two mel front ends: HTK filters over centred, reflected short-time spectra; float32 throughout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokbench.codecs.losatok.config import FRAME_HOP, SAMPLE_RATE

__all__ = ["AcousticMel", "SemanticMel", "mel_filters"]

_TOP_DB = 120.0
_POWER_FLOOR = 1e-10
_MAGNITUDE_FLOOR = 1e-7


def mel_filters(bins: int, mels: int, *, rate: int = SAMPLE_RATE) -> Tensor:
    """Triangles that meet at their neighbours' peaks, `[bins, mels]`, 0 Hz to half the rate, not normalised.

    Peaks are equally spaced in `2595 log10(1 + f / 700)` (O'Shaughnessy 1987; HTK).
    """
    top = 2595.0 * math.log10(1.0 + rate / 2 / 700.0)
    points = 700.0 * (10.0 ** (torch.linspace(0.0, top, mels + 2) / 2595.0) - 1.0)
    steps = points[1:] - points[:-1]
    distance = points[None, :] - torch.linspace(0, rate // 2, bins)[:, None]
    falling = -distance[:, :-2] / steps[:-1]
    rising = distance[:, 2:] / steps[1:]
    return torch.minimum(falling, rising).clamp(min=0.0)


class _Mel(nn.Module):
    """Windows and filters; a checkpoint's own copies replace the computed ones."""

    window: Tensor
    filters: Tensor

    def __init__(self, n_fft: int, mels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(n_fft // 2 + 1, mels), persistent=False)

    def magnitude(self, audio: Tensor) -> Tensor:
        """Audio `[B, S]`, `S > n_fft / 2`, to `[B, bins, S // 160 + 1]`."""
        return torch.stft(
            audio, self.n_fft, FRAME_HOP, self.n_fft, self.window, center=True, pad_mode="reflect", return_complex=True
        ).abs()

    def bands(self, spectrum: Tensor) -> Tensor:
        """`[B, bins, F]` to `[B, mels, F]`."""
        return torch.matmul(spectrum.transpose(1, 2), self.filters).transpose(1, 2)


class SemanticMel(_Mel):
    """64 bands of power in dB over 512 samples, floored 120 dB below each item's own maximum."""

    def __init__(self, mels: int) -> None:
        super().__init__(512, mels)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio `[B, S]` to `[B, mels, F]`."""
        decibel = 10.0 * torch.log10(self.bands(self.magnitude(audio).pow(2.0)).clamp(min=_POWER_FLOOR))
        return torch.maximum(decibel, decibel.amax(dim=(1, 2), keepdim=True) - _TOP_DB)


class AcousticMel(_Mel):
    """128 bands of magnitude over 1024 samples, natural log with floor 1e-7."""

    def __init__(self, mels: int) -> None:
        super().__init__(1024, mels)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio `[B, S]` to `[B, mels, F]`."""
        return self.bands(self.magnitude(audio)).clamp(min=_MAGNITUDE_FLOOR).log()
