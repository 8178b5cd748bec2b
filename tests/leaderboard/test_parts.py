from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.audio import read_audio
from tokbench.errors import CardError
from tokbench.leaderboard.build import _environment
from tokbench.leaderboard.charts import front
from tokbench.leaderboard.clips import active_level
from tokbench.leaderboard.numbers import dataset_label, decimals_for, format_number, half_width, quantity, slug
from tokbench.leaderboard.published import load_published
from tokbench.leaderboard.scales import Box, linear_axis, log_axis, place_labels
from tokbench.leaderboard.transcripts import word_differences
from tokbench.results import Estimate
from tokbench.types import Direction


def one(value: float, half: float, *, unit: str = "", scale: float = 1.0) -> Estimate:
    return Estimate(metric="m", value=value, unit=unit, scale=scale, direction="lower",
                    ci95=(value - half, value + half), method="", n=1)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(1.005, 1, "1.0"), (-0.04, 1, "0.0"), (-0.06, 1, "−0.1"), (9999.4, 0, "9999"), (12345.6, 1, "12 345.6"),
     (1234567, 0, "1 234 567")],
)  # fmt: skip
def test_numbers_are_printed_with_signs_and_thin_spaces(value: float, decimals: int, text: str) -> None:
    assert format_number(value, decimals) == text.replace(" ", "\N{NARROW NO-BREAK SPACE}")


@pytest.mark.parametrize(
    ("half", "unit", "scale", "decimals"),
    [(0.031, "%", 100, 1), (0.0012, "%", 100, 2), (0.0098, "", 1, 3), (0.014, "", 1, 3), (4.5, "bit/s", 1, 0),
     (0.0001, "bit/s", 1, 1), (25.0, "cents", 1, 0)],
)  # fmt: skip
def test_decimals_follow_the_interval(half: float, unit: str, scale: float, decimals: int) -> None:
    assert decimals_for([one(1.0, half, unit=unit, scale=scale)]) == decimals


def test_decimals_without_interval() -> None:
    bare = Estimate(metric="m", value=0.0123, unit="", direction="none", method="", n=1)
    assert decimals_for([bare]) == 4
    assert decimals_for([]) == 0
    assert half_width(bare) is None


@given(st.floats(1e-4, 1e7))
def test_quantity_keeps_three_digits(value: float) -> None:
    text = quantity(value).replace("\N{NARROW NO-BREAK SPACE}", "")
    assert float(text) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(("value", "text"), [(3e-6, "3e−6"), (-1.25e-5, "−1.25e−5"), (1e-4, "0.0001"), (0.0, "0")])
def test_small_quantities_are_powers_of_ten(value: float, text: str) -> None:
    assert quantity(value) == text


def test_words_of_cards_become_prose() -> None:
    filters = _environment().filters
    assert str(filters["prose"]("`a<b` & `c`, done")) == "<code>a&lt;b</code> &amp; <code>c</code>, done"
    assert str(filters["prose"]("one ` alone")) == "one ` alone"
    assert filters["sentence"]("the interval contains zero") == "The interval contains zero."
    assert filters["sentence"]("Is it? Yes.") == "Is it? Yes."
    assert filters["setting"]({"steps": 360, "rates": ["25/2", 25], "dedup": False, "beam": None}) == (
        "steps 360, rates 25/2, 25, dedup no, beam none"
    )


def test_rounding_is_no_interval() -> None:
    assert half_width(one(256000.0, 3e-11)) == 0
    assert half_width(one(256000.0, 3.0)) == 3


def test_labels_of_datasets_hold_no_folders() -> None:
    assert dataset_label("librispeech:/home/me/LibriSpeech/test-clean/") == "librispeech:test-clean"
    assert dataset_label("mini-en:test") == "mini-en:test"
    assert dataset_label("mini-en") == "mini-en"


def test_slugs_are_safe() -> None:
    assert slug("wer[whisper-tiny.en]") == "wer-whisper-tiny.en"
    assert slug("../../etc") == "..-..-etc"
    assert "/" not in slug("replay:a/b")


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_linear_axis_covers_the_data_with_few_ticks(low: float, span: float) -> None:
    axis = linear_axis(low, low + span, 0, 100)
    assert axis.low <= low + 1e-6 * span
    assert axis.high >= low + span - 1e-6 * span
    assert 3 <= len(axis.ticks) <= 9
    assert axis(axis.low) == 0
    assert axis(axis.high) == 100


