from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import UserError
from tokbench.metrics.catalogue import metric
from tokbench.metrics.wer import character_errors, normalise, normaliser_identity, word_errors

words = st.lists(st.sampled_from(["a", "b", "cd", "e"]), max_size=8).map(" ".join)


def slow_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@settings(deadline=None)
@given(words, words)
def test_errors_are_the_edit_distance(reference: str, hypothesis: str) -> None:
    row = word_errors(reference, hypothesis, normaliser="none")
    assert row["wer_errors"] == slow_distance(reference.split(), hypothesis.split())
    assert row["wer_words"] == len(reference.split())
    assert row["wer_errors"] == row["wer_substitutions"] + row["wer_deletions"] + row["wer_insertions"]
    characters = character_errors(reference, hypothesis, normaliser="none")
    assert characters["cer_errors"] == slow_distance(list(reference), list(hypothesis))
    assert characters["cer_characters"] == len(reference)


@settings(deadline=None)
@given(words)
def test_equal_texts_have_no_errors(text: str) -> None:
    assert word_errors(text, text)["wer_errors"] == 0


@settings(deadline=None)
@given(st.lists(st.tuples(words.filter(bool), words.filter(bool)), min_size=1, max_size=6))
def test_corpus_value_is_jiwers(pairs: list[tuple[str, str]]) -> None:
    rows = [word_errors(r, h, normaliser="none") for r, h in pairs]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    assert metric("wer").value(columns) == pytest.approx(
        jiwer.wer([r for r, _ in pairs], [h for _, h in pairs]), abs=1e-12
    )


def test_corpus_value_is_a_ratio_of_sums() -> None:
    rows = [word_errors("a b c d", "a b c d"), word_errors("e", "x y")]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    assert metric("wer").value(columns) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "length"),
    [("", "", 0, 0), ("", "a b", 2, 0), ("a b", "", 2, 2), ("(laughs)", "hello there", 2, 0), ("[noise]", "", 0, 0)],
)
def test_empty_sides(reference: str, hypothesis: str, errors: int, length: int) -> None:
    row = word_errors(reference, hypothesis)
    assert (row["wer_errors"], row["wer_words"]) == (errors, length)
    assert character_errors("", "a b")["cer_errors"] == 3


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("I'VE GOT TWENTY FIVE", "i have got 25"),
        ("Mr. Quilter's", "mister quilter is"),
        ("the colour, uh, [noise] red!", "the color red"),
        ("to night", "to night"),
    ],
)
def test_whisper_english(text: str, normalised: str) -> None:
    assert normalise(text) == normalised
    assert word_errors(text, normalised)["wer_errors"] == 0


def test_none_keeps_case_and_punctuation() -> None:
    assert normalise(" Hello,  World ", "none") == "Hello, World"
    assert word_errors("Hello", "hello", normaliser="none")["wer_errors"] == 1
    assert word_errors("Hello", "hello")["wer_errors"] == 0


def test_names() -> None:
    assert normaliser_identity().startswith("whisper-english-0.1.")
    assert normaliser_identity("none") == "none"
    assert set(metric("wer_vs_original").components) <= set(word_errors("a", "b", name="wer_vs_original"))
    assert set(metric("cer_vs_original").components) <= set(character_errors("a", "b", name="cer_vs_original"))
    for function in (word_errors, character_errors):
        with pytest.raises(UserError, match="whisper-english"):
            function("a", "b", normaliser="whisper-englisch")
    with pytest.raises(UserError, match="whisper-english"):
        normaliser_identity("whisper")
