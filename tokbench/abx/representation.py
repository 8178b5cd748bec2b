"""Frame distances: what is stored of a frame, what is multiplied, and what the products become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tokbench.errors import DatasetError

__all__ = ["DISTANCES", "Distance", "Metricised", "canonical", "lattice", "prepare", "store_frames"]

F32 = npt.NDArray[np.float32]
Distance = Literal["angular", "cosine", "euclidean", "kl", "identical"]
DISTANCES: tuple[str, ...] = get_args(Distance)
_EPSILON = np.float32(1e-6)


def canonical(distance: str) -> str:
    """`cosine` is the field's other name of the angular distance (Libri-Light, ZeroSpeech, fastabx)."""
    return "angular" if distance == "cosine" else distance


def store_frames(frames: npt.NDArray[np.generic], distance: str, where: str) -> F32:
    """Frames `[n, D]` as float32 `[n, D]` to keep: unit rows for the angular distance, else as they are.

    A null row stays null. Codes are numbers below 2**24, which float32 holds exactly.

    Raises:
        DatasetError: what the distance cannot take.
    """
    if distance == "identical":
        if frames.shape[1] != 1:
            raise DatasetError(
                f"the identical distance compares codes [frames] or [frames, 1], this has {frames.shape[1]} dimensions",
                where=where,
            )
        if frames.size and float(np.abs(frames).max()) >= 1 << 24:
            raise DatasetError("has codes of 2**24 or more", where=where)
    kept = np.array(frames, np.float32, order="C")
    if distance == "angular":
        norm = np.sqrt(np.einsum("td,td->t", kept, kept))
        if not np.isfinite(norm).all() or float(norm[norm > 0].min(initial=1.0)) < 1e-15:
            # Squares leave the range of float32: go through float64.
            exact = np.asarray(frames, np.float64)
            norm64 = np.linalg.norm(exact, axis=1)
            return np.asarray(exact / np.where(norm64 > 0, norm64, 1.0)[:, None], np.float32)
        kept /= np.where(norm > 0, norm, np.float32(1.0))[:, None]
    elif distance == "kl" and frames.size:
        sums = kept.sum(axis=1, dtype=np.float64)
        if float(kept.min()) < 0 or float(np.abs(sums - 1).max()) > 1e-3:
            raise DatasetError(
                "the KL distance needs probabilities: rows that are not negative and sum to 1", where=where
            )
    return kept


@dataclass(frozen=True)
class Metricised:
    """Frames of some items, ready to be multiplied.

    `frames` `[n, D]`, for KL `[p, log p]` `[n, 2 D]`; `null` marks null rows (angular), `side` holds squared norms
    (Euclidean) or `p . log p` (KL).
    """

    frames: F32
    null: npt.NDArray[np.bool_]
    side: F32


def prepare(kept: F32, distance: str, centre: F32 | None) -> Metricised:
    """Make stored frames `[n, D]` ready; `centre` `[D]` is subtracted for the Euclidean distance."""
    nothing = np.zeros(0, np.bool_)
    no_side = np.zeros(0, np.float32)
    if distance == "angular":
        return Metricised(kept, np.asarray(~kept.any(axis=1)), no_side)
    if distance == "euclidean":
        moved = kept if centre is None else kept - centre
        return Metricised(moved, nothing, np.einsum("td,td->t", moved, moved))
    if distance == "kl":
        both = np.empty((len(kept), 2 * kept.shape[1]), np.float32)
        logs = both[:, kept.shape[1] :]
        both[:, : kept.shape[1]] = kept
        np.log(kept + _EPSILON, out=logs)
        # Rows sum to one, so a constant in the logarithms cancels; without it small distances keep their digits.
        logs -= logs.mean(axis=1, keepdims=True)
        own = np.einsum("td,td->t", kept, logs)
        return Metricised(both, nothing, own)
    return Metricised(kept, nothing, no_side)


def lattice(rows: Metricised, columns: Metricised, distance: str, out: npt.NDArray[np.floating]) -> None:
    """Distances of every frame of `rows` to every frame of `columns`, into `out` float64 or float32 `[n, m]`."""
    from tokbench.abx import kernels

    if distance == "identical":
        np.not_equal(rows.frames, columns.frames.T, out=out)
        return
    dot = out if out.dtype == np.float32 else np.empty(out.shape, np.float32)
    if distance == "kl":
        half = rows.frames.shape[1] // 2
        np.matmul(rows.frames[:, :half], columns.frames[:, half:].T, out=dot)
        # Among themselves, the other half is the transpose.
        dot += dot.T.copy() if rows is columns else rows.frames[:, half:] @ columns.frames[:, :half].T
    else:
        np.matmul(rows.frames, columns.frames.T, out=dot)
    finish: dict[str, tuple[Any, Any, Any]] = {
        "angular": (kernels.angular, rows.null, columns.null),
        "euclidean": (kernels.euclidean, rows.side, columns.side),
        "kl": (kernels.kl, rows.side, columns.side),
    }
    kernel, own, other = finish[distance]
    kernel(dot, out, rows.frames, columns.frames, own, other)
