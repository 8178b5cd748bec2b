from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tokbench.errors import TokbenchError, UndefinedMetric, UnknownName
from tokbench.metrics.base import Additive, Mean, Metric, Ratio, mean, ratio, under
from tokbench.metrics.catalogue import describe, metric, metrics
from tokbench.metrics.duration import duration
from tokbench.metrics.mos import opinion_scores
from tokbench.metrics.speaker import cosine, speaker_similarity

MINE = [
    *("wer", "cer", "wer_vs_original", "cer_vs_original", "stoi", "estoi", "pesq_wb", "pesq_nb", "mel_distance"),
    *("stft_distance", "mcd", "f0_corr", "f0_rmse", "gpe", "vuv_error", "voiced_recall", "eer", "speaker_similarity"),
    *("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808", "utmos", "length_error", "duration_ratio"),
]


@pytest.mark.parametrize("name", MINE)
def test_every_metric_is_found_and_told(name: str) -> None:
    found = metric(name)
    assert found.name == name
    assert found.title
    assert found.source
    assert found.description == describe(name)
    assert found.description.count(".") >= 2, "says what it means, and what it misses"
    assert found.scale == (100.0 if found.unit == "%" else 1.0)
    assert isinstance(found.reduce, Additive)
    if found.direction != "none":
        assert f"{found.direction} is better" in found.description or "lower means" in found.description


def test_a_judge_in_brackets() -> None:
    under_judge = metric("wer[whisper-tiny.en]")
    assert under_judge == metric("wer").of("whisper-tiny.en")
    assert under_judge.components == ("wer_errors[whisper-tiny.en]", "wer_words[whisper-tiny.en]")
    row = under({"wer_errors": 1.0, "wer_words": 4.0}, "whisper-tiny.en")
    assert under_judge.value({name: np.array([value]) for name, value in row.items()}) == 0.25


@pytest.mark.parametrize("name", ["werr", "werr[x]", "wer[x", "", "[x]"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownName) as error:
        metric(name)
    if name.startswith("werr"):
        assert "wer" in str(error.value)


def test_a_reduce_without_sums_under_a_judge() -> None:
    def largest(columns, weights):  # type: ignore[no-untyped-def]
        return np.max(np.where(weights > 0, columns["x"], -np.inf), axis=1)

    plain = Metric("m", "", "higher", ("x",), largest)
    judged = plain.of("j")
    assert judged.components == ("x[j]",)
    assert judged.value({"x[j]": np.array([1.0, 3.0])}) == 3.0
    assert str(judged.reduce) == "largest"
    assert np.isnan(judged.value({"x[j]": np.array([])}))


def test_ratio_and_mean() -> None:
    columns = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([2.0, 0.0, 4.0])}
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(ratio("a", "b")(columns, weights), [1.0, np.nan, 5 / 8])
    np.testing.assert_array_equal(mean("a")(columns, weights), [2.0, 2.0, 5 / 3])
    groups = np.array([0, 1, 0])
    for reduce in (Ratio("a", "b"), Mean("a")):
        by_sums = reduce.finish(np.array([[2.0, 1.0]]) @ reduce.sums(columns, groups, 2))
        np.testing.assert_allclose(by_sums, reduce(columns, np.array([[2.0, 1.0, 2.0]])))
    assert str(Ratio("a", "b")) == "sum(a) / sum(b)"


def test_metrics_are_light() -> None:
    code = (
        "import sys; from tokbench.metrics.catalogue import metrics; metrics(); "
        "heavy = ('torch', 'jiwer', 'pesq', 'pystoi', 'soxr', 'librosa', 'scipy.signal'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    assert set(MINE) <= set(metrics())


def test_speaker_similarity() -> None:
    assert speaker_similarity([1.0, 0.0], [2.0, 0.0])["speaker_similarity"] == 1.0
    assert cosine([1.0, 0.0], [1.0, 1.0]) == pytest.approx(2**-0.5)
    assert cosine(np.array([1, -1], np.float32), np.array([-3, 3], np.float32)) == pytest.approx(-1.0)
    for bad in ([0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(UndefinedMetric):
            cosine([1.0, 0.0], bad)


def test_opinion_scores() -> None:
    assert opinion_scores({"ovrl": 3, "utmos": 4.25}) == {"dnsmos_ovrl": 3.0, "utmos": 4.25}
    with pytest.raises(UndefinedMetric, match="utmos"):
        opinion_scores({"utmos": float("nan")})
    with pytest.raises(TokbenchError, match="no metric is made from 'mos'"):
        opinion_scores({"mos": 3.0})


def test_duration() -> None:
    rows = [duration(100, 110), duration(300, 270)]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    assert metric("length_error").value(columns) == 20.0
    assert metric("duration_ratio").value(columns) == pytest.approx(380 / 400)
    with pytest.raises(UndefinedMetric, match="no samples"):
        duration(0, 10)
