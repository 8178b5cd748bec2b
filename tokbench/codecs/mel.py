"""Mel spectrograms in numpy: the Slaney filterbank, and framing that covers the samples exactly.

One recipe serves the log-mel and MFCC features, the unit-to-mel tables and the Griffin-Lim vocoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["VOCODER_MEL", "MelSpec", "Wave", "frames", "hann", "log_mel", "magnitude", "mel_filterbank"]

Wave = npt.NDArray[np.float32]
"""Mono samples, float32 `[n]`, full scale 1.0."""


@dataclass(frozen=True)
class MelSpec:
    """How a mel spectrogram is cut and warped.

    Attributes:
        rate: sampling rate in Hz.
        window: length of the periodic Hann window in samples, also the FFT size.
        hop: samples between frames. Frame t is centred on sample `hop * t + hop / 2`, so that `ceil(n / hop)` frames
            cover n samples, each in the middle of its hop.
        n_mels: number of bands, between 0 and `rate / 2` Hz.
        floor: smallest mel magnitude before the natural logarithm.
    """

    rate: int = 16000
    window: int = 640
    hop: int = 160
    n_mels: int = 80
    floor: float = 1e-5

    @property
    def frames_per_second(self) -> float:
        """Frame rate in Hz."""
        return self.rate / self.hop

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of n samples: `ceil(n / hop)`."""
        return -(-n_samples // self.hop)


VOCODER_MEL = MelSpec()
"""40 ms windows every 10 ms, 80 bands: the recipe that Griffin-Lim inverts best (see `griffin_lim`)."""


@lru_cache(maxsize=16)
def hann(length: int) -> npt.NDArray[np.float32]:
    """Periodic Hann window, float32 `[length]`."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length), np.float32)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mel * (200.0 / 3.0)
    return np.where(mel < 15.0, linear, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0)))


def _hz_to_mel(hz: float) -> float:
    return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + float(np.log(hz / 1000.0)) * 27.0 / float(np.log(6.4))


@lru_cache(maxsize=16)
def mel_filterbank(rate: int, n_fft: int, n_mels: int) -> npt.NDArray[np.float32]:
    """Triangular filters on Slaney's mel scale, each of unit area, from 0 to `rate / 2` Hz.

    The scale is linear to 1 kHz (200/3 Hz a mel) and logarithmic above (a factor 6.4 in 27 mels), as in Slaney,
    Auditory Toolbox version 2 (1998); Whisper's filters are the same.

    Returns:
        Float32 `[n_mels, n_fft // 2 + 1]`.
    """
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(rate / 2), n_mels + 2))
    bins = np.fft.rfftfreq(n_fft, 1.0 / rate)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None], np.float32)


def frames(wave: Wave, *, window: int, hop: int) -> npt.NDArray[np.float32]:
    """Cut a wave into frames centred on `hop * t + hop / 2`, with zeros outside.

    Returns:
        Read-only view, float32 `[ceil(n / hop), window]`.
    """
    if wave.size == 0:
        raise ValueError("the wave has no samples")
    count = -(-wave.size // hop)
    left = (window - hop) // 2
    padded = np.zeros((count - 1) * hop + window, np.float32)
    padded[left : left + wave.size] = wave[: padded.size - left]
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]


def magnitude(wave: Wave, spec: MelSpec = VOCODER_MEL) -> npt.NDArray[np.float32]:
    """Magnitude of the short-time Fourier transform, float32 `[T, window // 2 + 1]`."""
    from scipy import fft

    cut = frames(wave, window=spec.window, hop=spec.hop) * hann(spec.window)
    return np.abs(fft.rfft(cut, axis=1))


def log_mel(wave: Wave, spec: MelSpec = VOCODER_MEL) -> npt.NDArray[np.float32]:
    """Natural logarithm of the mel-filtered magnitudes, not below `log(floor)`.

    Args:
        wave: float32 `[n]` at `spec.rate`.
        spec: framing and bands.

    Returns:
        Float32 `[ceil(n / hop), n_mels]`.
    """
    bands = magnitude(wave, spec) @ mel_filterbank(spec.rate, spec.window, spec.n_mels).T
    return np.asarray(np.log(np.maximum(bands, np.float32(spec.floor))), np.float32)
