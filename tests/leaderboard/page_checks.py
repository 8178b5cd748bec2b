"""Checks that hold for every page of every site."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Collects what the checks need, and every tag that is not closed where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.stack: list[str] = []
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if len(found) < len(attrs):
            self.problems.append(f"<{tag}> repeats an attribute")
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.links += [str(found[a]) for a in ("href", "src") if found.get(a)]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.stack[-3:]} at {self.getpos()}")
        else:
            self.stack.pop()


def read_pages(site: Path) -> dict[str, Page]:
    """Every page of a site, by its path."""
    return {p.relative_to(site).as_posix(): Page(p) for p in sorted(site.rglob("*.html"))}


def well_formed(pages: dict[str, Page]) -> None:
    """Every tag is closed where it should be, and no id occurs twice."""
    for name, page in pages.items():
        assert not page.problems, (name, page.problems[:3])
        twice = {i for i in page.ids if page.ids.count(i) > 1}
        assert not twice, (name, twice)
        assert page.text.startswith("<!DOCTYPE html>"), name


def links_lead_somewhere(site: Path, pages: dict[str, Page]) -> None:
    """Every file and every anchor that a page names is there."""
    for name, page in pages.items():
        for link in page.links:
            if link.startswith(("https://", "data:")):
                continue
            target, _, anchor = link.partition("#")
            path = (site / name).parent / unquote(target) if target else site / name
            assert path.is_file(), (name, link)
            if anchor:
                other = pages[path.resolve().relative_to(site.resolve()).as_posix()]
                assert anchor in other.ids, (name, link)


def nothing_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    """A page loads nothing over the network, and is not too large to be read on a telephone."""
    for name, page in pages.items():
        for tag, attrs in page.tags:
            if tag == "a":
                continue
            for attribute in ("src", "href", "srcset", "poster", "data", "action"):
                value = attrs.get(attribute) or ""
                assert "//" not in value.replace("http://www.w3.org/2000/svg", ""), (name, tag, value)
        assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|type=.module|@import|url\(", page.text), name
        assert (site / name).stat().st_size < 2_000_000
