"""Everything a contributor runs: `nox -s tests`, `lint`, `types`, `demo`, `docs`, `leaderboard`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv|virtualenv"

CONSTRAINTS = "constraints.txt"
DEV = {"venv_location": ".nox/dev"}
"""Tests, checks and documentation share one environment: it holds torch, which is large."""


def install(session: nox.Session, extra: str) -> None:
    """Install this checkout with an extra, at the locked versions, once per version of the lock and of pyproject.toml."""
    lock = hashlib.sha256(Path(CONSTRAINTS).read_bytes() + Path("pyproject.toml").read_bytes() + extra.encode())
    marker = Path(session.virtualenv.location) / f"installed-{lock.hexdigest()[:16]}"
    if marker.exists():
        return
    session.install("--constraint", CONSTRAINTS, "--editable", f".[{extra}]")
    marker.touch()


@nox.session(**DEV)
def tests(session: nox.Session) -> None:
    """The tests, on every core."""
    install(session, "dev")
    workers = os.environ.get("TOKBENCH_TEST_WORKERS", "auto")
    session.run("pytest", "-n", workers, "--dist", "worksteal", *session.posargs)


@nox.session(**DEV)
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    install(session, "dev")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(**DEV)
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    install(session, "dev")
    session.run("mypy")


@nox.session
def demo(session: nox.Session) -> None:
    """The embedded suite and its pages; arguments after `--` replace `--all-tokenizers`."""
    install(session, "mini")
    arguments = session.posargs or ["--all-tokenizers"]
    session.run("tokbench", "run", "--suite", "mini", *arguments)
    session.run("tokbench", "leaderboard", "build")


@nox.session(**DEV)
def docs(session: nox.Session) -> None:
    """The documentation site, into build/docs."""
    install(session, "dev")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def leaderboard(session: nox.Session) -> None:
    """The leaderboard as published: the embedded suite's results and the committed ones."""
    install(session, "mini")
    session.run("tokbench", "run", "--suite", "mini", "--all-tokenizers", "--no-track")
    session.run("tokbench", "leaderboard", "build", "tokbench-results", "leaderboards/results", "-o", "site")


@nox.session
def reproduce_ablation(session: nox.Session) -> None:
    """Train Kanade with and without its SSL loss; comes with the training code."""
    session.error("the training code is not in this version: there is nothing to reproduce yet")
