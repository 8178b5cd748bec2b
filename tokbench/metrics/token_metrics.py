"""Definitions of the token statistics: name, unit, direction, meaning and formula of each.

Rates are ratios of sums over the corpus, never means of utterance rates, and lower is cheaper: read them beside
the quality they buy. Rates of codes and rates of continuous latents have different names, so no column mixes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Columns, Metric, Ratio, Reduce
from tokbench.types import Direction

__all__ = ["METRICS", "Exp2Ratio", "NotResampled", "for_stream"]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exp2Ratio:
    """`2 ** (sum(numerator) / sum(denominator))`, the perplexity of a code length."""

    inner: Ratio

    def __str__(self) -> str:
        return f"2 ** ({self.inner})"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return np.asarray(np.exp2(self.inner(columns, weights)))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Sums of numerator and denominator, `[count, 2]`."""
        return self.inner.sums(columns, groups, count)

    def finish(self, totals: Float) -> Float:
        """Two to the power of numerator over denominator."""
        return np.asarray(np.exp2(self.inner.finish(totals)))

    def renamed(self, names: Mapping[str, str]) -> Exp2Ratio:
        """The same perplexity of other columns."""
        return Exp2Ratio(self.inner.renamed(names))


@dataclass(frozen=True)
class NotResampled:
    """A number that is declared on the card, or a count of distinct codes: it has no bootstrap over items."""

    formula: str

    def __str__(self) -> str:
        return self.formula

    def __call__(self, columns: Columns, weights: Float) -> Float:  # noqa: ARG002
        """Always refuses: a resample of the corpus says nothing about such a number."""
        raise NotApplicable(f"{self.formula}: not a function of resampled items")


def _metric(
    name: str,
    unit: str,
    direction: Direction,
    reduce: Reduce,
    title: str,
    description: str,
    *,
    source: str = "",
    scale: float = 1.0,
) -> Metric:
    inner = reduce.inner if isinstance(reduce, Exp2Ratio) else reduce
    components = (inner.numerator, inner.denominator) if isinstance(inner, Ratio) else ()
    return Metric(name, unit, direction, components, reduce, title, source, scale, description)


def _rate(name: str, title: str, description: str, *, source: str = "") -> Metric:
    reduce = Ratio(name.replace("bps_", "bits_"), "seconds")
    return _metric(name, "bit/s", "lower", reduce, title, description, source=source)


