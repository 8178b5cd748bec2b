"""Making an environment: an interpreter, its packages, a checkout where a family has no package, and a first import.

With uv where it is installed, with venv and pip elsewhere. What is made appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokbench.config import EnvironmentDecl, SourceDecl
from tokbench.errors import DependencyError
from tokbench.isolated.environments import (
    MARKER,
    Environment,
    environments_folder,
    place_of,
    source_hash,
    spec_hash,
)

__all__ = ["BadEnvironment", "make_environment"]

_INSPECT = """
import importlib, json, platform, sys
from importlib.metadata import distributions
sys.path[:0] = json.loads(sys.argv[2])
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
found = {}
for one in distributions():
    if one.metadata["Name"]:
        found.setdefault(one.metadata["Name"].lower().replace("_", "-"), one.version)
print()
print(json.dumps({"version": platform.python_version(), "packages": found}))
"""

Say = Callable[[str], None]


class BadEnvironment(DependencyError):
    """An environment cannot be made."""


def make_environment(
    declared: EnvironmentDecl,
    *,
    say: Say,
    existing: Path | None = None,
    source: Path | None = None,
) -> Environment:
    """Make a declared environment in its place, where an earlier one is replaced.

    Args:
        declared: what the card says.
        say: told each step.
        existing: interpreter of an environment of the user's own, which is then taken as it is.
        source: the user's own checkout, copied instead of being fetched.

    Raises:
        BadEnvironment: a step failed; with its last words.
    """
    place = place_of(declared)
    building = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        if existing is None:
            _install(declared, building / "venv", say)
        elif not os.access(existing, os.X_OK) or existing.is_dir():
            raise BadEnvironment("is no interpreter", where=str(existing), hint="Give the path of its bin/python")
        if declared.source is not None:
            _checkout(declared.source, source, building / "source", say)
        elif source is not None:
            raise BadEnvironment(f"the environment '{declared.name}' uses no source folder", where="--source")
        # `absolute`, not `resolve`: the interpreter of a venv is a link, and the folder it lies in tells whose it is.
        python = existing.absolute() if existing is not None else building / "venv" / "bin" / "python"
        say(f"importing {', '.join(declared.imports)}" if declared.imports else "looking at its packages")
        seen = _inspect(python, declared, building / "source" if declared.source else None)
        made = Environment(
            name=declared.name,
            spec=spec_hash(declared),
            python=python if existing is not None else place / "venv" / "bin" / "python",
            version=seen["version"],
            packages=seen["packages"],
            source=place / "source" if declared.source else None,
            source_sha256=source_hash(building / "source") if declared.source else None,
        )
        (building / MARKER).write_text(made.to_json(), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    for line in _differences(declared, made):
        say(line)
    return made


def _install(declared: EnvironmentDecl, venv: Path, say: Say) -> None:
    python = venv / "bin" / "python"
    constraints = venv.with_name("constraints.txt")
    constraints.write_text("\n".join(declared.constraints) + "\n", encoding="utf-8")
    uv = shutil.which("uv")
    say(f"Python {declared.python} by {'uv' if uv else 'venv'} in {environments_folder()}")
    if uv:
        _step([uv, "venv", "--quiet", "--relocatable", "--python", declared.python, str(venv)], "make the environment")
        command = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        _step([_interpreter(declared.python), "-m", "venv", str(venv)], "make the environment")
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    say(f"installing {', '.join(declared.requirements)}")
    _step([*command, "--constraint", str(constraints), *declared.requirements], "install the packages")


def _interpreter(version: str) -> str:
    if ".".join(map(str, sys.version_info[:2])) == version:
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise BadEnvironment(
            f"needs Python {version}, which is not installed", hint="Install it, or uv, which can fetch it"
        )
    return found


def _checkout(declared: SourceDecl, given: Path | None, target: Path, say: Say) -> None:
    if given is None:
        say(f"fetching {declared.url} at {declared.revision}")
        hint = f"Clone {declared.url} where you can, and add --source FOLDER"
        _step(["git", "init", "--quiet", str(target)], "fetch the source", hint=hint)
        git = ["git", "-C", str(target)]
        _step(
            [*git, "fetch", "--quiet", "--depth", "1", declared.url, declared.revision], "fetch the source", hint=hint
        )
        _step([*git, "checkout", "--quiet", "FETCH_HEAD"], "fetch the source", hint=hint)
    else:
        if not given.is_dir():
            raise BadEnvironment("is not a folder", where=str(given), hint=f"Give a checkout of {declared.url}")
        _check_revision(declared, given, say)
        say(f"copying {given}")
        shutil.copytree(given, target, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    for name in declared.needs:
        if not (target / name).exists():
            raise BadEnvironment(
                f"lacks {name}", where=str(given or declared.url), hint=f"Give a checkout of {declared.url}"
            )


def _check_revision(declared: SourceDecl, given: Path, say: Say) -> None:
    if not (given / ".git").exists():
        say(f"{given} is no git checkout, so that its revision is not known")
        return
    git = ["git", "-C", str(given)]
    found = _step([*git, "rev-parse", "HEAD"], "read the revision").strip()
    if found != declared.revision:
        raise BadEnvironment(
            f"is at {found[:12]}, the card declares {declared.revision[:12]}",
            where=str(given),
            hint=f"Type: git -C {given} checkout {declared.revision}",
        )


def _inspect(python: Path, declared: EnvironmentDecl, source: Path | None) -> dict[str, Any]:
    folders = [str(source)] if source is not None else []
    said = _step(
        [str(python), "-B", "-s", "-c", _INSPECT, json.dumps(declared.imports), json.dumps(folders)],
        "import what it was made for",
    )
    try:
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        raise BadEnvironment("says nothing about its packages", where=str(python)) from None
    return found


def _differences(declared: EnvironmentDecl, made: Environment) -> list[str]:
    """Pins of the card that an environment of the user's own does not keep."""
    lines = []
    for requirement in declared.requirements:
        name, sign, version = requirement.partition("==")
        plain = name.partition("[")[0].strip().lower().replace("_", "-")
        found = made.packages.get(plain)
        if sign and found is not None and found.split("+")[0] != version.split("+")[0]:
            lines.append(f"note: it has {plain} {found}, the card asks for {version}")
    return lines


def _step(command: Sequence[str], what: str, *, hint: str | None = None) -> str:
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    try:
        # Elsewhere than here: with -c, Python would also look for packages in the current folder.
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=environments_folder()
        )
    except OSError as error:
        raise BadEnvironment(f"cannot {what}: {command[0]}: {error.strerror}", hint=hint) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        with contextlib.suppress(IndexError):
            # uv prints a tree of causes, pip ends with the reason.
            lines = [line for line in lines if line.lower().startswith(("error", "cause", "╰─▶", "fatal"))] or lines
        raise BadEnvironment(
            f"cannot {what}: {' '.join(lines[-2:])[-300:] or f'exit code {done.returncode}'}", hint=hint
        )
    return done.stdout
