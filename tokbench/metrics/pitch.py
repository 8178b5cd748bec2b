"""Agreement of two pitch tracks: correlation, error in cents, gross errors, voicing.

A track is float64 `[T]` in Hz with 0 where unvoiced. Each wave is tracked over its whole length, and the tracks are
then cut to the shorter, frame by frame without further alignment: this reproduces the published values (cutting
the audio first shifts the grid of Praat, which centres its frames, by up to 5 ms). All are means over utterances;
pooling frames would add the differences between speakers to the correlation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Mean, Metric

__all__ = ["METRICS", "f0_corr", "f0_rmse", "gpe", "voiced_recall", "vuv_error"]

Track = npt.NDArray[np.float64]

_MIN_FRAMES = 3
_GROSS = 0.2


def f0_corr(reference: Track, degraded: Track) -> dict[str, float]:
    """Pearson correlation of log F0 over the frames voiced in both.

    Raises:
        UndefinedMetric: fewer than 3 such frames, or one track is constant over them.
    """
    a, b = (np.log(track) for track in _both_voiced(reference, degraded, _MIN_FRAMES))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    # Below rounding of log F0, where centring a constant track leaves only noise.
    if min(float(np.abs(a).max()), float(np.abs(b).max())) < 1e-9:
        raise UndefinedMetric("a pitch track is constant over the frames voiced in both")
    return {"f0_corr": float(np.clip((a @ b) / norm, -1.0, 1.0))}


def f0_rmse(reference: Track, degraded: Track) -> dict[str, float]:
    """Root mean square of `1200 * log2(degraded / reference)` over the frames voiced in both, in cents.

    Raises:
        UndefinedMetric: no frame is voiced in both.
    """
    a, b = _both_voiced(reference, degraded, 1)
    return {"f0_rmse": float(np.sqrt(np.mean((1200.0 * np.log2(b / a)) ** 2)))}


def gpe(reference: Track, degraded: Track) -> dict[str, float]:
    """Gross pitch error: share of the frames voiced in both where F0 is off by more than 20 %.

    Raises:
        UndefinedMetric: no frame is voiced in both.

    Source: Rabiner et al., "A comparative performance study of several pitch detection algorithms", IEEE TASSP 1976
    (there 1 ms of period); the 20 % form is of Chu & Alwan, ICASSP 2009.
    """
    a, b = _both_voiced(reference, degraded, 1)
    return {"gpe": float(np.mean(np.abs(b - a) > _GROSS * a))}


def vuv_error(reference: Track, degraded: Track) -> dict[str, float]:
    """Share of all frames that are voiced in one track only.

    Raises:
        UndefinedMetric: there are no frames.
    """
    a, b = _cut(reference, degraded)
    if not len(a):
        raise UndefinedMetric("there are no pitch frames")
    return {"vuv_error": float(np.mean((a > 0) != (b > 0)))}


def voiced_recall(reference: Track, degraded: Track) -> dict[str, float]:
    """Share of the frames voiced in the reference that are voiced in the degraded track as well.

    Raises:
        UndefinedMetric: the reference has no voiced frame.
    """
    a, b = _cut(reference, degraded)
    voiced = a > 0
    if not voiced.any():
        raise UndefinedMetric("the reference has no voiced frame")
    return {"voiced_recall": float(np.mean(b[voiced] > 0))}


def _cut(reference: Track, degraded: Track) -> tuple[Track, Track]:
    n = min(len(reference), len(degraded))
    return np.asarray(reference[:n], np.float64), np.asarray(degraded[:n], np.float64)


def _both_voiced(reference: Track, degraded: Track, least: int) -> tuple[Track, Track]:
    a, b = _cut(reference, degraded)
    both = (a > 0) & (b > 0)
    count = int(both.sum())
    if count < least:
        raise UndefinedMetric(f"{count or 'no'} frame{'s are' if count > 1 else ' is'} voiced in both")
    return a[both], b[both]


METRICS: tuple[Metric, ...] = (
    Metric(
        name="f0_corr",
        unit="",
        direction="higher",
        components=("f0_corr",),
        reduce=Mean("f0_corr"),
        title="F0 correlation",
        source="Pearson correlation of log F0, frames voiced in both, mean over utterances",
        description=(
            "How well the melody follows the original, whatever its level; higher is better, 1 is the original. "
            "Octave errors of the tracker dominate it, and frames that lost their voicing do not count: read it beside "
            "V/UV error and GPE."
        ),
    ),
    Metric(
        name="f0_rmse",
        unit="cents",
        direction="lower",
        components=("f0_rmse",),
        reduce=Mean("f0_rmse"),
        title="F0 RMSE",
        source="root mean square of 1200 log2 ratio, frames voiced in both, mean over utterances",
        description=(
            "Size of the pitch error, 100 cents being a semitone; lower is better. A few octave errors (1200 cents) "
            "outweigh many small ones, and a shift of the whole voice counts as error."
        ),
    ),
    Metric(
        name="gpe",
        unit="%",
        direction="lower",
        components=("gpe",),
        reduce=Mean("gpe"),
        title="GPE",
        source="share of frames voiced in both with F0 off by more than 20 %",
        scale=100.0,
        description=(
            "Share of frames whose pitch is wrong by more than 20 %, mostly octave jumps; lower is better. Small "
            "errors and lost voicing do not count."
        ),
    ),
    Metric(
        name="vuv_error",
        unit="%",
        direction="lower",
        components=("vuv_error",),
        reduce=Mean("vuv_error"),
        title="V/UV error",
        source="share of frames voiced in one track only",
        scale=100.0,
        description=(
            "Share of frames that changed between voiced and unvoiced; lower is better. It depends on how much "
            "silence an utterance holds, and on the tracker's own voicing threshold."
        ),
    ),
    Metric(
        name="voiced_recall",
        unit="%",
        direction="higher",
        components=("voiced_recall",),
        reduce=Mean("voiced_recall"),
        title="Voiced recall",
        source="share of the original's voiced frames that stay voiced",
        scale=100.0,
        description=(
            "Share of the original's voiced frames that are still voiced; higher is better. It tells on how much of "
            "the speech the pitch metrics rest, and does not see noise that became voiced."
        ),
    ),
)