METRICS: tuple[Metric, ...] = (
    _rate(
        "bps_effective",
        "Effective bit rate",
        "What the tokens of this corpus really cost: bits under the fixed adaptive coder, plus globals, plus declared "
        "side information, a second of speech. It depends on the corpus' length, because the coder starts untrained.",
    ),
    _metric(
        "bps_nominal",
        "bit/s",
        "lower",
        NotResampled("sum of rate x log2(vocab) over the card's streams"),
        "Nominal bit rate",
        "Token rate times log2 of the vocabulary, the figure that papers quote. It ignores padding, per-utterance "
        "vectors and how unevenly the codes are used.",
    ),
    _rate(
        "bps_measured",
        "Measured bit rate",
        "Tokens that were really made, each at log2 of its vocabulary, plus side information, a second of speech. It "
        "shows padding that the nominal rate hides, and still charges rare and frequent codes alike.",
    ),
    _rate(
        "bps_h0",
        "Unigram entropy rate",
        "Entropy of the code frequencies with the Miller-Madow correction, summed over streams, a second of speech. "
        "It is blind to order, and too low where there are fewer than about ten tokens a code.",
        source="Miller, Note on the bias of information estimates, 1955",
    ),
    _rate(
        "bps_h1",
        "First-order entropy rate",
        "Bits of each token given the one before it, under a back-off model fitted on the other half of the "
        "utterances. It bounds the true rate from above, loosely where the corpus is small for the vocabulary.",
        source="Ney, Essen and Kneser, On structuring probabilistic dependences, 1994",
    ),
    _rate(
        "bps_joint",
        "Joint entropy rate",
        "Bits of a frame by the chain rule over streams of one rate, each given the two streams before it, fitted on "
        "the other half. Against the held-out unigrams it shows redundancy across streams; it ignores time.",
        source="Ney, Essen and Kneser, On structuring probabilistic dependences, 1994",
    ),
    _rate(
        "bps_dedup",
        "Deduplicated bit rate",
        "Runs of equal codes cost the entropy of the unit plus that of its duration, a second of speech. Both are "
        "unigram entropies, so what order would save is not counted.",
    ),
    _rate(
        "bps_coded",
        "Coded bit rate",
        "Bits under one fixed adaptive order-2 mixing coder that starts untrained, a second of speech: a rate that a "
        "transmitter can reach. It falls as the corpus grows, so compare it only over the same corpus.",
    ),
    _rate(
        "bps_global",
        "Global vectors' bit rate",
        "Bits of the per-utterance vectors a second of speech, 16 bits a component unless the card says otherwise. "
        "It depends on how long utterances are; the figures at 3, 10 and 30 s do not.",
    ),
    *(
        _metric(
            f"bps_global_{seconds}s",
            "bit/s",
            "lower",
            NotResampled(f"bits of the globals / {seconds} s"),
            f"Global vectors' bit rate at {seconds} s",
            f"What the per-utterance vectors cost in a clip of {seconds} seconds. It says nothing about how many of "
            "those bits matter.",
        )
        for seconds in (3, 10, 30)
    ),
    _metric(
        "tokens_per_second",
        "token/s",
        "lower",
        Ratio("tokens", "seconds"),
        "Tokens a second",
        "Codes of all streams, or latent vectors, a second of speech: the sequence length that a language model pays "
        "for. It says nothing about what a token holds.",
    ),
    _metric(
        "frames_per_second",
        "frame/s",
        "lower",
        Ratio("frames", "seconds"),
        "Frames a second",
        "Steps of the fastest stream a second of speech, which is what a model that emits all streams in parallel "
        "pays for. It hides how many streams there are.",
    ),
    _metric(
        "codes_used",
        "%",
        "higher",
        NotResampled("distinct codes / vocabulary"),
        "Codes used",
        "Share of the vocabulary that occurs at least once in this corpus. A small corpus lowers it, and a code used "
        "once counts as much as the commonest.",
        scale=100.0,
    ),
    _metric(
        "code_perplexity",
        "codes",
        "none",
        Exp2Ratio(Ratio("bits_h0", "codes")),
        "Code perplexity",
        "Two to the unigram entropy of a token: how many equally likely codes would carry as much. Evenly used codes "
        "need not be useful ones.",
    ),
    _metric(
        "dead_codes",
        "codes",
        "lower",
        NotResampled("vocabulary - distinct codes"),
        "Dead codes",
        "Codes that never occur in this corpus. In a corpus with few tokens a code, most are unseen and not dead.",
    ),
    _metric(
        "level_entropy",
        "bit",
        "none",
        Ratio("bits_level", "codes"),
        "Entropy of an FSQ level",
        "Marginal entropy of one digit of a finite scalar quantiser, at most log2 of its levels. Digits that depend "
        "on each other look better here than they are.",
        source="Mentzer et al., Finite scalar quantization, 2024",
    ),
    _metric(
        "bps_raw",
        "bit/s",
        "lower",
        NotResampled("sum of rate x dimensions x 16 bits over the card's latents"),
        "Raw rate of the latent",
        "Latent vectors sent as 16-bit floats. It is a storage size and no information rate: never compare it with "
        "the bit rate of codes.",
    ),
    _rate(
        "bps_kl",
        "KL rate of the latent",
        "KL divergence of the posterior from a standard normal, in bits a second: the bits-back cost of a *sampled* "
        "latent. It does not bound the cost of the mean that most decoders are given.",
        source="Hinton and van Camp, Keeping neural networks simple, 1993",
    ),
    _rate(
        "bps_quantised",
        "Quantised rate of the latent",
        "Each dimension quantised in steps of a quarter of its standard deviation, then coded as codes are. The step "
        "is fixed and not tuned against decoded quality, so it is one point of a curve.",
    ),
    _rate(
        "bps_quantised_half",
        "Quantised rate at half a deviation",
        "The quantised rate with steps of half a standard deviation, 6 dB coarser. Decoded quality at this step must "
        "be checked before it is quoted.",
    ),
    _rate(
        "bps_quantised_full",
        "Quantised rate at one deviation",
        "The quantised rate with steps of one standard deviation, 12 dB coarser. Decoded quality at this step must be "
        "checked before it is quoted.",
    ),
)


def for_stream(one: Metric, stream: str) -> Metric:
    """The metric of one stream, `bps_h0[q0]`: bits and tokens are the stream's, seconds the utterance's."""
    names = {c: c if c == "seconds" else f"{c}[{stream}]" for c in one.components}
    reduce = one.reduce.renamed(names) if isinstance(one.reduce, Ratio | Exp2Ratio) else one.reduce
    return replace(one, name=f"{one.name}[{stream}]", components=tuple(names.values()), reduce=reduce)
