"""`tokbench data`: corpora that are known, fetched or made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Json

__all__ = ["app"]

app = typer.Typer(help="Datasets: list, fetch, describe, align.", no_args_is_help=True)


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(help="Describe this dataset: sizes, speakers, rates, fingerprint.")
    ] = None,
    json: Json = False,
) -> None:
    """Known corpora and which splits are on this machine; or the statistics of one dataset."""
    from tokbench.config import DatasetCard
    from tokbench.data.load import fetched_splits
    from tokbench.registry import find_card, names

    if name is not None:
        _describe(name, json=json)
        return
    cards = [find_card(DatasetCard, known) for known in names(DatasetCard)]
    if json:
        import json as json_module

        rows = [
            {"name": c.name, "summary": c.summary, "splits": list(c.splits), "here": sorted(fetched_splits(c.name))}
            for c in cards
        ]
        sys.stdout.write(json_module.dumps(rows, indent=1) + "\n")
        return
    for card in cards:
        here = set(card.splits) if card.location else set(fetched_splits(card.name))
        sys.stdout.write(f"{card.name:<12} {card.summary}\n")
        for split in card.splits:
            sys.stdout.write(f"    {split:<18} {'here' if split in here else '-'}\n")
    sys.stdout.write("any other: librispeech:DIR  libritts:DIR  vctk:DIR  folder:DIR  manifest:FILE\n")


def _describe(name: str, *, json: bool) -> None:
    from tokbench.data.fingerprint import AudioFacts, dataset_facts, dataset_fingerprint, dataset_statistics
    from tokbench.data.load import load_dataset
    from tokbench.data.places import cache_folder

    dataset = load_dataset(name)
    facts = dataset_facts(dataset, cache_folder() / "index")
    statistics = dataset_statistics(dataset, facts)
    fingerprint = dataset_fingerprint(dataset, [f.sha256 if isinstance(f, AudioFacts) else f for f in facts])
    plain = {"name": dataset.name, "licence": dataset.licence, "fingerprint": fingerprint, **statistics.model_dump()}
    if json:
        import json as json_module

        sys.stdout.write(json_module.dumps(plain, indent=1) + "\n")
        return
    import yaml

    sys.stdout.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="Corpus: librispeech, libritts, libritts-r, vctk.")],
    split: Annotated[list[str] | None, typer.Option("--split", help="Only this split (repeatable).")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Data folder (default: TOKBENCH_DATA or the user's cache).")
    ] = None,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep the archives.")] = False,
) -> None:
    """Fetch a corpus: official archives, checked by hash, resumed after a broken connection, unpacked safely."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    from tokbench.config import DatasetCard
    from tokbench.data.fetch import FetchProgress, fetch_dataset
    from tokbench.registry import find_card

    card = find_card(DatasetCard, name)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        lines: dict[tuple[str, str], TaskID] = {}

        def show(now: FetchProgress) -> None:
            key = (now.split, now.stage)
            if key not in lines:
                lines[key] = bar.add_task(f"{now.split}: {now.stage}", total=now.total)
            bar.update(lines[key], completed=now.done, total=now.total)

        found = fetch_dataset(card, splits=split, folder=folder, progress=show, keep_archives=keep_archives)
    for one, place in found.items():
        sys.stdout.write(f"{one}: {place}\n")
    sys.stdout.write(f"Use it as --data {name}:{next(iter(found))}\n")


@app.command("make")
def make(
    data: Annotated[str, typer.Argument(help="Dataset with audio and texts, as for --data.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for one TextGrid an utterance.")],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First utterances only.")] = None,
) -> None:
    """Make phone and word alignments of a dataset with pocketsphinx, as TextGrid files."""
    from tokbench.audio import resample
    from tokbench.data.alignment import align, write_textgrid
    from tokbench.data.load import load_dataset
    from tokbench.errors import TokbenchError

    dataset = load_dataset(data, limit=limit)
    out.mkdir(parents=True, exist_ok=True)
    made, failed = 0, []
    for utterance in dataset.utterances:
        target = out / f"{utterance.id}.TextGrid"
        if target.exists():
            made += 1
            continue
        try:
            wave, rate = utterance.read()
            words, phones = align(resample(wave, rate, 16000), utterance.text or "")
            write_textgrid(target, {"words": words, "phones": phones}, duration=len(wave) / rate)
        except TokbenchError as error:
            failed.append(f"{utterance.id}: {error}")
            continue
        made += 1
    for line in failed:
        sys.stderr.write(f"tokbench: {line}\n")
    sys.stdout.write(f"{out}: {made} alignments, {len(failed)} failed\n")
    if failed:
        raise typer.Exit(3)
