"""A unit of work and its key: a hash of everything that decides the content.

Two runs that would compute the same thing have the same key, on any machine; two that would not, never do.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.errors import StoreError

__all__ = ["Payload", "UnitKey", "canonical_json"]

_MAGIC = b"tokbench unit 1\n"


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; the same text for equal values, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)


@dataclass(frozen=True)
class UnitKey:
    """What a unit is: its stage and every fact that decides its content.

    Attributes:
        stage: "encode", "decode", "judge", "score".
        parts: JSON-able facts: cards, weights hashes, code hashes, audio hashes, parameters.
        label: words for `tokbench cache ls`; not part of the hash.
    """

    stage: str
    parts: Mapping[str, Any]
    label: str = ""

    @cached_property
    def digest(self) -> str:
        """Sha256 in hex over stage and parts."""
        return hashlib.sha256(f"{self.stage}\n{canonical_json(self.parts)}".encode()).hexdigest()


@dataclass(frozen=True)
class Payload:
    """What a unit holds: named arrays and one JSON-able record."""

    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self, key: UnitKey) -> bytes:
        """Serialise: a magic line, a sha256 line, then an uncompressed zip of `unit.json` and `.npy` members."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            head = {"stage": key.stage, "label": key.label, "key": key.parts, "record": self.record}
            archive.writestr("unit.json", json.dumps(head, ensure_ascii=False, default=str))
            for name, array in self.arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", member.getvalue())
        body = buffer.getvalue()
        return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Payload, dict[str, Any]]:
        """Read `to_bytes`; returns the payload and the head (stage, label, key).

        Raises:
            StoreError: any byte differs from what was written.
        """
        body = verified_body(data)
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            head = json.loads(archive.read("unit.json"))
            for name in archive.namelist():
                if name.endswith(".npy"):
                    arrays[name[:-4]] = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
        return cls(arrays, head.pop("record")), head


def verified_body(data: bytes) -> bytes:
    """The zip inside a unit's file, after its checksum has been compared."""
    start = len(_MAGIC) + 65
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise StoreError("is not a unit of this version")
    if hashlib.sha256(data[start:]).hexdigest().encode() != data[len(_MAGIC) : start - 1] or data[start - 1] != 10:
        raise StoreError("is damaged (its checksum differs)")
    return data[start:]
