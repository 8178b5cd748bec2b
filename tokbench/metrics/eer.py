"""Equal error rate of scored trials: SpeechBrain's rule, the ROC-interpolated one, DET points, and a bootstrap.

A trial is accepted where its score is above the threshold. FRR(t) = P(score <= t | target) rises and
FAR(t) = P(score > t | non-target) falls with t, so their crossing is found by bisection over two sorted arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.base import Columns, Metric

__all__ = ["METRICS", "DetCurve", "Eer", "EqualErrorRate", "det_curve", "eer", "eer_interpolated", "trial"]

Float = npt.NDArray[np.float64]
_MAX_BINS = 2048
_MAX_CELLS = 20_000_000


class EqualErrorRate(NamedTuple):
    """An equal error rate (0 to 1, above 0.5 where scores are inverted; never folded back) and its threshold."""

    value: float
    threshold: float


@dataclass(frozen=True)
class DetCurve:
    """Points of a detection error trade-off curve, float64 `[points]` each, by rising threshold."""

    threshold: Float
    far: Float
    frr: Float


@dataclass(frozen=True)
class _Crossing:
    """Counts on both sides of the crossing: rejected targets and accepted non-targets at two thresholds."""

    targets: int
    nontargets: int
    before: tuple[float, int, int] | None
    after: tuple[float, int, int]


def eer(target: npt.ArrayLike, nontarget: npt.ArrayLike) -> EqualErrorRate:
    """Equal error rate by SpeechBrain's rule.

    Thresholds are the distinct scores (the midpoints that SpeechBrain adds repeat the counts of the score below
    them and so never win); the first smallest |FAR - FRR| decides, compared in exact integers; the value is
    (FAR + FRR) / 2 there.

    Args:
        target: scores of same-class trials `[nT]`, any real dtype.
        nontarget: scores of different-class trials `[nN]`.

    Returns:
        Value and threshold.

    Raises:
        UndefinedMetric: there are no target or no non-target trials.
        TokbenchError: a score is not finite.

    Source: SpeechBrain 1.1, `speechbrain.utils.metric_stats.EER`. O(n log n) here, O(n^2) there.
    """
    found = _crossing(target, nontarget)
    n_t, n_n = found.targets, found.nontargets
    best = found.after
    if found.before is not None:
        gap_before = found.before[2] * n_t - found.before[1] * n_n
        gap_after = found.after[1] * n_n - found.after[2] * n_t
        if gap_before <= gap_after:
            best = found.before
    threshold, rejected, accepted = best
    return EqualErrorRate((accepted / n_n + rejected / n_t) / 2, threshold)


def eer_interpolated(target: npt.ArrayLike, nontarget: npt.ArrayLike) -> EqualErrorRate:
    """Equal error rate where FAR = FRR on the ROC polygon (scikit-learn's `roc_curve` and a root finder).

    Differs from `eer` by at most half a step of the ROC. The threshold is interpolated likewise, and is the lowest
    score where the crossing lies before it. Arguments and errors as `eer`.
    """
    found = _crossing(target, nontarget)
    n_t, n_n = found.targets, found.nontargets
    threshold_1, rejected, accepted = found.after
    frr_1, far_1 = rejected / n_t, accepted / n_n
    threshold_0, frr_0, far_0 = threshold_1, 0.0, 1.0
    if found.before is not None:
        threshold_0, rejected, accepted = found.before
        frr_0, far_0 = rejected / n_t, accepted / n_n
    share = (far_0 - frr_0) / ((far_0 - frr_0) + (frr_1 - far_1))
    return EqualErrorRate(frr_0 + share * (frr_1 - frr_0), threshold_0 + share * (threshold_1 - threshold_0))


def det_curve(target: npt.ArrayLike, nontarget: npt.ArrayLike, *, points: int = 200) -> DetCurve:
    """FAR and FRR at up to `2 * points` thresholds, evenly spread on the normal-deviate axes of a DET plot.

    Arguments and errors as `eer`.

    Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    from scipy.special import ndtr

    targets, nontargets = _scores(target, nontarget)
    spread = ndtr(np.linspace(-4.0, 4.0, points))
    picked = [
        scores[np.unique((spread * (len(scores) - 1)).round().astype(np.int64))] for scores in (targets, nontargets)
    ]
    threshold = np.unique(np.concatenate(picked))
    frr = np.searchsorted(targets, threshold, side="right") / len(targets)
    far = 1.0 - np.searchsorted(nontargets, threshold, side="right") / len(nontargets)
    return DetCurve(threshold, far, frr)


def trial(score: float, *, target: bool) -> dict[str, float]:
    """Components of one trial: its score, and 1 for a target or 0 for a non-target."""
    return {"score": float(score), "target": float(target)}


def _scores(
    target: npt.ArrayLike, nontarget: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    sorted_scores = []
    for kind, values in (("target", target), ("non-target", nontarget)):
        scores = np.sort(np.asarray(values), axis=None)
        if scores.dtype.kind != "f":
            scores = scores.astype(np.float64)
        if not len(scores):
            raise UndefinedMetric(f"an equal error rate needs both kinds of trials, there is no {kind} trial")
        # Sorted: NaN and +inf come last, -inf first.
        if not (np.isfinite(scores[0]) and np.isfinite(scores[-1])):
            raise TokbenchError(f"{kind} scores are not finite", where="equal error rate")
        sorted_scores.append(scores)
    return sorted_scores[0], sorted_scores[1]


def _crossing(target: npt.ArrayLike, nontarget: npt.ArrayLike) -> _Crossing:
    targets, nontargets = _scores(target, nontarget)
    n_t, n_n = len(targets), len(nontargets)

    def counts(threshold: np.floating) -> tuple[float, int, int]:
        rejected = int(np.searchsorted(targets, threshold, side="right"))
        accepted = n_n - int(np.searchsorted(nontargets, threshold, side="right"))
        return float(threshold), rejected, accepted

    def first_after(scores: npt.NDArray[np.floating]) -> int:
        """Index of the lowest score where FRR >= FAR; exact, in integers."""
        low, high = 0, len(scores)
        while low < high:
            middle = (low + high) // 2
            _, rejected, accepted = counts(scores[middle])
            if rejected * n_n >= accepted * n_t:
                high = middle
            else:
                low = middle + 1
        return low

    positions = [(scores, first_after(scores)) for scores in (targets, nontargets)]
    # At the highest score of all FRR is 1 and FAR is 0, so one of the two always has such a score.
    after = min(scores[i] for scores, i in positions if i < len(scores))
    lower = [scores[i - 1] for scores, i in positions if i > 0]
    return _Crossing(n_t, n_n, counts(max(lower)) if lower else None, counts(after))


@dataclass(frozen=True)
class Eer:
    """The reduce of trials to an equal error rate, additive over groups of trials through score histograms.

    With at most 2,048 distinct scores the histogram is exact (fewer where there are very many groups); beyond, its
    edges are quantiles of both kinds of trials, half of them within 5 % of the trials around the crossing, where
    drawn values lie; such a value is off by less than 0.02 percentage points. The published value is always exact.
    """

    score: str = "score"
    target: str = "target"

    def __str__(self) -> str:
        return f"equal error rate of {self.score} by {self.target}, SpeechBrain's rule"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`; exact, NaN where a draw lacks targets or non-targets."""
        scores, target = columns[self.score], columns[self.target] > 0.5
        if len(weights) == 1 and np.all(weights == 1.0):
            if target.all() or not target.any():
                return np.array([np.nan])
            return np.array([eer(scores[target], scores[~target]).value])
        order = np.argsort(scores, kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order]) > 0, True))
        drawn = weights[:, order]
        histograms = [np.cumsum(drawn * side[order], axis=1)[:, last] for side in (target, ~target)]
        return _from_cumulative(*histograms)

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Histograms of target and of non-target scores a group, `[count, 2 * bins]`."""
        scores, target = columns[self.score], columns[self.target] > 0.5
        distinct = np.unique(scores)
        bins = min(_MAX_BINS, max(64, _MAX_CELLS // (2 * count)))
        if len(distinct) > bins:
            distinct = _edges(scores[target], scores[~target], bins)
        cell = np.searchsorted(distinct, scores, side="left") + np.where(target, 0, len(distinct))
        width = 2 * len(distinct)
        return np.bincount(groups * width + cell, minlength=count * width).reshape(count, width).astype(np.float64)

    def finish(self, totals: Float) -> Float:
        """Equal error rates `[draws]` from weighted histograms."""
        bins = totals.shape[1] // 2
        return _from_cumulative(np.cumsum(totals[:, :bins], axis=1), np.cumsum(totals[:, bins:], axis=1))

    def renamed(self, names: Mapping[str, str]) -> Eer:
        """The same reduce of other columns."""
        return Eer(names[self.score], names[self.target])


def _edges(target: Float, nontarget: Float, bins: int) -> Float:
    """Up to `bins` upper edges of score bins, dense around the crossing; the last is the highest score."""
    threshold = eer(target, nontarget).threshold if len(target) and len(nontarget) else None
    picked = []
    for scores in (np.sort(target), np.sort(nontarget)):
        if len(scores):
            last = len(scores) - 1
            positions = np.linspace(0, last, bins // 4)
            if threshold is not None:
                near = np.searchsorted(scores, threshold) + np.linspace(-0.05, 0.05, bins // 4) * len(scores)
                positions = np.concatenate([positions, np.clip(near, 0, last)])
            picked.append(scores[positions.round().astype(np.int64)])
    return np.unique(np.concatenate(picked))


def _from_cumulative(targets: Float, nontargets: Float) -> Float:
    """Equal error rates from cumulative counts `[draws, thresholds]` of trials at or below each threshold."""
    n_t, n_n = targets[:, -1:], nontargets[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        frr, far = targets / n_t, 1.0 - nontargets / n_n
    gap = np.abs(far - frr)
    undefined = (n_t == 0)[:, 0] | (n_n == 0)[:, 0]
    gap[undefined] = 0.0
    best = np.argmin(gap, axis=1)[:, None]
    values = (np.take_along_axis(far, best, axis=1) + np.take_along_axis(frr, best, axis=1))[:, 0] / 2
    values[undefined] = np.nan
    return values


METRICS: tuple[Metric, ...] = (
    Metric(
        name="eer",
        unit="%",
        direction="lower",
        components=("score", "target"),
        reduce=Eer(),
        title="EER",
        source="SpeechBrain 1.1, utils.metric_stats.EER",
        scale=100.0,
        description=(
            "Error rate at the threshold where as many same-speaker trials are rejected as different-speaker trials "
            "are accepted; lower means that the scores tell speakers apart better, 50 % is chance, above 50 % the "
            "scores are inverted. It depends on the trial list and on the judge, and says nothing about how natural "
            "or intelligible the speech is."
        ),
    ),
)
