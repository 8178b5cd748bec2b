"""Pure formulas of the token statistics: entropies of codes, held-out code lengths, runs, KL and quantisation.

All code streams are flat: `x` int64 `[N]` holds the codes of all utterances one after the other, and `item`
int64 `[N]` the utterance of each. Results are bits a token, so that a caller can sum them by utterance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tokbench.types import IntArray, StreamSpec

__all__ = [
    "Float64Array",
    "dedup_bits",
    "dequantise",
    "gaussian_kl",
    "group_starts",
    "held_out_bits",
    "level_digits",
    "nominal_bps",
    "previous",
    "quantise",
    "runs",
    "stable_order",
    "unigram_bits",
]

Float64Array = npt.NDArray[np.float64]

_DISCOUNT_FLOOR = 0.05  # keeps probability for unseen codes where no code was seen exactly once


def nominal_bps(specs: Sequence[StreamSpec]) -> float:
    """Nominal bit rate of the code streams, `sum(rate_hz * log2(vocab))` in bit/s; latents count nothing."""
    return sum(spec.nominal_bps or 0.0 for spec in specs)


def stable_order(keys: Sequence[npt.NDArray[np.integer]], base: IntArray | None = None) -> IntArray:
    """Permutation that sorts by `keys` (the first is the most significant), keeping `base`'s order among equals.

    Args:
        keys: non-negative integers, `[N]` each.
        base: an order to start from; None means order of time.

    Sorts 16 bits at a time, where numpy's stable sort is a radix sort: some ten times faster than `lexsort`.
    """
    order = base
    for key in reversed(keys):
        values = key if order is None else key[order]
        step = _radix(values)
        order = step if order is None else order[step]
    if order is None:
        raise ValueError("stable_order needs at least one key or a base")
    return order


def _radix(values: npt.NDArray[np.integer]) -> IntArray:
    top = int(values.max()) if values.size else 0
    step = np.argsort(values.astype(np.uint16), kind="stable")  # astype keeps the low 16 bits
    shift = 16
    while top >> shift:
        high = (values >> shift).astype(np.uint16)
        step = step[np.argsort(high[step], kind="stable")]
        shift += 16
    return step


def group_starts(keys: Sequence[npt.NDArray[np.integer]], order: IntArray) -> npt.NDArray[np.bool_]:
    """Where a new combination of `keys` begins along `order`; bool `[N]`, in sorted order."""
    flags = np.zeros(order.size, np.bool_)
    flags[:1] = True
    for key in keys:
        values = key[order]
        flags[1:] |= values[1:] != values[:-1]
    return flags


def previous(x: IntArray, item: IntArray, *, lag: int, start: int) -> IntArray:
    """The code `lag` tokens before, within the same utterance; `start` where there is none. int64 `[N]`."""
    out = np.full(x.size, start, np.int64)
    if x.size > lag:
        same = item[lag:] == item[:-lag]
        out[lag:][same] = x[:-lag][same]
    return out


def unigram_bits(x: IntArray) -> Float64Array:
    """Bits a token under the corpus' own unigram distribution; the sum is N times the entropy.

    The Miller-Madow correction (Miller 1955), `(used codes - 1) / (2 N)` nats a token, is spread evenly.
    `-log2 p(x)` is also the derivative of `N * H` with respect to the weight of a token, so a bootstrap of these
    sums is the linearised bootstrap of the entropy. (Resampling the corpus and counting again is no good: a
    resample holds fewer distinct codes, and the whole interval can fall below the estimate.)
    """
    if x.size == 0:
        return np.zeros(0)
    counts = np.bincount(x)
    with np.errstate(divide="ignore"):
        bits = np.log2(x.size) - np.log2(counts)
    correction = (np.count_nonzero(counts) - 1) / (2 * x.size * np.log(2))
    return np.asarray(bits[x] + correction)


def runs(x: IntArray, item: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Run-length form within utterances: `(unit, duration in tokens, item)`, int64 `[runs]` each."""
    if x.size == 0:
        return x, x, item
    begin = np.flatnonzero(np.concatenate(([True], (x[1:] != x[:-1]) | (item[1:] != item[:-1]))))
    duration = np.diff(np.append(begin, x.size))
    return x[begin], duration, item[begin]


def dedup_bits(x: IntArray, item: IntArray) -> tuple[Float64Array, IntArray]:
    """Bits a run, `H(unit) + H(duration)`, and the utterance of each run.

    The durations are charged: units alone cannot be turned back into speech of the right length.
    """
    unit, duration, owner = runs(x, item)
    return unigram_bits(unit) + unigram_bits(duration), owner


