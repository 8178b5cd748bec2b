"""Readers for paired tests of spoken language models: in each pair, one recording is right and one is wrong.

sWUGGY and sBLIMP come in the folders of the Zero Resource Speech Challenge 2021 (`lexical/dev/gold.csv` beside its wav
files), spoken StoryCloze as one folder of numbered files. `Utterance.extra` holds `set`, `pair` (one right and one
wrong recording share it), `right` ("1" or "0"), `group` (what the pair is about, shared by its voices) and, for words,
`band` (how often LibriSpeech has the word: "oov" or "known").
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

from tokbench.data.dataset import Utterance
from tokbench.data.scan import ordered, require_folder, some
from tokbench.errors import DatasetError

__all__ = ["read_sblimp", "read_storycloze", "read_swuggy"]

_KEYS = {"swuggy": ("id",), "sblimp": ("type", "subtype", "id")}
_FOLDERS = {"swuggy": "lexical", "sblimp": "syntactic"}
_TEXTS = {"swuggy": "word", "sblimp": "transcription"}
_NUMBERED = re.compile(r"(\d+)_.*")


def read_swuggy(root: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Words and non-words: `ROOT/lexical/SPLIT/gold.csv`, or `ROOT/SPLIT/gold.csv`.

    Args:
        root: the challenge's folder, or its `lexical`.
        split: "dev" (where None) or "test".

    Raises:
        DatasetError: no such table, a column is missing, a recording is absent, or a pair without a partner.
    """
    return _challenge(root, split, "swuggy")


def read_sblimp(root: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Sentences with and without a fault of grammar: `ROOT/syntactic/SPLIT/gold.csv`. As `read_swuggy`."""
    return _challenge(root, split, "sblimp")


def read_storycloze(root: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Stories with the right and a wrong end: wav files `N_*.wav`, in pairs by number, the right one first.

    This is how slamkit reads the recordings that TWIST published (as tStoryCloze and sStoryCloze).

    Args:
        root: folder of the files.
        split: a subfolder.

    Raises:
        DatasetError: no such files, a number twice, or an odd count.
    """
    folder = require_folder(root if split is None else root / split)
    numbered: dict[int, Path] = {}
    for path in sorted(folder.glob("*.wav")):
        match = _NUMBERED.fullmatch(path.stem)
        if match is None:
            raise DatasetError(f"'{path.name}' does not begin with a number and _", where=str(folder))
        if int(match[1]) in numbered:
            raise DatasetError(
                f"two files have the number {match[1]}: {numbered[int(match[1])].name} and {path.name}",
                where=str(folder),
            )
        numbered[int(match[1])] = path
    if not numbered or len(numbered) % 2:
        raise DatasetError(f"holds {len(numbered)} numbered wav files, which make no pairs", where=str(folder))
    found = []
    for place, number in enumerate(sorted(numbered)):
        story = str(place // 2)
        extra = {"set": "storycloze", "pair": story, "group": story, "right": "10"[place % 2]}
        found.append(Utterance(numbered[number].stem, numbered[number], "voice", extra=extra))
    return ordered(found, where=folder)


def _challenge(root: Path, split: str | None, name: str) -> tuple[Utterance, ...]:
    require_folder(root)
    split = split or "dev"
    inside = root / _FOLDERS[name] / split
    folder = inside if inside.is_dir() else root / split
    table = folder / "gold.csv"
    if not table.is_file():
        raise DatasetError(
            f"has no {_FOLDERS[name]}/{split}/gold.csv", where=str(root), hint="Name the folder of the challenge's data"
        )
    needed = {*_KEYS[name], "filename", "voice", "correct"}
    rows = _rows(table, needed)
    sides: dict[tuple[str, ...], dict[str, list[Utterance]]] = defaultdict(lambda: {"1": [], "0": []})
    absent = []
    for line, row in rows:
        if row["correct"] not in ("0", "1"):
            raise DatasetError(f"'{row['correct']}' is neither 0 nor 1", where=f"{table}:{line}: correct")
        path = folder / f"{row['filename']}.wav"
        if not path.is_file():
            absent.append(path.name)
        group = ":".join(row[key] for key in _KEYS[name])
        extra = {"set": name, "group": group, "right": row["correct"]}
        if name == "swuggy":
            extra["band"] = _band(row.get("frequency", ""), f"{table}:{line}: frequency")
        utterance = Utterance(row["filename"], path, row["voice"], text=row.get(_TEXTS[name]) or None, extra=extra)
        sides[(group, row["voice"])][row["correct"]].append(utterance)
    if absent:
        raise DatasetError(f"names {len(absent)} recordings that are not there: {some(absent)}", where=str(table))
    found = []
    for (group, voice), pair in sides.items():
        if len(pair["1"]) != len(pair["0"]) or not pair["1"]:
            raise DatasetError(
                f"pair {group} in voice {voice} has {len(pair['1'])} right and {len(pair['0'])} wrong recordings",
                where=str(table),
            )
        for number, both in enumerate(zip(pair["1"], pair["0"], strict=True)):
            key = f"{group}:{voice}" + (f":{number}" if number else "")
            # What is known of a word is known of its non-word.
            band = {"band": both[0].extra["band"]} if name == "swuggy" else {}
            found += [_in_pair(one, key, band) for one in both]
    return ordered(found, where=table)


def _in_pair(one: Utterance, key: str, band: dict[str, str]) -> Utterance:
    return Utterance(one.id, one.path, one.speaker, text=one.text, extra=one.extra | {"pair": key} | band)


def _band(text: str, where: str) -> str:
    """The challenge's column counts the word's occurrences in LibriSpeech; empty for non-words."""
    if not text:
        return "oov"
    try:
        return "known" if float(text) >= 1 else "oov"
    except ValueError:
        raise DatasetError(f"'{text}' is not a number", where=where) from None


def _rows(table: Path, needed: set[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=str(table)) from None
    reader = csv.DictReader(text.splitlines())
    missing = sorted(needed - set(reader.fieldnames or ()))
    if missing:
        raise DatasetError(f"has no column '{missing[0]}'", where=f"{table}:1")
    return [(reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}) for row in reader]
