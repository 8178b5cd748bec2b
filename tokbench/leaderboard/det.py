"""Detection error trade-off: misses against false alarms on normal-deviate axes, several tokenizers in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from tokbench.leaderboard.drawing import SHAPES, axes, marker, svg, text, whisker
from tokbench.leaderboard.numbers import quantity
from tokbench.leaderboard.scales import Axis, Box, deviate_axis, place_labels

__all__ = ["Trade", "det_plot"]

FONT = 12.5
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
"""Line styles that tell the members of one family apart."""


@dataclass(frozen=True)
class Trade:
    """The errors of one tokenizer's scores at every threshold.

    Attributes:
        name: the tokenizer.
        far: float64 `[points]`, false alarms by rising threshold, 0 to 1.
        frr: float64 `[points]`, misses.
        eer: the equal error rate, strictly between 0 and 1.
        family: number of its family.
        place: which of its family it is, for the line style.
    """

    name: str
    far: npt.NDArray[np.float64]
    frr: npt.NDArray[np.float64]
    eer: float
    family: int
    place: int = 0


def det_plot(
    trades: Sequence[Trade],
    *,
    others: Sequence[Trade] = (),
    identifier: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (640, 520),
) -> str:
    """DET curves, each with a marker where both errors are equal.

    Args:
        trades: named and coloured; at least one.
        others: drawn in grey, without names, for comparison.
        identifier: unique in the page.
        title: what the chart shows.
        description: what to read from it, for those who do not see it.
        x_label: what a false alarm is.
        y_label: what a miss is.
        size: width and height of the drawing in pixels.

    Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    width, height = size
    left, right, top, bottom = 56.0, width - 14.0, 30.0, height - 46.0
    x_axis, y_axis = _axes([*trades, *others], (left, right), (bottom, top))
    parts = axes(x_axis, y_axis, x_label, y_label, sparse=width < 500, number=lambda rate: quantity(100 * rate))
    low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
    parts.append(whisker((x_axis(low), x_axis(high)), (y_axis(low), y_axis(high)), "diagonal"))
    parts += [f'<path class="det other" d="{_path(t, x_axis, y_axis)}"/>' for t in others]
    obstacles: list[Box] = []
    for trade in trades:
        dash = DASHES[trade.place % len(DASHES)]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<path class="det c{trade.family % SHAPES}"{style} d="{_path(trade, x_axis, y_axis)}">'
            f"<title>{escape(trade.name)}</title></path>"
        )
        spots = zip(trade.far, trade.frr, strict=True)
        obstacles += [Box(x_axis(a) - 3, y_axis(b) - 3, x_axis(a) + 3, y_axis(b) + 3) for a, b in spots]
    centres = [(x_axis(t.eer), y_axis(t.eer)) for t in trades]
    names = [f"{t.name} {quantity(100 * t.eer)}" for t in trades]
    frame = Box(left + 3, top + 2, right - 2, bottom - 2)
    boxes = place_labels(centres, names, frame, obstacles, size=FONT)
    for name, (x, y), box in zip(names, centres, boxes, strict=True):
        cx, cy = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if (cx - x) ** 2 + (cy - y) ** 2 > 14**2:
            parts.append(whisker((x, cx), (y, cy), "leader"))
        parts.append(text((box.left + box.right) / 2, box.bottom - FONT * 0.27, name, "lab", "middle"))
    for trade, (x, y) in zip(trades, centres, strict=True):
        words = f"{trade.name}: equal error rate {quantity(100 * trade.eer)} %"
        parts.append(f"<g><title>{escape(words)}</title>{marker(x, y, trade.family)}</g>")
    return svg(parts, identifier, title, description, size)


def _axes(trades: Sequence[Trade], x: tuple[float, float], y: tuple[float, float]) -> tuple[Axis, Axis]:
    """Two axes of one range: from the smallest error that occurs to well beyond the largest equal error rate."""
    rates = np.concatenate([np.concatenate([t.far, t.frr]) for t in trades])
    crossings = [t.eer for t in trades]
    low = max(0.002, min([*crossings, float(rates[rates > 0].min())]))
    high = min(0.95, max(0.4, 2.0 * max(crossings)))
    return deviate_axis(low, high, *x), deviate_axis(low, high, *y)


def _path(trade: Trade, x_axis: Axis, y_axis: Axis) -> str:
    """A line through the points inside the axes, and one more at each end, at the edge where it leaves them."""
    inside = (trade.far > x_axis.low) & (trade.far < x_axis.high) & (trade.frr > y_axis.low) & (trade.frr < y_axis.high)
    keep = np.flatnonzero(inside)
    if not len(keep):
        return ""
    first, last = max(0, keep[0] - 1), min(len(inside) - 1, keep[-1] + 1)
    points: list[str] = []
    for far, frr in zip(trade.far[first : last + 1], trade.frr[first : last + 1], strict=True):
        spot = f"{x_axis(float(far)):.1f} {y_axis(float(frr)):.1f}"
        if not points or points[-1] != spot:
            points.append(spot)
    return "M" + "L".join(points)
