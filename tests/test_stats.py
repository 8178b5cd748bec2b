from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.bootstrap import Clusters, bootstrap, tail_level
from tokbench.errors import NotApplicable, UserError
from tokbench.metrics.base import Columns, Mean, Metric, Ratio
from tokbench.metrics.eer import Eer
from tokbench.stats import compare, estimate, holm, rank_intervals, tie_group

WER = Metric("wer", "%", "lower", ("errors", "words"), Ratio("errors", "words"), title="WER", scale=100.0)
MOS = Metric("mos", "MOS", "higher", ("score",), Mean("score"))


def table(values: dict[str, list[float]], speakers: Sequence[str | None]) -> pd.DataFrame:
    rows = pd.DataFrame({"id": [f"u{i:03d}" for i in range(len(speakers))], "speaker": speakers, **values})
    return rows.assign(error=None)


def words(rng: np.random.Generator, items: int, speakers: int, skill: float = 0.1) -> pd.DataFrame:
    of = rng.integers(speakers, size=items)
    rates = np.clip(skill + 0.04 * rng.standard_normal(speakers), 0.01, 0.9)
    length = rng.integers(5, 25, items)
    return table(
        {"errors": rng.binomial(length, rates[of]).astype(float).tolist(), "words": length.astype(float).tolist()},
        [f"s{s:02d}" for s in of],
    )


def slow_bootstrap(rows: pd.DataFrame, draws: int, seed: int) -> np.ndarray:
    """Draw speakers by name and add up the rows of each, one draw at a time."""
    rng = np.random.default_rng(seed)
    names = sorted(rows["speaker"].unique())
    values = []
    for _ in range(draws):
        picked = pd.concat([rows[rows["speaker"] == names[i]] for i in rng.integers(len(names), size=len(names))])
        values.append(picked["errors"].sum() / picked["words"].sum())
    return np.array(values)


def test_the_same_draws_as_the_slow_bootstrap() -> None:
    rows = words(np.random.default_rng(0), 60, 5)
    columns = {name: rows[name].to_numpy() for name in ("errors", "words")}
    clusters = Clusters.of(rows, "speaker")
    expected = slow_bootstrap(rows, 40, seed=3)
    np.testing.assert_allclose(bootstrap(Ratio("errors", "words"), columns, clusters, draws=40, seed=3), expected)

    def plain(columns: Columns, weights: np.ndarray) -> np.ndarray:
        return (weights @ columns["errors"]) / (weights @ columns["words"])

    np.testing.assert_allclose(bootstrap(plain, columns, clusters, draws=40, seed=3), expected)


def test_every_possible_draw_is_equally_likely() -> None:
    rows = table({"score": [1.0, 2.0, 4.0]}, ["a", "b", "c"])
    drawn = bootstrap(Mean("score"), {"score": rows["score"].to_numpy()}, Clusters.of(rows, "speaker"), draws=50_000)
    exact = [sum(picked) / 3 for picked in itertools.product([1.0, 2.0, 4.0], repeat=3)]
    for value in set(exact):
        assert np.mean(np.isclose(drawn, value)) == pytest.approx(exact.count(value) / 27, abs=0.01)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = words(np.random.default_rng(1), 50, 7)
    columns = {name: rows[name].to_numpy() for name in ("errors", "words")}
    whole = bootstrap(WER.reduce, columns, Clusters.of(rows, "speaker"), draws=101, seed=5)
    monkeypatch.setattr("tokbench.bootstrap._CELLS", 21)
    np.testing.assert_array_equal(
        bootstrap(WER.reduce, columns, Clusters.of(rows, "speaker"), draws=101, seed=5), whole
    )


