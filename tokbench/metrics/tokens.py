"""Token statistics: one row an utterance with its tokens, and bit rates with intervals from those rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokbench.bootstrap import Clusters, bootstrap, percentile_interval
from tokbench.config import TokenizerCard
from tokbench.errors import TokensError, UserError
from tokbench.metrics.base import Columns, Metric
from tokbench.metrics.bitrate import gaussian_kl, nominal_bps
from tokbench.metrics.token_components import FINE, Components, token_components
from tokbench.metrics.token_metrics import METRICS, Exp2Ratio, for_stream
from tokbench.results import Estimate
from tokbench.types import Encoded

__all__ = ["METRICS", "Posterior", "token_components", "token_estimates", "token_rows"]

Float = npt.NDArray[np.float64]
Posterior = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]
"""`(mu, log_variance)`, each `[T, D]`, natural logarithm."""

_HOW = {
    "bits_measured": "log2(vocab) a token and side information",
    "bits_h0": "unigram code length with Miller-Madow correction, linearised over utterances",
    "bits_h1": "held-out first-order code length, cross-fitted on alternate utterances, absolute discounting",
    "bits_joint": "held-out chain rule over streams at a frame, cross-fitted on alternate utterances",
    "bits_dedup": "entropies of units and durations of runs, linearised over utterances",
    "bits_coded": "code length of the adaptive order-2 mixing coder, utterances in order of id",
    "bits_effective": "adaptive coder + globals + side information",
    "bits_level": "unigram entropy of one digit, Miller-Madow",
    "bits_kl": "posterior against N(0, 1)",
    "bits_quantised": "uniform quantiser, step = corpus deviation / 4, adaptive order-2 mixing coder",
    "bits_quantised_half": "uniform quantiser, step = corpus deviation / 2, adaptive order-2 mixing coder",
    "bits_quantised_full": "uniform quantiser, step = corpus deviation, adaptive order-2 mixing coder",
}


def token_rows(
    ids: Sequence[str],
    speakers: Sequence[str],
    encoded: Sequence[Encoded],
    input_rate: int,
    *,
    posteriors: Sequence[Mapping[str, Posterior]] | None = None,
    bits_per_dim: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """One row an utterance: all that the token statistics need, as plain numbers and lists. Any shard may be given.

    Args:
        ids: of the utterances.
        speakers: what the bootstrap draws together.
        encoded: the tokens.
        input_rate: the tokenizer's, in Hz; seconds are samples over it.
        posteriors: by latent stream, for the KL rate; None where the tokenizer has none.
        bits_per_dim: bits a component of each global, by name; 16 where it is not named.

    Returns:
        `id`, `speaker`, `seconds`, `seconds_coded`, `global_bits`, `side_info_bits`; `n[stream]` tokens or frames;
        `codes[stream]` list of ints. For a latent: `latent_sum`, `latent_sumsq` and `latent_step`, lists of D
        floats, and `latent`, the frames in steps of at most 1/32 deviation (T x D ints, flattened), each with
        `[stream]`; and `kl_nats[stream]`.

    Raises:
        TokensError: a stream is neither codes `[T]` nor a latent `[T, D]`.
    """
    rows = []
    for index, (name, speaker, item) in enumerate(zip(ids, speakers, encoded, strict=True)):
        coded = item.n_samples if item.n_samples_coded is None else item.n_samples_coded
        row: dict[str, Any] = {
            "id": name,
            "speaker": speaker,
            "seconds": item.n_samples / input_rate,
            "seconds_coded": coded / input_rate,
            "global_bits": sum(v.size * (bits_per_dim or {}).get(k, 16) for k, v in item.globals.items()),
            "side_info_bits": int(item.side_info_bits),
        }
        for stream, array in item.streams.items():
            row[f"n[{stream}]"] = len(array)
            if array.ndim == 1 and array.dtype.kind == "i":
                row[f"codes[{stream}]"] = array.tolist()
            elif array.ndim == 2 and array.dtype.kind == "f":
                row |= _latent_row(stream, np.asarray(array, np.float64))
                if posteriors is not None:
                    row[f"kl_nats[{stream}]"] = gaussian_kl(*posteriors[index][stream])
            else:
                raise TokensError(
                    f"stream '{stream}' is {array.dtype} {array.shape}, not codes or a latent", where=name
                )
        rows.append(row)
    return rows


def _latent_row(stream: str, z: Float) -> dict[str, Any]:
    largest = np.abs(z).max(axis=0, initial=0.0)
    deviation = z.std(axis=0) if len(z) else np.zeros(z.shape[1])
    # A dimension that is constant up to rounding would need symbols without bound.
    deviation = np.maximum(deviation, np.maximum(1e-6 * largest, 1e-30))
    step = np.exp2(np.floor(np.log2(deviation / FINE)))
    return {
        f"latent[{stream}]": np.floor(z / step).astype(np.int64).ravel().tolist(),
        f"latent_step[{stream}]": step.tolist(),
        f"latent_sum[{stream}]": z.sum(axis=0).tolist(),
        f"latent_sumsq[{stream}]": (z**2).sum(axis=0).tolist(),
    }


def token_estimates(rows: pd.DataFrame, card: TokenizerCard, *, draws: int, seed: int) -> list[Estimate]:
    """All token statistics with 95 % intervals; a function of rows, card, draws and seed alone.

    Rates are sums of bits over sums of seconds. The expensive code lengths are computed once, on the whole corpus;
    the bootstrap over speakers resamples the bits and seconds of utterances. A statistic that this tokenizer
    cannot have (a joint entropy over ragged rates) has no value and says why in `reasons`.

    Args:
        rows: of `token_rows`, all shards together, straight or read back from Parquet.
        card: the tokenizer's.
        draws: bootstrap draws.
        seed: of the draws.

    Raises:
        UserError: no rows.
        TokensError: rows and card disagree.
    """
    if not len(rows):
        raise UserError("there are no rows of tokens to measure", where=card.name)
    parts = token_components(rows, card)
    wanted = _wanted(parts, card)
    made = {one.metric: one for one in _resampled([m for m in wanted if m.components], parts, draws, seed)}
    for one in wanted:
        if not one.components:
            made[one.name] = _counted(one, parts, card)
    return [_annotate(made[one.name], parts, card) for one in wanted]


def _wanted(parts: Components, card: TokenizerCard) -> list[Metric]:
    """The metrics that apply, in the order of METRICS, those of single streams after their total."""
    codes = [s for s in card.stream_specs if s.kind == "codes"]
    latent = len(codes) < len(card.stream_specs)
    of_codes = {"bps_nominal", "codes_used", "dead_codes"}
    of_latents = {"bps_raw"}
    chosen = []
    for one in METRICS:
        known = [c for c in one.components if c in parts.frame.columns or c in parts.missing]
        if one.name == "level_entropy":
            names = [f"{s.name}.{level}" for s in codes for level in range(len(s.levels or ()))]
            chosen += [for_stream(one, name) for name in names]
            continue
        if one.name.startswith("bps_global_"):
            applies = bool(card.globals)
        elif one.components:
            # A latent tokenizer's tokens have no code perplexity, though they have a count.
            applies = len(known) == len(one.components)
        else:
            applies = bool(codes) if one.name in of_codes else latent and one.name in of_latents
        if not applies:
            continue
        chosen.append(one)
        per_stream = ("bps_h0", "bps_h1", "bps_coded", "codes_used", "code_perplexity", "dead_codes")
        if len(codes) > 1 and one.name in per_stream:
            chosen += [for_stream(one, s.name) for s in codes]
    return chosen


@dataclass(frozen=True)
class _Together:
    """Many ratios as one reduce, so that all share one pass over the draws; values are `[draws, metrics]`."""

    metrics: Sequence[Metric]

    def __call__(self, columns: Columns, weights: Float) -> Float:
        return np.stack([one.reduce(columns, weights) for one in self.metrics], axis=1)

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        each = [np.bincount(groups, weights=columns[c], minlength=count) for m in self.metrics for c in m.components]
        return np.stack(each, axis=1)

    def finish(self, totals: Float) -> Float:
        over, under = totals[:, 0::2], totals[:, 1::2]
        values = np.full(over.shape, np.nan)
        np.divide(over, under, out=values, where=under != 0)
        powers = np.array([isinstance(one.reduce, Exp2Ratio) for one in self.metrics])
        values[:, powers] = np.exp2(values[:, powers])
        return values

    def renamed(self, names: Mapping[str, str]) -> _Together:
        raise NotImplementedError(f"one pass over {len(self.metrics)} metrics has no other names: {sorted(names)}")


def _resampled(metrics: Sequence[Metric], parts: Components, draws: int, seed: int) -> list[Estimate]:
    frame = parts.frame
    able = [one for one in metrics if not any(c in parts.missing for c in one.components)]
    columns = {c: frame[c].to_numpy(np.float64) for one in able for c in one.components}
    together = _Together(able)
    values = together(columns, np.ones((1, len(frame))))[0]
    clusters, how, drawn, count = None, "no interval from one utterance", None, None
    if len(frame) > 1:
        clusters = Clusters.of(frame, "speaker")
        drawn = bootstrap(together, columns, clusters, draws=draws, seed=seed)
        count = None if clusters.by_items else clusters.count
        kind = "bootstrap" if clusters.by_items else "cluster bootstrap"
        how = f"{kind} over {clusters.label}, {draws} draws, seed {seed}, expanded 95 % percentiles"
    made = []
    for index, one in enumerate(able):
        interval = None
        if drawn is not None and clusters is not None:
            interval, _ = percentile_interval(drawn[:, index], clusters.count)
        what = _HOW.get(one.components[0].partition("[")[0])
        method = "; ".join([str(one.reduce), *([what] if what else []), how])
        value = float(values[index])
        defined = bool(np.isfinite(value))
        made.append(
            _estimate(one, value if defined else None, method, len(frame), interval if defined else None, count)
        )
        if not defined:
            made[-1].undefined, made[-1].reasons = len(frame), {"there are no tokens": len(frame)}
    for one in metrics:
        reason = next((parts.missing[c] for c in one.components if c in parts.missing), None)
        if reason is not None:
            empty = _estimate(one, None, f"{one.reduce}; has no value", len(frame), None, None)
            empty.undefined, empty.reasons, empty.note = len(frame), {reason: len(frame)}, reason
            made.append(empty)
    return made


def _counted(one: Metric, parts: Components, card: TokenizerCard) -> Estimate:
    base, _, stream = one.name.removesuffix("]").partition("[")
    usage = [parts.usage[stream]] if stream else list(parts.usage.values())
    used, vocab = sum(u.used for u in usage), sum(u.vocab for u in usage)
    bits = sum(spec.dim * spec.bits_per_dim for spec in card.global_specs)
    method = f"{one.reduce}; no interval"
    if base == "bps_nominal":
        value, method = nominal_bps(card.stream_specs), f"{one.reduce}; declared, no interval"
    elif base == "bps_raw":
        value = sum(float(s.rate_hz) * (s.dim or 0) * 16 for s in card.stream_specs if s.kind == "latent")
        method = f"{one.reduce}; declared, no interval"
    elif base == "codes_used":
        value = used / vocab
    elif base == "dead_codes":
        value = float(vocab - used)
    else:
        value = bits / float(base.removeprefix("bps_global_").removesuffix("s"))
    return _estimate(one, value, method, len(parts.frame), None, None)


def _estimate(
    one: Metric, value: float | None, method: str, n: int, ci95: tuple[float, float] | None, clusters: int | None
) -> Estimate:
    return Estimate.of(
        one,
        value,
        ci95=ci95,
        method=method,
        n=n,
        clusters=clusters,
        table="tokens",
        headline=one.name == "bps_effective",
    )


def _annotate(one: Estimate, parts: Components, card: TokenizerCard) -> Estimate:
    """Notes that a reader needs beside the number."""
    base, _, stream = one.metric.removesuffix("]").partition("[")
    if stream:
        label = stream if base != "level_entropy" else f"{stream.rpartition('.')[0]} level {stream.rpartition('.')[2]}"
        one.title = f"{one.title}, {label}"
    if one.value is None:
        return one
    usage = [parts.usage[stream]] if stream in parts.usage else list(parts.usage.values())
    tokens, used, vocab = (sum(getattr(u, k) for u in usage) for k in ("tokens", "used", "vocab"))
    sparse = any(u.sparse for u in usage)
    counts = f"N = {tokens} tokens; {used} of {vocab} codes occur ({used / vocab:.1%})" if vocab else ""
    total = {c: float(parts.frame[c].sum()) for c in ("seconds", "seconds_coded", "bits_global")}
    if base in ("bps_h0", "bps_dedup", "code_perplexity", "codes_used", "dead_codes"):
        warning = "; fewer than 10 tokens a code: entropies are too low, and unseen codes need not be dead"
        one.note = counts + (warning if sparse else "")
    elif base in ("bps_h1", "bps_joint"):
        warning = "; fewer than 10 tokens a code: the bound is loose and may exceed the unigram entropy"
        one.note = counts + (warning if sparse else "")
        unigram = f"bits_h0[{stream}]" if stream else "bits_h0"
        if not sparse and one.value > float(parts.frame[unigram].sum()) / total["seconds"]:
            one.note += "; above the unigram entropy: too few tokens a context for a tight bound"
        if base == "bps_joint" and len(usage) == 1:
            one.note += "; one stream: the held-out unigram"
    elif base == "bps_coded":
        one.note = counts + "; lengths of utterances follow from their samples and are not charged"
    elif base == "bps_measured":
        described = float(parts.frame["bits_measured"].sum()) / total["seconds_coded"]
        one.note = f"{described:.1f} bit/s over the samples that the tokens describe"
    elif base == "bps_global" and card.globals:
        bits = total["bits_global"] / len(parts.frame)
        each = ", ".join(f"{bits / s:.1f} at {s} s" for s in (3, 10, 30))
        one.note = f"{bits:.0f} bits an utterance, mean length {total['seconds'] / len(parts.frame):.2f} s; {each}"
    elif base == "bps_effective":
        rates = {k: float(parts.frame[f"bits_{k}"].sum()) / total["seconds"] for k in ("coded", "global", "side")}
        one.note = f"{rates['coded']:.1f} coded + {rates['global']:.1f} global + {rates['side']:.1f} side information"
    elif base.startswith("bps_quantised"):
        one.note = "step fixed by the corpus deviation of each dimension, not tuned against decoded quality"
    elif base == "bps_kl":
        one.note = "cost of the sampled latent; the mean has no finite rate"
    return one
