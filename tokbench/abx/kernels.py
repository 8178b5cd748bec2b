"""Loops compiled by numba: dynamic time warping of all pairs, distances of frames, triplet counts.

Every function releases the GIL and works on a range given by its caller, who runs several in threads. Inner products
are float32, and all that follows is float64: distances rounded to 24 bits, and sums of them, decide near ties wrongly.
"""

# Compiled functions take their types from the arrays they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["angular", "cells", "euclidean", "group_pairs", "kl", "tile_pairs"]

_exact: Any = njit(nogil=True, cache=True)
# Reassociation lets reductions use vectors; NaN and infinity keep their meaning.
_fast: Any = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
_NEAR = np.float32(0.9999)
_NEAR_ANGLE = 0.0045  # arccos(_NEAR) / pi
_LINEAR = 24


@_fast
def _gap(left, right, i, j):
    """Squared Euclidean distance of two rows."""
    total = np.float32(0.0)
    for k in range(left.shape[1]):
        d = left[i, k] - right[j, k]
        total += d * d
    return total


@_fast
def angular(dot, out, left, right, null_left, null_right):
    """Angles / pi of unit rows from their inner products.

    `dot` float32 and `out` float64 `[n, m]` (or float32, then possibly `dot` itself); nearly equal rows are measured by
    their chord, which is exact where arccos is not, so that equal frames are at distance 0. A null row is at distance 1
    from every other, and 0 from a null row.
    An angle between 60 and 120 degrees is a right angle less an arcsine, any other comes from the arcsine of its half.
    The polynomial is a least-maximum fit of arcsin(s) / (pi s) in s^2 up to 1/4 (error below 1e-10).
    """
    for i in range(dot.shape[0]):
        row, angle = dot[i], out[i]
        near = False
        for j in range(row.shape[0]):
            near |= row[j] > _NEAR
            c = np.float64(row[j])
            x = min(abs(c), 1.0)
            wide = x < 0.5
            z = x * x if wide else (1.0 - x) * 0.5
            p = 0.0120754006
            p = p * z + 0.0044886843
            p = p * z + 0.0101577395
            p = p * z + 0.0141653307
            p = p * z + 0.0238751903
            p = p * z + 0.0530516162
            p = p * z + 0.3183098863
            # Twice the arcsine of the half-angle's sine, over pi.
            sharp = 2.0 * np.sqrt(z) * p
            angle[j] = 0.5 - c * p if wide else (sharp if c >= 0 else 1.0 - sharp)
        if near:
            for j in range(row.shape[0]):
                if angle[j] < _NEAR_ANGLE:
                    chord = np.sqrt(np.float64(_gap(left, right, i, j)))
                    angle[j] = 2.0 * np.arcsin(min(chord * 0.5, 1.0)) / np.pi
        if null_left[i]:
            for j in range(row.shape[0]):
                angle[j] = 0.0 if null_right[j] else 1.0
        elif null_right.size:
            for j in range(row.shape[0]):
                if null_right[j]:
                    angle[j] = 1.0


@_fast
def euclidean(dot, out, left, right, square_left, square_right):
    """Euclidean distances from inner products, into `out` as `angular`; close rows are subtracted, not cancelled."""
    for i in range(dot.shape[0]):
        row = dot[i]
        s = square_left[i]
        for j in range(row.shape[0]):
            both = s + square_right[j]
            d = both - np.float32(2.0) * row[j]
            if d < np.float32(0.02) * both:
                d = _gap(left, right, i, j)
            out[i, j] = np.sqrt(np.float64(max(d, np.float32(0.0))))


@_fast
def kl(dot, out, left, right, self_left, self_right):
    """(KL(p, q) + KL(q, p)) / 2 from `p . log q + log p . q`, into `out` as `angular`.

    `left` and `right` hold `[p, log p]`; `self` is `p . log p` of each row.
    """
    half = left.shape[1] // 2
    for i in range(dot.shape[0]):
        row = dot[i]
        for j in range(row.shape[0]):
            d = self_left[i] + self_right[j] - row[j]
            if d < np.float32(1e-2):
                d = np.float32(0.0)
                for k in range(half):
                    d += (left[i, k] - right[j, k]) * (left[i, half + k] - right[j, half + k])
            out[i, j] = np.float32(0.5) * max(d, np.float32(0.0))


@_exact
def _warp(lattice, top, left_edge, n, m, cost, steps):
    """Mean cost along the best path through an `n x m` window, and whether its mirror image could differ.

    Of equally good predecessors the diagonal one is taken, then the one to the left, then the one above.
    """
    total = 0.0
    for j in range(m):
        total += lattice[top, left_edge + j]
        cost[j] = total
        steps[j] = j + 1
    tie = False
    for i in range(1, n):
        row = lattice[top + i]
        diagonal, diagonal_steps = cost[0], steps[0]
        left = cost[0] + row[left_edge]
        left_steps = steps[0] + 1
        cost[0], steps[0] = left, left_steps
        for j in range(1, m):
            up, up_steps = cost[j], steps[j]
            tie |= (left == up) & (left < diagonal)
            side = left <= up
            best = left if side else up
            count = left_steps if side else up_steps
            straight = diagonal <= best
            best = diagonal if straight else best
            count = diagonal_steps if straight else count
            diagonal, diagonal_steps = up, up_steps
            left = row[left_edge + j] + best
            left_steps = count + 1
            cost[j], steps[j] = left, left_steps
    return cost[m - 1] / steps[m - 1], tie


