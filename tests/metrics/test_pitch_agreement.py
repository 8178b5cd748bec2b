from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import UndefinedMetric
from tokbench.metrics.pitch import f0_corr, f0_rmse, gpe, voiced_recall, vuv_error

Pair = Callable[[np.ndarray, np.ndarray], dict[str, float]]
tracks = st.lists(st.one_of(st.just(0.0), st.floats(50, 550)), min_size=1, max_size=40).map(np.array)


def test_known_values() -> None:
    a = np.array([100.0, 200.0, 0.0, 400.0, 100.0, 0.0])
    b = np.array([200.0, 400.0, 0.0, 800.0, 0.0, 100.0, 100.0])
    assert f0_corr(a, b)["f0_corr"] == pytest.approx(1.0)
    assert f0_rmse(a, b)["f0_rmse"] == pytest.approx(1200.0)
    assert gpe(a, b)["gpe"] == 1.0
    assert vuv_error(a, b)["vuv_error"] == pytest.approx(2 / 6)
    assert voiced_recall(a, b)["voiced_recall"] == pytest.approx(3 / 4)


def test_correlation_is_of_log_f0() -> None:
    a, b = np.array([100.0, 150.0, 300.0, 120.0]), np.array([90.0, 170.0, 250.0, 140.0])
    assert f0_corr(a, b)["f0_corr"] == pytest.approx(np.corrcoef(np.log(a), np.log(b))[0, 1], abs=1e-12)


def test_gross_means_more_than_a_fifth() -> None:
    a = np.full(4, 100.0)
    assert gpe(a, np.array([120.0, 80.0, 121.0, 79.0]))["gpe"] == 0.5


@settings(deadline=None)
@given(tracks, st.floats(0.5, 2.0))
def test_a_shift_of_the_voice_leaves_correlation_and_voicing(track: np.ndarray, factor: float) -> None:
    assert vuv_error(track, track * factor)["vuv_error"] == 0.0
    voiced = track[track > 0]
    if len(voiced) < 3 or np.ptp(np.log(voiced)) < 1e-6:
        return
    assert f0_corr(track, track * factor)["f0_corr"] == pytest.approx(1.0, abs=1e-6)
    assert f0_rmse(track, track * factor)["f0_rmse"] == pytest.approx(abs(1200 * np.log2(factor)), abs=1e-6)


@settings(deadline=None)
@given(tracks, tracks)
def test_bounds(a: np.ndarray, b: np.ndarray) -> None:
    assert 0 <= vuv_error(a, b)["vuv_error"] <= 1
    assert vuv_error(a, b) == vuv_error(b, a)
    try:
        assert -1 <= f0_corr(a, b)["f0_corr"] <= 1
    except UndefinedMetric as error:
        assert "voiced in both" in str(error)  # noqa: PT017 - most random pairs have no value


@pytest.mark.parametrize(
    ("function", "a", "b", "reason"),
    [
        (f0_corr, [100.0, 110.0, 0.0], [100.0, 120.0, 130.0], "2 frames are voiced in both"),
        (f0_corr, [100.0, 100.0, 100.0], [100.0, 120.0, 130.0], "constant"),
        (f0_corr, [110.0, 130.0, 100.0], [123.4, 123.4, 123.4], "constant"),
        (f0_rmse, [0.0, 100.0], [100.0, 0.0], "no frame is voiced in both"),
        (gpe, [], [], "no frame is voiced in both"),
        (vuv_error, [], [100.0], "no pitch frames"),
        (voiced_recall, [0.0, 0.0], [100.0, 0.0], "no voiced frame"),
    ],
)
def test_undefined(function: Pair, a: list[float], b: list[float], reason: str) -> None:
    with pytest.raises(UndefinedMetric, match=reason):
        function(np.array(a), np.array(b))
