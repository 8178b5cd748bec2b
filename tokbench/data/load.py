"""From what a user types after `--data` to a `Dataset`.

`mini-en`, `mini-en:train`, `librispeech:DIR`, `vctk:DIR?mic=mic2`, `folder:DIR?speaker=REGEX`, `manifest:FILE`, or the
name of a dataset card that `tokbench data get` has fetched, with or without splits: `librispeech:test-clean`, and
`librispeech:train-clean-100+train-clean-360`. Any of them takes `?alignments=FOLDER`, a folder of TextGrid files, and
`?name=NAME`, what results call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

from tokbench.config import DatasetCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.data.places import data_folder
from tokbench.data.readers import OPTIONS, READERS
from tokbench.data.scan import ordered
from tokbench.errors import CardError, DatasetError, UnknownName
from tokbench.registry import find_card, names

__all__ = ["COMPLETE", "EMBEDDED", "fetched_splits", "limit_utterances", "load_dataset"]

EMBEDDED = "mini-en"
"""The corpus inside the package."""

COMPLETE = ".tokbench-complete.json"
"""Marker that `data get` writes into a split's folder before the folder gets its final name."""


def load_dataset(spec: str, *, split: str | None = None, limit: int | None = None) -> Dataset:
    """Read the dataset that `spec` names.

    Args:
        spec: see the module; `NAME:DIR` reads a folder in the layout of a reader or of a dataset card.
        split: keep one split; the same as `NAME:SPLIT` where the data is embedded or fetched.
        limit: at most this many utterances, drawn evenly from the speakers and always the same.

    Raises:
        UnknownName: there is no such reader or dataset; names the closest.
        DatasetError: the data is absent, in another layout, or does not match its texts.
    """
    if limit is not None and limit < 1:
        raise DatasetError(f"a limit of {limit} utterances leaves nothing", where=spec, hint="Use a limit of 1 or more")
    name, colon, rest = spec.partition(":")
    rest, options = _options(rest, spec)
    alignments, called = options.pop("alignments", None), options.pop("name", None)
    if name == EMBEDDED:
        dataset = _embedded(rest, split, spec, options)
    else:
        card = _card(name)
        reader = card.reader if card is not None else name
        if reader not in READERS:
            raise CardError(f"there is no reader '{reader}'", where=f"dataset {name}: reader")
        options = ({key: str(value) for key, value in card.params.items()} if card is not None else {}) | options
        unknown = sorted(set(options) - OPTIONS.get(reader, frozenset()))
        if unknown:
            known = ", ".join(sorted(OPTIONS.get(reader, ()))) or "none"
            raise DatasetError(f"'{unknown[0]}' is not an option of {reader}", where=spec, hint=f"Options: {known}")
        if colon and not rest:
            raise DatasetError(
                "nothing follows the colon", where=spec, hint=f"Type {name}:FOLDER, or {name}:FILE for a table"
            )
        utterances = _utterances(name, card, reader, rest, split, options, spec)
        dataset = Dataset(name=spec if split is None else f"{spec}:{split}", utterances=utterances)
        if card is not None:
            dataset = replace(dataset, licence=card.licence, synthetic=card.synthetic, language=card.language)
    if alignments is not None:
        from tokbench.data.attach import attach_alignments

        dataset = replace(dataset, utterances=attach_alignments(dataset.utterances, Path(alignments).expanduser()))
    if called is not None:
        dataset = replace(dataset, name=called)
    if limit is None or limit >= len(dataset):
        return dataset
    # Another name: a run on a part must never be taken for, or written over, a run on the whole.
    return replace(
        dataset, name=f"{dataset.name} ({limit} utterances)", utterances=limit_utterances(dataset.utterances, limit)
    )


def limit_utterances(utterances: Sequence[Utterance], limit: int) -> tuple[Utterance, ...]:
    """The first utterance of every speaker, then the second of every speaker, until `limit`; in their own order."""
    by_speaker: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        by_speaker.setdefault(utterance.speaker, []).append(index)
    turns = (i for turn in zip_longest(*(by_speaker[s] for s in sorted(by_speaker))) for i in turn if i is not None)
    kept = sorted(index for index, _ in zip(turns, range(limit), strict=False))
    return tuple(utterances[index] for index in kept)


def fetched_splits(name: str, *, folder: Path | None = None) -> dict[str, Path]:
    """Split -> folder of what `data get NAME` has completely fetched; what is half unpacked is not in it."""
    root = (folder or data_folder()) / name
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{COMPLETE}"))}


def _card(name: str) -> DatasetCard | None:
    """The dataset card; None for a reader that has no card (folder, manifest)."""
    cards = names(DatasetCard)
    if name in cards:
        return find_card(DatasetCard, name)
    if name not in READERS:
        raise UnknownName("dataset", name, {*cards, *READERS, EMBEDDED})
    return None


def _options(rest: str, spec: str) -> tuple[str, dict[str, str]]:
    """Split `DIR?key=value&key=value`; a folder whose name holds a question mark is left alone."""
    if "?" not in rest or Path(rest).expanduser().exists():
        return rest, {}
    path, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise DatasetError(
                f"'{part}' is not an option", where=spec, hint="Write options as DIR?key=value&key=value"
            )
        options[key] = unquote(value)
    return path, options


def _embedded(rest: str, split: str | None, spec: str, options: dict[str, str]) -> Dataset:
    if options:
        raise DatasetError(f"{EMBEDDED} takes no options", where=spec)
    if rest and split is not None and rest != split:
        raise DatasetError(f"asks for the split '{rest}', and for '{split}' beside it", where=spec)
    from tokbench.data.mini_en import load_mini_en

    dataset = load_mini_en(split or rest or None)
    return replace(dataset, name=f"{EMBEDDED}:{split or rest}" if split or rest else EMBEDDED)


def _utterances(
    name: str,
    card: DatasetCard | None,
    reader: str,
    rest: str,
    split: str | None,
    options: dict[str, str],
    spec: str,
) -> tuple[Utterance, ...]:
    read = READERS[reader]
    path = Path(rest).expanduser()
    several = [part for part in rest.split("+") if part]
    if rest and (card is None or path.exists() or not set(several) <= set(card.splits)):
        return read(path, split=split, **options)
    if card is None:
        raise DatasetError(
            f"{name} needs to know where the data is",
            where=spec,
            hint=f"Type {name}:{'FILE' if name == 'manifest' else 'FOLDER'}",
        )
    if rest and split is not None and rest != split:
        raise DatasetError(f"asks for the split '{rest}', and for '{split}' beside it", where=spec)
    wanted = several or ([split] if split else [])
    unknown = next((part for part in wanted if part not in card.splits), None)
    if unknown is not None and card.splits:
        raise DatasetError(f"{name} has no split '{unknown}'", where=spec, hint=f"There are {', '.join(card.splits)}")
    there = fetched_splits(name)
    absent = next((part for part in wanted if part not in there), None)
    if not there or absent is not None:
        absent = absent or (wanted[0] if wanted else None)
        command = f"tokbench data get {name}" + (f" --split {absent}" if absent else "")
        raise DatasetError(
            f"{name}{f' ({absent})' if absent else ''} is not in {data_folder()}",
            where=spec,
            hint=f"Type: {command}, or name your own copy as {name}:FOLDER",
        )
    folders = [there[part] for part in wanted] if wanted else list(there.values())
    found = [utterance for folder in folders for utterance in read(folder, **options)]
    return ordered(found, where=data_folder() / name)
