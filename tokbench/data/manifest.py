"""Reader for a table of utterances, CSV, TSV or Parquet: one row an utterance, paths relative to the table."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from tokbench.data.dataset import Utterance
from tokbench.data.scan import some
from tokbench.errors import DatasetError

__all__ = ["KNOWN", "REQUIRED", "read_manifest"]

REQUIRED = ("id", "path", "speaker")
KNOWN = (*REQUIRED, "text", "gender", "chapter", "pcm_sha256", "duration")
"""Columns with a meaning; all others are kept as text in `Utterance.extra`."""

_GENDERS = {"f": "f", "female": "f", "m": "m", "male": "m"}


def read_manifest(path: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Read a table with the columns id, path and speaker, and optionally text, gender, chapter, pcm_sha256, duration.

    Args:
        path: file ending in .csv, .tsv or .parquet, with a header.
        split: keep the rows whose column `split` is this.

    Returns:
        Utterances sorted by id. An empty cell of an optional column is None; further columns are kept as text.

    Raises:
        DatasetError: names the row (the header is row 1) and the column: missing or repeated columns, missing or
            repeated ids, a file that is not there, a gender, duration or hash that is not one.
    """
    if not path.is_file():
        raise DatasetError("no such file", where=str(path), hint="manifest:FILE takes a .csv, .tsv or .parquet file")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise DatasetError(f"'{suffix}' is not a table", where=str(path), hint="Use .csv, .tsv or .parquet")
    rows = _parquet_rows(path) if suffix == ".parquet" else _text_rows(path, "\t" if suffix == ".tsv" else ",")
    utterances: list[Utterance] = []
    first_row: dict[str, int] = {}
    splits: set[str] = set()
    for number, row in rows:
        utterance = _utterance(row, path, number)
        if utterance.id in first_row:
            raise DatasetError(
                f"the id '{utterance.id}' is also in row {first_row[utterance.id]}", where=f"{path}: row {number}: id"
            )
        first_row[utterance.id] = number
        splits.add(utterance.extra.get("split", ""))
        if split is None or utterance.extra.get("split") == split:
            utterances.append(utterance)
    if not first_row:
        raise DatasetError("has no rows", where=str(path))
    if not utterances:
        known = ", ".join(sorted(splits - {""})) or "no column 'split'"
        raise DatasetError(f"has no split '{split}'", where=str(path), hint=f"There is {known}")
    return tuple(sorted(utterances, key=lambda u: u.id))


def _check_header(names: list[str], path: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(f"the column '{repeated[0]}' is there twice", where=f"{path}: row 1: {repeated[0]}")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DatasetError(
            f"the column '{missing[0]}' is missing; there are {some(names, show=8)}",
            where=f"{path}: row 1: {missing[0]}",
            hint=f"A manifest needs the columns {', '.join(REQUIRED)}",
        )


def _text_rows(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, path)
            for number, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DatasetError(
                        f"has {len(cells)} cells, the header has {len(header)}",
                        where=f"{path}: row {number}",
                        hint="Quote a text that contains the separator",
                    )
                yield number, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"is not a readable table ({error})", where=str(path)) from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"is not a readable Parquet file ({error})", where=str(path)) from None
    _check_header(list(table.column_names), path)
    columns = [table.column(index).to_pylist() for index in range(table.num_columns)]
    for number, cells in enumerate(zip(*columns, strict=True), start=2):
        yield number, {name: _cell(value) for name, value in zip(table.column_names, cells, strict=True)}


def _cell(value: object) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _utterance(row: dict[str, str], path: Path, number: int) -> Utterance:
    def wrong(column: str, what: str) -> DatasetError:
        return DatasetError(what, where=f"{path}: row {number}: {column}")

    for column in REQUIRED:
        if not row[column]:
            raise wrong(column, f"the {column} is empty")
    audio = path.parent / row["path"]
    if not audio.is_file():
        raise wrong("path", f"there is no file {audio}")
    gender = row.get("gender", "").lower()
    if gender and gender not in _GENDERS:
        raise wrong("gender", f"'{gender}' is neither f nor m; leave the cell empty where it is not known")
    digest = row.get("pcm_sha256", "").lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise wrong("pcm_sha256", "is not 64 hexadecimal digits")
    duration = None
    if row.get("duration"):
        try:
            duration = float(row["duration"])
        except ValueError:
            duration = math.nan
        if not (math.isfinite(duration) and duration > 0):
            raise wrong("duration", f"'{row['duration']}' is not a length in seconds")
    return Utterance(
        id=row["id"],
        path=audio,
        speaker=row["speaker"],
        text=row.get("text") or None,
        gender=_GENDERS.get(gender),
        chapter=row.get("chapter") or None,
        pcm_sha256=digest or None,
        duration=duration,
        extra={name: value for name, value in row.items() if name not in KNOWN},
    )
