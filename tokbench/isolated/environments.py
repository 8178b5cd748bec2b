"""Environments for isolated tokenizers: made by one command from the card, found by the hash of what the card says.

A finished environment is a folder `NAME-HASH` with `environment.json`, which is written last; anything else is a
half-made one, and is not looked at. Its interpreter may also be the user's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokbench.config import EnvironmentDecl, TokenizerCard
from tokbench.data.places import cache_folder
from tokbench.errors import CardError, DependencyError, UnknownName

__all__ = [
    "MARKER",
    "Environment",
    "MissingEnvironment",
    "declared_environments",
    "environments_folder",
    "find_environment",
    "named_environment",
    "place_of",
    "source_hash",
    "spec_hash",
    "unused",
]

MARKER = "environment.json"
_SOURCES = (".py", ".yaml", ".yml", ".json", ".toml")


class MissingEnvironment(DependencyError):
    """The environment of an isolated tokenizer is not here; `hint` is the command that makes it."""


@dataclass(frozen=True)
class Environment:
    """A finished environment.

    Attributes:
        name: as on the card.
        spec: `spec_hash` of what the card said when it was made.
        python: its interpreter.
        version: of Python.
        packages: name in lower case -> version, all that is installed.
        source: folder of a checkout that is used beside the packages, or None.
        source_sha256: over the checkout's code.
    """

    name: str
    spec: str
    python: Path
    version: str
    packages: dict[str, str]
    source: Path | None = None
    source_sha256: str | None = None

    def to_json(self) -> str:
        """The marker's content."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, default=str)

    def identity(self) -> dict[str, str]:
        """What of it decides tokens, for store keys."""
        listing = "\n".join(f"{name}=={version}" for name, version in sorted(self.packages.items()))
        packages = hashlib.sha256(listing.encode()).hexdigest()
        code = {"source": f"sha256:{self.source_sha256}"} if self.source_sha256 else {}
        return {"python": self.version, "packages": f"sha256:{packages}", **code}


def environments_folder() -> Path:
    """Where environments are: `TOKBENCH_ENVS`, or `envs` in the cache folder."""
    return Path(os.environ.get("TOKBENCH_ENVS") or cache_folder() / "envs").expanduser()


def spec_hash(declared: EnvironmentDecl) -> str:
    """Hash of what an environment is made from; limits and notes do not count."""
    spec = declared.model_dump(mode="json", include={"python", "requirements", "constraints", "source"})
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def place_of(declared: EnvironmentDecl) -> Path:
    """The folder of a declared environment, whether it is there or not."""
    return environments_folder() / f"{declared.name}-{spec_hash(declared)}"


def find_environment(card: TokenizerCard) -> Environment:
    """The finished environment of a card.

    Raises:
        CardError: the card declares none.
        MissingEnvironment: it is not made, or its interpreter is gone; with the command to type.
    """
    declared = card.environment
    if declared is None:
        raise CardError("declares no environment", where=f"tokenizer '{card.name}'", hint="Add an 'environment' block")
    found = _read(place_of(declared))
    hint = f"Type: tokbench env make {declared.name}"
    if found is None:
        others = [place for place in environments_folder().glob(f"{declared.name}-*") if _read(place) is not None]
        what = "was made from another card than today's" if others else "is not made yet"
        raise MissingEnvironment(f"{card.name} needs the environment '{declared.name}', which {what}", hint=hint)
    if not found.python.exists():
        raise MissingEnvironment(
            f"the interpreter of the environment '{declared.name}' is gone", where=str(found.python), hint=hint
        )
    if found.source is not None and not found.source.is_dir():
        raise MissingEnvironment(
            f"the source folder of the environment '{declared.name}' is gone", where=str(found.source), hint=hint
        )
    return found


def _read(place: Path) -> Environment | None:
    marker = place / MARKER
    try:
        record: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        source = record.pop("source")
        return Environment(python=Path(record.pop("python")), source=Path(source) if source else None, **record)
    except (OSError, ValueError, TypeError, KeyError):
        return None


@lru_cache
def _every_card() -> tuple[tuple[str, TokenizerCard], ...]:
    from tokbench.registry import names, template_card

    return tuple((name, template_card(TokenizerCard, name)) for name in names(TokenizerCard))


def declared_environments() -> dict[str, tuple[EnvironmentDecl, list[str]]]:
    """Every environment that a card declares, with the tokenizers that use it.

    Raises:
        CardError: two cards declare different environments under one name.
    """
    found: dict[str, tuple[EnvironmentDecl, list[str]]] = {}
    for name, card in _every_card():
        if card.environment is None:
            continue
        declared, users = found.setdefault(card.environment.name, (card.environment, []))
        if spec_hash(declared) != spec_hash(card.environment):
            raise CardError(
                f"declares another environment '{declared.name}' than {users[0]}",
                where=f"tokenizer '{name}': environment",
                hint="Give it another name",
            )
        users.append(name)
    return found


def named_environment(name: str) -> EnvironmentDecl:
    """The environment of that name, or of the tokenizer of that name.

    Raises:
        UnknownName: there is neither.
    """
    from tokbench.registry import find_card

    known = declared_environments()
    if name in known:
        return known[name][0]
    try:
        card = find_card(TokenizerCard, name)
    except UnknownName:
        card = None
    if card is None or card.environment is None:
        raise UnknownName("environment", name, known, listed_by="tokbench env list")
    return card.environment


def unused(name: str) -> list[Path]:
    """Folders of an environment, today's and those of earlier cards and half-made ones."""
    folder = environments_folder()
    return sorted(place for place in folder.glob(f"{name}-*") if place.name.removeprefix(f"{name}-").count("-") == 0)


def source_hash(folder: Path) -> str:
    """Sha256 over the code and configuration files of a checkout, by relative path; `.git` and caches do not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            path.suffix in _SOURCES
            and path.is_file()
            and not any(p.startswith(".") or p == "__pycache__" for p in parts)
        ):
            digest.update(f"{'/'.join(parts)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
