"""Runs a plan: small groups in batches, large groups in tiles, both over threads; memory is bounded by the tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tokbench.abx import kernels
from tokbench.abx.plan import Group, Plan
from tokbench.abx.pool import Pool
from tokbench.abx.representation import Metricised, lattice, prepare
from tokbench.errors import DatasetError

__all__ = ["cell_errors", "run_plan", "spans"]

F32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

SMALL_FRAMES = 1024
"""A group of at most this many frames is one lattice (12 MiB)."""
BATCH_FRAMES = 8192
"""Frames of small groups handled by one call (24 MiB at 768 dimensions)."""
TILE_ROWS, TILE_COLUMNS = 512, 1024
"""Frames of a tile of a large group: 6 MiB, which stays in the cache between the product and the warping."""
MATRIX_BYTES = 1 << 31
"""The distances of a large group are held at once up to this size; beyond it, by rows, every pair twice."""
ROW_BYTES = 1 << 28
MAX_TABLE = 1 << 14
"""Distinct codes of a group up to which their distances are held as one table."""


@dataclass
class _Tally:
    """Sums of cell errors and numbers of cells by (speaker, A, B), and triplets."""

    sums: Float
    cells: Int
    triplets: int = 0

    def add(self, keys: Int, errors: Float, triplets: int) -> None:
        np.add.at(self.sums, keys, errors)
        np.add.at(self.cells, keys, 1)
        self.triplets += triplets


_Part = tuple[Int, Float, int]


def run_plan(
    plan: Plan,
    pool: Pool,
    distance: str,
    *,
    codebook: F32 | None,
    device: str,
    threads: int,
) -> tuple[Float, Int, int]:
    """Sums of cell errors and numbers of cells, `[speakers * phones * phones]`, and triplets compared.

    Results come back in the order of the plan, so sums do not depend on the threads.
    """
    size = len(plan.items.speaker.names) * len(plan.items.phone.names) ** 2
    tally = _Tally(np.zeros(size), np.zeros(size, np.int64))
    frames = pool.bounds[plan.starts[1:]] - pool.bounds[plan.starts[:-1]]
    if codebook is not None:
        _check_codes(pool, codebook)
    if device != "cpu":
        from tokbench.abx.torch_backend import run_groups

        for part in run_groups(plan, pool, distance, codebook, device):
            tally.add(*part)
        return tally.sums, tally.cells, tally.triplets
    with threadpool_limits(1), ThreadPoolExecutor(threads) as workers:
        small = frames <= SMALL_FRAMES
        tasks = (_batch_task(plan, pool, distance, codebook, batch) for batch in _batches(frames, small))
        for part in _in_order(workers, tasks, 2 * threads):
            tally.add(*part)
        for index in np.flatnonzero(~small):
            for part in _large(plan, pool, distance, codebook, int(index), workers, threads):
                tally.add(*part)
    return tally.sums, tally.cells, tally.triplets


def _check_codes(pool: Pool, codebook: F32) -> None:
    items = len(pool.bounds) - 1
    for first in range(0, items, 4096):
        codes = pool.read(first, min(items, first + 4096))
        if codes.size and (codes.min() < 0 or codes.max() >= len(codebook) or (codes != np.floor(codes)).any()):
            raise DatasetError(f"a code is not in the codebook, whose codes are 0..{len(codebook) - 1}")


def _in_order(workers: ThreadPoolExecutor, tasks: Iterator[Callable[[], _Part]], ahead: int) -> Iterator[_Part]:
    """Results in the order of the tasks, with a bounded number under way."""
    waiting: list[Future[_Part]] = []
    for task in tasks:
        waiting.append(workers.submit(task))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _batches(frames: Int, small: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring small groups, first and last + 1."""
    first, held = None, 0
    for index in range(len(frames)):
        if first is not None and (not small[index] or held + frames[index] > BATCH_FRAMES):
            yield first, index
            first, held = None, 0
        if small[index]:
            first = index if first is None else first
            held += int(frames[index])
    if first is not None:
        yield first, len(frames)


