"""The pure charts: numbers in, marks at the right places out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from tokbench.leaderboard.bars import Bar, BarRow, bar_chart
from tokbench.leaderboard.charts import Point, scatter
from tokbench.leaderboard.det import Trade, det_plot
from tokbench.leaderboard.forest import ForestGroup, ForestRow, forest_plot, signed
from tokbench.leaderboard.lines import Curve, line_chart, thinned
from tokbench.leaderboard.matrix import matrix_plot, phone_codes
from tokbench.leaderboard.scales import deviate_axis, linear_axis
from tokbench.metrics.eer import det_curve, eer

NAMES = {"identifier": "x", "title": "A title", "description": "What it says."}


def parsed(drawing: str) -> ElementTree.Element:
    """The drawing as XML; a title and a description name it."""
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-labelledby"] == "x-t x-d"
    assert (root[0].text, root[1].text) == ("A title", "What it says.")
    return root


def words(root: ElementTree.Element) -> list[str]:
    return [node.text or "" for node in root.iter("text")]


def of_class(root: ElementTree.Element, tag: str, style: str) -> list[ElementTree.Element]:
    return [node for node in root.iter(tag) if style in node.attrib.get("class", "").split()]


@given(st.floats(0.0011, 0.9), st.floats(1.01, 20))
def test_a_deviate_axis_is_even_in_deviates(low: float, factor: float) -> None:
    high = min(0.998, low * factor)
    axis = deviate_axis(low, high, 0, 300)
    assert axis.low <= low + 1e-12
    assert axis.high >= high - 1e-12
    assert len(axis.ticks) >= 3
    assert all(b - a >= 26 for a, b in zip(map(axis, axis.ticks), map(axis, axis.ticks[1:]), strict=False))
    middle = float(ndtr((ndtri(axis.low) + ndtri(axis.high)) / 2))
    assert axis(middle) == pytest.approx(150)
    assert (axis(0.0), axis(1.0)) == (0, 300), "what is off the axis stands at its end"


def test_normal_scores_give_a_straight_det_curve_through_the_equal_error_rate() -> None:
    # Quantiles of N(2, 1) and N(0, 1): misses and false alarms are symmetric, the rate is the normal tail beyond 1.
    quantiles = ndtri((np.arange(20000) + 0.5) / 20000)
    target, nontarget = quantiles + 2.0, quantiles
    rate = eer(target, nontarget).value
    assert rate == pytest.approx(float(ndtr(-1.0)), abs=1e-4)
    curve = det_curve(target, nontarget)
    root = parsed(
        det_plot([Trade("a", curve.far, curve.frr, rate, 0)], others=[Trade("b", curve.frr, curve.far, 0.2, 1)],
                 x_label="false alarms", y_label="misses", **NAMES)
    )  # fmt: skip
    line = next(n for n in of_class(root, "path", "det") if "other" not in n.attrib["class"])
    points = np.array([[float(v) for v in pair.split()] for pair in line.attrib["d"][1:].split("L")])
    slope, offset = np.polyfit(points[1:-1, 0], points[1:-1, 1], 1)
    assert np.abs(slope * points[1:-1, 0] + offset - points[1:-1, 1]).max() < 1.0, "pixels off a straight line"
    spot = next(root.iter("circle"))
    x, y = float(spot.attrib["cx"]), float(spot.attrib["cy"])
    assert slope * x + offset == pytest.approx(y, abs=0.5)
    diagonal = of_class(root, "line", "diagonal")[0].attrib
    share = [(x - float(diagonal["x1"])) / (float(diagonal["x2"]) - float(diagonal["x1"])),
             (y - float(diagonal["y1"])) / (float(diagonal["y2"]) - float(diagonal["y1"]))]  # fmt: skip
    assert share[0] == pytest.approx(share[1], abs=0.005), "the marker stands on the diagonal"
    assert len(of_class(root, "path", "other")) == 1
    assert "a 15.9" in words(root)
    assert not any(text.startswith("b ") for text in words(root))


def test_bars_are_as_long_as_their_values() -> None:
    rows = [
        BarRow("first", (Bar(10.0, (8.0, 14.0)), Bar(20.0, None)), 0, best=True),
        BarRow("second", (None, Bar(40.0, (30.0, 50.0))), 1, anchor=True),
    ]
    root = parsed(bar_chart(rows, conditions=("within", "across"), label="error, %", chance=50.0, **NAMES))
    bars = of_class(root, "rect", "bar")
    lengths = [float(bar.attrib["width"]) for bar in bars]
    assert lengths == pytest.approx([lengths[0], 2 * lengths[0], 4 * lengths[0]], abs=0.2)
    chance = of_class(root, "line", "ref")[0].attrib
    left = float(bars[0].attrib["x"])
    assert float(chance["x1"]) - left == pytest.approx(5 * lengths[0], abs=0.2)
    ends = [node.attrib for node in of_class(root, "line", "err") if node.attrib["y1"] == node.attrib["y2"]]
    assert [float(e["x2"]) - float(e["x1"]) for e in ends] == pytest.approx([0.6 * lengths[0], 2 * lengths[0]], abs=0.2)
    assert ["light" in bar.attrib["class"] for bar in bars] == [False, True, True]
    assert "strong" in next(n for n in root.iter("text") if n.text == "first").attrib["class"]
    assert [n.text for n in root.iter("title")][1:] == ["first, within: 10", "first, across: 20", "second, across: 40"]


def test_a_forest_has_zero_ends_references_and_verdicts() -> None:
    rows = (
        ForestRow("seed 0", -0.1, -0.2, 0.0),
        ForestRow("all seeds", -0.05, -0.15, 0.05, reference=-0.08, verdict="undecided", summary=True),
    )
    wide = parsed(forest_plot([ForestGroup("F0", rows)], label="difference", sides=("worse", "better"), **NAMES))
    found = words(wide)
    for text in ("F0", "seed 0", "−0.100 (−0.200 to 0.000)", "−0.050 (−0.150 to +0.050)", "undecided", "← worse"):
        assert text in found, text
    zero = float(of_class(wide, "line", "zero")[0].attrib["x1"])
    diamond = [float(v) for v in re.findall(r"([\d.]+) [\d.]+", of_class(wide, "path", "est")[0].attrib["d"])]
    unit = (diamond[2] - diamond[0]) / 0.2
    assert (zero - diamond[1]) / unit == pytest.approx(0.05, abs=0.002)
    published = re.match(r"M([\d.]+)", of_class(wide, "path", "pub")[0].attrib["d"])
    assert published
    assert (zero - float(published[1])) / unit == pytest.approx(0.08, abs=0.002)
    narrow = parsed(forest_plot([ForestGroup("F0", rows)], label="difference", width=360, **NAMES))
    assert {"seed 0: −0.100", "all seeds: −0.050", "undecided"} <= set(words(narrow))
    assert len(of_class(narrow, "path", "pub")) == 1


def test_signs() -> None:
    assert [signed(v, 2) for v in (0.5, -0.5, 0.001)] == ["+0.50", "−0.50", "0.00"]


def test_phone_codes_orders_codes_by_their_commonest_phone() -> None:
    # SIL: code 7 (30), IY: code 3 (10) and 5 (4), S: code 5 (6), T: code 9 (1); the phone of code 5 is S.
    labels = ["T", "S", "IY", "IY", "SIL", "SIL"]
    found = phone_codes(labels, [9, 5, 3, 5, 7, 7], [1, 6, 10, 4, 20, 10], most=3)
    assert found.phones == ("SIL", "IY", "S", "T")
    assert found.codes.tolist() == [7, 3, 5], "the three commonest, in the order of their phones"
    assert found.share.tolist() == [[1, 0, 0], [0, 1, 0.4], [0, 0, 0.6], [0, 0, 0]]
    assert found.frames.tolist() == [30, 14, 6, 1]
    assert found.covered == pytest.approx(50 / 51)
    assert found.used == 4
    assert found.best == ((7, 1.0), (3, pytest.approx(10 / 14)), (5, 1.0), (9, 1.0))
    assert found.owned.tolist() == [1, 1, 1, 1]
    root = parsed(matrix_plot(found, **NAMES))
    cells = {node.attrib["opacity"]: node.attrib["d"].count("M") for node in of_class(root, "path", "cell")}
    assert cells == {"1": 2, "0.625": 1, "0.375": 1}
    assert "3 commonest of 4 codes, 98% of the frames" in words(root)
    assert {"SIL", "IY", "S", "T", "vowels"} <= set(words(root))


def test_unknown_phones_come_last() -> None:
    assert phone_codes(["Q", "K"], [0, 1], [1, 1], most=9).phones == ("K", "Q")


@given(st.integers(1, 900), st.integers(2, 50))
def test_thinning_keeps_the_mean_and_the_last_point(count: int, most: int) -> None:
    steps, values = np.arange(1.0, count + 1), np.sin(np.arange(count))
    x, y = thinned(steps, values, most=most)
    assert len(x) == min(count, most)
    assert (x[-1], y[-1]) == (steps[-1], values[-1])
    assert np.all(np.diff(x) > 0)
    if count > most:
        bins = np.bincount(np.arange(count - 1) * (most - 1) // (count - 1))
        assert float(y[:-1] @ bins) == pytest.approx(float(values[:-1].sum()), abs=1e-9)


def test_lines_break_where_a_value_is_missing() -> None:
    steps = np.array([1.0, 2.0, 3.0, 4.0])
    curves = [Curve("seed 0", 0, steps, np.array([1.0, 2.0, np.nan, 4.0])), Curve("seed 1", 0, steps, steps)]
    root = parsed(line_chart(curves, y_label="loss", **NAMES))
    paths = [node.attrib["d"] for node in of_class(root, "path", "curve")]
    assert [path.count("M") for path in paths] == [2, 1]
    assert [path.count("L") for path in paths] == [1, 3]
    assert "loss" in words(root)
    steep = [Curve("seed 0", 0, steps, np.array([100.0, 10.0, 1.0, 0.1]))]
    assert "loss (logarithmic)" in words(parsed(line_chart(steep, y_label="loss", **NAMES)))
    single = [Curve("seed 0", 0, steps[:1], steps[:1])]
    assert len(list(parsed(line_chart(single, y_label="loss", **NAMES)).iter("circle"))) == 1


def test_reference_lines_frame_a_plane() -> None:
    points = [Point("a", 10.0, 20.0, None, None, 0), Point("b", 30.0, 40.0, (28.0, 33.0), (35.0, 45.0), 1)]
    lines = {"lines": [("real speech", 5.0)], "x_lines": [("real speech", 3.0), ("identity", 3.2)]}
    root = parsed(scatter(points, x_label="WER", y_label="EER", log_x=False, better="lower", **lines, **NAMES))
    found = [node.attrib for node in of_class(root, "line", "ref")]
    across = [line for line in found if line["y1"] == line["y2"]]
    upright = [line for line in found if line["x1"] == line["x2"]]
    assert (len(across), len(upright)) == (1, 2)
    x_axis, y_axis = linear_axis(3.0, 33.0, 56.0, 626.0), linear_axis(5.0, 45.0, 354.0, 30.0)
    assert float(upright[0]["x1"]) == pytest.approx(x_axis(3.0), abs=0.1)
    assert float(across[0]["y1"]) == pytest.approx(y_axis(5.0), abs=0.1)
    assert words(root).count("real speech") == 1
    assert "real speech, identity" in words(root), "lines close to each other share a label"
