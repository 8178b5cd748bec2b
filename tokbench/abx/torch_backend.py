"""The engine on CUDA: lattices by matrix products, warping vectorised over pairs, counts on the CPU.

Frame distances agree with the CPU's to float32's rounding; what follows the inner products is float64, as there.
The code runs on any torch device, which is how it is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokbench.abx import kernels
from tokbench.abx.plan import Group, Plan
from tokbench.abx.pool import Pool
from tokbench.abx.representation import Metricised, prepare, store_frames
from tokbench.errors import DatasetError, MissingBackend

if TYPE_CHECKING:
    import torch

__all__ = ["run_groups"]

F32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

TILE_FRAMES = 8192
"""Frames on each side of a lattice: 512 MiB."""
PAIR_CELLS = 1 << 27
"""Cells of padded windows warped at once."""


def run_groups(
    plan: Plan, pool: Pool, distance: str, codebook: F32 | None, device: str
) -> Iterator[tuple[Int, npt.NDArray[np.float64], int]]:
    """As the CPU's scheduler: keys, errors and triplets of every group, in the order of the plan.

    Raises:
        DatasetError: the distances of one group do not fit into 8 GiB.
        MissingBackend: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingBackend("torch", extra="mini", needed_by=f"the ABX engine on {device}") from None
    from tokbench.abx.scheduler import cell_errors

    sizes = np.diff(plan.starts)
    frames = pool.bounds[plan.starts[1:]] - pool.bounds[plan.starts[:-1]]
    first = 0
    while first < len(sizes):
        last, held = first + 1, int(frames[first])
        while last < len(sizes) and held + int(frames[last]) <= TILE_FRAMES:
            held += int(frames[last])
            last += 1
        if 8 * int(sizes[first]) ** 2 > 1 << 33:
            raise DatasetError(f"a context of {sizes[first]} items is too large for {device}; use --device cpu")
        groups = [plan.group(index) for index in range(first, last)]
        offsets = plan.starts[first : last + 1] - plan.starts[first]
        with torch.inference_mode():
            matrices = _distances(pool, distance, codebook, device, groups, offsets, int(plan.starts[first]))
        for group, matrix in zip(groups, matrices, strict=True):
            counts = np.zeros((len(group.phone), len(group.phone)), np.int64)
            kernels.cells(matrix, 0, 0, len(matrix), group.class_of, group.bounds, group.same, group.blocks, counts, 0)
            yield cell_errors(plan, group, counts, 0, len(group.phone))
        first = last


def _distances(
    pool: Pool,
    distance: str,
    codebook: F32 | None,
    device: str,
    groups: list[Group],
    offsets: Int,
    item0: int,
) -> list[Float]:
    """Distance matrices `[n, n]` of neighbouring groups."""
    bounds = pool.bounds[item0 : item0 + int(offsets[-1]) + 1]
    matrices = [np.zeros((len(g.class_of), len(g.class_of))) for g in groups]
    i, j, group_of = _pairs(groups, offsets)
    for r0, r1 in _spans(bounds):
        rows = _to(_ready(pool, distance, codebook, item0 + r0, item0 + r1), device)
        for c0, c1 in _spans(bounds):
            chosen = np.flatnonzero((i >= r0) & (i < r1) & (j >= c0) & (j < c1))
            if not len(chosen):
                continue
            columns = _to(_ready(pool, distance, codebook, item0 + c0, item0 + c1), device)
            square = _lattice(rows, columns, distance)
            a, b = i[chosen], j[chosen]
            windows = [
                bounds[a] - bounds[r0],
                bounds[a + 1] - bounds[a],
                bounds[b] - bounds[c0],
                bounds[b + 1] - bounds[b],
            ]
            forth, back = _warp_all(square, *windows)
            for number in np.unique(group_of[chosen]):
                own = group_of[chosen] == number
                x, y = a[own] - offsets[number], b[own] - offsets[number]
                matrices[number][x, y] = forth[own]
                matrices[number][y, x] = back[own]
    return matrices


def _pairs(groups: list[Group], offsets: Int) -> tuple[Int, Int, Int]:
    """Items i < j of every pair that a triplet compares, and the number of their group."""
    rows, columns, owners = [], [], []
    for number, group in enumerate(groups):
        ci, cj = np.triu_indices(len(group.phone))
        to_j, to_i = group.same[ci, group.speaker[cj]] >= 0, group.same[cj, group.speaker[ci]] >= 0
        needed = np.zeros((len(group.phone), len(group.phone)), np.bool_)
        needed[ci, cj] = to_j | to_i
        needed |= needed.T
        x, y = np.triu_indices(len(group.class_of), 1)
        keep = needed[group.class_of[x], group.class_of[y]]
        rows.append(x[keep] + offsets[number])
        columns.append(y[keep] + offsets[number])
        owners.append(np.full(int(keep.sum()), number, np.int64))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(owners)


def _spans(bounds: Int) -> list[tuple[int, int]]:
    from tokbench.abx.scheduler import spans

    return spans(bounds, 0, len(bounds) - 1, TILE_FRAMES)


def _ready(pool: Pool, distance: str, codebook: F32 | None, first: int, last: int) -> Metricised:
    kept = pool.read(first, last)
    if codebook is None:
        return prepare(kept, distance, pool.centre)
    return prepare(store_frames(codebook[kept[:, 0].astype(np.int64)], distance, "codebook"), distance, None)


