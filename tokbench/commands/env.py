"""`tokbench env`: environments of tokenizers that do not fit beside ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Json
from tokbench.errors import UserError

__all__ = ["app"]

app = typer.Typer(help="Environments of isolated tokenizers.", no_args_is_help=True)


@app.command("make")
def make(
    name: Annotated[str, typer.Argument(help="An environment, or a tokenizer that needs one.")],
    existing: Annotated[
        Path | None, typer.Option("--existing", help="Interpreter of an environment of your own, taken as it is.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", help="Your checkout of the family's code, instead of fetching it.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace a finished one.")] = False,
) -> None:
    """Make the environment that a tokenizer's card declares, with uv where it is installed, else with venv and pip."""
    from tokbench.isolated.environments import MARKER, named_environment, place_of
    from tokbench.isolated.making import make_environment

    declared = named_environment(name)
    place = place_of(declared)
    if (place / MARKER).is_file() and not again and existing is None and source is None:
        sys.stdout.write(f"{declared.name}: ready at {place}\n")
        return

    def say(text: str) -> None:
        sys.stderr.write(f"{declared.name}: {text}\n")
        sys.stderr.flush()

    made = make_environment(
        declared,
        say=say,
        existing=existing.absolute() if existing else None,
        source=source.absolute() if source else None,
    )
    sys.stdout.write(f"{declared.name}: ready at {place}, Python {made.version}, {len(made.packages)} packages\n")


@app.command("list")
def list_(json: Json = False) -> None:
    """List every environment that a card declares, and whether it is made."""
    from tokbench.isolated.environments import MARKER, declared_environments, place_of, unused

    rows = []
    for name, (declared, users) in sorted(declared_environments().items()):
        place = place_of(declared)
        old = [str(path) for path in unused(name) if path != place]
        state = "ready" if (place / MARKER).is_file() else "not made"
        rows.append({"name": name, "state": state, "folder": str(place), "tokenizers": users, "old": old})
    if json:
        import json as json_module

        sys.stdout.write(json_module.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        old_note = f"; {len(row['old'])} of earlier cards" if row["old"] else ""
        sys.stdout.write(f"{row['name']:<16} {row['state']:<9} {', '.join(row['tokenizers'])}{old_note}\n")


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="An environment, or a tokenizer that needs one.")]) -> None:
    """Delete an environment, and what earlier cards of that name left."""
    import shutil

    from tokbench.isolated.environments import named_environment, unused

    declared = named_environment(name)
    places = unused(declared.name)
    if not places:
        raise UserError(f"there is no environment '{declared.name}' to remove", hint="Type: tokbench env list")
    for place in places:
        shutil.rmtree(place)
        sys.stdout.write(f"{place}: removed\n")
