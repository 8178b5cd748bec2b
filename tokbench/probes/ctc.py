"""Connectionist temporal classification: which texts fit into how many frames, and the best text of log-probabilities.

Source: Graves et al., "Connectionist Temporal Classification", ICML 2006; prefix beam search after Hannun et al.,
"First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014, algorithm 1,
without a language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["beam_search", "frames_needed", "greedy"]


def frames_needed(labels: Sequence[int]) -> int:
    """Fewest frames that can spell the labels: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def greedy(log_probs: npt.NDArray[np.float32]) -> list[int]:
    """Labels of the likeliest path.

    Args:
        log_probs: float32 `[T, units + 1]`, the blank last.
    """
    path = log_probs.argmax(axis=1)
    blank = log_probs.shape[1] - 1
    changed = np.ones(len(path), np.bool_)
    changed[1:] = path[1:] != path[:-1]
    return [int(i) for i in path[changed & (path != blank)]]


def beam_search(log_probs: npt.NDArray[np.float32], *, width: int, cutoff: float = 12.0) -> tuple[list[int], float]:
    """The likeliest labels, summed over their paths, and the natural log of that sum.

    Args:
        log_probs: float32 `[T, units + 1]`, the blank last.
        width: prefixes that are kept a frame.
        cutoff: a unit that is by so many nats less likely than the frame's best begins no new prefix.
    """
    if not len(log_probs):
        return [], 0.0
    labels, score = _compiled()(np.ascontiguousarray(log_probs, np.float64), width, cutoff)
    return [int(i) for i in labels], float(score)


def _search(log_probs: Any, width: int, cutoff: float) -> Any:  # compiled by numba, so plain loops and arrays
    frames, symbols = log_probs.shape
    blank = symbols - 1
    parents = np.empty(frames * width + 1, np.int64)
    labels = np.empty(frames * width + 1, np.int64)
    parents[0], labels[0], nodes = -1, -1, 1
    # A beam: its node, a hash of its labels, the hash without the last, the last, and both probabilities.
    node = np.zeros(width, np.int64)
    key = np.zeros(width, np.uint64)
    above = np.zeros(width, np.uint64)
    last = np.full(width, -1, np.int64)
    with_blank = np.full(width, -np.inf)
    without = np.full(width, -np.inf)
    key[0], with_blank[0], count = np.uint64(1469598103934665603), 0.0, 1
    size = width * (symbols + 1)
    score = np.empty(size)
    source = np.empty(size, np.int64)
    unit = np.empty(size, np.int64)
    stay_blank = np.empty(width)
    stay_without = np.empty(width)
    child = np.full(symbols, -1, np.int64)
    for t in range(frames):
        row = log_probs[t]
        least = row.max() - cutoff
        total = np.logaddexp(with_blank, without)
        for i in range(count):
            stay_blank[i] = total[i] + row[blank]
            stay_without[i] = without[i] + row[last[i]] if last[i] >= 0 else -np.inf
        found = 0
        for i in range(count):
            for j in range(count):
                if last[j] >= 0 and above[j] == key[i]:
                    child[last[j]] = j
            for c in range(symbols - 1):
                gained = (with_blank[i] if c == last[i] else total[i]) + row[c]
                if child[c] >= 0:  # the longer prefix is kept already, and gains what leads from this one to it
                    stay_without[child[c]] = np.logaddexp(stay_without[child[c]], gained)
                    child[c] = -1
                elif row[c] >= least and gained > -np.inf:
                    score[found], source[found], unit[found] = gained, i, c
                    found += 1
        for i in range(count):
            score[found], source[found], unit[found] = np.logaddexp(stay_blank[i], stay_without[i]), i, -1
            found += 1
        order = np.argsort(-score[:found], kind="mergesort")[:width]
        new_node, new_key, new_above, new_last = node.copy(), key.copy(), above.copy(), last.copy()
        new_blank, new_without = np.full(width, -np.inf), np.full(width, -np.inf)
        for k in range(len(order)):
            i, c = source[order[k]], unit[order[k]]
            if c < 0:
                new_node[k], new_key[k], new_above[k], new_last[k] = node[i], key[i], above[i], last[i]
                new_blank[k], new_without[k] = stay_blank[i], stay_without[i]
            else:
                parents[nodes], labels[nodes] = node[i], c
                new_node[k], nodes = nodes, nodes + 1
                new_key[k] = key[i] * np.uint64(1099511628211) + np.uint64(c + 1)
                new_above[k], new_last[k], new_without[k] = key[i], c, score[order[k]]
        node, key, above, last, with_blank, without = new_node, new_key, new_above, new_last, new_blank, new_without
        count = len(order)
    total = np.logaddexp(with_blank, without)
    best = int(np.argmax(total))
    length, at = 0, node[best]
    while parents[at] >= 0:
        length, at = length + 1, parents[at]
    out = np.empty(length, np.int64)
    at = node[best]
    for k in range(length - 1, -1, -1):
        out[k], at = labels[at], parents[at]
    return out, total[best]


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """`_search` as machine code, kept between runs beside the module where that is writable."""
    import numba

    return numba.njit(cache=True)(_search)
