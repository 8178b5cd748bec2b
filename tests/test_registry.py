from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import TOY_CARD

from tokbench.config import Card, DatasetCard, JudgeCard, SuiteCard, TaskCard, TokenizerCard
from tokbench.errors import CardError, MissingBackend, UnknownName, UserError
from tokbench.registry import find_card, import_object, names, set_extra_paths, template_card
from tokbench.tokenizers.base import Tokenizer


@pytest.fixture
def extra(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tokenizers").mkdir()
    set_extra_paths((tmp_path,))
    yield tmp_path
    set_extra_paths(())


@pytest.mark.parametrize("kind", [TokenizerCard, JudgeCard, DatasetCard, SuiteCard, TaskCard])
def test_every_card_that_ships_is_valid(kind: type[Card]) -> None:
    found = names(kind)
    assert found
    for name in found:
        card = template_card(kind, name) if "{" in name else find_card(kind, name)
        assert card.summary


def test_suites_name_only_what_exists() -> None:
    for suite in names(SuiteCard):
        card = find_card(SuiteCard, suite)
        for name in card.tokenizers:
            if not name.startswith("replay:"):
                find_card(TokenizerCard, name)
        for name in card.tasks:
            find_card(TaskCard, name)
        for judges in card.judges.values():
            for judge in judges:
                find_card(JudgeCard, judge)


def test_a_suite_of_a_folder_says_what_it_needs(tmp_path: Path) -> None:
    card = find_card(SuiteCard, "published-vc")
    with pytest.raises(UserError, match=r"TOKBENCH_PUBLISHED_AUDIO names, and it is not set.*voice_conversion/src"):
        card.located({})
    with pytest.raises(UserError, match="'/nowhere' is no folder"):
        card.located({"TOKBENCH_PUBLISHED_AUDIO": "/nowhere"})
    placed = card.located({"TOKBENCH_PUBLISHED_AUDIO": str(tmp_path)})
    assert placed.tokenizers[0] == f"replay:{tmp_path}/voice_conversion/kanade_12hz"
    assert placed.data["vc"][0].startswith(f"folder:{tmp_path}/voice_conversion?name=published-conversions&")
    mini = find_card(SuiteCard, "mini")
    assert mini.located({}) is mini


def test_a_user_folder_comes_first(extra: Path) -> None:
    (extra / "tokenizers" / "toy.yaml").write_text(TOY_CARD)
    (extra / "tokenizers" / "toy-{size}.yaml").write_text(
        TOY_CARD.replace("name: toy", "name: toy-${size}").replace("vocab: 8", "vocab: ${size}")
    )
    set_extra_paths((extra,))
    assert find_card(TokenizerCard, "toy").family == "toys"
    assert find_card(TokenizerCard, "toy-16").streams[0].vocab == 16


def test_an_unknown_name_lists_the_closest() -> None:
    with pytest.raises(UnknownName) as caught:
        find_card(TokenizerCard, "codec2-120")
    assert "codec2-1200" in str(caught.value)
    assert "are listed by `tokbench list tokenizers`" in str(caught.value)


def test_the_file_must_be_called_as_the_card(extra: Path) -> None:
    (extra / "tokenizers" / "other.yaml").write_text(TOY_CARD)
    set_extra_paths((extra,))
    with pytest.raises(CardError, match="is 'toy', but the file is called 'other'"):
        find_card(TokenizerCard, "other")


def test_import_object_tells_absence_from_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_ghost.py").write_text("import ghost_library_xyz\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingBackend, match=r'pip install "tokbench\[mini\]"'):
        import_object("needs_ghost:Thing", Tokenizer, needed_by="tokenizer toy", extra="mini")
    with pytest.raises(CardError, match="no module 'no_such_module'"):
        import_object("no_such_module:Thing", Tokenizer, needed_by="tokenizer toy", extra=None)
    with pytest.raises(CardError, match="is not a Tokenizer"):
        import_object("pathlib:Path", Tokenizer, needed_by="tokenizer toy", extra=None)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "tokenizers"], ["show", "codec2-1200"]])
def test_listing_loads_no_model_library(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['tokbench', *{arguments!r}]\n"
        "from tokbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('torch', 'transformers', 'mlflow', 'scipy', 'pandas', 'numpy') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
