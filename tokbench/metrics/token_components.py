"""Per-utterance components of the token statistics: bits, tokens and seconds of each row, from the rows alone.

The expensive part happens once, on the whole corpus; what is resampled afterwards are sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokbench.config import TokenizerCard
from tokbench.errors import TokensError
from tokbench.metrics.bitrate import (
    Float64Array,
    dedup_bits,
    held_out_bits,
    level_digits,
    previous,
    quantise,
    unigram_bits,
)
from tokbench.metrics.coder import align, code_lengths
from tokbench.types import IntArray, StreamSpec

__all__ = ["Components", "Usage", "token_components"]

FINE = 32  # fine symbols of a latent have steps of at most an utterance's deviation over this
STEPS = ("bits_quantised", "bits_quantised_half", "bits_quantised_full")
_NO_HALF = "cross-fitting needs tokens in at least two utterances"


@dataclass(frozen=True)
class Usage:
    """How a code stream uses its vocabulary over the corpus."""

    tokens: int
    vocab: int
    used: int

    @property
    def sparse(self) -> bool:
        """Fewer than ten tokens a code: entropies from counts are unreliable."""
        return self.tokens < 10 * self.vocab


@dataclass
class Components:
    """What every estimate is made of.

    Attributes:
        frame: one row an utterance, in order of id: `id`, `speaker`, `seconds`, `seconds_coded`, and one float64
            column a component; `tokbench.stats.compare` takes it as it is.
        usage: by code stream.
        missing: component -> why it could not be computed.
    """

    frame: pd.DataFrame
    usage: dict[str, Usage] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stream:
    spec: StreamSpec
    parts: list[IntArray]
    x: IntArray
    item: IntArray

    @property
    def vocab(self) -> int:
        return int(self.spec.vocab or 0)


def token_components(rows: pd.DataFrame, card: TokenizerCard) -> Components:
    """Components of all token statistics.

    Utterances are taken in order of `id`; the halves of cross-fitting are its even and odd positions.

    Args:
        rows: from `tokbench.metrics.tokens.token_rows`, straight or read back from Parquet.
        card: the tokenizer's; its streams and globals say how to read the rows.

    Raises:
        TokensError: rows and card disagree about streams, ids or the bits of globals.
    """
    rows = rows.sort_values("id", kind="stable", ignore_index=True)
    columns: dict[str, npt.NDArray[np.float64]] = {
        name: rows[name].to_numpy(np.float64) for name in ("seconds", "seconds_coded")
    }
    columns["bits_side"] = rows["side_info_bits"].to_numpy(np.float64)
    columns["bits_global"] = _global_bits(rows, card)
    missing: dict[str, str] = {}
    specs = card.stream_specs
    for spec in specs:
        column = f"n[{spec.name}]"
        if column not in rows.columns:
            raise TokensError(f"the rows have no column '{column}'", where=card.name)
        columns[f"tokens[{spec.name}]"] = rows[column].to_numpy(np.float64)
    per_stream = np.stack([columns[f"tokens[{spec.name}]"] for spec in specs])
    columns["tokens"], columns["frames"] = per_stream.sum(axis=0), per_stream.max(axis=0)
    usage: dict[str, Usage] = {}
    codes = [_codes(rows, spec, card.name) for spec in specs if spec.kind == "codes"]
    if codes:
        columns |= _code_columns(codes, len(rows), usage, missing)
        columns["bits_measured"] = columns["bits_measured"] + columns["bits_side"]
        if len(codes) < len(specs):
            missing["bits_effective"] = "the tokenizer also has a continuous latent, which has no finite rate"
        else:
            columns["bits_effective"] = columns["bits_coded"] + columns["bits_global"] + columns["bits_side"]
    latents = [spec for spec in specs if spec.kind == "latent"]
    if latents:
        columns |= _latent_columns(latents, rows, missing)
    frame = pd.DataFrame({"id": rows["id"], "speaker": rows["speaker"], **columns})
    return Components(frame, usage, missing)


def _global_bits(rows: pd.DataFrame, card: TokenizerCard) -> Float64Array:
    declared = sum(spec.dim * spec.bits_per_dim for spec in card.global_specs)
    bits = rows["global_bits"].to_numpy(np.float64)
    if (bits != declared).any():
        charged = bits[bits != declared][0]
        raise TokensError(
            f"the rows charge {charged:g} bits an utterance for globals, the card declares {declared}",
            where=card.name,
            hint="Pass bits_per_dim to token_rows where the card does not say 16",
        )
    return bits


def _codes(rows: pd.DataFrame, spec: StreamSpec, where: str) -> _Stream:
    column = f"codes[{spec.name}]"
    if column not in rows.columns:
        raise TokensError(f"the rows have no column '{column}'", where=where)
    parts = [np.asarray(cell, np.int64) for cell in rows[column]]
    lengths = [part.size for part in parts]
    if lengths != rows[f"n[{spec.name}]"].tolist():
        raise TokensError(f"'n[{spec.name}]' does not count the codes of the rows", where=where)
    x = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    if x.size and (int(x.min()) < 0 or int(x.max()) >= (spec.vocab or 0)):
        raise TokensError(f"stream '{spec.name}' has ids outside 0..{(spec.vocab or 0) - 1}", where=where)
    return _Stream(spec, parts, x, np.repeat(np.arange(len(parts)), lengths))


def _code_columns(
    streams: Sequence[_Stream], items: int, usage: dict[str, Usage], missing: dict[str, str]
) -> dict[str, Float64Array]:
    columns: dict[str, Float64Array] = {}
    for index, stream in enumerate(streams):
        name, x, item, vocab = stream.spec.name, stream.x, stream.item, stream.vocab
        usage[name] = Usage(x.size, vocab, int(np.count_nonzero(np.bincount(x))))
        columns[f"codes[{name}]"] = count = _sum(item, np.ones(x.size), items)
        columns[f"bits_measured[{name}]"] = count * np.log2(vocab)
        columns[f"bits_h0[{name}]"] = _sum(item, unigram_bits(x), items)
        bits, owner = dedup_bits(x, item)
        columns[f"bits_dedup[{name}]"] = _sum(owner, bits, items)
        side = _side(streams[index - 1], stream) if index else None
        columns[f"bits_coded[{name}]"] = _sum(item, code_lengths(x, item, vocab=vocab, side=side), items)
        if _has_halves(item):
            before = previous(x, item, lag=1, start=vocab)
            bits = held_out_bits(x, [before], vocab=vocab, fold=item % 2)
            columns[f"bits_h1[{name}]"] = _sum(item, bits, items)
        else:
            missing[f"bits_h1[{name}]"] = _NO_HALF
        for level, digit in enumerate(level_digits(x, stream.spec.levels).T if stream.spec.levels else ()):
            columns[f"bits_level[{name}.{level}]"] = _sum(item, unigram_bits(digit), items)
            columns[f"codes[{name}.{level}]"] = count
    columns["codes"] = np.sum([columns[f"codes[{stream.spec.name}]"] for stream in streams], axis=0)
    for kind in ("measured", "h0", "dedup", "coded", "h1"):
        parts = [f"bits_{kind}[{stream.spec.name}]" for stream in streams]
        absent = [missing[part] for part in parts if part in missing]
        if absent:
            missing[f"bits_{kind}"] = absent[0]
        else:
            columns[f"bits_{kind}"] = np.sum([columns[part] for part in parts], axis=0)
    reason = _joint_obstacle(streams)
    if reason is None:
        columns["bits_joint"] = _joint(streams, items)
    else:
        missing["bits_joint"] = reason
    return columns


def _sum(item: IntArray, bits: npt.NDArray[np.float64], items: int) -> Float64Array:
    """Sums by utterance, float64 `[items]`."""
    return np.asarray(np.bincount(item, weights=bits, minlength=items), np.float64)


def _side(parent: _Stream, stream: _Stream) -> IntArray:
    """The previous stream's code at the same time, for every token."""
    ratio = float(parent.spec.rate_hz / stream.spec.rate_hz)
    pairs = zip(parent.parts, stream.parts, strict=True)
    return np.concatenate([align(above, own.size, ratio=ratio) for above, own in pairs])


