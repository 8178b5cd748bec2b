from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tokbench.card_files import load_card
from tokbench.config import TokenizerCard
from tokbench.errors import CardError

GOOD = """\
name: toy
summary: A toy.
adapter: toy.module:Toy
family: toys
capabilities: [discrete, decode]
streams:
  - {name: q0, rate_hz: "25/2", vocab: 8}
input_rate: 16000
output_rate: 16000
licence: MIT
params:
  layer: 9
  nested: {a: 1, b: 2}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_card_is_read_with_exact_rates(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, "toy", GOOD), TokenizerCard)
    assert card.streams[0].rate_hz == Fraction(25, 2)
    assert card.stream_specs[0].nominal_bps == pytest.approx(37.5)


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "toy", GOOD)
    child = write(
        tmp_path,
        "child",
        "extends: toy\nname: child\nparams:\n  nested: {b: 3}\nstreams:\n  - {name: z, rate_hz: 50, vocab: 4}\n",
    )
    card = load_card(child, TokenizerCard)
    assert card.params == {"layer": 9, "nested": {"a": 1, "b": 3}}
    assert [s.name for s in card.streams] == ["z"]


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("licence: MIT", "lisense: MIT"), 10, ["lisense", "Did you mean 'licence'"]),
        (("vocab: 8", "vocab: -8"), 7, ["streams.0.vocab", "greater than 0"]),
        (('"25/2"', "12.5"), 7, ["streams.0.rate_hz", '"25/2"']),
        (("output_rate: 16000\n", ""), 1, ["output_rate", "decode"]),
        (("[discrete, decode]", "[continuous, decode]"), 1, ["discrete"]),
        (("input_rate: 16000", "input_rate: quick"), 8, ["input_rate", "integer"]),
    ],
)
def test_a_mistake_names_file_line_and_field(
    tmp_path: Path, change: tuple[str, str], line: int, words: list[str]
) -> None:
    path = write(tmp_path, "toy", GOOD.replace(*change))
    with pytest.raises(CardError) as caught:
        load_card(path, TokenizerCard)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}:")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "toy", "name: [toy\nsummary: x\n")
    with pytest.raises(CardError, match=r"toy\.yaml:2"):
        load_card(path, TokenizerCard)


def test_extending_nothing_and_oneself(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"no 'ghost\.yaml'"):
        load_card(write(tmp_path, "a", "extends: ghost\nname: a\n"), TokenizerCard)
    with pytest.raises(CardError, match="extends itself"):
        load_card(write(tmp_path, "b", "extends: b\nname: b\n"), TokenizerCard)


def test_one_entry_declares_a_stack_of_codebooks(tmp_path: Path) -> None:
    stack = '{name: q, books: "${k}", rate_hz: 50, vocab: 8, role: acoustic, first_role: semantic}'
    path = write(tmp_path, "toy", GOOD.replace('{name: q0, rate_hz: "25/2", vocab: 8}', stack))
    card = load_card(path, TokenizerCard, values={"k": "3"})
    assert [(s.name, s.role) for s in card.streams] == [("q0", "semantic"), ("q1", "acoustic"), ("q2", "acoustic")]
    assert TokenizerCard.model_validate_json(card.model_dump_json()) == card
    for bad, message in (("0", "at least 1"), ("few", "must be a number, is 'few'")):
        with pytest.raises(CardError, match=message):
            load_card(path, TokenizerCard, values={"k": bad})
