"""Short-time objective intelligibility, plain and extended."""

from __future__ import annotations

import warnings

import numpy as np

from tokbench.errors import UndefinedMetric
from tokbench.metrics.align import cut_to_shorter
from tokbench.metrics.base import Mean, Metric
from tokbench.types import Wave

__all__ = ["METRICS", "RATE", "estoi", "stoi"]

RATE = 16_000
"""Sampling rate in Hz at which both waves are given; pystoi itself resamples to 10 kHz."""

_TOO_SHORT = 1e-5  # what pystoi returns in place of a score


def stoi(reference: Wave, degraded: Wave, *, rate: int = RATE) -> dict[str, float]:
    """Short-time objective intelligibility, 0 to 1, not changed by gain.

    Args:
        reference, degraded: `[n]` at `rate` Hz, cut to the shorter.
        rate: sampling rate of both in Hz.

    Raises:
        UndefinedMetric: the reference is silent, or has fewer than 30 frames (384 ms) within 40 dB of its loudest.

    Source: Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech", IEEE
    TASLP 2011; computed by pystoi.
    """
    return {"stoi": _score(reference, degraded, rate, extended=False)}


def estoi(reference: Wave, degraded: Wave, *, rate: int = RATE) -> dict[str, float]:
    """Extended STOI, which also sees losses of spectral contrast; about 0.1 lower. As `stoi`.

    Source: Jensen & Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated Noise
    Maskers", IEEE TASLP 2016; computed by pystoi, whose guard against empty norms (noise of 1e-16 in size from numpy's
    global generator) is seeded here, so that the same waves give the same bits.

    Raises:
        UndefinedMetric: as `stoi`, or the degraded wave is silent (the guard noise would be the score).
    """
    if not np.any(degraded[: len(reference)]):
        raise UndefinedMetric("the degraded wave is silent")
    return {"estoi": _score(reference, degraded, rate, extended=True)}


def _score(reference: Wave, degraded: Wave, rate: int, *, extended: bool) -> float:
    from pystoi import stoi as pystoi

    reference, degraded = cut_to_shorter(reference, degraded)
    if not np.any(reference):
        raise UndefinedMetric("the reference is silent")
    if len(reference) < rate * 0.0256:
        raise UndefinedMetric("the reference is shorter than one frame of 25.6 ms")
    state = np.random.get_state()  # noqa: NPY002 - the generator that pystoi draws from
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            score = float(pystoi(reference, degraded, rate, extended=extended))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    if score == _TOO_SHORT:
        raise UndefinedMetric("the reference has fewer than 30 frames (384 ms) of speech")
    if not np.isfinite(score):
        raise UndefinedMetric("the score is not a number")
    return score


METRICS: tuple[Metric, ...] = (
    Metric(
        name="stoi",
        unit="",
        direction="higher",
        components=("stoi",),
        reduce=Mean("stoi"),
        title="STOI",
        source="Taal et al., IEEE TASLP 2011; pystoi",
        description=(
            "Correlation of short-time band envelopes with the original, a proxy for intelligibility; higher is "
            "better, 1 is the original. It is built for noisy speech: a generative decoder that says the words with "
            "slightly other timing or spectrum scores low without being less intelligible."
        ),
    ),
    Metric(
        name="estoi",
        unit="",
        direction="higher",
        components=("estoi",),
        reduce=Mean("estoi"),
        title="ESTOI",
        source="Jensen & Taal, IEEE TASLP 2016; pystoi",
        description=(
            "STOI with spectral contrast taken into account, about 0.1 lower; higher is better, 1 is the original. It "
            "shares STOI's bias against generative decoders, and the two must not be mixed."
        ),
    ),
)