def _to(ready: Metricised, device: str) -> dict[str, torch.Tensor]:
    import torch

    return {
        name: torch.from_numpy(np.ascontiguousarray(getattr(ready, name))).to(device)
        for name in ("frames", "null", "side")
    }


def _lattice(rows: dict[str, torch.Tensor], columns: dict[str, torch.Tensor], distance: str) -> torch.Tensor:
    """Frame distances, as `representation.lattice`; near rows are subtracted as there."""
    import torch

    left, right = rows["frames"], columns["frames"]
    if distance == "identical":
        return (left != right.T).float()
    half = left.shape[1] // 2
    if distance == "kl":
        dot = left[:, :half] @ right[:, half:].T + left[:, half:] @ right[:, :half].T
    else:
        dot = left @ right.T
    if distance == "angular":
        square = dot.double().clamp_(-1, 1).acos_().div_(math.pi)
        near = (dot > 0.9999).nonzero()
        for part in _portions(near):
            chord = (left[part[0]] - right[part[1]]).norm(dim=1).double()
            square[part] = 2 * torch.asin((chord / 2).clamp(max=1)) / math.pi
        square[rows["null"]] = 1.0
        square[:, columns["null"]] = 1.0
        square[rows["null"].unsqueeze(1) & columns["null"].unsqueeze(0)] = 0.0
        return square
    both = rows["side"].unsqueeze(1) + columns["side"].unsqueeze(0)
    if distance == "kl":
        value = both - dot
        near = (value < 1e-2).nonzero()
        for part in _portions(near):
            p, q = left[part[0]], right[part[1]]
            value[part] = ((p[:, :half] - q[:, :half]) * (p[:, half:] - q[:, half:])).sum(1)
        return 0.5 * value.clamp(min=0).double()
    value = both - 2 * dot
    near = (value < 0.02 * both).nonzero()
    for part in _portions(near):
        value[part] = (left[part[0]] - right[part[1]]).square().sum(1)
    return value.clamp(min=0).double().sqrt()


def _portions(places: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows and columns of places `[n, 2]`, a bounded number at a time."""
    for start in range(0, len(places), 1 << 18):
        yield places[start : start + (1 << 18), 0], places[start : start + (1 << 18), 1]


def _warp_all(square: torch.Tensor, start_i: Int, n: Int, start_j: Int, m: Int) -> tuple[Float, Float]:
    """Mean cost along the best path of windows of a lattice, and that of their mirror images, float64 `[pairs]`."""
    forth, back = np.empty(len(n)), np.empty(len(n))
    order = np.argsort(np.maximum(n, m), kind="stable")
    first = 0
    while first < len(order):
        # Neighbours in the order are about as long, so that little is padded.
        widest = int(np.maximum(n, m)[order[min(len(order), first + (PAIR_CELLS >> 10)) - 1]])
        last = min(len(order), first + max(1, min(PAIR_CELLS >> 10, PAIR_CELLS // widest**2)))
        part = order[first:last]
        forth[part], back[part] = _warp(square, start_i[part], n[part], start_j[part], m[part])
        first = last
    return forth, back


def _warp(square: torch.Tensor, start_i: Int, n: Int, start_j: Int, m: Int) -> tuple[Float, Float]:
    """Dynamic programming over the cells of the longest window, all pairs at once.

    Of equally good predecessors the diagonal one is taken, then the left one, then the upper one; in the mirror image
    left and upper change places, so both path lengths come from one pass.
    """
    import torch

    device = square.device
    si, sn, sj, sm = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (start_i, n, start_j, m))
    high, wide = int(n.max()), int(m.max())
    infinite = torch.full((len(n),), math.inf, dtype=torch.float64, device=device)
    zero = torch.zeros(len(n), device=device)
    cost = [infinite] * wide
    steps, mirrored = [zero] * wide, [zero] * wide
    found = [torch.empty(len(n), dtype=torch.float64, device=device) for _ in range(2)]
    for i in range(high):
        row = si + torch.clamp(sn - 1, max=i)
        diagonal, diagonal_steps, diagonal_mirrored = infinite, zero, zero
        left, left_steps, left_mirrored = infinite, zero, zero
        for j in range(wide):
            here = square[row, sj + torch.clamp(sm - 1, max=j)].double()
            up, up_steps, up_mirrored = cost[j], steps[j], mirrored[j]
            if i == 0 and j == 0:
                value, count, other = here, zero + 1, zero + 1
            else:
                best = torch.minimum(left, up)
                straight = diagonal <= best
                value = here + torch.where(straight, diagonal, best)
                count = torch.where(straight, diagonal_steps, torch.where(left <= up, left_steps, up_steps)) + 1
                other = (
                    torch.where(straight, diagonal_mirrored, torch.where(up <= left, up_mirrored, left_mirrored)) + 1
                )
            diagonal, diagonal_steps, diagonal_mirrored = up, up_steps, up_mirrored
            cost[j], steps[j], mirrored[j] = value, count, other
            left, left_steps, left_mirrored = value, count, other
            end = (sn == i + 1) & (sm == j + 1)
            found[0] = torch.where(end, value / count, found[0])
            found[1] = torch.where(end, value / other, found[1])
    return found[0].cpu().numpy(), found[1].cpu().numpy()
