"""`tokbench cache`: look at the artefact store, verify it, make room."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Annotated

import typer

from tokbench.commands.options import Json, StorePath, store_path
from tokbench.errors import UserError

__all__ = ["app"]

app = typer.Typer(help="The artefact store: tokens, audio and evidence.", no_args_is_help=True)

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SPANS = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@app.command("ls")
def ls(
    store: StorePath = None,
    json: Json = False,
    every: Annotated[bool, typer.Option("--all", help="Each unit.")] = False,
) -> None:
    """What is stored: units and bytes by stage, or every unit."""
    from tokbench.store.store import Store

    root = store_path(store)
    entries = list(Store(root).entries())
    if json:
        import json as json_module

        rows = [
            {"path": str(e.path), "stage": e.stage, "label": e.label, "bytes": e.size, "used": e.used} for e in entries
        ]
        sys.stdout.write(json_module.dumps(rows, indent=1) + "\n")
        return
    if every:
        for entry in entries:
            sys.stdout.write(f"{entry.size:>12}  {entry.stage:<9} {entry.path.stem[:12]}  {entry.label}\n")
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry in entries:
        sums[entry.stage][0] += 1
        sums[entry.stage][1] += entry.size
    sys.stdout.write(f"{root}\n")
    for stage, (count, size) in sorted(sums.items()):
        sys.stdout.write(f"  {stage:<9} {count:>7} units  {size / 1e6:>10.1f} MB\n")


@app.command("verify")
def verify(store: StorePath = None) -> None:
    """Compare every checksum; damaged units are named and moved aside, and made again by the next run."""
    from tokbench.store.store import Store

    count, damaged = Store(store_path(store)).verify()
    for path in damaged:
        sys.stdout.write(f"damaged: {path}\n")
    sys.stdout.write(f"{count} units read, {len(damaged)} damaged\n")
    if damaged:
        raise typer.Exit(1)


@app.command("gc")
def gc(
    store: StorePath = None,
    older_than: Annotated[str | None, typer.Option("--older-than", help="Not used for so long: 12h, 30d, 8w.")] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Keep the most recent up to this size: 500M, 20G.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="Only this stage: encode, decode, judge, train, checkpoint, score, estimate."),
    ] = None,
) -> None:
    """Make room; without options, only leftovers of killed writers and damaged files go."""
    from tokbench.store.store import Store

    age = _parse(older_than, _SPANS, "--older-than") if older_than else None
    size = int(_parse(max_size, _UNITS, "--max-size")) if max_size else None
    freed = Store(store_path(store)).gc(older_than_s=age, max_bytes=size, stage=stage)
    sys.stdout.write(f"freed {freed / 1e6:.1f} MB\n")


def _parse(text: str, units: dict[str, float] | dict[str, int], option: str) -> float:
    number, unit = text[:-1], text[-1:].lower()
    try:
        return float(number) * units[unit]
    except (ValueError, KeyError):
        raise UserError(
            f"'{text}' is not understood", where=option, hint=f"Write a number and one of {', '.join(units)}"
        ) from None