def test_estimate() -> None:
    rows = words(np.random.default_rng(2), 80, 8)
    found = estimate(WER, rows)
    assert found.value == pytest.approx(rows["errors"].sum() / rows["words"].sum(), abs=1e-15)
    assert found.value is not None
    assert found.ci95 is not None
    assert found.ci95[0] < found.value < found.ci95[1]
    assert (found.n, found.clusters, found.undefined, found.scale, found.title) == (80, 8, 0, 100.0, "WER")
    assert found.method == (
        "sum(errors) / sum(words); cluster bootstrap over 8 speakers, 10000 draws, seed 0, expanded 95 % percentiles"
    )
    assert estimate(WER, rows) == found
    assert estimate(WER, rows, seed=1).ci95 != found.ci95


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(12))))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows = words(np.random.default_rng(3), 12, 4)
    shuffled = estimate(WER, rows.iloc[order], draws=200)
    expected = estimate(WER, rows, draws=200)
    assert shuffled.value == pytest.approx(expected.value, abs=1e-14)
    assert shuffled.ci95 == pytest.approx(expected.ci95, abs=1e-14)


def test_missing_components_are_counted_with_their_reasons() -> None:
    rows = table({"score": [1.0, np.nan, 3.0, np.nan, np.nan, 9.0]}, ["a", "a", "b", "b", "b", "c"])
    rows["why[mos]"] = [None, "the reference is silent", None, "the reference is silent", None, None]
    rows.loc[5, "error"] = "AudioError: truncated"
    found = estimate(MOS, rows)
    assert (found.value, found.n, found.undefined) == (2.0, 2, 3)
    assert found.reasons == {"the reference is silent": 2, "no reason recorded": 1}
    judged = estimate(MOS.of("j"), rows.rename(columns={"score": "score[j]", "why[mos]": "why[mos[j]]"}))
    assert judged.reasons == found.reasons
    assert judged.metric == "mos[j]"


def test_nothing_left() -> None:
    rows = table({"score": [np.nan, 2.0]}, ["a", "b"])
    rows.loc[1, "error"] = "failed"
    found = estimate(MOS, rows)
    assert (found.value, found.ci95, found.n, found.undefined) == (None, None, 0, 1)
    assert "no item has a value" in found.method
    empty = estimate(MOS, rows.iloc[:0])
    assert (empty.value, empty.n, empty.undefined) == (None, 0, 0)


def test_a_ratio_over_nothing_has_no_value() -> None:
    rows = table({"errors": [2.0, 3.0], "words": [0.0, 0.0]}, ["a", "b"])
    found = estimate(WER, rows)
    assert (found.value, found.ci95, found.n) == (None, None, 2)
    assert "has no value" in found.method
    rows.loc[0, "words"] = 5.0
    partly = estimate(WER, rows, draws=1000)
    assert partly.value == 1.0
    assert "draws without a value left out" in partly.method


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (table({"score": [1.0, 2.0, 3.0]}, ["a", "a", "a"]), "bootstrap over 3 items (one speaker)"),
        (table({"score": [1.0, 2.0, 3.0]}, ["a", None, "b"]), "bootstrap over 3 items ('speaker' has gaps)"),
        (
            table({"score": [1.0, 2.0, 3.0]}, ["a", "b", "c"]).drop(columns="speaker"),
            "bootstrap over 3 items (no column 'speaker')",
        ),
    ],
)
def test_without_clusters_items_are_drawn(rows: pd.DataFrame, text: str) -> None:
    found = estimate(MOS, rows)
    assert text in found.method
    assert "cluster bootstrap" not in found.method
    assert found.clusters is None
    assert found.ci95 is not None
    assert found.ci95[0] < 2.0 < found.ci95[1]


def test_one_item_has_no_interval() -> None:
    found = estimate(MOS, table({"score": [1.5]}, ["a"]))
    assert (found.value, found.ci95) == (1.5, None)
    assert "no interval from one item" in found.method


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UserError, match="wer: the rows have no column 'words'"):
        estimate(WER, table({"errors": [1.0]}, ["a"]))


def test_a_number_without_components_is_refused() -> None:
    declared = Metric("bps", "bit/s", "lower", (), Mean("x"))
    for call in (lambda r: estimate(declared, r), lambda r: compare(declared, r, r)):
        with pytest.raises(NotApplicable, match="not computed from rows"):
            call(table({"x": [1.0, 2.0]}, ["a", "b"]))


