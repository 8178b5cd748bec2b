"""Length arithmetic: audio samples, SSL frames, tokens and mel frames, exactly as the released models count them.

The released code computes in float64 and rounds up, so that a result is now and then one larger than exact arithmetic
gives. The tokens depend on it; every formula below therefore keeps that order of operations.
"""

from __future__ import annotations

import math

from tokbench.kanade.config import SSL_HOP, SSL_RATE, MelConfig

__all__ = ["SSL_RECEPTIVE", "audio_length", "mel_frames", "padding", "ssl_frames", "token_count"]

SSL_RECEPTIVE = 400
"""Samples at 16 kHz that one SSL frame sees."""


def ssl_frames(n_samples: int, rate: int = 24000) -> int:
    """SSL frames that cover n samples at `rate` Hz."""
    return math.ceil(n_samples / rate * SSL_RATE / SSL_HOP)


def padding(n_samples: int, rate: int = 24000, *, multiple_of: int = 1) -> int:
    """Zeros to put on either side of n samples, so that the SSL model yields `ssl_frames(n)` frames.

    Args:
        n_samples: length at `rate` Hz.
        rate: sampling rate of the audio.
        multiple_of: round the number of frames up to a multiple of this first (training, so that no frame is dropped).
    """
    frames = ssl_frames(n_samples, rate)
    if frames % multiple_of:
        frames += multiple_of - frames % multiple_of
    return math.ceil((_samples_for(frames, rate) - n_samples) / 2)


def token_count(n_samples: int, rate: int = 24000, *, downsample: int) -> int:
    """Tokens of n samples; SSL frames that do not fill a token are dropped."""
    return ssl_frames(n_samples, rate) // downsample


def audio_length(n_tokens: int, rate: int = 24000, *, downsample: int) -> int:
    """Samples that n tokens stand for where the length of the original is not known."""
    return math.ceil(_samples_for(n_tokens * downsample, rate))


def mel_frames(n_samples: int, mel: MelConfig) -> int:
    """Mel frames of n samples."""
    if mel.padding == "center":
        return n_samples // mel.hop + 1
    if mel.padding == "same":
        return n_samples // mel.hop
    if mel.padding == "cover":
        return -(-n_samples // mel.hop)
    return (n_samples - mel.n_fft) // mel.hop + 1


def _samples_for(frames: int, rate: int) -> float:
    return (SSL_HOP * (frames - 1) + SSL_RECEPTIVE) / SSL_RATE * rate
