"""Finding content by name: cards that ship with tokbench, that users add, and that outside packages bring.

Content folders hold `tokenizers/`, `judges/`, `datasets/`, `suites/` and `tasks/`. They are searched in this order:
`--path` folders, `TOKBENCH_PATH`, packages that announce the entry point group `tokbench.content`, tokbench itself.
Nothing here imports a model library.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from tokbench.card_files import load_card
from tokbench.config import AnyCard, Card, DatasetCard, JudgeCard, SuiteCard, TaskCard, TokenizerCard
from tokbench.errors import CardError, MissingBackend, UnknownName

__all__ = [
    "KINDS",
    "content_folders",
    "find_card",
    "import_object",
    "names",
    "package_folder",
    "set_extra_paths",
    "template_card",
]

KINDS: dict[type[Card], str] = {
    TokenizerCard: "tokenizer",
    JudgeCard: "judge",
    DatasetCard: "dataset",
    SuiteCard: "suite",
    TaskCard: "task",
}

extra_paths: tuple[Path, ...] = ()
_T = TypeVar("_T")


def set_extra_paths(paths: tuple[Path, ...]) -> None:
    """Search these folders first; the command line's `--path`."""
    global extra_paths  # noqa: PLW0603 - one process, one command line
    for path in paths:
        if not path.is_dir():
            raise CardError(
                "is not a folder",
                where=str(path),
                hint="--path takes a folder that holds tokenizers/, tasks/ and so on",
            )
    extra_paths = paths
    _files.cache_clear()


def package_folder(name: str) -> Path:
    """Folder of a content package, "tasks", "configs", "leaderboards" or "reproduce", wherever it is installed."""
    module = importlib.import_module(f"tokbench.{name}")
    return Path(next(iter(module.__path__)))


def content_folders() -> Iterator[Path]:
    """Every folder that may hold cards, the user's first."""
    yield from extra_paths
    for entry in os.environ.get("TOKBENCH_PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry)
    for point in entry_points(group="tokbench.content"):
        module = importlib.import_module(point.module)
        yield Path(next(iter(module.__path__)))
    yield package_folder("configs")


@lru_cache
def _files(kind: str) -> dict[str, Path]:
    folders = [folder / f"{kind}s" for folder in content_folders()]
    if kind == "task":
        folders.append(package_folder("tasks"))
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            if not path.stem.startswith("_"):
                found.setdefault(path.stem, path)
    return found


def names(kind: type[Card]) -> list[str]:
    """Sorted names of a kind's cards; pattern cards (`resample-{rate}`) are shown by their pattern."""
    return sorted(_files(KINDS[kind]))


def find_card(kind: type[AnyCard], name: str) -> AnyCard:
    """The card called `name`: `name.yaml`, or a pattern card whose pattern the name matches.

    A pattern card is a file such as `resample-{rate}.yaml`; `{rate}` matches letters, digits and dots, and replaces
    `${rate}` in the file's text.

    Raises:
        UnknownName: with the closest names.
        CardError: the card is wrong.
    """
    files = _files(KINDS[kind])
    if name in files:
        card = load_card(files[name], kind)
    else:
        for stem, path in files.items():
            if "{" in stem:
                match = re.fullmatch(_pattern(stem), name)
                if match:
                    card = load_card(path, kind, values=match.groupdict())
                    break
        else:
            raise UnknownName(KINDS[kind], name, files, listed_by=f"tokbench list {KINDS[kind]}s")
    if card.name != name:
        raise CardError(f"is '{card.name}', but the file is called '{name}'", where=f"{files.get(name, name)}: name")
    return card


def template_card(kind: type[AnyCard], name: str) -> AnyCard:
    """The card behind a listed name; a pattern card is read with 1 for each of its holes."""
    path = _files(KINDS[kind])[name]
    holes = re.findall(r"\{(\w+)\}", name)
    card = load_card(path, kind, values=dict.fromkeys(holes, "1"))
    if not holes:
        return card
    # For readers, the holes keep their names.
    summary = next(
        (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("summary:")), None
    )
    if summary is None:
        return card
    text = re.sub(r"\$\{(\w+)\}", lambda hole: hole[1].upper(), summary.partition(":")[2]).strip()
    return card.model_copy(update={"summary": text.strip("\"'")})


def _pattern(stem: str) -> str:
    pieces = re.split(r"\{(\w+)\}", stem)
    return "".join(re.escape(p) if i % 2 == 0 else rf"(?P<{p}>[A-Za-z0-9.]+)" for i, p in enumerate(pieces))


def import_object(reference: str, base: type[_T], *, needed_by: str, extra: str | None) -> type[_T]:
    """Import `module:Class` and check that it is a subclass of `base`.

    Raises:
        MissingBackend: an import inside the module failed because a package is absent.
        CardError: there is no such module or class, or it is of another kind.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name.startswith(missing):
            raise CardError(f"there is no module '{module_name}'", where=needed_by) from None
        raise MissingBackend(missing, extra=extra or "all", needed_by=needed_by) from None
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CardError(f"'{reference}' is not a {base.__name__}", where=needed_by)
    return found
