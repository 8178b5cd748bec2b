"""The frames of all items in the order of the plan: in memory while they are few, else in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from tokbench.abx.features import FeatureSource
from tokbench.abx.items import SCALE, Items
from tokbench.abx.representation import store_frames
from tokbench.errors import DatasetError

__all__ = ["Pool", "fill_pool"]

F32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Stored frames.

    Attributes:
        bounds: int64 `[items + 1]`, first frame of each item in the order of the plan.
        dim: dimensions of a frame.
        centre: float32 `[D]`, mean of all frames.
    """

    bounds: Int
    dim: int
    centre: F32
    _memory: F32 | None
    _file: IO[bytes] | None

    def read(self, first: int, last: int) -> F32:
        """Frames of the items `first..last`, float32 `[n, D]`."""
        start, stop = int(self.bounds[first]), int(self.bounds[last])
        if self._memory is not None:
            return self._memory[start:stop]
        assert self._file is not None
        width = 4 * self.dim
        frames = np.empty((stop - start, self.dim), np.float32)
        view, done = frames.view(np.uint8).data.cast("B"), 0
        while done < len(view):
            # One call may return less than was asked for.
            got = os.preadv(self._file.fileno(), [view[done:]], start * width + done)
            if got == 0:
                raise OSError("the temporary file of frames ends early")
            done += got
        return frames


@contextmanager
def fill_pool(
    items: Items,
    order: Int,
    start: Int,
    stop: Int,
    source: FeatureSource,
    distance: str,
    *,
    pad: int,
    budget: int,
    threads: int,
) -> Iterator[Pool]:
    """Read every file once, check and slice it, and keep the slices in `order`.

    Args:
        items: all items.
        order: int64, the items to keep, in the order to keep them.
        start, stop: int64 `[items]`, frames of every item.
        source: where frames are.
        distance: decides what is kept of a frame.
        pad: frames by which a file may be too short; its last frame is repeated.
        budget: bytes that may be held in memory.
        threads: files read at a time.

    Raises:
        DatasetError: a recording is missing, an item ends after its recording, a frame is not finite, recordings
            differ in dimension; the message names the row of the item.
    """
    lengths = (stop - start)[order]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    place = np.argsort(items.file.codes[order], kind="stable")
    files = items.file.codes[order][place]
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(files)) + 1, [len(files)]])
    names = [items.file.names[files[c]] for c in cuts[:-1]]
    missing = [
        (name, int(order[place[c]])) for name, c in zip(names, cuts[:-1], strict=True) if name not in source.names()
    ]
    if missing:
        raise DatasetError(
            f"there are no features of '{missing[0][0]}' ({len(missing)} of {len(names)} recordings are missing)",
            where=items.where(missing[0][1]),
            hint=f"They were looked for at {source.where(missing[0][0])}",
        )
    dim = source.load(names[0]).shape[1]
    total = int(bounds[-1])
    with tempfile.TemporaryFile(prefix="tokbench-abx-") as spool:
        memory = np.empty((total, dim), np.float32) if total * dim * 4 <= budget else None

        def take(number: int) -> npt.NDArray[np.float64]:
            name = names[number]
            members = place[cuts[number] : cuts[number + 1]]
            frames = _padded(source.load(name), pad)
            _check(items, order[members], start, stop, frames, dim, pad, source.where(name))
            sums = np.zeros(dim)
            kept = store_frames(frames, distance, source.where(name))
            for position in members:
                item = order[position]
                part = kept[start[item] : stop[item]]
                if distance == "euclidean":
                    sums += part.sum(axis=0, dtype=np.float64)
                if memory is not None:
                    memory[bounds[position] : bounds[position + 1]] = part
                else:
                    _write(spool, np.ascontiguousarray(part), int(bounds[position]) * dim * 4)
            return sums

        with ThreadPoolExecutor(threads) as workers:
            centre = np.sum(list(workers.map(take, range(len(names)))), axis=0) / max(1, total)
        yield Pool(bounds, dim, centre.astype(np.float32), memory, None if memory is not None else spool)


def _write(spool: IO[bytes], part: F32, offset: int) -> None:
    view, done = part.view(np.uint8).data.cast("B"), 0
    while done < len(view):
        done += os.pwrite(spool.fileno(), view[done:], offset + done)


def _padded(frames: npt.NDArray[np.generic], pad: int) -> npt.NDArray[np.generic]:
    return np.concatenate([frames, np.repeat(frames[-1:], pad, axis=0)]) if pad and len(frames) else frames


def _check(
    items: Items, members: Int, start: Int, stop: Int, frames: npt.NDArray[np.generic], dim: int, pad: int, where: str
) -> None:
    if frames.shape[1] != dim:
        raise DatasetError(f"has {frames.shape[1]} dimensions, the first recording has {dim}", where=where)
    beyond = members[(stop[members] > len(frames)) | (start[members] < 0)]
    if len(beyond):
        item = int(beyond[0])
        raise DatasetError(
            f"{items.describe(item)} needs frames {start[item]}..{stop[item] - 1}, but {where} has only "
            f"{len(frames) - pad} frames",
            where=items.where(item),
            hint=f"Check the frequency and the alignment (the item ends at {items.offset[item] / SCALE:g} s)",
        )
    # A sum is finite only if its terms are, but may overflow where they are large: then look at each.
    with np.errstate(all="ignore"):
        total = frames.sum(dtype=np.float64)
    if not np.isfinite(total):
        bad = np.flatnonzero(~np.isfinite(frames).all(axis=1))
        for item in members:
            inside = bad[(bad >= start[item]) & (bad < stop[item])]
            if len(inside):
                raise DatasetError(
                    f"{items.describe(int(item))} holds NaN or infinite features (frame {inside[0]} of {where})",
                    where=items.where(int(item)),
                )
