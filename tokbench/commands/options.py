"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from tokbench.errors import UserError

__all__ = [
    "Device",
    "Json",
    "Output",
    "StorePath",
    "Weights",
    "Workers",
    "check_settings",
    "parse_judge_weights",
    "parse_settings",
    "store_path",
    "with_settings",
]

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
StorePath = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the artefact store (default: TOKBENCH_STORE or the user's cache)."),
]
Output = Annotated[Path, typer.Option("--output", help="Folder for results.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Local folder with the tokenizer's weights.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: one a core; one on a GPU).")]


def store_path(given: Path | None) -> Path:
    """The store's folder: as given, or the default."""
    from tokbench.store.store import default_store

    return given if given is not None else default_store()


def parse_settings(pairs: list[str]) -> dict[str, object]:
    """`--set key=value` pairs; values are read as YAML, so that 3 is a number and [a, b] a list."""
    import yaml

    settings: dict[str, object] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"'{pair}' is not a setting", where="--set", hint="Write --set name=value")
        settings[key] = yaml.safe_load(value)
    return settings


def check_settings(settings: Mapping[str, object], known: Collection[str]) -> None:
    """Refuse a setting that no task of the run knows.

    Raises:
        UserError: names it, and what there is.
    """
    for name in settings:
        if name.partition(".")[0] not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(sorted(known))}"
            raise UserError("no task of this run has this parameter", where=f"--set {name}", hint=hint)


def with_settings(params: Mapping[str, Any], settings: Mapping[str, object]) -> dict[str, Any]:
    """The parameters with the settings in their places; `recipe.steps` is the field `steps` of `recipe`.

    Raises:
        UserError: a field of something that has none.
    """
    from tokbench.card_files import merge_fields, nested_fields

    merged = dict(params)
    for name, value in settings.items():
        first, *fields = name.split(".")
        if not fields:
            merged[first] = value
            continue
        if not isinstance(merged.get(first), dict):
            raise UserError(f"'{first}' has no fields", where=f"--set {name}", hint=f"Write --set {first}=VALUE")
        merged = merge_fields(merged, nested_fields([first, *fields], value))
    return merged


def parse_judge_weights(pairs: list[str]) -> dict[str, Path]:
    """`--judge-weights NAME=FOLDER` pairs."""
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, sign, folder = pair.partition("=")
        if not sign or not os.path.exists(folder):  # noqa: PTH110 - a plain test on what was typed
            raise UserError(f"'{pair}' is not NAME=FOLDER with an existing folder", where="--judge-weights")
        folders[name] = Path(folder)
    return folders
