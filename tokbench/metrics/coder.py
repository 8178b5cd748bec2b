"""The one fixed adaptive coder: order-2 context mixing, a real range coder, and its exact code length.

The model starts knowing nothing but the vocabulary and learns from the tokens it has already coded, so its size
is a rate that a transmitter can achieve. `encode` and `decode` work token by token; `code_lengths` computes the
same probabilities for all tokens at once, from ranks in sorted order, and needs no loop.

Experts, each a proper distribution over the vocabulary: uniform; unigram; one and two previous tokens; and where
another stream is at hand, its code at the same time, alone and with the previous token. Each backs off to the
next shorter context with Pitman-Yor interpolation (Teh 2006, one table a type), and a Bayesian mixture with
separate weights for each class of context confidence chooses among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tokbench.errors import TokensError
from tokbench.metrics.bitrate import Float64Array, group_starts, previous, stable_order
from tokbench.types import IntArray

__all__ = ["align", "code_lengths", "decode", "encode"]

_DISCOUNT = 0.7  # this and the next: best over 12 streams of k-means units of 10 min LibriSpeech; 0.5 to 0.9 within 1 %
_CONCENTRATION = 0.5
_EDGES = (1, 2, 4, 8)  # classes of confidence: how often the longest context has been seen
_CLASSES = len(_EDGES) + 1

_TOTAL = 1 << 32  # probabilities become integers of about this sum; every code keeps at least 1
_TOP_BITS = 88
_LOW_BITS = _TOP_BITS - 8


def align(parent: IntArray, length: int, *, ratio: float) -> IntArray:
    """The parent stream's code that is current at each of `length` frames.

    Args:
        parent: codes of the other stream, int64 `[T']`.
        length: frames of the stream that is coded.
        ratio: parent's rate over the stream's rate.

    Returns:
        int64 `[length]`; zeros where the parent is empty.
    """
    if parent.size == 0:
        return np.zeros(length, np.int64)
    index = np.floor(np.arange(length) * ratio + 1e-9).astype(np.int64)
    return np.asarray(parent[np.minimum(index, parent.size - 1)])


# --- all tokens at once -------------------------------------------------------------------------------------


def code_lengths(
    x: IntArray, item: IntArray, *, vocab: int, side: IntArray | None = None, group: IntArray | None = None
) -> Float64Array:
    """Bits of each token under the adaptive model, in coding order.

    Args:
        x: codes of all utterances one after the other, int64 `[N]` in `0 .. vocab-1`.
        item: utterance of each token, int64 `[N]`; contexts do not cross utterances, what was learnt does.
        vocab: number of codes.
        side: int64 `[N]`, a code known to the receiver before `x` is sent (`align`); None where there is none.
        group: int64 `[N]`, separates the statistics of several sources coded by one call (latent dimensions);
            a receiver knows it. The mixture weights are shared.

    Returns:
        float64 `[N]`; `encode` needs their sum and about two bytes (a test holds it to 0.1 % and 16 bytes).
    """
    if x.size == 0:
        return np.zeros(0)
    # Contexts: dense ids, so that they sort in 16 bits wherever possible. The start of an utterance has its own.
    used = np.bincount(x) > 0
    dense = (np.cumsum(used) - 1)[x]
    start = int(used.sum())
    one = previous(dense, item, lag=1, start=start)
    two = previous(dense, item, lag=2, start=start)
    root = [] if group is None else [group]
    base_context = None if group is None else stable_order(root)
    base_pair = stable_order([*root, dense])

    uniform = np.full(x.size, 1.0 / vocab)
    unigram, _ = _backoff(dense, root, base_context, base_pair, uniform)
    experts = [uniform, unigram]
    confidence = np.zeros(x.size, np.uint8)
    for chain in ([one, two], *([] if side is None else [[side, one]])):
        keys, p, context_order, pair_order = root, unigram, base_context, base_pair
        seen = np.zeros(0, np.int64)
        for key in chain:
            keys = [*keys, key]
            context_order = stable_order([key], context_order)
            pair_order = stable_order([key], pair_order)
            p, seen = _backoff(dense, keys, context_order, pair_order, p)
            experts.append(p)
        confidence = confidence * np.uint8(_CLASSES) + np.searchsorted(_EDGES, seen, side="right").astype(np.uint8)
    del keys, key, p, seen, one, two, dense, unigram, uniform, base_context, base_pair, context_order, pair_order
    return _mix(experts, confidence)


def _backoff(
    x: IntArray,
    keys: Sequence[IntArray],
    context_order: IntArray | None,
    pair_order: IntArray,
    lower: Float64Array,
) -> tuple[Float64Array, IntArray]:
    """Probability of each token from the counts before it, and how often its context had been seen before."""
    index = np.arange(x.size)
    begin = group_starts([*keys, x], pair_order)
    own = np.empty(x.size, np.int64)
    own[pair_order] = index - np.maximum.accumulate(np.where(begin, index, 0))
    new = (own == 0).astype(np.int64)
    if context_order is None:  # no context: every token shares one
        seen: IntArray = index
        types = np.cumsum(new) - new
    else:
        start = np.maximum.accumulate(np.where(group_starts(keys, context_order), index, 0))
        seen = np.empty(x.size, np.int64)
        seen[context_order] = index - start
        sorted_new = new[context_order]
        before = np.cumsum(sorted_new) - sorted_new
        types = np.empty(x.size, np.int64)
        types[context_order] = before - before[start]
    return _interpolate(own, seen, types, lower), seen


def _interpolate(own: IntArray, seen: IntArray, types: IntArray, lower: Float64Array) -> Float64Array:
    kept = np.maximum(own - _DISCOUNT, 0.0)
    return np.asarray((kept + (_CONCENTRATION + _DISCOUNT * types) * lower) / (seen + _CONCENTRATION))


def _mix(experts: list[Float64Array], confidence: npt.NDArray[np.uint8]) -> Float64Array:
    """Bits under the mixture; weights in a class are proportional to the product of past probabilities there.

    Works in place where it can, and empties `experts`: millions of PCM samples are coded by one call.
    """
    order = stable_order([confidence])
    starts = np.flatnonzero(group_starts([confidence], order))
    lengths = np.diff(np.append(starts, order.size))
    probabilities, weights = [], []
    while experts:
        probabilities.append(experts.pop(0)[order])
        log = np.log2(probabilities[-1])
        past = np.cumsum(log)
        past -= log
        past -= np.repeat(past[starts], lengths)
        weights.append(past)
    best = weights[0].copy()
    for past in weights[1:]:
        np.maximum(best, past, out=best)
    total, mixed = np.zeros(order.size), np.zeros(order.size)
    for p in probabilities:
        weight = weights.pop(0)
        weight -= best
        np.exp2(weight, out=weight)
        total += weight
        p *= weight
        mixed += p
    bits = np.empty(order.size)
    bits[order] = np.log2(total) - np.log2(mixed)
    return bits


# --- token by token -----------------------------------------------------------------------------------------


@dataclass
class _Context:
    counts: dict[int, int] = field(default_factory=dict)
    seen: int = 0

    def predict(self, lower: Float64Array) -> Float64Array:
        p = (_CONCENTRATION + _DISCOUNT * len(self.counts)) * lower
        if self.counts:
            codes = np.fromiter(self.counts.keys(), np.int64, len(self.counts))
            p[codes] += np.fromiter(self.counts.values(), np.float64, len(self.counts)) - _DISCOUNT
        return np.asarray(p / (self.seen + _CONCENTRATION))

    def add(self, code: int) -> None:
        self.counts[code] = self.counts.get(code, 0) + 1
        self.seen += 1


class _Model:
    """The mixture as a machine: `intervals` for the next token, then `learn` what it was.

    Only +, -, *, / and exact scalings by powers of two are used, so that a file decodes on any IEEE 754 machine.
    """

    def __init__(self, vocab: int, *, with_side: bool) -> None:
        self._uniform = np.full(vocab, 1.0 / vocab)
        self._vocab = vocab
        self._with_side = with_side
        self._contexts: dict[tuple[int, ...], _Context] = {}
        # Weights as mantissa and exponent: products of thousands of probabilities leave the range of a double.
        self._weights: dict[int, list[tuple[float, int]]] = {}

    def _context(self, *key: int) -> _Context:
        return self._contexts.setdefault(key, _Context())

    def intervals(self, one: int, two: int, side: int) -> IntArray:
        """Cumulative integer frequencies, int64 `[vocab + 1]`."""
        unigram = self._context(0)
        first, second = self._context(1, one), self._context(2, one, two)
        self._active = [unigram, first, second]
        p0 = unigram.predict(self._uniform)
        p1 = first.predict(p0)
        self._experts = [self._uniform, p0, p1, second.predict(p1)]
        self._class = _confidence(second.seen)
        if self._with_side:
            third, fourth = self._context(3, side), self._context(4, side, one)
            self._active += [third, fourth]
            p3 = third.predict(p0)
            self._experts += [p3, fourth.predict(p3)]
            self._class = self._class * _CLASSES + _confidence(fourth.seen)
        weights = self._weights.setdefault(self._class, [(0.5, 1)] * len(self._experts))
        top = max(exponent for _, exponent in weights)
        scaled = [math.ldexp(mantissa, exponent - top) for mantissa, exponent in weights]
        mixed = np.zeros(self._vocab)
        total = 0.0
        for weight, expert in zip(scaled, self._experts, strict=True):
            mixed = mixed + weight * expert
            total += weight
        frequencies = np.floor(mixed / total * (_TOTAL - self._vocab)).astype(np.int64) + 1
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(frequencies)))

    def learn(self, code: int) -> None:
        """Update weights and counts with the token that `intervals` was asked for."""
        updated = []
        for (mantissa, exponent), expert in zip(self._weights[self._class], self._experts, strict=True):
            fraction, shift = math.frexp(mantissa * float(expert[code]))
            updated.append((fraction, exponent + shift))
        self._weights[self._class] = updated
        for context in self._active:
            context.add(code)


def _confidence(seen: int) -> int:
    return sum(seen >= edge for edge in _EDGES)


def encode(tokens: Sequence[IntArray], *, vocab: int, side: Sequence[IntArray] | None = None) -> bytes:
    """Code a stream of several utterances with the range coder (Martin 1979), carries propagated.

    Args:
        tokens: int64 `[T]` an utterance, codes in `0 .. vocab-1`, `vocab` below 2**24.
        vocab: number of codes.
        side: int64 `[T]` an utterance, see `code_lengths`.

    Returns:
        The payload. Utterance lengths are not in it: they follow from the number of samples.

    Raises:
        TokensError: a code outside the vocabulary.
    """
    for index, codes in enumerate(tokens):
        if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= vocab):
            raise TokensError(f"has codes outside 0..{vocab - 1}", where=f"utterance {index}")
    model = _Model(vocab, with_side=side is not None)
    out = bytearray()
    low, width = 0, 1 << _TOP_BITS
    for index, codes in enumerate(tokens):
        one = two = -1
        for t, code in enumerate(codes.tolist()):
            cumulative = model.intervals(one, two, int(side[index][t]) if side is not None else -1)
            unit = width // int(cumulative[-1])
            low += unit * int(cumulative[code])
            width = unit * int(cumulative[code + 1] - cumulative[code])
            if low >> _TOP_BITS:
                _carry(out)
                low &= (1 << _TOP_BITS) - 1
            while width <= 1 << _LOW_BITS:
                out.append(low >> _LOW_BITS)
                low = (low & ((1 << _LOW_BITS) - 1)) << 8
                width <<= 8
            model.learn(code)
            one, two = code, one
    return _finish(out, low, width)


def _carry(out: bytearray) -> None:
    at = len(out) - 1
    while out[at] == 0xFF:
        out[at] = 0
        at -= 1
    out[at] += 1


def _finish(out: bytearray, low: int, width: int) -> bytes:
    """The shortest tail that names a number in `[low, low + width)`; the decoder reads zeros after the end."""
    for shift in range(_TOP_BITS, -1, -1):
        value = -(-low >> shift) << shift  # the multiple of 2**shift at or above low
        if value < low + width:
            break
    if value >> _TOP_BITS:
        _carry(out)
        value &= (1 << _TOP_BITS) - 1
    out += value.to_bytes(_TOP_BITS // 8, "big")
    return bytes(out).rstrip(b"\0")


def decode(
    payload: bytes, lengths: Sequence[int], *, vocab: int, side: Sequence[IntArray] | None = None
) -> list[IntArray]:
    """Exact inverse of `encode`; `lengths` are the tokens of each utterance."""
    model = _Model(vocab, with_side=side is not None)
    first = _TOP_BITS // 8
    value, at = int.from_bytes(payload[:first].ljust(first, b"\0"), "big"), first
    width = 1 << _TOP_BITS
    result = []
    for index, length in enumerate(lengths):
        codes = np.empty(length, np.int64)
        one = two = -1
        for t in range(length):
            cumulative = model.intervals(one, two, int(side[index][t]) if side is not None else -1)
            unit = width // int(cumulative[-1])
            code = int(np.searchsorted(cumulative, min(value // unit, int(cumulative[-1]) - 1), side="right")) - 1
            value -= unit * int(cumulative[code])
            width = unit * int(cumulative[code + 1] - cumulative[code])
            while width <= 1 << _LOW_BITS:
                value = value << 8 | (payload[at] if at < len(payload) else 0)
                at += 1
                width <<= 8
            codes[t] = code
            model.learn(code)
            one, two = code, one
        result.append(codes)
    return result
