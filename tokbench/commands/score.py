"""`tokbench score`: compare two folders of audio, whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Device, Json, Output, StorePath, Workers, parse_judge_weights, store_path
from tokbench.errors import DatasetError

__all__ = ["score"]


def score(
    reference: Annotated[Path, typer.Option("--reference", help="Folder of original audio.")],
    degraded: Annotated[Path, typer.Option("--degraded", help="Folder of decoded audio, files of the same names.")],
    text: Annotated[
        Path | None, typer.Option("--text", help="Transcripts: a line an utterance, `ID words`, or a CSV with id,text.")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help="Judges instead of the task's (repeatable).")
    ] = None,
    judge_weights: Annotated[
        list[str] | None, typer.Option("--judge-weights", help="NAME=FOLDER (repeatable).")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=100, help="Bootstrap draws.")] = 10_000,
    device: Device = "auto",
    workers: Workers = None,
    store: StorePath = None,
    output: Output = Path("tokbench-results"),
    json: Json = False,
) -> None:
    """Score any system's audio against the originals; no tokenizer is needed."""
    import sys
    from dataclasses import replace

    from tokbench.commands.run import execute, make_engine
    from tokbench.config import JudgeCard, TaskCard
    from tokbench.data.load import load_dataset
    from tokbench.handle import TokenizerHandle
    from tokbench.manifest import resolve_device
    from tokbench.registry import find_card
    from tokbench.report import print_results
    from tokbench.runner import Cell, Options, prepare_dataset

    options = Options(
        store=store_path(store).absolute(),
        output=output,
        device=resolve_device(device),
        draws=draws,
        judge_weights=parse_judge_weights(judge_weights or []),
    )
    dataset = load_dataset(f"folder:{reference}")
    if text is not None:
        texts = read_texts(text)
        known = {u.id for u in dataset.utterances}
        stray = sorted(set(texts) - known)
        if stray:
            raise DatasetError(f"names '{stray[0]}', which is not among the reference files", where=str(text))
        dataset = replace(
            dataset, utterances=tuple(replace(u, text=texts.get(u.id, u.text)) for u in dataset.utterances)
        )
    task = find_card(TaskCard, "reconstruction")
    names = judge or task.judges
    cell = Cell(
        TokenizerHandle(f"replay:{degraded}"),
        task,
        prepare_dataset(dataset, options.store.parent / "index"),
        {name: find_card(JudgeCard, name) for name in names},
        dict(task.params),
    )
    engine = make_engine("local", workers, options.device)
    results = execute([cell], options, engine, track=False, tracking_uri=None, skip_unavailable=False)
    if json:
        sys.stdout.write(results[0].model_dump_json(indent=1) + "\n")
    else:
        print_results(results)
    if results[0].status == "partial":
        raise typer.Exit(3)


def read_texts(path: Path) -> dict[str, str]:
    """Transcripts by utterance id, from lines `ID words` or a CSV with columns id and text.

    Raises:
        DatasetError: a line without words, or an id twice.
    """
    import csv

    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=str(path)) from error
    texts: dict[str, str] = {}
    if path.suffix == ".csv":
        reader = csv.DictReader(content.splitlines())
        if not {"id", "text"} <= set(reader.fieldnames or ()):
            raise DatasetError("has no columns 'id' and 'text'", where=f"{path}:1")
        pairs = [(number, row["id"], row["text"]) for number, row in enumerate(reader, start=2)]
    else:
        pairs = []
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                name, _, words = line.strip().replace("\t", " ", 1).partition(" ")
                pairs.append((number, name, words))
    for number, name, words in pairs:
        if not words or not words.strip():
            raise DatasetError(f"'{name}' has no text", where=f"{path}:{number}")
        if name in texts:
            raise DatasetError(f"'{name}' stands there twice", where=f"{path}:{number}")
        texts[name] = words.strip()
    return texts
