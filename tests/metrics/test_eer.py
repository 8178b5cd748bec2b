from __future__ import annotations

import itertools
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.eer import METRICS, Eer, det_curve, eer, eer_interpolated, trial

scores = st.lists(st.integers(-20, 20).map(lambda n: n / 8), min_size=1, max_size=30)


def slow_eer(target: list[float], nontarget: list[float]) -> tuple[float, float]:
    """The rule as written: try every score and every midpoint, keep the first smallest gap."""
    distinct = sorted(set(target) | set(nontarget))
    thresholds = sorted(distinct + [(a + b) / 2 for a, b in itertools.pairwise(distinct)])
    best: tuple[int, float, float] | None = None
    for threshold in thresholds:
        rejected = sum(s <= threshold for s in target)
        accepted = sum(s > threshold for s in nontarget)
        gap = abs(accepted * len(target) - rejected * len(nontarget))
        if best is None or gap < best[0]:
            best = gap, (accepted / len(nontarget) + rejected / len(target)) / 2, threshold
    assert best is not None
    return best[1], best[2]


@pytest.mark.parametrize(
    ("target", "nontarget", "value", "threshold"),
    [
        ([0.6, 0.7, 0.8, 0.5], [0.4, 0.3, 0.2, 0.1], 0.0, 0.4),
        ([0.9, 0.8, 0.4, 0.7], [0.5, 0.3, 0.2, 0.6], 0.25, 0.5),
        ([0.9, 0.8, 0.3], [0.5, 0.4, 0.1, 0.2], 7 / 24, 0.4),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5, 0.5),
        ([0.1, 0.2], [0.8, 0.9], 1.0, 0.2),
    ],
)
def test_known_values(target: list[float], nontarget: list[float], value: float, threshold: float) -> None:
    found = eer(target, nontarget)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.threshold == threshold


@settings(deadline=None)
@given(scores, scores)
def test_agrees_with_the_slow_rule(target: list[float], nontarget: list[float]) -> None:
    found = eer(target, nontarget)
    value, threshold = slow_eer(target, nontarget)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.threshold == threshold


def test_agrees_with_speechbrain() -> None:
    # In a process of its own: SpeechBrain's lazy modules break whoever walks over sys.modules afterwards.
    if find_spec("speechbrain") is None:
        pytest.skip("speechbrain is not installed")
    rng = np.random.default_rng(0)
    cases: list[tuple[list[float], list[float]]] = []
    while len(cases) < 60:
        target, nontarget = (rng.integers(0, 40, rng.integers(2, 30)) + shift for shift in (8, 0))
        gaps = [
            abs((nontarget > t).sum() * len(target) - (target <= t).sum() * len(nontarget))
            for t in np.union1d(target, nontarget)
        ]
        # It compares gaps in float32; where two are equal but for rounding, its choice is not defined.
        if gaps.count(min(gaps)) == 1:
            cases.append(((target / 8).tolist(), (nontarget / 8).tolist()))
    code = (
        "import json, sys, torch; from speechbrain.utils.metric_stats import EER\n"
        "print(json.dumps([EER(torch.tensor(t), torch.tensor(n)) for t, n in json.load(sys.stdin)]))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
    for (target_list, nontarget_list), (value, threshold) in zip(cases, json.loads(answer.stdout), strict=True):
        found = eer(target_list, nontarget_list)
        assert found.value == pytest.approx(value, abs=1e-6)
        assert found.threshold == threshold


@settings(deadline=None)
@given(scores, scores)
def test_increasing_transforms_change_nothing(target: list[float], nontarget: list[float]) -> None:
    moved = eer(np.exp(target) * 3 - 1, np.exp(nontarget) * 3 - 1)
    assert moved.value == eer(target, nontarget).value
    assert eer_interpolated(np.arctan(target), np.arctan(nontarget)).value == pytest.approx(
        eer_interpolated(target, nontarget).value, abs=1e-12
    )


@settings(deadline=None)
@given(scores, scores)
def test_swapping_and_negating_keeps_the_interpolated_value(target: list[float], nontarget: list[float]) -> None:
    # "<=" becomes ">=" under negation, so only tie-free sides mirror exactly; the ROC polygon always does.
    mirrored = eer_interpolated(-np.array(nontarget), -np.array(target)).value
    assert mirrored == pytest.approx(eer_interpolated(target, nontarget).value, abs=1e-12)


@settings(deadline=None)
@given(scores, scores)
def test_swapping_the_classes_inverts_the_interpolated_value(target: list[float], nontarget: list[float]) -> None:
    swapped = eer_interpolated(nontarget, target).value
    assert swapped == pytest.approx(1 - eer_interpolated(target, nontarget).value, abs=1e-12)


def test_interpolated_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.optimize import brentq

    rng = np.random.default_rng(0)
    target, nontarget = rng.normal(1, 1, 77), rng.normal(0, 1, 131)
    far, hit, _ = metrics.roc_curve(np.r_[np.ones(77), np.zeros(131)], np.r_[target, nontarget])
    expected = brentq(lambda x: 1 - x - np.interp(x, far, hit), 0, 1)
    assert eer_interpolated(target, nontarget).value == pytest.approx(expected, abs=1e-9)
    assert abs(eer(target, nontarget).value - expected) <= 1 / (2 * 77)


def test_det_points_lie_on_the_curve_and_pass_the_eer() -> None:
    rng = np.random.default_rng(1)
    target, nontarget = rng.normal(1.5, 1, 5000), rng.normal(0, 1, 20000)
    curve = det_curve(target, nontarget, points=100)
    assert len(curve.threshold) <= 200
    middle = len(curve.threshold) // 2
    assert curve.frr[middle] == np.mean(target <= curve.threshold[middle])
    assert curve.far[middle] == pytest.approx(np.mean(nontarget > curve.threshold[middle]))
    assert (np.diff(curve.frr) >= 0).all()
    assert (np.diff(curve.far) <= 0).all()
    closest = np.argmin(np.abs(curve.far - curve.frr))
    assert curve.far[closest] == pytest.approx(eer(target, nontarget).value, abs=0.02)


@pytest.mark.parametrize(("target", "nontarget", "word"), [([], [0.1], "no target"), ([0.1], [], "no non-target")])
def test_one_kind_of_trial_has_no_value(target: list[float], nontarget: list[float], word: str) -> None:
    for function in (eer, eer_interpolated, det_curve):
        with pytest.raises(UndefinedMetric, match=word):
            function(target, nontarget)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(TokbenchError, match="not finite"):
        eer([0.1, bad], [0.2])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40), st.data())