def test_a_system_without_a_value_has_no_rank_and_no_test() -> None:
    a = table({"errors": [1.0, 2.0, 0.0], "words": [9.0, 9.0, 9.0]}, ["a", "b", "c"])
    b = a.assign(words=0.0)
    assert set(rank_intervals(WER, {"a": a, "b": b}, draws=100)) == {"a"}
    assert rank_intervals(WER, {"b": b}, draws=100) == {}
    assert (compare(WER, a, b).p_value, compare(WER, a, b).ci95) == (None, None)


def test_trials_follow_both_speakers() -> None:
    rng = np.random.default_rng(4)
    speakers = [f"s{i}" for i in range(6)]
    pairs = [(a, b) for a, b in itertools.combinations_with_replacement(speakers, 2) for _ in range(4)]
    rows = pd.DataFrame(pairs, columns=["speaker_a", "speaker_b"])
    rows["target"] = (rows["speaker_a"] == rows["speaker_b"]).astype(float)
    rows["score"] = rng.normal(rows["target"], 0.6)
    rows["id"], rows["error"] = [f"t{i}" for i in range(len(rows))], None
    metric = Metric("eer", "%", "lower", ("score", "target"), Eer())
    clusters = Clusters.of(rows, ("speaker_a", "speaker_b"))
    columns = {name: rows[name].to_numpy() for name in ("score", "target")}
    drawn = bootstrap(metric.reduce, columns, clusters, draws=30, seed=9)
    times = np.random.default_rng(9).integers(6, size=(30, 6))
    for value, picked in zip(drawn, times, strict=True):
        count = {name: int((picked == i).sum()) for i, name in enumerate(speakers)}
        weights = [
            count[a] if a == b else count[a] * count[b]
            for a, b in zip(rows["speaker_a"], rows["speaker_b"], strict=True)
        ]
        expected = Eer()(columns, np.array([weights, weights], np.float64))[0]
        assert value == pytest.approx(expected, abs=1e-12)
    found = estimate(metric, rows, cluster=("speaker_a", "speaker_b"), draws=500)
    assert found.clusters == 6
    assert "6 clusters of speaker_a and speaker_b" in found.method


def test_tail_levels() -> None:
    assert tail_level(10_000) == pytest.approx(0.025, abs=1e-4)
    levels = [tail_level(n) for n in range(2, 40)]
    assert levels == sorted(levels), "fewer clusters, wider interval"


