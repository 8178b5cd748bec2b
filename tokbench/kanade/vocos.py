"""Vocos at 24 kHz (Siuzdak 2023): log-mel to audio by a ConvNeXt that predicts magnitudes and phases.

A port of the decoding half of `charactr/vocos-mel-24khz`, without the package's dependencies; parameter names are
those of the published checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokbench.kanade.global_encoder import ConvNeXt

__all__ = ["FEATURE_PREFIX", "Vocos"]

FEATURE_PREFIX = "feature_extractor."
"""Keys of the published checkpoint that belong to its mel spectrogram, and not to decoding."""

_MAX_MAGNITUDE = 100.0


class FourierHead(nn.Module):
    """Hidden frames to log magnitude and phase, and to audio by the inverse STFT."""

    def __init__(self, dim: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = nn.Module()
        self.istft.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, M, dim]` to `[B, (M - 1) * hop]`."""
        log_magnitude, phase = self.out(x).transpose(1, 2).float().chunk(2, dim=1)
        spectrum = torch.polar(log_magnitude.exp().clamp(max=_MAX_MAGNITUDE), phase)
        window = self.get_buffer("istft.window").float()
        return torch.istft(spectrum, self.n_fft, self.hop, window=window, center=True)


class Vocos(nn.Module):
    """Log-mel `[B, 100, M]` (style "vocos") to audio `[B, 256 (M - 1)]` at 24 kHz."""

    def __init__(self, *, n_mels: int = 100, dim: int = 512, hidden: int = 1536, layers: int = 8) -> None:
        super().__init__()
        self.backbone = ConvNeXt(n_mels, dim, hidden, layers)
        self.head = FourierHead(dim, n_fft=1024, hop=256)

    def forward(self, mel: Tensor) -> Tensor:
        """See the class; needs two frames at least."""
        out: Tensor = self.head(self.backbone(mel))
        return out