@_exact
def _warp_mirrored(lattice, top, left_edge, n, m, cost, steps):
    """`_warp` of the transposed window."""
    total = 0.0
    for i in range(n):
        total += lattice[top + i, left_edge]
        cost[i] = total
        steps[i] = i + 1
    for j in range(1, m):
        diagonal, diagonal_steps = cost[0], steps[0]
        left = cost[0] + lattice[top, left_edge + j]
        left_steps = steps[0] + 1
        cost[0], steps[0] = left, left_steps
        for i in range(1, n):
            up, up_steps = cost[i], steps[i]
            side = left <= up
            best = left if side else up
            count = left_steps if side else up_steps
            straight = diagonal <= best
            best = diagonal if straight else best
            count = diagonal_steps if straight else count
            diagonal, diagonal_steps = up, up_steps
            left = lattice[top + i, left_edge + j] + best
            left_steps = count + 1
            cost[i], steps[i] = left, left_steps
    return cost[n - 1] / steps[n - 1]


@_exact
def _needed(ci, cj, speaker, same):
    """Whether any triplet compares an item of class `ci` with one of class `cj`; see `plan.Group.same`."""
    return same[ci, speaker[cj]] >= 0 or same[cj, speaker[ci]] >= 0


@_exact
def group_pairs(lattice, start, stop, class_of, speaker, same, out):
    """Distances of all pairs of a group whose frame distances are `lattice [f, f]`; fills float64 `out [n, n]`."""
    n = len(start)
    longest = 0
    for i in range(n):
        longest = max(longest, stop[i] - start[i])
    cost, steps = np.empty(longest, np.float64), np.empty(longest, np.int32)
    for i in range(n):
        out[i, i] = 0.0
        for j in range(i + 1, n):
            if not _needed(class_of[i], class_of[j], speaker, same):
                continue
            ni, nj = stop[i] - start[i], stop[j] - start[j]
            d, tie = _warp(lattice, start[i], start[j], ni, nj, cost, steps)
            out[i, j] = d
            out[j, i] = _warp_mirrored(lattice, start[i], start[j], ni, nj, cost, steps) if tie else d


@_exact
def tile_pairs(lattice, start_i, stop_i, start_j, stop_j, i0, j0, mirror, class_of, speaker, same, out, row0):
    """Distances of the items `i0..` with the items `j0..` of a large group, from the lattice of a tile.

    `start` and `stop` are rows and columns of the lattice; float64 `out[i - row0, j]` is filled, and with `mirror` the
    pairs with j > i also at `out[j, i]`, and the others are left alone.
    """
    longest = 0
    for a in range(len(start_i)):
        longest = max(longest, stop_i[a] - start_i[a])
    for b in range(len(start_j)):
        longest = max(longest, stop_j[b] - start_j[b])
    cost, steps = np.empty(longest, np.float64), np.empty(longest, np.int32)
    for a in range(len(start_i)):
        i = i0 + a
        for b in range(len(start_j)):
            j = j0 + b
            if (mirror and j <= i) or not _needed(class_of[i], class_of[j], speaker, same):
                continue
            ni, nj = stop_i[a] - start_i[a], stop_j[b] - start_j[b]
            d, tie = _warp(lattice, start_i[a], start_j[b], ni, nj, cost, steps)
            out[i - row0, j] = d
            if mirror:
                out[j, i] = _warp_mirrored(lattice, start_i[a], start_j[b], ni, nj, cost, steps) if tie else d


@_exact
def cells(distance, row0, x0, x1, class_of, bounds, same, blocks, counts, class0):
    """Count triplets of the X items `x0..x1`: `counts[class of X - class0, class of B]` gets 2 a win and 1 a tie.

    Args:
        distance: float64, row `x - row0` holds the distances of item x to all items of the group.
        class_of: class of each item; items of a class are neighbours, and classes of a speaker are neighbours.
        bounds: first item of each class, and the number of items.
        same: `[classes, speakers]`, the class that A comes from for an X of that class, or -1.
        blocks: first class of each speaker, and the number of classes.
        counts: int64, added to.
        class0: the class of the first row of `counts`.
    """
    widest = 0
    for c in range(len(bounds) - 1):
        widest = max(widest, bounds[c + 1] - bounds[c])
    scratch = np.empty(widest, np.float64)
    for x in range(x0, x1):
        own = class_of[x]
        row = distance[x - row0]
        for s in range(same.shape[1]):
            a_class = same[own, s]
            if a_class < 0:
                continue
            na = 0
            for a in range(bounds[a_class], bounds[a_class + 1]):
                if a != x:
                    scratch[na] = row[a]
                    na += 1
            ordered = na > _LINEAR
            if ordered:
                scratch[:na] = np.sort(scratch[:na])
            for b_class in range(blocks[s], blocks[s + 1]):
                if b_class == a_class:
                    continue
                won = 0
                for b in range(bounds[b_class], bounds[b_class + 1]):
                    d = row[b]
                    if ordered:
                        won += np.searchsorted(scratch[:na], d) + np.searchsorted(scratch[:na], d, side="right")
                    else:
                        for k in range(na):
                            won += 2 * (scratch[k] < d) + (scratch[k] == d)
                counts[own - class0, b_class] += won
