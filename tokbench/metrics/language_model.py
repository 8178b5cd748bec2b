"""What a language model trained on tokens says of them: perplexity, bits per second, and paired tests.

Costs are in bits. The codes are counted given that the utterance goes on; what saying so costs is counted apart, so
that special tokens are in neither perplexity nor bits per second, and nothing is left out of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Columns, Metric, Ratio
from tokbench.types import Direction

__all__ = ["METRICS", "PowerOfTwo", "auto_bleu", "pair_scores"]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PowerOfTwo:
    """`2 ** (sum(numerator) / sum(denominator))`: perplexity from bits and tokens."""

    numerator: str
    denominator: str

    @property
    def _ratio(self) -> Ratio:
        return Ratio(self.numerator, self.denominator)

    def __str__(self) -> str:
        return f"2 ** ({self._ratio})"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return np.exp2(self._ratio(columns, weights))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Sums of numerator and denominator, `[count, 2]`."""
        return self._ratio.sums(columns, groups, count)

    def finish(self, totals: Float) -> Float:
        """Two to the power of numerator over denominator."""
        return np.exp2(self._ratio.finish(totals))

    def renamed(self, names: Mapping[str, str]) -> PowerOfTwo:
        """The same of other columns."""
        return PowerOfTwo(names[self.numerator], names[self.denominator])


def pair_scores(
    name: str, right: float, wrong: float, *, right_length: float, wrong_length: float, voices: int = 1
) -> dict[str, float]:
    """Whether a model finds the right recording of a pair likelier: 1, 0, or 0.5 where it cannot tell.

    Args:
        name: of the test; prefix of the components.
        right, wrong: log-likelihoods.
        right_length, wrong_length: numbers of codes, which `{name}_normalised_score` divides by.
        voices: in how many voices the pair is spoken; all together weigh as much as one pair.

    Raises:
        UndefinedMetric: a likelihood is not finite.

    Source: Nguyen et al., "The Zero Resource Speech Benchmark 2021", 2020, sections 2.2 and 2.3: the mean over a pair's
    voices, then over pairs.
    """
    if not np.isfinite([right, wrong]).all():
        raise UndefinedMetric("a likelihood is not finite")

    def better(a: float, b: float) -> float:
        return 0.5 if a == b else float(a > b)

    plain = better(right, wrong)
    per_code = better(right / max(1.0, right_length), wrong / max(1.0, wrong_length))
    return {
        f"{name}_score": plain / voices,
        f"{name}_normalised_score": per_code / voices,
        f"{name}_weight": 1 / voices,
    }


def auto_bleu(words: Sequence[str], *, n: int = 2) -> dict[str, float]:
    """How many n-grams of a text occur in it more than once.

    Raises:
        UndefinedMetric: the text has no n-gram.

    Source: Lakhotia et al., "On Generative Spoken Language Modeling from Raw Audio", TACL 2021, section 3.3.
    """
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        raise UndefinedMetric(f"the text has fewer than {n} words")
    repeated = sum(grams.count(gram) > 1 for gram in grams)
    return {"auto_bleu_repeated": float(repeated), "auto_bleu_ngrams": float(len(grams))}


def _rate(name: str, component: str, direction: Direction, title: str, description: str) -> Metric:
    return Metric(
        name=name,
        unit="bit/s",
        direction=direction,
        components=(component, "lm_seconds"),
        reduce=Ratio(component, "lm_seconds"),
        title=title,
        source="negative log-likelihood of the held-out utterances over the seconds of their original audio",
        description=description,
    )


_NORMALISED = (
    " Each log-likelihood is divided by its number of codes first, as most papers do, which keeps long recordings from "
    "losing for their length."
)


def _paired(name: str, title: str, what: str, source: str) -> tuple[Metric, Metric]:
    made = []
    for suffix, more in (("", ""), ("_normalised", _NORMALISED)):
        components = (f"{name}{suffix}_score", f"{name}_weight")
        made.append(
            Metric(
                name=f"{name}{suffix}",
                unit="%",
                direction="higher",
                components=components,
                reduce=Ratio(*components),
                title=f"{title}{' (per code)' if suffix else ''}",
                source=source,
                scale=100.0,
                description=f"{what} Higher is better, 50 % is chance; a small model, or one trained on another kind "
                f"of speech, stays there whatever the tokens hold.{more}",
            )
        )
    return made[0], made[1]


_ZERO = "Nguyen et al., The Zero Resource Speech Benchmark 2021, 2020"
_STORY = "Hassid et al., Textually Pretrained Speech Language Models, 2023"

METRICS: tuple[Metric, ...] = (
    Metric(
        name="lm_perplexity",
        unit="",
        direction="none",
        components=("lm_code_bits", "lm_codes"),
        reduce=PowerOfTwo("lm_code_bits", "lm_codes"),
        title="Perplexity",
        source="2 to the mean bits of a code, given that the utterance goes on",
        description=(
            "How many equally likely codes the model hesitates between at each one; lower means more predictable. It "
            "says nothing across tokenizers of other rates or vocabularies: read bits per second for that."
        ),
    ),
    _rate(
        "lm_bps", "lm_bits", "lower", "LM bits per second",
        "What a second of speech costs under the model trained on the tokens, lengths of runs included where they are "
        "merged; lower is easier to model, at any rate and vocabulary. It rewards dropping information (a constant "
        "token costs nothing): read it beside what can be recovered from the tokens.",
    ),
    _rate(
        "lm_end_bps", "lm_end_bits", "none", "LM bits for the end",
        "What the model pays per second to say when an utterance ends, the special token that the other numbers leave "
        "out; lower is better. It hardly differs between tokenizers.",
    ),
    _rate(
        "lm_duration_bps", "lm_duration_bits", "lower", "LM bits for durations",
        "The part of the bits per second that goes into the lengths of merged runs; lower is better. Only where runs "
        "are merged, and without it the merged tokens would be no full account of the speech.",
    ),
    *_paired(
        "swuggy", "sWUGGY", "How often the model finds a word likelier than a non-word made from it.",
        f"{_ZERO}, section 2.2",
    ),
    *_paired(
        "swuggy_known", "sWUGGY in vocabulary", "sWUGGY over the words that occur in LibriSpeech, which papers report "
        "as in-vocabulary.", f"{_ZERO}, section 2.2",
    ),
    *_paired(
        "sblimp", "sBLIMP", "How often the model finds a sentence likelier than one with a fault of grammar.",
        f"{_ZERO}, section 2.3",
    ),
    *_paired(
        "storycloze", "Spoken StoryCloze", "How often the model finds a story with its right end likelier than with a "
        "wrong one (topic or sense, as the recordings have it).", _STORY,
    ),
    Metric(
        name="auto_bleu",
        unit="%",
        direction="lower",
        components=("auto_bleu_repeated", "auto_bleu_ngrams"),
        reduce=Ratio("auto_bleu_repeated", "auto_bleu_ngrams"),
        title="Auto-BLEU of continuations",
        source="Lakhotia et al., TACL 2021, section 3.3; pairs of words in the judge's transcript",
        scale=100.0,
        description=(
            "How many word pairs of a continuation occur in it more than once, as the recogniser hears it; lower is "
            "less repetitive. Babble that never repeats scores 0, and a recogniser repeats words on noise by itself."
        ),
    ),
)  # fmt: skip
