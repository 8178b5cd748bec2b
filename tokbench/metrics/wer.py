"""Word and character errors after a named normaliser, the same on both sides."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from tokbench.errors import UserError
from tokbench.metrics.base import Metric, Ratio

__all__ = ["METRICS", "NORMALISERS", "character_errors", "normalise", "normaliser_identity", "word_errors"]

Normaliser = Callable[[str], str]


@lru_cache(maxsize=1)
def _whisper_english() -> Normaliser:
    from whisper_normalizer.english import EnglishTextNormalizer

    normaliser: Normaliser = EnglishTextNormalizer()
    return normaliser


def _as_it_is(text: str) -> str:
    return text


NORMALISERS: dict[str, Callable[[], Normaliser]] = {
    "whisper-english": _whisper_english,
    "none": lambda: _as_it_is,
}
"""Name -> maker of the normaliser (slow to build the first time, cached)."""


def normalise(text: str, normaliser: str = "whisper-english") -> str:
    """Text as it is scored: normalised, with runs of white space as one space.

    "whisper-english" lower-cases, drops punctuation, fillers and bracketed text, expands contractions and spells
    numbers as digits and British as American words; "none" changes nothing but white space.

    Raises:
        UserError: there is no such normaliser; lists those there are.

    Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, appendix C.
    """
    return " ".join(_maker(normaliser)()(text).split())


def normaliser_identity(normaliser: str = "whisper-english") -> str:
    """Name and version of a normaliser, as results record it: `whisper-english-0.1.15`."""
    _maker(normaliser)
    if normaliser == "none":
        return "none"
    from importlib.metadata import version

    return f"{normaliser}-{version('whisper-normalizer')}"


def _maker(normaliser: str) -> Callable[[], Normaliser]:
    if normaliser not in NORMALISERS:
        names = ", ".join(sorted(NORMALISERS))
        raise UserError(f"no normaliser is called '{normaliser}'", hint=f"There are {names}")
    return NORMALISERS[normaliser]


def word_errors(
    reference: str, hypothesis: str, *, normaliser: str = "whisper-english", name: str = "wer"
) -> dict[str, float]:
    """Word errors of one utterance by minimum edit distance (jiwer).

    Args:
        reference: what was said; may be empty.
        hypothesis: what was recognised; may be empty.
        normaliser: applied to both sides.
        name: prefix of the components, "wer" or "wer_vs_original".

    Returns:
        `{name}_errors`, `{name}_words` (words of the reference), `{name}_substitutions`, `{name}_deletions`,
        `{name}_insertions`. An empty reference counts every word of the hypothesis as an insertion over 0 words.
    """
    return _errors(normalise(reference, normaliser), normalise(hypothesis, normaliser), name, words=True)


def character_errors(
    reference: str, hypothesis: str, *, normaliser: str = "whisper-english", name: str = "cer"
) -> dict[str, float]:
    """Character errors of one utterance, spaces between words included (jiwer).

    As `word_errors`, with `{name}_characters` for the length of the reference.
    """
    return _errors(normalise(reference, normaliser), normalise(hypothesis, normaliser), name, words=False)


def _errors(reference: str, hypothesis: str, name: str, *, words: bool) -> dict[str, float]:
    import jiwer

    length = len(reference.split()) if words else len(reference)
    if reference and hypothesis:
        out = (jiwer.process_words if words else jiwer.process_characters)(reference, hypothesis)
        substitutions, deletions, insertions = out.substitutions, out.deletions, out.insertions
    else:
        # jiwer turns a rate over 0 words into a count, so empty sides are counted here.
        substitutions, deletions = 0, length
        insertions = len(hypothesis.split()) if words else len(hypothesis)
    return {
        f"{name}_errors": float(substitutions + deletions + insertions),
        f"{name}_{'words' if words else 'characters'}": float(length),
        f"{name}_substitutions": float(substitutions),
        f"{name}_deletions": float(deletions),
        f"{name}_insertions": float(insertions),
    }


def _rate(name: str, per: str, title: str, description: str) -> Metric:
    return Metric(
        name=name,
        unit="%",
        direction="lower",
        components=(f"{name}_errors", f"{name}_{per}"),
        reduce=Ratio(f"{name}_errors", f"{name}_{per}"),
        title=title,
        source="minimum edit distance, jiwer 4; sum of errors over sum of reference lengths",
        scale=100.0,
        description=description,
    )


METRICS: tuple[Metric, ...] = (
    _rate(
        "wer",
        "words",
        "WER",
        "Share of words that the recogniser gets wrong in the decoded speech, against what was said; lower is better. "
        "It contains the recogniser's own errors on the original, and a recogniser with a strong language model "
        "repairs words that a listener would lose; voice and naturalness do not count.",
    ),
    _rate(
        "cer",
        "characters",
        "CER",
        "Share of characters that the recogniser gets wrong in the decoded speech, against what was said; lower is "
        "better. Near-misses cost less than in WER; it shares WER's blind spots.",
    ),
    _rate(
        "wer_vs_original",
        "words",
        "WER to original",
        "Word errors against the same recogniser's transcript of the original audio, so that its own mistakes cancel; "
        "lower is better. It needs no text, but agreement on a wrong transcript counts as right.",
    ),
    _rate(
        "cer_vs_original",
        "characters",
        "CER to original",
        "Character errors against the same recogniser's transcript of the original audio; lower is better. It needs "
        "no text, but agreement on a wrong transcript counts as right.",
    ),
)
