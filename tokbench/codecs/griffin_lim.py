"""A vocoder without weights: mel to linear magnitudes by non-negative least squares, then fast Griffin-Lim.

It serves tokenizers that know only a mel spectrogram. Numpy and scipy alone, deterministic, one thread: BLAS splits a
product by its number of threads, and sums in another order round otherwise, so equal tokens would give other samples.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from tokbench.codecs.mel import VOCODER_MEL, MelSpec, Wave, hann, mel_filterbank

__all__ = ["griffin_lim", "mel_to_magnitude", "vocode"]

_TINY = np.float32(1e-9)


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The numeric libraries of this process; looking for them takes milliseconds, so once."""
    return ThreadpoolController()


@lru_cache(maxsize=8)
def _inverse(spec: MelSpec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Filterbank `[bins, mels]` and its pseudo-inverse `[mels, bins]`."""
    bank = mel_filterbank(spec.rate, spec.window, spec.n_mels)
    return np.ascontiguousarray(bank.T), np.ascontiguousarray(np.linalg.pinv(bank.astype(np.float64)).T, np.float32)


def mel_to_magnitude(
    log_mels: npt.NDArray[np.float32], spec: MelSpec = VOCODER_MEL, *, iterations: int = 30
) -> npt.NDArray[np.float32]:
    """Non-negative magnitudes whose mel bands are closest to the given ones in squared error.

    Starts from the clipped pseudo-inverse and applies the multiplicative rule of Lee and Seung (NIPS 2000) for a
    fixed basis: `x <- x * (W'm) / (W'Wx)`, which keeps x non-negative and never raises the error.

    Args:
        log_mels: float32 `[T, n_mels]`, natural logarithms of mel magnitudes.
        spec: the recipe they were made with.
        iterations: number of updates.

    Returns:
        Float32 `[T, window // 2 + 1]`.
    """
    mels = np.exp(log_mels.astype(np.float32, copy=False))
    with _blas().limit(limits=1, user_api="blas"):
        bank, inverse = _inverse(spec)
        # The clip keeps every bin alive: the update multiplies, so a zero would stay one.
        estimate = np.maximum(mels @ inverse, np.float32(1e-8))
        wanted = mels @ bank.T
        for _ in range(iterations):
            got = (estimate @ bank) @ bank.T
            got += _TINY
            np.divide(wanted, got, out=got)
            estimate *= got
    return estimate


def griffin_lim(
    magnitudes: npt.NDArray[np.float32],
    n_samples: int,
    *,
    hop: int = VOCODER_MEL.hop,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
) -> Wave:
    """Find a wave whose short-time magnitudes are the given ones, by fast Griffin-Lim.

    Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim algorithm" (WASPAA 2013): alternate projections on the
    given magnitudes and on consistent spectrograms, with `t = c + momentum * (c - c_previous)`. The first phase is
    uniform noise from a seeded PCG64 generator, so equal input gives equal samples.

    Args:
        magnitudes: float32 `[T, window // 2 + 1]`, framed as `mel.frames` does; the window is a multiple of `hop`.
        n_samples: length of the result, at most `T * hop`.
        hop: samples between frames.
        iterations: number of projections.
        momentum: acceleration; 0 gives Griffin and Lim (1984).
        seed: of the first phase.

    Returns:
        Float32 `[n_samples]`.
    """
    count, bins = magnitudes.shape
    window = 2 * (bins - 1)
    overlap = window // hop
    if overlap * hop != window:
        raise ValueError(f"the window ({window}) must be a multiple of the hop ({hop})")
    if n_samples > count * hop:
        raise ValueError(f"{count} frames give at most {count * hop} samples, not {n_samples}")
    taper = hann(window)
    norm = np.full((count + overlap - 1, hop), 1e-8, np.float32)
    for part in range(overlap):
        norm[part : part + count] += taper[part * hop : (part + 1) * hop] ** 2
    left = (window - hop) // 2

    def synthesise(spectrum: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
        pieces = fft.irfft(spectrum, n=window, axis=1, overwrite_x=True)
        pieces *= taper
        blocks = np.zeros((count + overlap - 1, hop), np.float32)
        for part in range(overlap):
            blocks[part : part + count] += pieces[:, part * hop : (part + 1) * hop]
        blocks /= norm
        return blocks.reshape(-1)

    def analyse(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.complex64]:
        cut = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop] * taper
        return fft.rfft(cut, axis=1, overwrite_x=True)

    phase = np.random.default_rng(seed).random((count, bins), np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty((count, bins), np.complex64)
    spectrum.real, spectrum.imag = np.cos(phase), np.sin(phase)
    spectrum *= magnitudes
    previous: npt.NDArray[np.complex64] | None = None
    for _ in range(iterations):
        consistent = analyse(synthesise(spectrum))
        if previous is None:
            target = consistent
        else:
            # Reuse the buffer: target = (1 + momentum) * consistent - momentum * previous, up to a positive factor.
            previous *= np.float32(-momentum / (1.0 + momentum))
            previous += consistent
            target = previous
        scale = magnitudes / (np.abs(target) + _TINY)
        spectrum = target * scale
        previous = consistent
    return np.ascontiguousarray(synthesise(spectrum)[left : left + n_samples], np.float32)


def vocode(
    log_mels: npt.NDArray[np.float32],
    n_samples: int,
    spec: MelSpec = VOCODER_MEL,
    *,
    nnls_iterations: int = 30,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
) -> Wave:
    """Natural-log mel magnitudes, float32 `[ceil(n_samples / hop), n_mels]`, to a wave, float32 `[n_samples]`."""
    magnitudes = mel_to_magnitude(log_mels, spec, iterations=nnls_iterations)
    return griffin_lim(magnitudes, n_samples, hop=spec.hop, iterations=iterations, momentum=momentum, seed=seed)
