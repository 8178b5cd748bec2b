"""What ships: every package of the tree is declared, and content is found wherever it is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tokbench.registry import package_folder

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_package_is_declared() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    code = {".".join(p.parent.relative_to(REPOSITORY).parts) for p in (REPOSITORY / "tokbench").rglob("__init__.py")}
    content = {f"tokbench.{name}" for name in ("tasks", "configs", "leaderboards", "reproduce")}
    assert set(declared) == code | content


def test_content_is_found() -> None:
    for name in ("tasks", "configs", "leaderboards", "reproduce"):
        assert (package_folder(name) / "__init__.py").is_file()


def test_every_dependency_has_a_reason() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith('"')]
    bare = [line for line in lines if "#" not in line and "tokbench[" not in line]
    assert all("types-" in line or "stubs" in line or line.startswith(('"pytest>', '"ruff', '"mypy')) for line in bare)
