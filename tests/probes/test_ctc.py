"""CTC decoding against every path of tiny cases, written out."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.probes.ctc import beam_search, frames_needed, greedy


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(c for k, c in enumerate(path) if c != blank and (k == 0 or path[k - 1] != c))


def brute_force(log_probs: np.ndarray) -> tuple[tuple[int, ...], float]:
    frames, symbols = log_probs.shape
    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(symbols), repeat=frames):
        sums[collapse(path, symbols - 1)] += float(np.exp(sum(log_probs[t, c] for t, c in enumerate(path))))
    best = max(sums, key=lambda labels: sums[labels])
    return best, float(np.log(sums[best]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 4))
def test_a_wide_beam_finds_what_all_paths_say(seed: int, frames: int, symbols: int) -> None:
    logits = 2 * np.random.default_rng(seed).standard_normal((frames, symbols))
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    labels, score = beam_search(log_probs, width=400, cutoff=np.inf)
    expected, total = brute_force(log_probs)
    assert score == pytest.approx(total, abs=1e-5)
    assert tuple(labels) == expected


def test_a_narrow_beam_still_sums_over_paths_where_greedy_does_not() -> None:
    # Blank is likelier in each frame (0.6, 0.6), but "a" sums to 0.64 over its three paths.
    log_probs = np.log(np.array([[0.4, 0.6], [0.4, 0.6]], np.float32))
    assert greedy(log_probs) == []
    labels, score = beam_search(log_probs, width=2)
    assert labels == [0]
    assert np.exp(score) == pytest.approx(0.64)


def test_repeats_need_a_blank_between_them() -> None:
    sure = np.log(np.array([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98], [0.98, 0.01, 0.01]], np.float32))
    assert greedy(sure) == beam_search(sure, width=4)[0] == [0, 0]
    assert greedy(sure[[0, 0, 2]]) == beam_search(sure[[0, 0, 2]], width=4)[0] == [0]
    assert frames_needed([0, 0]) == 3
    assert frames_needed([0, 1, 0]) == 3
    assert frames_needed([]) == 0


def test_a_long_search_is_sane() -> None:
    rng = np.random.default_rng(5)
    truth = [int(v) for v in rng.integers(20, size=40)]
    rows = []
    for label in truth:
        for symbol in (label, 20):
            row = np.full(21, 0.001)
            row[symbol] = 0.98
            rows.append(row)
    log_probs = np.log(np.array(rows, np.float32))
    assert greedy(log_probs) == truth
    assert beam_search(log_probs, width=8)[0] == truth
    assert beam_search(np.zeros((0, 21), np.float32), width=8) == ([], 0.0)
