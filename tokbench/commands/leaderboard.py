"""`tokbench leaderboard`: pages from results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Static pages from results.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `build` a word of its own."""


@app.command("build")
def build(
    results: Annotated[list[Path] | None, typer.Argument(help="Folders with results.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the site.")] = Path("tokbench-site"),
    board: Annotated[str, typer.Option("--board", help="Board definition, by name or file.")] = "main",
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is not a site.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Show partial results too; never for publication.")
    ] = False,
) -> None:
    """Build the leaderboard; the page it prints opens with a double click."""
    from tokbench.leaderboard.build import build as build_site

    index = build_site(results or [Path("tokbench-results")], out, board=board, force=force, partial=partial)
    sys.stdout.write(f"{index.resolve()}\n")