def test_weights_repeat_trials(trials: list[tuple[int, bool, int]], data: st.DataObject) -> None:
    weights = np.array([data.draw(st.integers(0, 3)) for _ in trials])
    target = np.array([t for _, t, _ in trials])
    assume((weights[target] > 0).any() and (weights[~target] > 0).any())
    rows = [trial(score, target=kind) for score, kind, _ in trials]
    columns = {name: np.array([row[name] for row in rows]) for name in ("score", "target")}
    repeated = np.repeat(columns["score"], weights), np.repeat(target, weights)
    exact = slow_gap(repeated[0][repeated[1]], repeated[0][~repeated[1]])
    drawn = Eer()(columns, np.stack([weights, np.ones(len(trials))]).astype(np.float64))[0]
    assert any(drawn == pytest.approx(value, abs=1e-12) for value in exact)
    groups = np.array([g for _, _, g in trials])
    per_group = np.array([1.0, 0.0, 2.0, 1.0])
    by_sums = Eer().finish(per_group[None] @ Eer().sums(columns, groups, 4))
    by_items = Eer()(columns, np.stack([per_group[groups], np.zeros(len(trials))]))[:1]
    np.testing.assert_allclose(by_sums, by_items, rtol=0, atol=1e-12)


def slow_gap(target: np.ndarray, nontarget: np.ndarray) -> list[float]:
    """EER values at every threshold whose gap is smallest (float rounding may pick any of equal ones)."""
    points = [
        (np.mean(nontarget > t), np.mean(target <= t), abs(np.mean(nontarget > t) - np.mean(target <= t)))
        for t in np.unique(np.r_[target, nontarget])
    ]
    least = min(gap for _, _, gap in points)
    return [(far + frr) / 2 for far, frr, gap in points if gap <= least + 1e-12]


def test_many_scores_are_binned_closely() -> None:
    rng = np.random.default_rng(2)
    target, nontarget = rng.normal(2, 1, 1000), rng.normal(0, 1, 19000)
    columns = {"score": np.r_[target, nontarget], "target": np.r_[np.ones(1000), np.zeros(19000)]}
    groups = rng.integers(40, size=20000)
    weights = rng.multinomial(40, [1 / 40] * 40, size=20).astype(float)
    binned = Eer().finish(weights @ Eer().sums(columns, groups, 40))
    np.testing.assert_allclose(binned, Eer()(columns, weights[:, groups]), atol=2e-4)
    one_kind = {"score": nontarget, "target": np.zeros(19000)}
    assert np.isnan(Eer().finish(np.ones((1, 40)) @ Eer().sums(one_kind, groups[:19000], 40)))


def test_the_metric_is_a_percentage_where_lower_is_better() -> None:
    (metric,) = METRICS
    assert (metric.unit, metric.scale, metric.direction) == ("%", 100.0, "lower")
    assert metric.of("x").value({"score[x]": np.array([1.0, 0.0]), "target[x]": np.array([1.0, 0.0])}) == 0.0
    assert np.isnan(metric.value({"score": np.array([1.0]), "target": np.array([1.0])}))
