"""Distances of spectra: log-mel, multi-resolution STFT, and mel-cepstral distortion, all by FFT in numpy.

All three compare frame by frame at 16 kHz after cutting to the shorter, without alignment or loudness change.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.align import cut_to_shorter
from tokbench.metrics.base import Mean, Metric
from tokbench.types import Wave

__all__ = ["METRICS", "RATE", "mcd", "mel_cepstrum", "mel_distance", "mel_filters", "stft_distance"]

Float = npt.NDArray[np.float64]

RATE = 16_000
"""Sampling rate in Hz at which both waves are given: values depend on it."""

_MEL_RESOLUTIONS = ((2048, 150), (512, 80))
_STFT_WINDOWS = (2048, 512)
_FLOOR = 1e-5

_MCD_WINDOW = 400
_MCD_SHIFT = 80
_MCD_FFT = 1024
_MCD_ORDER = 24
_MCD_ALPHA = 0.42
_MCD_RANGE_DB = 40.0


def mel_distance(reference: Wave, degraded: Wave) -> dict[str, float]:
    """Two-resolution mel distance.

    For windows of 2048 samples with 150 bands and of 512 with 80 (Hann, hop a quarter, centred with reflection;
    magnitude spectrogram times Slaney-normalised triangles from 0 to 8 kHz): the mean absolute difference of
    `log10(max(mel, 1e-5)^2)` plus that of `mel`, summed over both resolutions.

    Args:
        reference, degraded: `[n]` at 16 kHz, cut to the shorter.

    Raises:
        UndefinedMetric: fewer than 1,025 samples (the reflection needs half a window).

    Source: the mel loss by which DAC is trained and evaluated (Kumar et al., NeurIPS 2023; `audiotools`), here at
    16 kHz.
    """
    a, b = _long_enough(reference, degraded)
    total = 0.0
    for window, bands in _MEL_RESOLUTIONS:
        filters = mel_filters(RATE, window, bands).T
        total += _log_and_linear(_magnitudes(a, window) @ filters, _magnitudes(b, window) @ filters)
    return {"mel_distance": total}


def stft_distance(reference: Wave, degraded: Wave) -> dict[str, float]:
    """Multi-resolution STFT distance: as `mel_distance`, on the bare magnitudes with windows of 2048 and 512.

    Source: Engel et al., DDSP, ICLR 2020, with DAC's windows, floor (1e-5) and equal weights of log and linear term.
    """
    a, b = _long_enough(reference, degraded)
    total = sum(_log_and_linear(_magnitudes(a, window), _magnitudes(b, window)) for window in _STFT_WINDOWS)
    return {"stft_distance": float(total)}


def mcd(reference: Wave, degraded: Wave) -> dict[str, float]:
    """Mel-cepstral distortion in dB, `10 / ln 10 * sqrt(2 * sum_d (c_d - c'_d)^2)`, mean over frames.

    Cepstra c_1 to c_24 of `mel_cepstrum` (c_0, the level, is left out), 5 ms shift, no time warping, over the frames
    within 40 dB of the reference's loudest frame, so that the noise floor of pauses does not count.

    Raises:
        UndefinedMetric: less than 25 ms, or a silent reference.

    Source: Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", PacRim 1993. Values
    from other front ends (WORLD, STRAIGHT), other orders or with time warping are not comparable.
    """
    a, b = (np.asarray(wave, np.float64) for wave in cut_to_shorter(reference, degraded))
    if len(a) < _MCD_WINDOW:
        raise UndefinedMetric(f"MCD needs at least {_MCD_WINDOW} samples, there are {len(a)}")
    frames = _frames(a, _MCD_WINDOW, _MCD_SHIFT)
    power = np.mean((frames * _hann(_MCD_WINDOW)) ** 2, axis=1)
    if power.max() == 0.0:
        raise UndefinedMetric("the reference is silent")
    speech = power >= power.max() * 10 ** (-_MCD_RANGE_DB / 10)
    difference = (mel_cepstrum(a)[speech] - mel_cepstrum(b)[speech])[:, 1:]
    return {"mcd": float(np.mean(10 / np.log(10) * np.sqrt(2 * np.sum(difference**2, axis=1))))}


def mel_cepstrum(wave: npt.NDArray[np.floating]) -> Float:
    """Mel-cepstra float64 `[frames, 25]` of a wave `[n]` at 16 kHz.

    Frames of 25 ms every 5 ms, Hann window scaled to unit sum, FFT of 1,024, natural log of the magnitude floored at
    1e-5 (-100 dB), real cepstrum, then the all-pass frequency transform with alpha 0.42 to order 24.

    Source: Oppenheim & Johnson, "Discrete representation of signals", Proc. IEEE 1972 (the transform); alpha as SPTK
    recommends for 16 kHz.
    """
    window = _hann(_MCD_WINDOW)
    frames = _frames(np.asarray(wave, np.float64), _MCD_WINDOW, _MCD_SHIFT)
    magnitude = np.abs(np.fft.rfft(frames * (window / window.sum()), _MCD_FFT, axis=1))
    return np.asarray(np.log(np.maximum(magnitude, _FLOOR)) @ _warped_cepstrum())


@lru_cache(maxsize=1)
def _warped_cepstrum() -> Float:
    """Matrix `[bins, order + 1]` from log magnitudes to mel-cepstra: inverse cosine transform, then warping."""
    half = _MCD_FFT // 2
    bins = np.arange(half + 1)
    # Real cepstrum of an even spectrum, both halves of the quefrency axis folded onto one.
    weight = np.where((bins == 0) | (bins == half), 1.0, 2.0) / _MCD_FFT
    cepstrum = weight[:, None] * np.cos(2 * np.pi * np.outer(bins, bins) / _MCD_FFT)
    cepstrum[:, 1:half] *= 2
    # The transform is linear: run its recursion (one input coefficient a step, last one first) on the identity.
    warped = np.zeros((_MCD_ORDER + 1, half + 1))
    for index in range(half, -1, -1):
        previous = warped.copy()
        warped[0] = _MCD_ALPHA * previous[0]
        warped[0, index] += 1.0
        warped[1] = (1 - _MCD_ALPHA**2) * previous[0] + _MCD_ALPHA * previous[1]
        for m in range(2, _MCD_ORDER + 1):
            warped[m] = previous[m - 1] + _MCD_ALPHA * (previous[m] - warped[m - 1])
    return np.asarray(cepstrum @ warped.T)


@lru_cache(maxsize=8)
def mel_filters(rate: int, n_fft: int, bands: int) -> Float:
    """Triangular mel filters of unit area, float64 `[bands, n_fft // 2 + 1]`, from 0 Hz to half the rate.

    Source: Slaney, Auditory Toolbox, 1998 (linear to 1 kHz, then 27 steps a factor of 6.4), as librosa has it.
    """
    step = np.log(6.4) / 27
    top = 15.0 + np.log(rate / 2 / 1000) / step if rate / 2 > 1000 else rate / 2 * 3 / 200
    mels = np.linspace(0.0, top, bands + 2)
    edges = np.where(mels < 15.0, mels * 200 / 3, 1000 * np.exp(step * (mels - 15.0)))
    frequency = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]


def _hann(length: int) -> Float:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _frames(wave: Float, window: int, hop: int) -> Float:
    return np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]


def _magnitudes(wave: Float, window: int) -> Float:
    padded = np.pad(wave, window // 2, mode="reflect")
    return np.abs(np.fft.rfft(_frames(padded, window, window // 4) * _hann(window), axis=1))


def _log_and_linear(a: Float, b: Float) -> float:
    log = np.abs(np.log10(np.maximum(a, _FLOOR) ** 2) - np.log10(np.maximum(b, _FLOOR) ** 2))
    return float(np.mean(log) + np.mean(np.abs(a - b)))


def _long_enough(reference: Wave, degraded: Wave) -> tuple[Float, Float]:
    a, b = cut_to_shorter(reference, degraded)
    if len(a) <= max(_STFT_WINDOWS) // 2:
        raise UndefinedMetric(f"spectra need more than {max(_STFT_WINDOWS) // 2} samples, there are {len(a)}")
    return np.asarray(a, np.float64), np.asarray(b, np.float64)


METRICS: tuple[Metric, ...] = (
    Metric(
        name="mel_distance",
        unit="",
        direction="lower",
        components=("mel_distance",),
        reduce=Mean("mel_distance"),
        title="Mel distance",
        source="L1 of log10 mel power and of mel, 2048/150 and 512/80, as DAC; 16 kHz",
        description=(
            "Difference of mel spectrograms, log and linear, at two resolutions; lower is better, 0 is the original. "
            "It follows level and timing as much as quality, and a smooth average of possible spectra scores better "
            "than a lifelike sample."
        ),
    ),
    Metric(
        name="stft_distance",
        unit="",
        direction="lower",
        components=("stft_distance",),
        reduce=Mean("stft_distance"),
        title="STFT distance",
        source="L1 of log10 power and of magnitude, windows 2048 and 512; 16 kHz",
        description=(
            "Difference of magnitude spectrograms, log and linear, at two resolutions; lower is better, 0 is the "
            "original. Every frequency counts alike, so noise between 4 and 8 kHz weighs as much as the vowels."
        ),
    ),
    Metric(
        name="mcd",
        unit="dB",
        direction="lower",
        components=("mcd",),
        reduce=Mean("mcd"),
        title="MCD",
        source="Kubichek 1993; FFT mel-cepstra 1-24, alpha 0.42, 5 ms, frames within 40 dB, no DTW",
        description=(
            "Distance of the spectral envelopes in the loud frames, without level; lower is better, 0 is the original. "
            "No two papers compute it alike, so compare only values of this table; pitch and noise hardly count."
        ),
    ),
)
