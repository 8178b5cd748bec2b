"""`tokbench train`: train a Kanade by a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.commands.options import parse_settings
from tokbench.errors import MissingBackend, UserError

if TYPE_CHECKING:
    from tokbench.data.dataset import Dataset

__all__ = ["find_recipe", "progress_line", "read_data", "require_lightning", "train"]

DEFAULT_OUTPUT = Path("tokbench-training")


def train(
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe file, or the name of one in reproduce/kanade.")],
    data: Annotated[
        list[str], typer.Option("--data", help="As for `run`: librispeech:DIR, libritts:DIR, folder:DIR (repeatable).")
    ],
    validation: Annotated[
        str | None, typer.Option("--validation", help="Data to validate on (default: held-out speakers).")
    ] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Recipe field, losses.ssl=0 (repeatable).")] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder of runs; this one is OUTPUT/NAME.")] = DEFAULT_OUTPUT,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs (DDP).")] = 1,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0, help="Stop after so long.")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Keep stored features in this artefact store (default: memory only).")
    ] = None,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log curves, pictures and audio to MLflow.")] = True,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow; MLFLOW_TRACKING_URI is honoured.")
    ] = None,
) -> None:
    """Train a Kanade; the folder gets checkpoints, the table of losses, and the model in the released layout.

    Example: `tokbench train --recipe reproduce/kanade/25hz_pretrain.yaml --data libritts:DIR --devices 8`.
    """
    require_lightning()
    from tokbench.kanade.training.recipe import load_recipe
    from tokbench.kanade.training.run import train as run_training
    from tokbench.kanade.training.tracking import make_callbacks, make_loggers

    chosen = load_recipe(find_recipe(recipe), settings=parse_settings(setting or []))
    folder = output / chosen.name
    trained = run_training(
        chosen,
        read_data(data),
        output=folder,
        validation=read_data([validation]) if validation else None,
        resume=resume,
        device=device,
        devices=devices,
        minutes=minutes,
        store=store,
        loggers=(lambda: make_loggers(chosen, folder, tracking_uri)) if track else None,
        callbacks=make_callbacks(folder),
        progress=progress_line(chosen.name),
    )
    if not trained.leader:
        return
    state = "" if trained.complete else f" of {chosen.batches}; go on with --resume"
    sys.stdout.write(f"{trained.folder}: {trained.batches} batches{state}, exported to {trained.folder / 'export'}\n")


def require_lightning() -> None:
    """Say how to install what training needs, where it is missing."""
    from importlib.util import find_spec

    if find_spec("lightning") is None:
        raise MissingBackend("lightning", extra="train", needed_by="training")


def find_recipe(name: str) -> Path:
    """A file, or a recipe that ships with tokbench by its name."""
    from tokbench.errors import UnknownName
    from tokbench.registry import package_folder

    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise UserError("no such recipe", where=name, hint="Type: tokbench reproduce list")
        return path
    folder = package_folder("reproduce") / "kanade"
    known = {p.stem: p for p in folder.glob("*.yaml") if not p.stem.startswith("_")}
    if name not in known:
        raise UnknownName("recipe", name, known, listed_by="tokbench reproduce list")
    return known[name]


def read_data(specs: list[str]) -> Dataset:
    """One dataset of everything that is named; equal speaker ids of different corpora stay apart."""
    from dataclasses import replace

    from tokbench.data.dataset import Dataset
    from tokbench.data.load import load_dataset

    parts = [load_dataset(spec) for spec in specs]
    if len(parts) == 1:
        return parts[0]
    utterances = tuple(
        replace(u, id=f"{part.name}/{u.id}", speaker=f"{part.name}/{u.speaker}")
        for part in parts
        for u in part.utterances
    )
    licences = sorted({part.licence for part in parts})
    return Dataset(
        " + ".join(part.name for part in parts),
        utterances,
        licence=", ".join(licences),
        synthetic=any(part.synthetic for part in parts),
        language=parts[0].language,
    )


def progress_line(name: str) -> Callable[[int, int, dict[str, float]], None]:
    """A line on stderr that is written over on a terminal, and now and then a new one elsewhere."""
    import time

    began = last = time.monotonic()

    def show(done: int, total: int, losses: dict[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - last < (0.5 if terminal else 30.0) and done < total:
            return
        last = now
        shown = ", ".join(f"{key} {losses[key]:.3f}" for key in ("mel", "ssl", "adversarial") if key in losses)
        line = f"{name}: batch {done}/{total}, {shown}, {(now - began) / 60:.1f} min"
        sys.stderr.write(f"\r{line}\x1b[K" if terminal and done < total else f"\r{line}\n" if terminal else f"{line}\n")
        sys.stderr.flush()

    return show