def _joint_obstacle(streams: Sequence[_Stream]) -> str | None:
    if len({stream.spec.rate_hz for stream in streams}) > 1:
        return "the streams have different rates, so there is no common frame"
    first = streams[0]
    if any(stream.x.size != first.x.size or (stream.item != first.item).any() for stream in streams):
        return "the streams of an utterance have different lengths, so there is no common frame"
    return None if _has_halves(first.item) else _NO_HALF


def _has_halves(item: IntArray) -> bool:
    return bool((item % 2 == 0).any() and (item % 2 == 1).any())


def _joint(streams: Sequence[_Stream], items: int) -> Float64Array:
    item, total = streams[0].item, np.zeros(streams[0].x.size)
    for index, stream in enumerate(streams):
        above = [streams[k].x for k in range(index - 1, max(index - 3, -1), -1)]
        total += held_out_bits(stream.x, above, vocab=stream.vocab, fold=item % 2)
    return _sum(item, total, items)


def _latent_columns(
    specs: Sequence[StreamSpec], rows: pd.DataFrame, missing: dict[str, str]
) -> dict[str, Float64Array]:
    columns: dict[str, Float64Array] = {name: np.zeros(len(rows)) for name in STEPS}
    kl = np.zeros(len(rows))
    for spec in specs:
        for name, bits in zip(STEPS, _quantised_bits(spec, rows), strict=True):
            columns[name] += bits
        posterior = f"kl_nats[{spec.name}]"
        if posterior in rows.columns and rows[posterior].notna().all():
            kl += rows[posterior].to_numpy(np.float64) / np.log(2)
        else:
            missing["bits_kl"] = f"no posterior was given for the latent '{spec.name}'"
    if "bits_kl" not in missing:
        columns["bits_kl"] = kl
    return columns


