"""`tokbench compare` and `tokbench audit`: what results say about each other, and whether they are true."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Json
from tokbench.errors import UserError

__all__ = ["audit", "compare"]


def compare(
    first: Annotated[Path, typer.Argument(help="Result folder (or its result.json).")],
    second: Annotated[Path, typer.Argument(help="Result folder of the same task and data.")],
    draws: Annotated[int, typer.Option("--draws", min=100, help="Bootstrap draws.")] = 10_000,
    json: Json = False,
) -> None:
    """Compare two results in pairs, item by item: differences with intervals, p values corrected by Holm's method."""
    from tokbench.comparison import compare_results
    from tokbench.results import Result

    a, b = Result.read(_existing(first)), Result.read(_existing(second))
    rows = compare_results(a, b, draws=draws)
    if json:
        from pydantic_core import to_json

        sys.stdout.write(to_json([row.__dict__ for row in rows], indent=1).decode() + "\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{b.tokenizer.name} minus {a.tokenizer.name}, {a.task.title}", title_justify="left")
    for head in (
        "metric",
        a.tokenizer.name,
        b.tokenizer.name,
        "difference",
        "95 % interval",
        "p (Holm)",
        "items",
        "better",
    ):
        table.add_column(head, justify="left" if head in ("metric", "better") else "right")
    for row in rows:
        scale = row.scale
        table.add_row(
            escape(f"{row.metric} {row.unit}".strip()),
            f"{row.first * scale:.3f}",
            f"{row.second * scale:.3f}",
            f"{row.difference * scale:+.3f}",
            f"{row.low * scale:+.3f} .. {row.high * scale:+.3f}",
            f"{row.p_holm:.4f}",
            str(row.n),
            row.better or "-",
        )
    Console().print(table)


def audit(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders with results.")] = None,
    json: Json = False,
) -> None:
    """Recompute every published estimate from its rows, and compare the files with their sha256."""
    from tokbench.auditing import audit_results

    report = audit_results(folders or [Path("tokbench-results")])
    if json:
        from pydantic_core import to_json

        sys.stdout.write(to_json([finding.__dict__ for finding in report.findings], indent=1).decode() + "\n")
    else:
        for finding in report.findings:
            sys.stdout.write(f"{finding.where}: {finding.what}\n")
        sys.stdout.write(
            f"{report.results} results, {report.estimates} estimates recomputed, {len(report.findings)} findings\n"
        )
    if report.findings:
        raise typer.Exit(1)


def _existing(path: Path) -> Path:
    if not (path.is_file() or (path / "result.json").is_file()):
        raise UserError("holds no result.json", where=str(path), hint="Name a folder that `tokbench run` wrote")
    return path
