"""`tokbench abx`: the ABX error of a folder of features, whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Json

__all__ = ["abx"]


def abx(
    items: Annotated[Path, typer.Argument(help="Item file of ZeroSpeech or Libri-Light (.item).")],
    features: Annotated[Path, typer.Argument(help="Folder of .npy or .pt features [frames, dimensions].")],
    frequency: Annotated[str, typer.Option("--frequency", help="Frames a second: 50, 12.5 or 25/2.")] = "50",
    distance: Annotated[
        str, typer.Option("--distance", help="angular, cosine (its other name), euclidean, kl or identical.")
    ] = "angular",
    speaker: Annotated[str, typer.Option("--speaker", help="within or across.")] = "within",
    context: Annotated[str, typer.Option("--context", help="within (neighbouring phones fixed) or any.")] = "within",
    librilight: Annotated[
        bool, typer.Option("--librilight", help="Drop the last frame of every item, as Libri-Light does.")
    ] = False,
    codebook: Annotated[
        Path | None, typer.Option("--codebook", help="Vectors [codes, dimensions] (.npy); the features are codes.")
    ] = None,
    also_frequency: Annotated[
        list[str] | None,
        typer.Option("--also-frequency", help="Leave out items that are empty at this rate, too (repeatable)."),
    ] = None,
    pad: Annotated[int, typer.Option("--pad", min=0, help="Frames a file may lack; its last one is repeated.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads (default: one a core).")] = None,
    json: Json = False,
) -> None:
    """ABX error of features on an item file: how often a phone is nearer to another one than to its like."""
    import sys
    from json import dumps

    from tokbench.abx.engine import score_abx
    from tokbench.abx.features import FolderFeatures, load_codebook
    from tokbench.abx.items import read_items
    from tokbench.abx.plan import CONTEXTS, SPEAKER_MODES
    from tokbench.abx.representation import DISTANCES
    from tokbench.abx.slicing import parse_rate
    from tokbench.errors import UnknownName
    from tokbench.manifest import resolve_device

    for kind, value, known in (
        ("distance", distance, DISTANCES),
        ("speaker mode", speaker, SPEAKER_MODES),
        ("context", context, CONTEXTS),
    ):
        if value not in known:
            raise UnknownName(kind, value, known)
    score = score_abx(
        read_items(items),
        FolderFeatures(features),
        rate=parse_rate(frequency),
        distance=distance,  # type: ignore[arg-type]
        speaker=speaker,  # type: ignore[arg-type]
        context=context,  # type: ignore[arg-type]
        drop_last=librilight,
        codebook=load_codebook(codebook) if codebook is not None else None,
        also_rates=[parse_rate(rate) for rate in also_frequency or []],
        pad=pad,
        device=resolve_device(device) if device != "cpu" else device,
        threads=threads,
    )
    record = {
        "error": score.error,
        "items": score.items,
        "cells": score.cells,
        "triplets": score.triplets,
        "empty": score.empty,
        "speaker": speaker,
        "context": context,
        "distance": distance,
        "frequency": frequency,
        "slicing": "librilight" if librilight else "exact",
    }
    if json:
        sys.stdout.write(dumps(record, indent=1) + "\n")
        return
    left_out = f", {score.empty} empty ones left out" if score.empty else ""
    sys.stdout.write(
        f"ABX error {100 * score.error:.3f} % ({speaker} speakers, {context} context, {distance})\n"
        f"{score.items} items{left_out}, {score.cells} cells, {score.triplets} triplets; chance is 50 %\n"
    )
