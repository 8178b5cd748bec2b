"""Alignments: known TextGrid and CTM answers, impossible ones refused with their line, and a real forced alignment."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.data.alignment import (
    PHONES,
    SILENCE,
    align,
    arpabet,
    check_segments,
    read_ctm,
    read_textgrid,
    write_textgrid,
)
from tokbench.data.dataset import Segment
from tokbench.data.mini_en import load_mini_en
from tokbench.errors import AudioError, DatasetError

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1
            text = "say ""ah"" 2"
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = " boy "
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.75
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "AH0"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"words"
0
1.5
3
0
0.25
""
0.25
1
"say ""ah"" 2"
1
1.5
" boy "
"TextTier"
"clicks"
0
1.5
1
0.75
"x"
"IntervalTier"
"phones"
0
1.5
1
0
1.5
"AH0"
"""
TIERS = {
    "words": (Segment('say "ah" 2', 0.25, 1.0), Segment("boy", 1.0, 1.5)),
    "phones": (Segment("AH0", 0.0, 1.5),),
}


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_textgrid_is_read_in_both_formats(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(text, encoding=encoding)
    assert read_textgrid(path) == TIERS


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 400), st.text("aɪ\"'!<> 1", min_size=1)), max_size=8),
    st.integers(0, 100),
)
def test_textgrid_round_trip(tmp_path_factory: pytest.TempPathFactory, parts: list, tail: int) -> None:
    at, segments = 0, []
    for gap, length, label in parts:
        start = at + (7 if gap else 0)
        at = start + length
        if label.strip():
            segments.append(Segment(label.strip(), start / 100, at / 100))
    path = tmp_path_factory.mktemp("grid") / "x.TextGrid"
    duration = (at + tail + 1) / 100
    write_textgrid(path, {"phones": segments, 'a "b"': []}, duration=duration)
    assert read_textgrid(path, duration=duration, tolerance=0.0) == {"phones": tuple(segments), 'a "b"': ()}


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ('text = " boy "', 'text = " boy ', 68, "should be"),
        ("xmin = 0.25\n", "xmin = 1.25\n", 20, "does not end after it starts"),
        ("xmin = 1\n", "xmin = 0.9\n", 24, "overlaps"),
        ("xmin = 1\n", "xmin = 0.2\n", 24, "out of order"),
        ("xmax = 1.5\n            text", "xmax = 1.6\n            text", 24, "ends after the audio"),
        ("xmin = 0.25\n", "xmin = -0.25\n", 20, "negative"),
        ('"TextGrid"', '"PitchTier"', 1, "not a TextGrid"),
        ('name = "phones"', 'name = "words"', 38, "two tiers"),
    ],
)
def test_textgrid_errors_name_file_and_line(tmp_path: Path, old: str, new: str, line: int, what: str) -> None:
    path = tmp_path / "a.TextGrid"
    assert old in LONG
    path.write_text(LONG.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DatasetError, match=what) as error:
        read_textgrid(path)
    assert error.value.where is not None
    assert error.value.where.startswith(f"{path}:")
    if what != "should be":
        assert error.value.where == f"{path}:{line}"


def test_textgrid_cut_short_and_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG[: len(LONG) // 2])
    with pytest.raises(DatasetError, match="ends where"):
        read_textgrid(path)
    path.write_bytes(b"\x80\x81\x82 not text")
    with pytest.raises(DatasetError, match="neither UTF-8 nor UTF-16"):
        read_textgrid(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_textgrid(tmp_path / "absent.TextGrid")


def test_textgrid_is_checked_against_the_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG)
    with pytest.raises(DatasetError, match=r"'boy' \(1 to 1.5 s\) ends after the audio, which has 1.4 s"):
        read_textgrid(path, duration=1.4)


def test_ctm(tmp_path: Path) -> None:
    path = tmp_path / "a.ctm"
    path.write_text(";; a comment\nu1 1 0.00 0.12 hello 0.98\nu1 1 0.12 0.30 world\n\nu2 A 0.5 0.25 yes ;; sure\n")
    assert read_ctm(path, durations={"u1": 0.42}) == {
        "u1": (Segment("hello", 0.0, 0.12), Segment("world", 0.12, 0.42)),
        "u2": (Segment("yes", 0.5, 0.75),),
    }


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("u 1 0 0.5 a\nu 1 0.5\n", 2, "3 fields"),
        ("u 1 0 half a\n", 1, "not two numbers"),
        ("u 1 0 0.5 a\nu 1 0.3 0.5 b\n", 2, "overlaps 'a'"),
        ("u 1 0.4 0.5 a\nu 1 0.3 0.05 b\n", 2, "out of order"),
        ("u 1 0 0 a\n", 1, "does not end after it starts"),
        ("u 1 nan 0.5 a\n", 1, "infinite"),
        ("u 1 0 0.5 a\nu 2 0.5 0.5 b\n", 2, "more than one channel"),
        ("u 1 0 0.5 a\nu 1 0.5 0.6 b\n", 2, "ends after the audio"),
    ],
)
def test_ctm_errors_name_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "a.ctm"
    path.write_text(text)
    with pytest.raises(DatasetError, match=what) as error:
        read_ctm(path, durations={"u": 1.0})
    assert error.value.where == f"{path}:{line}"


