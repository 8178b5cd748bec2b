"""Messages and arrays between parent and child: a JSON object a line, each array in an `.npy` file of its own.

Nothing is pickled on either side. Shared by both, so it stays within Python 3.8 and numpy.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np

__all__ = ["PROTOCOL", "WireError", "pack_message", "read_arrays", "unpack_message", "write_arrays"]

PROTOCOL = 1
"""Raised whenever a message changes its meaning; parent and child must agree."""

_FILE = re.compile(r"^[0-9a-z]+-[0-9]+\.npy$")


class WireError(Exception):
    """A line that is no message, or an array that is not where the message says."""


def pack_message(message: dict[str, Any]) -> bytes:
    """One line; NaN is refused, since JSON has none."""
    return json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def unpack_message(line: bytes) -> dict[str, Any]:
    """The object on a line.

    Raises:
        WireError: it is none.
    """
    try:
        message = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise WireError(f"a line is no message: {line[:60]!r}") from error
    if not isinstance(message, dict):
        raise WireError(f"a line is no message: {line[:60]!r}")
    return message


def write_arrays(folder: str, prefix: str, arrays: dict[str, Any]) -> dict[str, str]:
    """Write each array to `PREFIX-N.npy`; returns name -> file name, to be sent.

    Args:
        folder: private to this pair of processes.
        prefix: lower-case letters and digits, new for every message.
        arrays: by any name; numbers only.
    """
    names: dict[str, str] = {}
    for index, (name, array) in enumerate(arrays.items()):
        file = f"{prefix}-{index}.npy"
        np.save(os.path.join(folder, file), np.ascontiguousarray(array), allow_pickle=False)  # noqa: PTH118
        names[name] = file
    return names


def read_arrays(folder: str, names: Any) -> dict[str, Any]:
    """Read what `write_arrays` wrote, and delete the files.

    Raises:
        WireError: a file is missing, damaged, holds objects, or its name leads out of the folder.
    """
    if not isinstance(names, dict):
        raise WireError("the arrays of a message are no mapping")
    found: dict[str, Any] = {}
    paths: list[str] = []
    for name, file in names.items():
        if not isinstance(file, str) or not _FILE.match(file):
            raise WireError(f"a message names the file {file!r}")
        path = os.path.join(folder, file)  # noqa: PTH118
        try:
            found[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise WireError(f"the array '{name}' cannot be read ({error})") from error
        paths.append(path)
    for path in paths:
        os.unlink(path)  # noqa: PTH108
    return found
