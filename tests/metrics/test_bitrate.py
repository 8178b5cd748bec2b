"""Entropies and code lengths of sources whose entropy is known."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.metrics.bitrate import (
    dedup_bits,
    dequantise,
    gaussian_kl,
    held_out_bits,
    level_digits,
    nominal_bps,
    previous,
    quantise,
    runs,
    stable_order,
    unigram_bits,
)
from tokbench.types import StreamSpec

codes = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(lambda v: np.array(v, np.int64))


def books(count: int, rate: Fraction, vocab: int) -> list[StreamSpec]:
    return [StreamSpec(f"q{i}", "codes", rate, vocab) for i in range(count)]


def markov(rng: np.random.Generator, transition: np.ndarray, length: int) -> np.ndarray:
    state, out = 0, np.empty(length, np.int64)
    cumulative = transition.cumsum(axis=1)
    for t, u in enumerate(rng.random(length)):
        state = min(int(np.searchsorted(cumulative[state], u)), len(transition) - 1)
        out[t] = state
    return out


def entropy_rate(transition: np.ndarray) -> float:
    values, vectors = np.linalg.eig(transition.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    return float(-np.sum(stationary[:, None] * transition * np.log2(transition)))


@pytest.mark.parametrize(
    ("specs", "quoted"),
    [
        (books(4, Fraction(22050, 1764), 4032), 598.9),  # nanocodec at 0.6 kbps
        (books(1, Fraction(25), 6561), 317.0),  # S3 v2
        (books(8, Fraction(25, 2), 2048), 1100.0),  # Mimi
        (
            [StreamSpec(f"c{i}", "codes", Fraction(24000, hop), 4096) for i, hop in enumerate((2048, 1024, 512))],
            984.4,  # SNAC 24 kHz
        ),
        (books(1, Fraction(50), 65536), 800.0),  # X-Codec2
        (books(1, Fraction(25), 12800), 341.1),  # Kanade at 25 Hz
        ([StreamSpec("z", "latent", Fraction(25), dim=128)], 0.0),
    ],
)
def test_nominal_rates_are_the_quoted_ones(specs: list[StreamSpec], quoted: float) -> None:
    assert nominal_bps(specs) == pytest.approx(quoted, abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 3)), min_size=1, max_size=50))
def test_stable_order_is_lexsort(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, np.int64).T
    np.testing.assert_array_equal(stable_order([first, second]), np.lexsort((second, first)))


def test_uniform_source_has_log2_of_its_size() -> None:
    x = np.random.default_rng(0).integers(0, 64, 20_000)
    assert unigram_bits(x).mean() == pytest.approx(6.0, abs=0.005)
    assert held_out_bits(x, [], vocab=64, fold=np.arange(x.size) % 2).mean() == pytest.approx(6.0, rel=0.01)


def test_miller_madow_removes_most_of_the_bias() -> None:
    x = np.random.default_rng(1).integers(0, 256, 2000)
    counts = np.bincount(x)
    plugin = float(-(counts[counts > 0] / x.size) @ np.log2(counts[counts > 0] / x.size))
    assert 8.0 - plugin > 0.08
    assert abs(8.0 - unigram_bits(x).mean()) < 0.015
    assert unigram_bits(x).mean() - plugin == pytest.approx((np.count_nonzero(counts) - 1) / (2 * x.size * np.log(2)))


def test_constant_source_costs_nothing() -> None:
    x = np.full(5000, 7)
    assert unigram_bits(x).sum() == 0.0
    fold = np.arange(x.size) % 2
    assert held_out_bits(x, [previous(x, np.zeros_like(x), lag=1, start=9)], vocab=9, fold=fold).mean() < 0.01


def test_h1_reaches_the_entropy_rate_of_a_markov_source() -> None:
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.full(16, 0.3), 16) * 0.98 + 0.02 / 16
    x = markov(rng, transition, 60_000)
    item = np.arange(x.size) // 600
    rate = entropy_rate(transition)
    h1 = held_out_bits(x, [previous(x, item, lag=1, start=16)], vocab=16, fold=item % 2).mean()
    assert h1 == pytest.approx(rate, rel=0.02)
    assert h1 < 0.8 * unigram_bits(x).mean()


@given(codes, st.integers(0, 2**31))
def test_held_out_model_is_the_formula(x: np.ndarray, seed: int) -> None:
    fold = np.random.default_rng(seed).integers(0, 2, x.size)
    if fold.all() or not fold.any():
        with pytest.raises(ValueError, match="both folds"):
            held_out_bits(x, [], vocab=6, fold=fold)
        return
    item = np.arange(x.size) // 7
    contexts = [previous(x, item, lag=lag, start=6) for lag in (1, 2)]
    got = held_out_bits(x, contexts, vocab=6, fold=fold)
    for t in range(x.size):
        train = [s for s in range(x.size) if fold[s] != fold[t]]
        p = 1 / 6
        for depth in range(3):
            key = tuple(c[t] for c in contexts[:depth])
            pairs = Counter((*(int(c[s]) for c in contexts[:depth]), int(x[s])) for s in train)
            once, twice = list(pairs.values()).count(1), list(pairs.values()).count(2)
            d = max(once / (once + 2 * twice), 0.05) if once else 0.05
            here = {k: v for k, v in pairs.items() if k[:-1] == key}
            total = sum(here.values())
            if total:
                p = (max(here.get((*key, int(x[t])), 0) - d, 0) + d * len(here) * p) / total
        assert got[t] == pytest.approx(-np.log2(p), abs=1e-9)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_held_out_probabilities_sum_to_one(depth: int) -> None:
    rng = np.random.default_rng(3)
    x, vocab = rng.integers(0, 5, 200), 8
    total = 0.0
    for last in range(vocab):
        # Score one token of fold 1 against the same 200 tokens of fold 0, for every code it could be.
        y = np.append(x, last)
        item = np.zeros(y.size, np.int64)
        contexts = [previous(y, item, lag=lag, start=vocab) for lag in range(1, depth + 1)]
        bits = held_out_bits(y, contexts, vocab=vocab, fold=np.arange(y.size) == x.size)
        total += 2.0 ** -bits[-1]
    assert total == pytest.approx(1.0)


def test_duplicated_stream_adds_nothing_jointly() -> None:
    x = np.random.default_rng(4).integers(0, 32, 20_000)
    fold = np.arange(x.size) // 100 % 2
    single = held_out_bits(x, [], vocab=32, fold=fold).sum()
    second = held_out_bits(x, [x], vocab=32, fold=fold).sum()
    assert second < 0.001 * single


@given(codes)
def test_runs_rebuild_the_codes(x: np.ndarray) -> None:
    item = np.arange(x.size) // 9
    unit, duration, owner = runs(x, item)
    np.testing.assert_array_equal(np.repeat(unit, duration), x)
    np.testing.assert_array_equal(np.repeat(owner, duration), item)
    assert not ((unit[1:] == unit[:-1]) & (owner[1:] == owner[:-1])).any()


def test_dedup_charges_units_and_durations() -> None:
    rng = np.random.default_rng(5)
    unit = np.cumsum(rng.integers(1, 16, 20_000)) % 16  # never the same twice in a row, uniform
    duration = rng.choice([1, 2, 4, 8], unit.size)
    x = np.repeat(unit, duration)
    bits, owner = dedup_bits(x, np.zeros_like(x))
    assert owner.size == unit.size
    assert bits.mean() == pytest.approx(4.0 + 2.0, abs=0.005)


@given(codes)
def test_previous_stays_in_the_utterance(x: np.ndarray) -> None:
    item = np.arange(x.size) // 4
    for lag in (1, 2):
        want = [x[t - lag] if t % 4 >= lag else -1 for t in range(x.size)]
        np.testing.assert_array_equal(previous(x, item, lag=lag, start=-1), want)


def test_level_digits_first_is_fastest() -> None:
    levels = (9, 8, 8, 7)
    want = np.stack(np.meshgrid(*(range(n) for n in levels), indexing="ij"), axis=-1).reshape(-1, 4)
    codes = want @ np.array([1, 9, 72, 576])
    np.testing.assert_array_equal(level_digits(codes, levels), want)


def test_kl_of_gaussians() -> None:
    zero = np.zeros((3, 4))
    assert gaussian_kl(zero, zero) == 0.0
    assert gaussian_kl(zero + 2.0, zero) == pytest.approx(12 * 2.0)
    # Monte Carlo: the mean of log q(z) - log p(z) over z drawn from q.
    mu, log_variance = np.array([[0.7]]), np.array([[-1.3]])
    z = mu + np.exp(log_variance / 2) * np.random.default_rng(6).standard_normal((400_000, 1))
    log_q = -0.5 * ((z - mu) ** 2 / np.exp(log_variance) + log_variance)
    assert gaussian_kl(mu, log_variance) == pytest.approx(float(np.mean(log_q + 0.5 * z**2)), abs=0.005)


def test_quantiser_nests_and_stays_within_half_a_step() -> None:
    z = np.random.default_rng(7).standard_normal((500, 3)).astype(np.float32)
    mean, step = z.mean(axis=0).astype(np.float64), np.array([0.1, 0.5, 0.0])
    symbols = quantise(z, mean=mean, step=step)
    np.testing.assert_array_equal(symbols >> 1, quantise(z, mean=mean, step=2 * step))
    error = np.abs(dequantise(symbols, mean=mean, step=step) - z)[:, :2]
    assert (error <= step[:2] / 2 + 1e-6).all()
    assert (symbols[:, 2] == 0).all()
