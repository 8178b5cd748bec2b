"""The documentation: generated pages are current, links and commands exist, and a reader's browser fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from tokbench.cli import app

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_site" not in path.parts)
CODE = re.compile(r"```.*?```|^(?: {4,}|\t).*?$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Targets of links to other pages, without code and without addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def commands(page: Path) -> list[str]:
    """Command lines in blocks, comments removed, continuation lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in re.findall(r"^ {4}(tokbench .*)$", text, re.MULTILINE)]


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        file, _, _ = target.partition("#")
        assert not file or (page.parent / file).is_file(), f"{page.name} links to {target}"


def test_pages_have_links_and_commands_to_check() -> None:
    assert sum(len(links(page)) for page in PAGES) > 30
    assert sum(len(commands(page)) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in commands(page):
        command = typer.main.get_command(app)
        known = {option for parameter in command.params for option in parameter.opts}
        for word in line.split()[1:]:
            children = getattr(command, "commands", {})
            if word in children:
                command = children[word]
                known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            elif word.startswith("-"):
                assert word in known, f"{page.name}: '{word}' in '{line}'"
        assert not getattr(command, "commands", {}), f"{page.name}: '{line}' names no command"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_pages_name_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/home/|/Users/|C:\\", text)


def test_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra dev)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for path in pages:
        html = path.read_text(encoding="utf-8")
        outside = re.findall(r"<(?:script|img|iframe|source)[^>]*src=[\"']?(https?:[^\"' >]+)", html)
        outside += re.findall(
            r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect|preload)[^>]*href=[\"']?(https?:[^\"' >]+)", html
        )
        assert not outside, f"{path.name}: {outside}"
