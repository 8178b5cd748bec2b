"""An outside package brings a tokenizer by announcing the entry point group `tokbench.content`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import TOY_CARD

from tokbench import registry
from tokbench.config import TokenizerCard
from tokbench.registry import find_card, names


def test_an_outside_package_brings_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_tokenizers"
    (package / "tokenizers").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tokenizers" / "outside.yaml").write_text(TOY_CARD.replace("name: toy", "name: outside"))
    info = tmp_path / "my_tokenizers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tokenizers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tokbench.content]\nmine = my_tokenizers\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._files.cache_clear()
    try:
        assert "outside" in names(TokenizerCard)
        assert find_card(TokenizerCard, "outside").family == "toys"
    finally:
        registry._files.cache_clear()
