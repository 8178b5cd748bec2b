"""AdamW and OneCycle as the published runs step them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from tokbench.kanade.training.recipe import OptimizerRecipe, ScheduleRecipe

__all__ = ["make_optimizer"]


def make_optimizer(
    parameters: Iterable[nn.Parameter], optimizer: OptimizerRecipe, schedule: ScheduleRecipe, *, batches: int
) -> tuple[AdamW, OneCycleLR]:
    """An optimiser and its schedule, which is stepped once a batch.

    `schedule.total` counts batches. The published runs take Lightning's number of optimiser steps for it, which is
    twice the number of batches where a discriminator has an optimiser of its own; see the GAN recipes.

    With `cycle_momentum` the first beta goes from 0.95 to 0.85 at the peak and back, whatever `betas` says: this is
    torch's default, and the published runs have it.
    """
    total = schedule.total or batches
    adam = AdamW(
        [p for p in parameters if p.requires_grad],
        lr=optimizer.lr,
        betas=optimizer.betas,
        weight_decay=optimizer.weight_decay,
    )
    cycle = OneCycleLR(
        adam,
        max_lr=optimizer.lr,
        total_steps=total,
        pct_start=schedule.warmup,
        div_factor=schedule.div,
        final_div_factor=schedule.final_div,
        anneal_strategy=schedule.anneal,
        cycle_momentum=schedule.cycle_momentum,
    )
    return adam, cycle