def held_out_bits(
    x: IntArray, contexts: Sequence[IntArray], *, vocab: int, fold: npt.NDArray[np.integer]
) -> Float64Array:
    """Bits a token under an n-gram model that was fitted on the other fold; every token is scored once.

    Interpolated absolute discounting (Ney, Essen and Kneser 1994): `p(x|c) = (max(n(c,x)-d, 0) + d T(c) p'(x)) /
    n(c)`, with T(c) the number of distinct codes seen after c, `p'` the model without the farthest context, the
    uniform distribution below the unigram, and `d = n1 / (n1 + 2 n2)` from the fitting fold. It is a code that a
    receiver of the fitting fold could decode, so its length bounds the entropy rate from above.

    Args:
        x: codes, int64 `[N]` in `0 .. vocab-1`.
        contexts: int64 `[N]` each, nearest first; [] gives the held-out unigram.
        vocab: number of codes.
        fold: 0 or 1 for each token; both must occur.

    Returns:
        float64 `[N]`.
    """
    second = fold.astype(bool)
    if second.all() or not second.any():
        raise ValueError("held-out scoring needs tokens in both folds")
    p = np.full(x.size, 1.0 / vocab)
    context_order: IntArray | None = None
    pair_order = stable_order([x])
    for depth in range(len(contexts) + 1):
        keys = list(contexts[:depth])
        if depth:
            context_order = stable_order([contexts[depth - 1]], context_order)
            pair_order = stable_order([contexts[depth - 1]], pair_order)
        context_id = np.zeros(x.size, np.int64)
        if context_order is not None:
            context_id[context_order] = np.cumsum(group_starts(keys, context_order)) - 1
        begin = group_starts([context_id, x], pair_order)
        pair_id = np.empty(x.size, np.int64)
        pair_id[pair_order] = np.cumsum(begin) - 1
        owner = context_id[pair_order[begin]]  # context of each pair
        lower, p = p, np.empty_like(p)
        for scored in (second, ~second):
            pairs = np.bincount(pair_id[~scored], minlength=owner.size)
            once, twice = int(np.sum(pairs == 1)), int(np.sum(pairs == 2))
            discount = max(once / (once + 2 * twice), _DISCOUNT_FLOOR) if once else _DISCOUNT_FLOOR
            total = np.bincount(owner, weights=pairs)
            types = np.bincount(owner, weights=pairs > 0)
            own, here = pairs[pair_id[scored]], context_id[scored]
            below, seen = lower[scored], total[here]
            kept = np.maximum(own - discount, 0.0) + discount * types[here] * below
            p[scored] = np.where(seen > 0, kept / np.maximum(seen, 1), below)
    return np.asarray(-np.log2(p))


def level_digits(codes: IntArray, levels: Sequence[int]) -> IntArray:
    """Digits of FSQ codes, int64 `[N, len(levels)]`; the first level is the fastest (Mentzer et al. 2024, eq. 3)."""
    place = np.concatenate(([1], np.cumprod(levels)[:-1]))
    return np.asarray((codes[:, None] // place[None, :]) % np.asarray(levels)[None, :], np.int64)


def gaussian_kl(mu: npt.NDArray[np.floating], log_variance: npt.NDArray[np.floating]) -> float:
    """KL(N(mu, exp(log_variance)) || N(0, 1)) in nats, summed over an utterance's frames and dimensions.

    In the bits-back sense it is the rate of the *sampled* latent; the mean alone has no finite rate.
    """
    mu64, log64 = np.asarray(mu, np.float64), np.asarray(log_variance, np.float64)
    return float(0.5 * np.sum(mu64**2 + np.exp(log64) - 1.0 - log64))


def quantise(z: npt.NDArray[np.floating], *, mean: Float64Array, step: Float64Array) -> IntArray:
    """Uniform quantiser `floor((z - mean) / step)` a dimension, int64 `[T, D]`; 0 where the step is 0.

    Its bins nest: `quantise(step=s) >> 1` equals `quantise(step=2 s)`.
    """
    safe = np.where(step > 0, step, 1.0)
    symbols = np.floor((np.asarray(z, np.float64) - mean) / safe)
    return np.where(step > 0, symbols, 0.0).astype(np.int64)


def dequantise(symbols: IntArray, *, mean: Float64Array, step: Float64Array) -> npt.NDArray[np.float32]:
    """Bin centres of `quantise`, float32 `[T, D]`: what a decoder of the quantised latent receives."""
    centres = mean + np.where(step > 0, (symbols + 0.5) * step, 0.0)
    return np.asarray(centres, np.float32)