def _batch_task(
    plan: Plan, pool: Pool, distance: str, codebook: F32 | None, batch: tuple[int, int]
) -> Callable[[], _Part]:
    def task() -> _Part:
        first, last = batch
        item0 = int(plan.starts[first])
        bounds = pool.bounds[item0 : plan.starts[last] + 1] - pool.bounds[item0]
        kept = pool.read(item0, int(plan.starts[last]))
        whole = prepare(kept, distance, pool.centre) if codebook is None else None
        parts = []
        for index in range(first, last):
            a, b = int(plan.starts[index]) - item0, int(plan.starts[index + 1]) - item0
            edge = bounds[a : b + 1]
            low, high = int(edge[0]), int(edge[-1])
            group = plan.group(index)
            # Distances of a codebook's vectors stay float32: a table of them must fit into memory.
            square = np.empty((high - low, high - low), np.float64 if codebook is None else np.float32)
            if whole is not None:
                rows = part_of(whole, low, high)
                lattice(rows, rows, distance, square)
            else:
                assert codebook is not None
                _table_lattice(kept[low:high, 0].astype(np.int64), codebook, distance, square)
            matrix = np.zeros((b - a, b - a))
            starts, stops = edge[:-1] - low, edge[1:] - low
            kernels.group_pairs(square, starts, stops, group.class_of, group.speaker, group.same, matrix)
            counts = np.zeros((len(group.phone), len(group.phone)), np.int64)
            kernels.cells(matrix, 0, 0, b - a, group.class_of, group.bounds, group.same, group.blocks, counts, 0)
            parts.append(cell_errors(plan, group, counts, 0, len(group.phone)))
        return (
            np.concatenate([keys for keys, _, _ in parts]),
            np.concatenate([errors for _, errors, _ in parts]),
            sum(n for _, _, n in parts),
        )

    return task


def part_of(whole: Metricised, low: int, high: int) -> Metricised:
    """Some rows of prepared frames."""
    return Metricised(
        whole.frames[low:high],
        whole.null[low:high],
        whole.side[low:high],
    )


def _table_lattice(codes: Int, codebook: F32, distance: str, out: npt.NDArray[np.floating]) -> None:
    """Distances of codes by their vectors: those of distinct codes once, so that equal codes give equal distances."""
    used, local = np.unique(codes, return_inverse=True)
    np.take(code_table(codebook, used, distance)[:, local], local, axis=0, out=out)


def code_table(codebook: F32, used: Int, distance: str) -> F32:
    """Distances of code vectors `[n, n]`, symmetric, exactly 0 on the diagonal."""
    from tokbench.abx.representation import store_frames

    vectors = prepare(store_frames(codebook[used], distance, "codebook"), distance, None)
    table = np.empty((len(used), len(used)), np.float32)
    lattice(vectors, vectors, distance, table)
    upper = np.triu(table, 1)
    return np.asarray(upper + upper.T, np.float32)


def cell_errors(plan: Plan, group: Group, counts: Int, first: int, last: int) -> _Part:
    """Keys (speaker, A, B) and errors of the cells of the X classes `first..last`, and their triplets."""
    triplets = group.triplets(plan.mode, first, last)
    x, b = np.nonzero(triplets)
    n = triplets[x, b]
    errors = 1.0 - counts[x, b] / (2.0 * n)
    phones = len(plan.items.phone.names)
    speaker = group.speakers[group.speaker[b]]
    keys = (speaker * phones + group.phone[first + x]) * phones + group.phone[b]
    return keys, errors, int(n.sum())


