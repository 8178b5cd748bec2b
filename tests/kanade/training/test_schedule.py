"""The schedule against the reference's, beta1 included, and its count of batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tokbench.kanade.training.recipe import OptimizerRecipe, ScheduleRecipe
from tokbench.kanade.training.schedule import make_optimizer

CASES = {
    "cos_2e-4_total1000": (2e-4, ScheduleRecipe(warmup=0.1, div=10, final_div=1, anneal="cos")),
    "linear_1e-4_total1000": (1e-4, ScheduleRecipe(warmup=0.025, div=10, final_div=10, anneal="linear")),
}


def _course(lr: float, schedule: ScheduleRecipe, batches: int) -> list[tuple[float, float]]:
    adam, cycle = make_optimizer([nn.Parameter(torch.zeros(1))], OptimizerRecipe(lr=lr), schedule, batches=batches)
    seen = []
    for _ in range(batches):
        group = adam.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        adam.step()
        cycle.step()
    return seen


@pytest.mark.parametrize("name", CASES)
def test_learning_rate_and_momentum_match_the_reference(parity: Path, name: str) -> None:
    lr, schedule = CASES[name]
    expected = json.loads((parity / "onecycle.json").read_text())[name]
    course = _course(lr, schedule, 1000)
    for step, (rate, beta) in expected.items():
        assert course[int(step)] == pytest.approx((rate, beta), rel=1e-9), step


def test_a_longer_cycle_ends_in_the_middle() -> None:
    """Published GAN runs: 100,000 batches of a cycle of 200,000 end near 1.25e-4 of a peak of 2e-4."""
    schedule = ScheduleRecipe(total=2000)
    course = _course(2e-4, schedule, 1000)
    assert course[-1][0] == pytest.approx(1.25e-4, rel=0.01)


def test_frozen_parameters_are_left_out() -> None:
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    free = nn.Parameter(torch.zeros(1))
    adam, _ = make_optimizer([frozen, free], OptimizerRecipe(), ScheduleRecipe(), batches=100)
    assert adam.param_groups[0]["params"] == [free]
