"""The averaging of ABX rows."""

from __future__ import annotations

import numpy as np
import pytest

from tokbench.metrics.base import Additive
from tokbench.metrics.catalogue import metric


def test_pairs_weigh_the_same_whatever_speakers_they_have() -> None:
    columns = {
        "abx_within[c]": np.array([0.1, 0.3, 0.5]),
        "abx_within_pair[c]": np.array([4.0, 4.0, 9.0]),
        "abx_within_weight[c]": np.array([1.0, 1.0, 1.0]),
    }
    one = metric("abx_within[c]")
    assert one.value(columns) == pytest.approx((0.2 + 0.5) / 2)
    columns["abx_within_weight[c]"] = np.array([3.0, 1.0, 1.0])
    assert one.value(columns) == pytest.approx((0.15 + 0.5) / 2)


def test_sums_give_what_rows_give_and_absent_pairs_are_left_out() -> None:
    rng = np.random.default_rng(0)
    n = 200
    columns = {
        "abx_across[c]": rng.random(n),
        "abx_across_pair[c]": rng.integers(12, size=n).astype(float),
        "abx_across_weight[c]": rng.integers(1, 5, size=n).astype(float),
    }
    reduce = metric("abx_across[c]").reduce
    assert isinstance(reduce, Additive)
    groups = rng.integers(6, size=n)
    drawn = rng.multinomial(6, np.full(6, 1 / 6), size=20).astype(float)
    by_rows = reduce(columns, drawn[:, groups])
    by_sums = reduce.finish(drawn @ reduce.sums(columns, groups, 6))
    np.testing.assert_allclose(by_sums, by_rows)
    assert np.isnan(reduce(columns, np.zeros((1, n)))[0])