def _large(
    plan: Plan,
    pool: Pool,
    distance: str,
    codebook: F32 | None,
    index: int,
    workers: ThreadPoolExecutor,
    threads: int,
) -> Iterator[_Part]:
    """One group of many frames: tiles of its lattice into rows of its distances, then cells of those rows."""
    item0, item1 = int(plan.starts[index]), int(plan.starts[index + 1])
    n = item1 - item0
    group = plan.group(index)
    classes = len(group.phone)
    bounds = pool.bounds[item0 : item1 + 1]
    whole = 8 * n * n <= MATRIX_BYTES
    height = n if whole else max(1, ROW_BYTES // (8 * n + 8 * classes))
    table: tuple[Int, F32] | None = None
    if codebook is not None:
        used = np.unique(pool.read(item0, item1)[:, 0]).astype(np.int64)
        if len(used) <= MAX_TABLE:
            table = used, code_table(codebook, used, distance)

    def ready(first: int, last: int) -> Metricised:
        kept = pool.read(item0 + first, item0 + last)
        if codebook is None:
            return prepare(kept, distance, pool.centre)
        from tokbench.abx.representation import store_frames

        return prepare(store_frames(codebook[kept[:, 0].astype(np.int64)], distance, "codebook"), distance, None)

    def tiles(out: Float, row0: int, i: tuple[int, int]) -> None:
        """All tiles of a strip of rows."""
        start_i, stop_i = bounds[i[0] : i[1]] - bounds[i[0]], bounds[i[0] + 1 : i[1] + 1] - bounds[i[0]]
        rows = ready(*i) if table is None else None
        for j in spans(bounds, i[0] if whole else 0, n, TILE_COLUMNS):
            start_j, stop_j = bounds[j[0] : j[1]] - bounds[j[0]], bounds[j[0] + 1 : j[1] + 1] - bounds[j[0]]
            if table is None:
                assert rows is not None
                square: npt.NDArray[np.floating] = np.empty((int(stop_i[-1]), int(stop_j[-1])))
                lattice(rows, ready(*j), distance, square)
            else:
                codes_i = np.searchsorted(table[0], pool.read(item0 + i[0], item0 + i[1])[:, 0])
                codes_j = np.searchsorted(table[0], pool.read(item0 + j[0], item0 + j[1])[:, 0])
                square = table[1][codes_i[:, None], codes_j[None, :]]
            kernels.tile_pairs(
                square, start_i, stop_i, start_j, stop_j, i[0], j[0], whole,
                group.class_of, group.speaker, group.same, out, row0,
            )  # fmt: skip

    carried: Int = np.zeros((0, classes), np.int64)
    carried_from = 0
    for row0 in range(0, n, height):
        row1 = min(n, row0 + height)
        out = np.zeros((row1 - row0, n))
        for strip in [workers.submit(tiles, out, row0, span) for span in spans(bounds, row0, row1, TILE_ROWS)]:
            strip.result()
        c0, c1 = int(group.class_of[row0]), int(group.class_of[row1 - 1]) + 1
        counts = np.zeros((c1 - c0, classes), np.int64)
        counts[: len(carried)] += carried[: len(counts)] if carried_from == c0 else 0
        # Threads take whole classes, so that no two add to one row.
        edges = np.unique(np.clip(group.bounds[_even(group.bounds, c0, c1, 4 * threads)], row0, row1))
        count = partial(
            _count, out, row0, group.class_of, group.bounds, group.same, group.blocks, counts=counts, class0=c0
        )
        runs = [workers.submit(count, int(x0), int(x1)) for x0, x1 in pairwise(edges)]
        for run in runs:
            run.result()
        done = c1 if group.bounds[c1] <= row1 else c1 - 1
        yield cell_errors(plan, group, counts[: done - c0], c0, done)
        carried, carried_from = counts[done - c0 :], done


def _count(
    distances: Float,
    row0: int,
    class_of: Int,
    bounds: Int,
    same: Int,
    blocks: Int,
    x0: int,
    x1: int,
    *,
    counts: Int,
    class0: int,
) -> None:
    kernels.cells(distances, row0, x0, x1, class_of, bounds, same, blocks, counts, class0)


def _even(bounds: Int, c0: int, c1: int, parts: int) -> Int:
    """Classes `c0..c1` in about equal numbers of items: the edges of the parts."""
    targets = np.linspace(bounds[c0], bounds[c1], parts + 1)
    edges = np.searchsorted(bounds[c0 : c1 + 1], targets) + c0
    return np.unique(np.clip(edges, c0, c1))


def spans(bounds: Int, first: int, last: int, frames: int) -> list[tuple[int, int]]:
    """The items `first..last` in runs of about `frames` frames, at least one item each."""
    spans = []
    while first < last:
        end = int(np.searchsorted(bounds, bounds[first] + frames, side="right")) - 1
        end = min(last, max(first + 1, end))
        spans.append((first, end))
        first = end
    return spans
