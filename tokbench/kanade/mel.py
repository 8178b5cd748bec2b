"""The log-mel spectrograms that Kanade's decoders are trained to make."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.config import MelConfig
from tokbench.kanade.lengths import mel_frames

__all__ = ["filterbank", "log_mel"]


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Natural-log mel spectrogram of `[B, n]`; returns float32 `[B, n_mels, M]`, M by `lengths.mel_frames`.

    "vocos" (Siuzdak 2023): centred frames with reflected edges, magnitudes, HTK bands without normalisation, floor
    1e-7. "hift" (as BigVGAN and CosyVoice): edges reflected by `(n_fft - hop) / 2`, `sqrt(power + 1e-9)`, Slaney bands
    of unit area, floor 1e-5. "plain": as `tokbench.codecs.mel.log_mel`.
    """
    vocos = config.style == "vocos"
    wave = wave.float()
    if config.style == "plain":
        margin, frames = (config.n_fft - config.hop) // 2, mel_frames(wave.shape[1], config)
        wave = functional.pad(wave, (margin, (frames - 1) * config.hop + config.n_fft - margin - wave.shape[1]))
    elif not vocos:
        margin = (config.n_fft - config.hop) // 2
        wave = functional.pad(wave[:, None], (margin, margin), mode="reflect")[:, 0]
    window = torch.hann_window(config.n_fft, device=wave.device)
    spectrum = torch.stft(wave, config.n_fft, config.hop, window=window, center=vocos, return_complex=True)
    magnitude = (
        spectrum.abs() if config.style != "hift" else (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()
    )
    bands = filterbank(config).to(wave.device) @ magnitude
    return bands.clamp(min=1e-7 if vocos else 1e-5).log()


def filterbank(config: MelConfig) -> Tensor:
    """Triangular filters, float32 `[n_mels, n_fft / 2 + 1]`, equidistant on the HTK or the Slaney mel scale."""
    top = config.sample_rate / 2 if config.fmax is None else config.fmax
    htk = config.style == "vocos"
    to_mel, to_hz = (_htk, _htk_inverse) if htk else (_slaney, _slaney_inverse)
    mels = torch.linspace(to_mel(config.fmin), to_mel(top), config.n_mels + 2, dtype=torch.float64)
    edges = torch.tensor([to_hz(float(m)) for m in mels], dtype=torch.float64)
    bins = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    if not htk:
        filters *= 2 / (upper - lower)
    return filters.float()


def _htk(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _htk_inverse(mel: float) -> float:
    return float(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


_LINEAR_STEP, _BREAK = 200.0 / 3.0, 1000.0
_LOG_STEP = math.log(6.4) / 27.0
"""Slaney's Auditory Toolbox: linear below 1 kHz, then 27 steps to each factor of 6.4."""


def _slaney(hz: float) -> float:
    return hz / _LINEAR_STEP if hz < _BREAK else _BREAK / _LINEAR_STEP + math.log(hz / _BREAK) / _LOG_STEP


def _slaney_inverse(mel: float) -> float:
    knee = _BREAK / _LINEAR_STEP
    return mel * _LINEAR_STEP if mel < knee else _BREAK * math.exp(_LOG_STEP * (mel - knee))
