"""The range coder is exact, its size is the ideal code length, and the code length is a sequential model's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import TokensError
from tokbench.metrics.bitrate import unigram_bits
from tokbench.metrics.coder import align, code_lengths, decode, encode

Utterances = list[np.ndarray]


def flat(tokens: Utterances) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(t) for t in tokens]
    return np.concatenate(tokens), np.repeat(np.arange(len(tokens)), lengths)


def ideal_bytes(tokens: Utterances, vocab: int, side: Utterances | None = None) -> float:
    x, item = flat(tokens)
    return float(code_lengths(x, item, vocab=vocab, side=None if side is None else flat(side)[0]).sum()) / 8


def sticky(rng: np.random.Generator, length: int, vocab: int) -> np.ndarray:
    move = rng.choice(3, size=length, p=[0.4, 0.45, 0.15])
    jump = rng.integers(0, vocab, length)
    step = np.where(move == 1, rng.integers(-2, 3, length), np.where(move == 2, jump, 0))
    return np.cumsum(step) % vocab


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_round_trip_is_exact(data: st.DataObject) -> None:
    vocab = data.draw(st.sampled_from([1, 2, 3, 17, 300]))
    shape = st.lists(st.integers(0, vocab - 1), max_size=40).map(lambda v: np.array(v, np.int64))
    tokens = data.draw(st.lists(shape, min_size=1, max_size=5))
    side = None
    if data.draw(st.booleans()):
        rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
        side = [rng.integers(0, 3, len(t)) for t in tokens]
    payload = encode(tokens, vocab=vocab, side=side)
    back = decode(payload, [len(t) for t in tokens], vocab=vocab, side=side)
    assert len(back) == len(tokens)
    for got, want in zip(back, tokens, strict=True):
        np.testing.assert_array_equal(got, want)
    # No bound from below: a payload that ends in zeros is cut, and lengths are known to the receiver.
    assert len(payload) <= 1.001 * ideal_bytes(tokens, vocab, side) + 16


@pytest.mark.parametrize("with_side", [False, True])
@pytest.mark.parametrize("vocab", [2, 50, 2000])
def test_size_is_the_ideal_code_length(vocab: int, with_side: bool) -> None:
    rng = np.random.default_rng(vocab)
    tokens = [sticky(rng, 150, vocab) for _ in range(8)]
    side = [np.where(rng.random(t.size) < 0.8, t % 7, rng.integers(0, 7, t.size)) for t in tokens]
    given_side = side if with_side else None
    payload = encode(tokens, vocab=vocab, side=given_side)
    ideal = ideal_bytes(tokens, vocab, given_side)
    assert ideal - 1 <= len(payload) <= 1.001 * ideal + 16
    back = decode(payload, [150] * 8, vocab=vocab, side=given_side)
    np.testing.assert_array_equal(np.stack(back), np.stack(tokens))


def test_full_pcm_vocabulary_round_trips() -> None:
    rng = np.random.default_rng(3)
    tokens = [np.clip(np.cumsum(rng.integers(-40, 41, 120)) + 32768, 0, 65535), np.array([0, 65535])]
    payload = encode(tokens, vocab=65536)
    back = decode(payload, [120, 2], vocab=65536)
    np.testing.assert_array_equal(np.concatenate(back), np.concatenate(tokens))
    assert len(payload) <= 1.001 * ideal_bytes(tokens, 65536) + 16


def test_long_certain_run_survives_weights_that_underflow() -> None:
    # Thousands of factors: naive products of probabilities leave the range of a double.
    tokens = [np.concatenate((np.zeros(3000, np.int64), np.arange(40) % 5, np.zeros(10, np.int64)))]
    payload = encode(tokens, vocab=64)
    np.testing.assert_array_equal(decode(payload, [3050], vocab=64)[0], tokens[0])
    assert len(payload) <= 1.001 * ideal_bytes(tokens, 64) + 16


def test_probabilities_sum_to_one_over_the_next_code() -> None:
    rng = np.random.default_rng(4)
    x, vocab = sticky(rng, 80, 6), 9
    side = rng.integers(0, 3, 81)
    total = 0.0
    for code in range(vocab):
        y = np.append(x, code)
        total += 2.0 ** -code_lengths(y, np.arange(81) // 50, vocab=vocab, side=side)[-1]
    assert total == pytest.approx(1.0)


def test_code_lengths_are_causal() -> None:
    rng = np.random.default_rng(5)
    x, item = sticky(rng, 400, 20), np.arange(400) // 60
    whole = code_lengths(x, item, vocab=20)
    part = code_lengths(x[:150], item[:150], vocab=20)
    np.testing.assert_allclose(whole[:150], part, atol=1e-9)


def test_uniform_source_costs_log2_of_its_size() -> None:
    x = np.random.default_rng(6).integers(0, 64, 20_000)
    assert code_lengths(x, np.zeros_like(x), vocab=64).mean() == pytest.approx(6.0, rel=0.01)


def test_never_far_above_the_nominal_rate() -> None:
    x = np.random.default_rng(7).integers(0, 12_800, 3000)  # four times fewer tokens than codes
    assert code_lengths(x, np.zeros_like(x), vocab=12_800).sum() <= x.size * np.log2(12_800) + 16


def test_constant_and_periodic_sources_cost_almost_nothing() -> None:
    for x in (np.full(4000, 3), np.arange(4000) % 4):
        assert code_lengths(x, np.zeros_like(x), vocab=500).mean() < 0.1


def test_second_order_source_is_learnt() -> None:
    # A random bit on top of a function of two tokens: one bit a token, which shorter contexts cannot see.
    rng = np.random.default_rng(8)
    bits = rng.integers(0, 2, 60_000)
    x = np.empty(60_000, np.int64)
    x[:2] = 0
    for t in range(2, x.size):
        x[t] = (x[t - 2] + 5 * bits[t] + 3 * x[t - 1]) % 16
    assert unigram_bits(x).mean() > 3.99
    assert code_lengths(x, np.zeros_like(x), vocab=16).mean() < 1.15


def test_duplicate_of_a_known_stream_is_nearly_free() -> None:
    x = np.random.default_rng(9).integers(0, 16, 5000)
    item = np.zeros_like(x)
    alone = code_lengths(x, item, vocab=16).sum()
    assert code_lengths(x, item, vocab=16, side=x).sum() < 0.05 * alone


def test_groups_keep_their_statistics_apart() -> None:
    x = np.concatenate((np.full(500, 1), np.full(500, 2)))
    group = np.repeat([0, 1], 500)
    apart = code_lengths(x, group, vocab=8, group=group).sum()
    alone = code_lengths(x[:500], np.zeros(500, np.int64), vocab=8).sum()
    assert apart < 2 * alone + 1
    # Random draws from disjoint halves of the alphabet: 2 bits each, 3 if statistics were pooled without context.
    rng = np.random.default_rng(10)
    y = np.concatenate((rng.integers(0, 4, 4000), rng.integers(4, 8, 4000)))[np.arange(8000).reshape(2, -1).T.ravel()]
    labels = np.tile([0, 1], 4000)
    owner = np.arange(8000)  # no context across tokens
    assert code_lengths(y, owner, vocab=8, group=labels).mean() == pytest.approx(2.0, abs=0.03)
    assert code_lengths(y, owner, vocab=8).mean() == pytest.approx(3.0, abs=0.03)


def test_align_takes_the_code_that_is_current() -> None:
    parent = np.array([10, 11, 12])
    np.testing.assert_array_equal(align(parent, 6, ratio=0.5), [10, 10, 11, 11, 12, 12])
    np.testing.assert_array_equal(align(parent, 8, ratio=0.5), [10, 10, 11, 11, 12, 12, 12, 12])
    np.testing.assert_array_equal(align(parent, 2, ratio=2.0), [10, 12])
    np.testing.assert_array_equal(align(parent[:0], 2, ratio=1.0), [0, 0])


def test_empty_corpus() -> None:
    assert code_lengths(np.zeros(0, np.int64), np.zeros(0, np.int64), vocab=5).size == 0
    assert encode([np.zeros(0, np.int64)], vocab=5) == b""
    assert decode(b"", [0], vocab=5)[0].size == 0


def test_code_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(TokensError, match=r"utterance 1: has codes outside 0\.\.4"):
        encode([np.array([0]), np.array([5])], vocab=5)
