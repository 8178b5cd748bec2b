"""Pooled differences, power and verdicts against hand calculations and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tokbench.ablations.pairs import PoolError, pool, pool_error, power_of, verdict
from tokbench.reproduction import PaperValue, Pooled, SeedDifference

PAPER = PaperValue(difference=-0.08, source="x")


def _seeds(*differences: float) -> list[SeedDifference]:
    return [SeedDifference(seed=i, base=0.5, changed=0.5 + d, difference=d) for i, d in enumerate(differences)]


def test_without_items_it_is_the_one_sample_t_test() -> None:
    differences = [0.16, -0.15, 0.05]
    pooled = pool(_seeds(*differences), [], items=30)
    test = stats.ttest_1samp(differences, 0.0)
    assert pooled.difference == pytest.approx(np.mean(differences))
    assert pooled.p_value == pytest.approx(test.pvalue)
    assert pooled.ci95 == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_items_widen_the_interval_and_seeds_do_not_average_them_away() -> None:
    error = pool_error([0.1, 0.1, 0.1], [(0.02, 9)] * 3)
    assert error is not None
    assert error.error == pytest.approx(0.02)
    assert error.degrees == pytest.approx(9)
    both = pool_error([0.0, 0.1, 0.2], [(0.02, 9)] * 3)
    assert both is not None
    assert both.error == pytest.approx(np.sqrt(0.01 / 3 + 0.0004))
    assert 2 < both.degrees < 11


def test_one_seed_has_no_interval() -> None:
    pooled = pool(_seeds(-0.2), [(0.01, 5)], items=3)
    assert pooled.ci95 is None
    assert verdict(pooled, PAPER, None) == ("undecided", "one seed gives no interval")


def test_power_is_what_simulation_finds() -> None:
    power = power_of(PoolError(0.05, 4), PaperValue(difference=-0.2, source="x"), seeds=5, unit="", scale=1.0)
    assert power is not None
    rng = np.random.default_rng(0)
    n = 5
    sample = rng.normal(-0.2, 0.05 * np.sqrt(n), (20_000, n))
    found = np.mean(np.abs(stats.ttest_1samp(sample, 0.0, axis=1).statistic) > stats.t.ppf(0.975, n - 1))
    assert power.at_paper == pytest.approx(found, abs=0.01)
    assert power.detectable == pytest.approx(0.05 * (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)))
    assert "With 5 seeds" in power.statement


@pytest.mark.parametrize(
    ("difference", "half", "at_paper", "expected"),
    [
        (-0.06, 0.03, 0.9, "reproduced"),
        (0.06, 0.03, 0.9, "contradicted"),
        (0.01, 0.03, 0.95, "contradicted"),
        (-0.04, 0.06, 0.95, "undecided"),
        (0.01, 0.03, 0.3, "undecided"),
    ],
)
def test_the_verdict_follows_the_rule(difference: float, half: float, at_paper: float, expected: str) -> None:
    pooled = Pooled(
        base=0.8,
        changed=0.8 + difference,
        difference=difference,
        ci95=(difference - half, difference + half),
        method="x",
        n=10,
    )
    power = power_of(PoolError(0.01, 10), PAPER, seeds=3, unit="", scale=1.0)
    assert power is not None
    ruling, reason = verdict(pooled, PAPER, power.model_copy(update={"at_paper": at_paper}))
    assert ruling == expected
    assert reason
    assert verdict(pooled, None, None) == (None, "")
