"""Line charts of training: a value over steps, one thin line per seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from tokbench.leaderboard.drawing import SHAPES, axes, key, svg
from tokbench.leaderboard.scales import linear_axis, log_axis

__all__ = ["Curve", "line_chart", "line_keys", "thinned"]

MOST_POINTS = 160
"""A longer curve is averaged in so many bins of steps."""
_LOG_SPAN = 30.0
"""Positive values that span more than this get a logarithmic axis."""

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A value over training steps.

    Attributes:
        name: what is shown when the line is pointed at: "content, seed 0".
        group: which colour it has; curves of one run and different seeds share it.
        steps: float64 `[points]`, rising.
        values: float64 `[points]`; NaN where there is none.
    """

    name: str
    group: int
    steps: Float
    values: Float


def line_chart(
    curves: Sequence[Curve],
    *,
    identifier: str,
    title: str,
    description: str,
    y_label: str,
    size: tuple[int, int] = (640, 300),
) -> str:
    """Lines over steps; the axis is logarithmic where positive values span more than a factor of 30.

    Args:
        curves: at least one with a finite value.
        identifier: unique in the page.
        title: what the chart shows.
        description: what to read from it, for those who do not see it.
        y_label: of the vertical axis.
        size: width and height of the drawing in pixels.
    """
    width, height = size
    left, right, top, bottom = 56.0, width - 14.0, 30.0, height - 46.0
    thin = [thinned(curve.steps, curve.values) for curve in curves]
    values = np.concatenate([v[np.isfinite(v)] for _, v in thin])
    steps = np.concatenate([s for s, _ in thin])
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high / low > _LOG_SPAN
    y_axis = (log_axis if logarithmic else linear_axis)(low, high, bottom, top)
    x_axis = linear_axis(float(steps.min()), float(steps.max()), left, right)
    label = f"{y_label} (logarithmic)" if logarithmic else y_label
    parts = axes(x_axis, y_axis, "training steps", label, sparse=width < 500)
    for curve, (x, y) in zip(curves, thin, strict=True):
        path, pen = [], "M"
        for step, value in zip(x.tolist(), y.tolist(), strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            path.append(f"{pen}{x_axis(step):.1f} {y_axis(value):.1f}")
            pen = "L"
        style, told = f"curve c{curve.group % SHAPES}", f"<title>{escape(curve.name)}</title>"
        parts.append(f'<path class="{style}" d="{"".join(path)}">{told}</path>')
        if len(path) == 1:
            spot = path[0][1:].split()
            parts.append(f'<circle class="m c{curve.group % SHAPES}" cx="{spot[0]}" cy="{spot[1]}" r="2.5"/>')
    return svg(parts, identifier, title, description, size)


def thinned(steps: Float, values: Float, *, most: int = MOST_POINTS) -> tuple[Float, Float]:
    """Means over bins of points, so that a curve has at most `most` of them; the last point stays as it is."""
    if len(steps) <= most:
        return steps, values
    bins = np.arange(len(steps) - 1) * (most - 1) // (len(steps) - 1)
    counts = np.bincount(bins)
    finite = np.isfinite(values[:-1])
    there = np.bincount(bins, weights=finite)
    sums = np.bincount(bins, weights=np.where(finite, values[:-1], 0.0))
    means = np.divide(sums, there, out=np.full(len(sums), np.nan), where=there > 0)
    middle = np.bincount(bins, weights=steps[:-1]) / counts
    return np.append(middle, steps[-1]), np.append(means, values[-1])


def line_keys(groups: Sequence[str]) -> list[tuple[str, str]]:
    """Legend entries for the colours, where there are several."""
    if len(groups) < 2:
        return []
    return [(key(f'<path class="curve c{i % SHAPES}" d="M0 8H16"/>'), name) for i, name in enumerate(groups)]
