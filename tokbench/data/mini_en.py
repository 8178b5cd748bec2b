"""The embedded corpus mini-en: synthetic speech that tokbench ships, so that everything can be tried without a network.

`scripts/make_mini_en.py` made it; its README tells of every voice. Reading it needs no pandas and no torch.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tokbench.data.dataset import Dataset, Segment, Utterance
from tokbench.errors import DatasetError, UnknownName

__all__ = ["FOLDER", "SPLITS", "load_mini_en"]

FOLDER = Path(__file__).parent / "corpora" / "mini_en"
"""Where the corpus lies in the package."""

SPLITS = ("train", "test", "heldout", "unseen", "all")
"""`heldout`: what the voices that are never trained on say outside the test; `unseen`: test and heldout, all that train
has not."""

LICENCE = "CC0, Apache-2.0 and BSD-like, by voice (see the corpus's README)"

_COLUMNS = "id path speaker gender text split seen voice_engine duration pcm_sha256 sentence_id"
_EXTRA = ("split", "seen", "voice_engine", "sentence_id")


def load_mini_en(split: str | None = None, *, folder: Path = FOLDER) -> Dataset:
    """Utterances of one split with phones and words, in the order of the manifest; no audio is read.

    Args:
        split: one of `SPLITS`; None means "test".
        folder: a corpus that `scripts/make_mini_en.py` wrote; the shipped one by default.

    Returns:
        The dataset "mini-en" (for splits other than the test with ":SPLIT" behind the name). `Utterance.extra` holds
        split, seen, voice_engine and sentence_id, which begins with "s" where every voice says the sentence.

    Raises:
        UnknownName: there is no such split.
        DatasetError: a table is missing or damaged; with file and line.
    """
    split = split or "test"
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    phones, words = _segments(folder / "phones.csv"), _segments(folder / "words.csv")
    utterances = []
    path = folder / "manifest.csv"
    for line, row in _rows(path, _COLUMNS.split()):
        wanted = {"all": True, "unseen": row["split"] != "train"}.get(split, row["split"] == split)
        if not wanted:
            continue
        if row["id"] not in phones or row["id"] not in words:
            raise DatasetError(f"utterance {row['id']} has no alignment", where=f"{path}:{line}")
        utterances.append(
            Utterance(
                id=row["id"],
                path=folder / row["path"],
                speaker=row["speaker"],
                text=row["text"],
                gender=row["gender"],
                pcm_sha256=row["pcm_sha256"],
                duration=_number(row["duration"], f"{path}:{line}"),
                phones=phones[row["id"]],
                words=words[row["id"]],
                extra={key: row[key] for key in _EXTRA},
            )
        )
    name = "mini-en" if split == "test" else f"mini-en:{split}"
    return Dataset(name, tuple(utterances), licence=LICENCE, synthetic=True, language="en")


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of every row."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "Install tokbench again, or make the corpus with scripts/make_mini_en.py"
        raise DatasetError(f"cannot be read ({error})", where=str(path), hint=hint) from None
    reader = csv.reader(text.splitlines())
    header = next(reader, [])
    if header != columns:
        raise DatasetError(f"has the columns {header}, needs {columns}", where=f"{path}:1")
    for fields in reader:
        if len(fields) != len(columns):
            raise DatasetError(f"has {len(fields)} fields, not {len(columns)}", where=f"{path}:{reader.line_num}")
        yield reader.line_num, dict(zip(columns, fields, strict=True))


def _segments(path: Path) -> dict[str, tuple[Segment, ...]]:
    """Utterance id -> its segments, which lie in consecutive rows."""
    found = {}
    rows = _rows(path, ["id", "label", "start", "end"])
    for utterance, group in groupby(rows, key=lambda row: row[1]["id"]):
        found[utterance] = tuple(
            Segment(row["label"], _number(row["start"], f"{path}:{line}"), _number(row["end"], f"{path}:{line}"))
            for line, row in group
        )
    return found


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DatasetError(f"'{text}' is not a number of seconds", where=where) from None