def test_write_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="overlaps"):
        write_textgrid(tmp_path / "a", {"w": [Segment("a", 0, 0.6), Segment("b", 0.5, 1)]}, duration=1.0)
    with pytest.raises(DatasetError, match="ends after the audio"):
        check_segments([Segment("a", 0, 1.1)], where="x", duration=1.0)


@pytest.mark.parametrize(
    ("label", "phone"), [("AH0", "AH"), ("er1", "ER"), ("sp", SILENCE), ("", SILENCE), ("+NSN+", SILENCE), ("ZH", "ZH")]
)
def test_arpabet(label: str, phone: str) -> None:
    assert arpabet(label) == phone


def test_pocketsphinx_aligns_a_real_utterance() -> None:
    utterance = load_mini_en("test").utterances[0]
    assert utterance.text is not None
    wave, rate = utterance.read()
    assert rate == 16000
    words, phones = align(wave, utterance.text)
    assert [w.label for w in words] == utterance.text.lower().rstrip(".").split()
    assert {p.label for p in phones} <= {*PHONES, SILENCE}
    assert all(a.end == b.start for a, b in pairwise(phones))
    assert phones[0].start == 0
    assert len(wave) / rate - 0.05 <= phones[-1].end <= len(wave) / rate
    assert all(0.02 < p.end - p.start < 0.6 for p in phones)
    # The corpus keeps 0.1 s of silence around the speech: the words must find its edges.
    assert 0.03 <= words[0].start <= 0.2
    assert words[-1].end >= len(wave) / rate - 0.25
    # Vowels are louder than silences, wherever the aligner put both.
    power = {p: float(np.mean(wave[round(p.start * rate) : round(p.end * rate)] ** 2)) for p in phones}
    vowels = [v for p, v in power.items() if p.label[0] in "AEIOU"]
    silences = [v for p, v in power.items() if p.label == SILENCE]
    assert min(vowels) > 10 * max(silences)
    assert (words, phones) == (utterance.words, utterance.phones)
    assert [w.label for w in align(wave * 0.5, utterance.text)[0]] == [w.label for w in words]


def test_alignment_errors() -> None:
    utterance = load_mini_en("test").utterances[0]
    wave, _ = utterance.read()
    with pytest.raises(DatasetError, match="the word 'zyxwy' is not in the pronouncing dictionary"):
        align(wave, "the zyxwy girl")
    with pytest.raises(DatasetError, match="cannot be aligned"):
        align(wave[:4000], str(utterance.text))
    with pytest.raises(DatasetError, match="no words"):
        align(wave, " ... ")
    with pytest.raises(DatasetError, match="other phones"):
        align(wave, "ab", pronunciations={"ab": ["QQ"]})
    with pytest.raises(AudioError):
        align(np.zeros(0, np.float32), "word")


def test_pronunciations_fill_the_dictionary() -> None:
    utterance = load_mini_en("test").utterances[0]
    wave, _ = utterance.read()
    text = str(utterance.text).lower().replace("girl", "gyrrl")
    words, phones = align(wave, text, pronunciations={"gyrrl": ["G", "ER", "L"]})
    assert [w.label for w in words].count("gyrrl") == 1
    assert [p.label for p in phones] == [p.label for p in utterance.phones or ()]
