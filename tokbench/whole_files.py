"""Files that are there whole or not at all: a temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, in whose place there is at every moment the old content or the new one.

    Args:
        path: its folder is made where it is absent. The temporary file beside it begins with a full stop.
        data: all of the content.

    Raises:
        OSError: it cannot be written; what was there stays, and nothing half-written is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