@pytest.mark.parametrize("speakers", [6, 15])
def test_intervals_cover_the_truth(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    inside = []
    for _ in range(150):
        effect = rng.normal(0, 1, speakers)
        scores = np.repeat(effect, 5) + rng.normal(0, 0.5, 5 * speakers)
        rows = table({"score": scores.tolist()}, [f"s{i}" for i in range(speakers) for _ in range(5)])
        found = estimate(MOS, rows, draws=400)
        assert found.ci95 is not None
        inside.append(found.ci95[0] <= 0 <= found.ci95[1])
    assert 0.90 <= np.mean(inside) <= 0.99


def test_paired_comparison_finds_what_single_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    a = words(rng, 120, 12, skill=0.2)
    b = a.assign(errors=np.minimum(a["errors"] + rng.binomial(1, 0.4, 120), a["words"]))
    one, two = estimate(WER, a), estimate(WER, b)
    assert one.ci95 is not None
    assert two.ci95 is not None
    assert one.ci95[1] > two.ci95[0], "the intervals overlap"
    found = compare(WER, a, b)
    assert found.better == "a"
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.ci95 is not None
    assert found.ci95[1] < 0
    assert found.difference == pytest.approx(found.a - found.b)
    assert (found.n, found.clusters) == (120, 12)
    mirrored = compare(WER, b, a)
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert mirrored.difference == pytest.approx(-found.difference)
    assert mirrored.better == "b"


def test_comparison_uses_shared_ids_only() -> None:
    rng = np.random.default_rng(6)
    a = words(rng, 40, 5)
    b = a.iloc[10:].sample(frac=1, random_state=0)
    c = b.copy()
    c.loc[c.index[:3], "errors"] = np.nan
    assert compare(WER, a, b).n == 30
    assert compare(WER, a, b).p_value == 1.0
    assert compare(WER, a, c).n == 27
    lone = compare(WER, a.iloc[:1], a)
    assert (lone.n, lone.p_value, lone.ci95) == (1, None, None)
    with pytest.raises(UserError, match="occurs twice"):
        compare(WER, a, pd.concat([b, b]))
    with pytest.raises(UserError, match="another 'speaker'"):
        compare(WER, a, b.assign(speaker="x"))


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(150):
        shift = np.repeat(rng.normal(0, 0.3, 8), 4)
        a = table({"score": rng.normal(3, 1, 32).tolist()}, [f"s{i}" for i in range(8) for _ in range(4)])
        b = a.assign(score=a["score"] + shift + rng.normal(0, 0.2, 32))
        p = compare(MOS, a, b, draws=500).p_value
        assert p is not None
        p_values.append(p)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10
    assert 0.4 <= np.mean(p_values) <= 0.6


def test_holm_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    for bad in ([0.1, np.nan], [1.2], [-0.1]):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            holm(bad)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_test(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(0 <= p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[i] * (len(p_values) - rank) >= level:
                break
            rejected.add(i)
        assert rejected == {i for i, p in enumerate(adjusted) if p < level}


def systems() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(8)
    speakers = [f"s{i}" for i in range(10) for _ in range(8)]
    base = rng.normal(3, 0.5, 80)

    def made(shift: float) -> pd.DataFrame:
        return table({"score": (base + shift + rng.normal(0, 0.2, 80)).tolist()}, speakers)

    return {"best": made(0.3), "close": made(0.29), "worse": made(0.0), "worst": made(-0.5)}


def test_tie_group() -> None:
    group = tie_group(MOS, systems())
    assert group.best in ("best", "close")
    assert set(group.members) == {"best", "close"}
    assert group.members[0] == group.best
    assert group.p_values["worst"] <= group.p_values["worse"] < 0.05
    assert set(group.values) == {"best", "close", "worse", "worst"}
    lower = Metric("m", "", "lower", ("score",), Mean("score"))
    assert tie_group(lower, systems()).members == ("worst",)


def test_tie_group_without_a_test() -> None:
    tables = systems()
    tables["elsewhere"] = tables["worse"].assign(id=[f"v{i}" for i in range(80)])
    tables["empty"] = tables["worse"].assign(score=np.nan)
    group = tie_group(MOS, tables)
    assert group.untested == ("elsewhere",)
    assert "empty" not in group.values
    assert tie_group(MOS, {"only": tables["best"]}).members == ("only",)
    with pytest.raises(NotApplicable, match="no system has a value"):
        tie_group(MOS, {"empty": tables["empty"]})
    with pytest.raises(NotApplicable, match="no better and worse"):
        tie_group(Metric("m", "", "none", ("score",), Mean("score")), tables)


def test_rank_intervals() -> None:
    ranks = rank_intervals(MOS, systems())
    assert (ranks["worse"].rank, ranks["worse"].low, ranks["worse"].high) == (3, 3, 3)
    assert (ranks["worst"].low, ranks["worst"].high) == (4, 4)
    assert {ranks["best"].rank, ranks["close"].rank} == {1, 2}
    assert (ranks["best"].low, ranks["best"].high) == (1, 2)
    twins = rank_intervals(MOS, {"a": systems()["best"], "b": systems()["best"]})
    assert [(r.rank, r.low, r.high) for r in twins.values()] == [(1, 1, 1), (1, 1, 1)]
    with pytest.raises(UserError, match="fewer than two items"):
        rank_intervals(MOS, {"a": systems()["best"], "b": systems()["best"].iloc[:1]})
    with pytest.raises(NotApplicable):
        rank_intervals(Metric("m", "", "none", ("score",), Mean("score")), systems())
    assert rank_intervals(MOS, {}) == {}
