"""How what the stages make lies in units of the store: arrays named by index, and a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.clip import Clip
from tokbench.judges.base import Evidence
from tokbench.store.units import Payload
from tokbench.types import Encoded

__all__ = [
    "pack_clips",
    "pack_evidence",
    "pack_features",
    "pack_posteriors",
    "pack_tokens",
    "unpack_clips",
    "unpack_evidence",
    "unpack_features",
    "unpack_posteriors",
    "unpack_tokens",
]


def pack_tokens(items: list[Encoded]) -> Payload:
    """A unit that holds tokens, by index."""
    arrays = {name: array for i, item in enumerate(items) for name, array in item.to_arrays(f"{i}/").items()}
    return Payload(arrays, {"items": len(items)})


def unpack_tokens(payload: Payload) -> list[Encoded]:
    """The tokens that a unit holds, in order."""
    grouped: list[dict[str, Any]] = [{} for _ in range(int(payload.record["items"]))]
    for name, array in payload.arrays.items():
        index, _, rest = name.partition("/")
        grouped[int(index)][rest] = array
    return [Encoded.from_arrays(arrays) for arrays in grouped]


def pack_features(items: list[npt.NDArray[np.float32]]) -> Payload:
    """A unit that holds features, by index."""
    return Payload({str(i): frames for i, frames in enumerate(items)}, {"items": len(items)})


def unpack_features(payload: Payload) -> list[npt.NDArray[np.float32]]:
    """The features that a unit holds, in order."""
    return [np.asarray(payload.arrays[str(i)], np.float32) for i in range(int(payload.record["items"]))]


def pack_clips(clips: list[Clip]) -> Payload:
    """A unit that holds clips, by index."""
    return Payload({str(i): clip.wave for i, clip in enumerate(clips)}, {"rates": [clip.rate for clip in clips]})


def unpack_clips(payload: Payload) -> list[Clip]:
    """The clips that a unit holds, in order."""
    return [
        Clip(np.asarray(payload.arrays[str(i)], np.float32), rate) for i, rate in enumerate(payload.record["rates"])
    ]


def pack_posteriors(items: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]) -> Payload:
    """A unit that holds posteriors, by index."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for i, (mean, log_variance) in enumerate(items):
        arrays |= {f"{i}/mean": mean, f"{i}/log_variance": log_variance}
    return Payload(arrays, {"items": len(items)})


def unpack_posteriors(payload: Payload) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """The posteriors that a unit holds, in order."""
    found = payload.arrays
    return [
        (np.asarray(found[f"{i}/mean"], np.float32), np.asarray(found[f"{i}/log_variance"], np.float32))
        for i in range(int(payload.record["items"]))
    ]


def pack_evidence(items: list[Evidence]) -> Payload:
    """A unit that holds evidence, by index."""
    arrays = {f"{i}/{k}": v for i, item in enumerate(items) for k, v in item.items() if isinstance(v, np.ndarray)}
    plain = [{k: v for k, v in item.items() if not isinstance(v, np.ndarray)} for item in items]
    return Payload(arrays, {"items": plain})


def unpack_evidence(payload: Payload) -> list[Evidence]:
    """The evidence that a unit holds, in order."""
    items: list[Evidence] = [dict(plain) for plain in payload.record["items"]]
    for name, array in payload.arrays.items():
        index, _, key = name.partition("/")
        items[int(index)][key] = array
    return items