def _quantised_bits(spec: StreamSpec, rows: pd.DataFrame) -> list[Float64Array]:
    """Bits of each utterance at steps of a quarter, half and one corpus deviation a dimension."""
    name, dim = spec.name, int(spec.dim or 0)
    frames = rows[f"n[{name}]"].to_numpy(np.int64)
    total = max(int(frames.sum()), 1)
    mean = np.sum([np.asarray(cell, np.float64) for cell in rows[f"latent_sum[{name}]"]], axis=0) / total
    square = np.sum([np.asarray(cell, np.float64) for cell in rows[f"latent_sumsq[{name}]"]], axis=0) / total
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    deviation[deviation < 1e-6 * np.sqrt(square)] = 0.0  # a constant dimension, up to rounding
    symbols = []
    for cell, steps in zip(rows[f"latent[{name}]"], rows[f"latent_step[{name}]"], strict=True):
        fine = np.asarray(cell, np.float64).reshape(-1, dim)
        centres = (fine + 0.5) * np.asarray(steps, np.float64)
        symbols.append(quantise(centres, mean=mean, step=deviation / 4))
    # One dimension after the other; each has its own statistics, and no context crosses dimensions or utterances.
    matrix = np.concatenate(symbols)
    item = np.tile(np.repeat(np.arange(len(rows)), frames), dim)
    group = np.repeat(np.arange(dim), matrix.shape[0])
    flat = matrix.T.ravel()
    result = []
    for _ in STEPS:
        shifted = flat - flat.min() if flat.size else flat
        vocab = int(shifted.max()) + 1 if flat.size else 1
        bits = code_lengths(shifted, item + group * len(rows), vocab=vocab, group=group)
        result.append(_sum(item, bits, len(rows)))
        flat = flat >> 1
    return result
