"""A result on disk: its record, its tables as Parquet, its clips as FLAC."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.errors import StoreError
from tokbench.protocols.base import Take
from tokbench.results import RESULT_FILE, Result, SampleClip, TableFile
from tokbench.whole_files import replace_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["parquet", "write_result"]


def parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet, without its index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def write_result(result: Result, folder: Path, files: Mapping[str, bytes], takes: Sequence[Take]) -> Result:
    """Write a result with its tables and clips, each file whole or not at all; gives the result with its folder.

    Args:
        result: tables, samples and folder are filled in.
        folder: made where it is absent.
        files: name of a table -> Parquet.
        takes: clips to listen to.

    Raises:
        StoreError: something cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(folder / f"{name}.parquet", data)
            result.tables[name] = TableFile(
                path=f"{name}.parquet", sha256=hashlib.sha256(data).hexdigest(), rows=_rows_in(data)
            )
        clips = folder / "samples"
        for take in takes:
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{take.item}-{take.kind}") + ".flac"
            replace_file(clips / name, take.flac)
            result.samples.append(
                SampleClip(
                    item=take.item, kind=take.kind, path=f"samples/{name}", text=take.text, transcript=take.transcript
                )
            )
        # Last, so that a folder with a result.json is complete.
        replace_file(folder / RESULT_FILE, result.model_dump_json(indent=1).encode())
    except OSError as error:
        raise StoreError(
            f"the result cannot be written ({error.strerror})",
            where=str(folder),
            hint="What was computed is in the store: free some space or name another --output, then run again",
        ) from error
    result.folder = folder
    return result


def _rows_in(data: bytes) -> int:
    from pyarrow.parquet import ParquetFile

    return int(ParquetFile(io.BytesIO(data)).metadata.num_rows)
