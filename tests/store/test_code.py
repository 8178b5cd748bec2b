from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tokbench.errors import CardError
from tokbench.store import code


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "probe_module.py"
    path.write_text("def f(x):\n    return x + 1\n")
    monkeypatch.delitem(sys.modules, "probe_module", raising=False)
    return path


def hashed(path: Path) -> str:
    code._module_hash.cache_clear()
    return code.modules_hash([path.stem])


def test_comments_docstrings_and_layout_do_not_count(module: Path) -> None:
    before = hashed(module)
    module.write_text('"""Words."""\n\n# a comment\ndef f(x):\n    """More words."""\n    return (x +\n        1)\n')
    assert hashed(module) == before


def test_behaviour_counts(module: Path) -> None:
    before = hashed(module)
    module.write_text("def f(x):\n    return x + 2\n")
    assert hashed(module) != before


def test_an_unknown_module_is_named(module: Path) -> None:
    with pytest.raises(CardError, match="no module 'nowhere_at_all'"):
        code.modules_hash(["nowhere_at_all"])
