"""Everything a contributor runs: `nox -s tests`, `lint`, `types`, `demo`, `docs`, `leaderboard`."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint", "types"]

CONSTRAINTS = "constraints.txt"


def environment(session: nox.Session, extra: str) -> Path:
    """An environment with this checkout and an extra at the locked versions; returns its folder of programs.

    Sessions that need the same extra share one environment: it holds torch, which is large. It is made again when the
    lock or pyproject.toml changes. uv does it where it is installed, pip elsewhere.
    """
    lock = hashlib.sha256(Path(CONSTRAINTS).read_bytes() + Path("pyproject.toml").read_bytes() + extra.encode())
    folder = Path(".nox").resolve() / f"env-{extra}"
    marker = folder / f"installed-{lock.hexdigest()[:16]}"
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    if marker.exists():
        return programs
    shutil.rmtree(folder, ignore_errors=True)
    wanted = ["--constraint", CONSTRAINTS, "--editable", f".[{extra}]"]
    uv = shutil.which("uv")
    if uv:
        session.run(uv, "venv", "--quiet", "--python", sys.executable, str(folder), external=True)
        session.run(uv, "pip", "install", "--quiet", "--python", str(programs / "python"), *wanted, external=True)
    else:
        session.run(sys.executable, "-m", "venv", str(folder), external=True)
        session.run(str(programs / "python"), "-m", "pip", "install", "--quiet", *wanted, external=True)
    marker.touch()
    return programs


def program(session: nox.Session, extra: str, name: str, *arguments: str) -> None:
    """Run a program of the environment."""
    programs = environment(session, extra)
    path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
    session.run(str(programs / name), *arguments, env={"PATH": path}, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The tests, on every core."""
    workers = os.environ.get("TOKBENCH_TEST_WORKERS", "auto")
    program(session, "dev", "pytest", "-n", workers, "--dist", "worksteal", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    program(session, "dev", "ruff", "check", ".")
    program(session, "dev", "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    program(session, "dev", "mypy")


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """The embedded suite and its pages; arguments after `--` replace `--all-tokenizers`.

    Audio that systems' authors published gets rows, too, where TOKBENCH_PUBLISHED_AUDIO names a folder of it.
    """
    arguments = session.posargs or ["--all-tokenizers"]
    program(session, "mini", "tokbench", "run", "--suite", "mini", *arguments)
    beside = Path(os.environ.get("TOKBENCH_SHARED", "../shared")) / "data" / "published-audio"
    published = Path(os.environ.get("TOKBENCH_PUBLISHED_AUDIO", beside))
    if published.is_dir():
        os.environ["TOKBENCH_PUBLISHED_AUDIO"] = str(published.resolve())
        for suite in ("published-reconstruction", "published-vc"):
            program(session, "mini", "tokbench", "run", "--suite", suite)
    else:
        session.log(f"no rows of published audio: {published} is no folder (set TOKBENCH_PUBLISHED_AUDIO)")
    program(session, "mini", "tokbench", "leaderboard", "build")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation site, into build/docs."""
    program(session, "dev", "mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def leaderboard(session: nox.Session) -> None:
    """The leaderboard as published: the embedded suites' results and the committed ones."""
    for suite in ("mini", "mini-probes"):
        program(session, "mini", "tokbench", "run", "--suite", suite, "--all-tokenizers", "--no-track")
    folders = ["tokbench-results", *(["leaderboards/results"] if Path("leaderboards/results").is_dir() else [])]
    program(session, "mini", "tokbench", "leaderboard", "build", *folders, "-o", "site")


@nox.session(venv_backend="none")
def reproduce_ablation(session: nox.Session) -> None:
    """Train kanade-mini with and without its SSL loss, evaluate both, print the table; no network, no GPU.

    A session that was stopped goes on where it was. Arguments after `--` go to `tokbench reproduce run ssl_loss`.
    """
    program(
        session, "train", "tokbench", "reproduce", "run", "ssl_loss", "--resume", "--device", "cpu", *session.posargs
    )
