"""Paired differences pooled over seeds, what such a design can find, and the verdict on a paper's claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit

from tokbench.bootstrap import LEVEL
from tokbench.reproduction import PaperValue, Pooled, Power, SeedDifference, Verdict

__all__ = ["PoolError", "pool", "pool_error", "power_of", "verdict"]

WANTED_POWER = 0.8


@dataclass(frozen=True)
class PoolError:
    """Standard error of a mean difference over seeds, and its effective degrees of freedom."""

    error: float
    degrees: float


def pool_error(differences: Sequence[float], item_errors: Sequence[tuple[float, int]]) -> PoolError | None:
    """The standard error of the mean difference over seeds, for another draw of seeds and of items.

    Seeds: the differences' sample variance over their number. Items are the same for all seeds, so averaging over
    seeds does not shrink their part; the mean of the seeds' own standard errors bounds it from above. Both variances
    are added, and the degrees of freedom are Satterthwaite's.

    Args:
        differences: one a seed.
        item_errors: standard error over items and its degrees of freedom, one a seed; empty where the metric has no
            items to redraw.

    Returns:
        None for one seed.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics 2, 1946.
    """
    count = len(differences)
    if count < 2:
        return None
    between = float(np.var(differences, ddof=1)) / count
    parts = [(between, float(count - 1))]
    if item_errors:
        parts.append(
            (float(np.mean([e for e, _ in item_errors])) ** 2, float(min(degrees for _, degrees in item_errors)))
        )
    total = sum(variance for variance, _ in parts)
    if total == 0.0:
        return PoolError(0.0, float(count - 1))
    degrees = total**2 / sum(variance**2 / d for variance, d in parts if variance > 0)
    return PoolError(total**0.5, degrees)


def pool(seeds: Sequence[SeedDifference], item_errors: Sequence[tuple[float, int]], *, items: int) -> Pooled:
    """All seeds together: means, and a Student interval by `pool_error`."""
    base, changed = (float(np.mean([getattr(one, side) for one in seeds])) for side in ("base", "changed"))
    difference = changed - base
    error = pool_error([one.difference for one in seeds], item_errors)
    what = "seeds and items (items bounded from above)" if item_errors else "seeds alone"
    if error is None:
        return Pooled(
            base=base, changed=changed, difference=difference, ci95=None, n=items, method="one seed: no interval"
        )
    half = float(-stdtrit(error.degrees, LEVEL / 2)) * error.error
    if error.error > 0:
        p_value = float(2 * stdtr(error.degrees, -abs(difference) / error.error))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    return Pooled(
        base=base,
        changed=changed,
        difference=difference,
        ci95=(difference - half, difference + half),
        method=f"mean over {len(seeds)} seeds; Student's t, variance of {what}, {error.degrees:.1f} degrees of freedom",
        n=items,
        p_value=p_value,
    )


def power_of(error: PoolError | None, paper: PaperValue | None, *, seeds: int, unit: str, scale: float) -> Power | None:
    """What a design with this standard error finds; None where there is no error to go by.

    The error is the observed one, from a handful of seeds, and so itself uncertain by half its size and more.
    """
    if error is None or error.error == 0.0:
        return None
    critical = float(-stdtrit(error.degrees, LEVEL / 2))
    detectable = (critical + float(stdtrit(error.degrees, WANTED_POWER))) * error.error
    shown = f"{detectable * scale:.3g}{f' {unit}' if unit else ''}"
    text = f"With {seeds} seeds, a true difference of {shown} would be found with 80 % probability."
    chance = None
    if paper is not None:
        shift = abs(paper.difference) / error.error
        chance = float(1 - nctdtr(error.degrees, shift, critical) + nctdtr(error.degrees, shift, -critical))
        if not np.isfinite(chance):
            chance = 1.0 if shift > critical else 0.0
        text += f" One as large as the paper's ({abs(paper.difference) * scale:.3g}): {100 * chance:.0f} %."
    return Power(detectable=detectable, at_paper=chance, statement=text)


def verdict(pooled: Pooled, paper: PaperValue | None, power: Power | None) -> tuple[Verdict | None, str]:
    """The verdict on the paper's sign, and the rule that gave it.

    An interval that excludes zero decides: with the paper's sign reproduced, with the other contradicted. One that
    contains zero contradicts only where the experiment would have found the paper's difference (80 % power) and the
    interval excludes it. Everything else is undecided.
    """
    if paper is None:
        return None, ""
    if pooled.ci95 is None:
        return "undecided", "one seed gives no interval"
    low, high = pooled.ci95
    if low > 0 or high < 0:
        same = (pooled.difference > 0) == (paper.difference > 0)
        if same:
            return "reproduced", "the interval excludes zero, on the paper's side"
        return "contradicted", "the interval excludes zero, on the other side than the paper's"
    outside = not low <= paper.difference <= high
    enough = power is not None and power.at_paper is not None and power.at_paper >= WANTED_POWER
    if outside and enough:
        return "contradicted", "the interval contains zero and excludes the paper's difference, which would be found"
    if enough:
        return "undecided", "the interval contains zero and the paper's difference"
    return "undecided", "the interval contains zero, and an experiment of this size would miss the paper's difference"
