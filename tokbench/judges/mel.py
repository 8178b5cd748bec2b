"""Mel power spectrograms with Slaney's scale and normalisation, in numpy, as librosa defines them.

Two judges are defined on these features (Resemblyzer on 40 bands, DNSMOS P.808 on 120). Computing them here
spares both the import of librosa and numba; tests show equality with librosa.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tokbench.types import Wave

__all__ = ["mel_filters", "mel_power"]

_LINEAR_HZ = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = float(np.log(6.4)) / 27.0


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _LINEAR_HZ
    return _BREAK_MEL + float(np.log(hertz / _BREAK_HZ)) / _LOG_STEP


def _to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


@lru_cache(maxsize=8)
def mel_filters(*, rate: int, n_fft: int, n_mels: int) -> npt.NDArray[np.float32]:
    """Triangular filters of equal area from 0 Hz to `rate / 2`, float32 `[n_mels, n_fft // 2 + 1]`.

    Source: Slaney, Auditory Toolbox (1998): linear below 1 kHz, logarithmic above, each filter divided by half its
    width in Hz.
    """
    edges = _to_hertz(np.linspace(0.0, _to_mel(rate / 2), n_mels + 2))
    bins = np.fft.rfftfreq(n_fft, 1.0 / rate)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    return (np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)).astype(np.float32)


def mel_power(wave: Wave, *, rate: int, n_fft: int, hop: int, n_mels: int) -> npt.NDArray[np.float32]:
    """Mel power spectrogram float32 `[n_mels, 1 + n // hop]` (one frame fewer for odd `n_fft` where `hop` divides n).

    Periodic Hann window over the whole of `n_fft`, frames centred, `n_fft // 2` zeros on either side.
    """
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    padded = np.pad(wave.astype(np.float32, copy=False), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return np.asarray(mel_filters(rate=rate, n_fft=n_fft, n_mels=n_mels) @ power.T, np.float32)
