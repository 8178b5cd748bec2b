"""PNMI and purities against the published vector, another implementation, and known biases."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.catalogue import metric
from tokbench.metrics.pnmi import joint_counts, phone_unit_scores, shuffled_units, unit_of_frame


def test_the_reference_vector() -> None:
    phones = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    units = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 0])
    scores = phone_unit_scores(joint_counts(phones, units, n_phones=3, n_units=3))
    assert scores.mutual_information == pytest.approx(0.579785, abs=5e-7)
    assert scores.phone_entropy == pytest.approx(1.054920, abs=5e-7)
    assert scores.pnmi == pytest.approx(0.549601, abs=5e-7)
    assert scores.phone_purity == pytest.approx(0.8)
    assert scores.cluster_purity == pytest.approx(0.8)


def test_edges() -> None:
    with pytest.raises(UndefinedMetric, match="only one phone"):
        phone_unit_scores([[3, 4]])
    with pytest.raises(UndefinedMetric, match="no frames"):
        phone_unit_scores([[0, 0], [0, 0]])
    assert phone_unit_scores([[3], [4]]).pnmi == 0
    assert phone_unit_scores([[3, 0], [0, 4]]).pnmi == pytest.approx(1)
    with pytest.raises(TokbenchError, match=r"outside 0\.\.1"):
        joint_counts([0, 2], [0, 0], n_phones=2, n_units=1)
    with pytest.raises(TokbenchError, match="equally long"):
        joint_counts([0], [0, 0], n_phones=2, n_units=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 400))
def test_mutual_information_is_that_of_scikit_learn(seed: int, n: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    phones, units = rng.integers(5, size=n), rng.integers(7, size=n)
    phones[:2] = [0, 1]
    joint = joint_counts(phones, units, n_phones=5, n_units=7)
    assert joint.sum() == n
    scores = phone_unit_scores(joint)
    assert scores.mutual_information == pytest.approx(sklearn.mutual_info_score(phones, units), abs=1e-9)
    p = np.bincount(phones) / n
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    assert scores.pnmi == pytest.approx(max(scores.mutual_information, 0) / entropy, abs=1e-9)
    repeated = phone_unit_scores(
        joint_counts(np.repeat(phones, 3), np.repeat(units, 3), n_phones=5, n_units=7), samples=n
    )
    assert repeated == pytest.approx(scores)


def test_the_correction_takes_the_bias_of_independent_labels_away() -> None:
    rng = np.random.default_rng(0)
    phones, units = rng.integers(40, size=200_000), rng.integers(500, size=200_000)
    scores = phone_unit_scores(joint_counts(phones, units, n_phones=40, n_units=500))
    # (|Y| - 1)(|Z| - 1) / (2 N H)
    assert scores.pnmi == pytest.approx(39 * 499 / (2 * 200_000 * np.log(40)), rel=0.05)
    assert abs(scores.pnmi_corrected) < 5e-4
    told = phone_unit_scores(joint_counts(phones, shuffled_units(phones, seed=1), n_phones=40, n_units=40))
    assert told.pnmi < 0.01


@pytest.mark.parametrize("rate", ["50", "25", "25/2", "75", "22050/256"])
def test_frames_take_the_unit_under_their_centre(rate: str) -> None:
    exact = Fraction(rate)
    found = unit_of_frame(100, exact, Fraction(50), 60)
    expected = [k for i in range(100) if (k := int(Fraction(2 * i + 1, 100) * exact)) < 60]
    assert found.tolist() == expected
    if rate == "25":
        assert found.tolist() == np.repeat(np.arange(50), 2).tolist()


def test_the_metrics_reduce_rows() -> None:
    columns = {
        "phone[q]": np.array([0.0, 1, 1, 2]), "unit[q]": np.array([5.0, 5, 7, 7]),
        "frames[q]": np.array([2.0, 1, 3, 4]), "samples[q]": np.array([2.0, 1, 3, 4]),
    }  # fmt: skip
    expected = phone_unit_scores([[2, 0], [1, 3], [0, 4]])
    assert metric("pnmi[q]").value(columns) == pytest.approx(expected.pnmi)
    assert metric("phone_purity_speech[q]").value(columns) == pytest.approx(expected.phone_purity)
    weights = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    drawn = metric("pnmi[q]").reduce(columns, weights)
    assert drawn[0] == pytest.approx(expected.pnmi)
    assert np.isnan(drawn[1])
