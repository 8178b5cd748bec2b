"""Scores of trials behind an equal error rate, read from the rows beside a result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokbench.leaderboard.definitions import metric_of
from tokbench.leaderboard.numbers import base_name, judge_of
from tokbench.leaderboard.rows import read_columns
from tokbench.metrics.conversion import PairedEer
from tokbench.metrics.discrimination import VARIANTS
from tokbench.results import Estimate, Result

__all__ = ["trial_scores"]

Float = npt.NDArray[np.float64]


def trial_scores(result: Result, estimate: Estimate) -> tuple[Float, Float] | None:
    """Scores of target and of non-target trials, float64 each; None where the rows do not hold them."""
    metric, label = metric_of(estimate.metric), judge_of(estimate.metric)
    if metric is None or label is None or estimate.table not in result.tables or result.folder is None:
        return None
    if isinstance(metric.reduce, PairedEer):
        frame = read_columns(result, estimate.table, metric.components)
        return None if frame is None else _finite(*(frame[c].to_numpy(np.float64) for c in metric.components))
    frame = read_columns(result, estimate.table, (f"score[{label}]", "target", *_variant(estimate)))
    if frame is not None:
        for column in _variant(estimate):
            frame = frame[frame[column].to_numpy(np.bool_)]
        return _split(frame[f"score[{label}]"], frame["target"])
    frame = read_columns(result, estimate.table, ("score", "target", "judge", "role"))
    if frame is None:
        return None
    role = "real" if base_name(estimate.metric).endswith("_real") else "converted"
    frame = frame[(frame["judge"] == label) & (frame["role"] == role)]
    return _split(frame["score"], frame["target"])


def _variant(estimate: Estimate) -> tuple[str, ...]:
    """The column of the trials that chooses a variant of the list ("same_gender")."""
    base = base_name(estimate.metric)
    return tuple(suffix[1:] for suffix in VARIANTS if suffix and base.endswith(suffix))


def _split(score: pd.Series[float], target: pd.Series[float]) -> tuple[Float, Float] | None:
    values, kind = score.to_numpy(np.float64), target.to_numpy(np.float64) > 0.5
    return _finite(np.asarray(values[kind], np.float64), np.asarray(values[~kind], np.float64))


def _finite(target: Float, nontarget: Float) -> tuple[Float, Float] | None:
    target, nontarget = target[np.isfinite(target)], nontarget[np.isfinite(nontarget)]
    return (target, nontarget) if len(target) and len(nontarget) else None