@given(st.floats(1, 1e5), st.floats(1, 1e3))
def test_log_axis_is_logarithmic(low: float, factor: float) -> None:
    axis = log_axis(low, low * factor, 0, 100)
    assert all(axis.low <= t <= axis.high for t in axis.ticks)
    assert axis(np.sqrt(axis.low * axis.high)) == pytest.approx(50)


def test_labels_do_not_cover_each_other_where_there_is_room() -> None:
    points = [(100.0, 100.0), (104.0, 103.0), (98.0, 96.0), (300.0, 200.0)]
    frame = Box(0, 0, 600, 400)
    boxes = place_labels(points, ["kmeans-mfcc-100", "kmeans-mel-500", "mimi", "opus"], frame, size=12)
    for i, a in enumerate(boxes):
        assert frame.left <= a.left < a.right <= frame.right
        assert all(a.overlap(b) == 0 for b in boxes[i + 1 :])


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1), st.sampled_from(["higher", "lower"]))
def test_the_front_is_what_nothing_else_beats(points: list[tuple[float, float]], better: Direction) -> None:
    sign = -1 if better == "higher" else 1
    found = front(points, better)
    beaten = {p for p in points for q in points if q != p and q[0] <= p[0] and sign * q[1] <= sign * p[1]}
    assert found == sorted(set(points) - beaten)


def test_word_differences_are_the_errors_of_the_rate() -> None:
    said, heard = "Mr. Quilter is the apostle of the middle classes", "mister quilter's an apostle middle classes too"
    found = word_differences(said, heard)
    assert [(w.kind, w.said, w.heard) for w in found] == [
        ("same", "mister", "mister"), ("same", "quilter", "quilter"), ("same", "is", "is"),
        ("wrong", "the", "an"), ("same", "apostle", "apostle"), ("missing", "of", ""), ("missing", "the", ""),
        ("same", "middle", "middle"), ("same", "classes", "classes"), ("extra", "", "too"),
    ]  # fmt: skip
    assert [w.kind for w in word_differences("we go", "")] == ["missing", "missing"]
    assert [w.kind for w in word_differences("", "so")] == ["extra"]


def test_active_level_ignores_pauses() -> None:
    t = np.arange(16000) / 16000
    tone = (0.1 * np.sqrt(2) * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    assert active_level(tone, 16000) == pytest.approx(-20, abs=0.05)
    assert active_level(np.concatenate([tone, np.zeros(48000, np.float32)]), 16000) == pytest.approx(-20, abs=0.05)
    assert active_level(np.zeros(100, np.float32), 16000) == float("-inf")


def test_published_numbers_have_sources_and_survive_a_round_trip() -> None:
    published = load_published()
    assert len(published.tables) >= 10
    by_id = {t.id: t for t in published.tables}
    xcodec2 = next(r for r in by_id["xcodec2-reconstruction"].rows if r.system == "X-Codec2")
    assert xcodec2.values["wer"] == 2.47
    column = next(c for c in by_id["framerate-reconstruction"].columns if c.id == "stoi")
    assert by_id["framerate-reconstruction"].printed(column, 0.9) == "0.90"
    used = {t.source for t in published.tables}
    assert used == {s.id for s in published.sources}, "a source without a table, or the other way round"
    assert all(s.url for s in published.sources)


def test_published_table_with_an_unknown_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(
        "name: p\ntitle: t\nsummary: s\nsources: [{id: a, title: A, seen: original}]\n"
        "tables:\n  - {id: x, title: X, source: b, data: d, columns: [], rows: []}\n"
    )
    with pytest.raises(CardError, match="names the unknown source 'b'"):
        load_published(path)


def test_clips_of_an_utterance_are_equally_loud(site: Path) -> None:
    html = (site / "audio.html").read_text()
    section = html.split('<section class="utterance"')[1]
    files = [part.split('"')[0] for part in section.split(' src="')[1:]]
    levels, peaks = [], []
    for name in files:
        wave, rate = read_audio(site / name)
        levels.append(active_level(wave, rate))
        peaks.append(float(np.abs(wave).max()))
    assert len(files) >= 7
    assert max(levels) - min(levels) < 0.1
    assert max(peaks) <= 10 ** (-1 / 20) + 1e-3
