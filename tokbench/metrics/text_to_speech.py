"""What a model that writes tokens from text has learnt: information gained from the text, and the speech it makes.

Metrics of the speech come in three: of the generated speech, of the original utterance after the tokenizer
(`_resynthesised`, as good as these tokens can sound) and of the original itself (`_original`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Mean, Metric, Ratio
from tokbench.metrics.mos import METRICS as OPINIONS
from tokbench.types import Direction

__all__ = ["METRICS", "SOURCES", "pitch_shift", "pitch_spread"]

SOURCES = ("", "_resynthesised", "_original")
"""Suffixes of the metrics of speech: generated, its ceiling, and the original."""

Track = npt.NDArray[np.float64]


def pitch_spread(track: Track) -> float:
    """Standard deviation of the pitch in semitones, over voiced frames of a track `[T]` in Hz (0: unvoiced).

    Raises:
        UndefinedMetric: fewer than three voiced frames.
    """
    return float(np.std(12 * np.log2(_voiced(track))))


def pitch_shift(track: Track, reference: Track) -> float:
    """How far the mean pitch is from the reference's, in semitones, without sign. Errors as `pitch_spread`."""
    return float(abs(np.mean(12 * np.log2(_voiced(track))) - np.mean(12 * np.log2(_voiced(reference)))))


def _voiced(track: Track) -> Track:
    voiced = np.asarray(track, np.float64)
    voiced = voiced[np.isfinite(voiced) & (voiced > 0)]
    if len(voiced) < 3:
        raise UndefinedMetric("fewer than three voiced frames")
    return voiced


_OF = {
    "": ("", "the speech that the probe wrote for a text", ""),
    "_resynthesised": (
        " (resynthesis)", "the original utterances after encoding and decoding",
        " It is what the probe could reach at best with these tokens.",
    ),
    "_original": (" (original)", "the original utterances", " It belongs to data and judge, not to the tokenizer."),
}  # fmt: skip


def _speech(source: str) -> list[Metric]:
    title, what, more = _OF[source]
    own: Direction = "none" if source else "lower"
    higher: Direction = "none" if source else "higher"
    errors = [
        Metric(
            name=f"tts_{kind}{source}",
            unit="%",
            direction=own,
            components=(f"tts_{kind}{source}_errors", f"tts_{kind}{source}_{per}"),
            reduce=Ratio(f"tts_{kind}{source}_errors", f"tts_{kind}{source}_{per}"),
            title=f"TTS {kind.upper()}{title}",
            source="minimum edit distance, jiwer 4; sum of errors over sum of reference lengths",
            scale=100.0,
            description=(
                f"Share of {per} that the recogniser gets wrong in {what}, against the text; lower is better. One draw "
                f"a text and seed, the recogniser's own errors included.{more}"
            ),
        )
        for kind, per in (("wer", "words"), ("cer", "characters"))
    ]
    opinions = [
        Metric(
            name=f"tts_{opinion.name}{source}",
            unit=opinion.unit,
            direction=higher,
            components=(f"tts_{opinion.name}{source}",),
            reduce=Mean(f"tts_{opinion.name}{source}"),
            title=f"TTS {opinion.title}{title}",
            source=opinion.source,
            description=f"Of {what}: {opinion.description}{more}",
        )
        for opinion in OPINIONS
    ]
    return [
        *errors,
        *opinions,
        Metric(
            name=f"tts_similarity{source}",
            unit="",
            direction=higher,
            components=(f"tts_similarity{source}",),
            reduce=Mean(f"tts_similarity{source}"),
            title=f"TTS similarity{title}",
            source="cosine of the judge's embeddings with another utterance of the speaker",
            description=(
                f"How much {what} resembles another utterance of the same speaker; higher is better. Only tokenizers "
                f"with a global vector tell the probe whose voice is wanted; others speak as it comes.{more}"
            ),
        ),
        Metric(
            name=f"tts_f0_spread{source}",
            unit="semitones",
            direction="none",
            components=(f"tts_f0_spread{source}",),
            reduce=Mean(f"tts_f0_spread{source}"),
            title=f"F0 spread{title}",
            source="standard deviation of log F0 over voiced frames, mean over utterances",
            description=(
                f"How lively the melody of {what} is; good is what the original has, neither more nor less. Octave "
                f"errors of the tracker on broken speech look like liveliness.{more}"
            ),
        ),
        *(
            []
            if source == "_original"
            else [
                Metric(
                    name=f"tts_f0_shift{source}",
                    unit="semitones",
                    direction=own,
                    components=(f"tts_f0_shift{source}",),
                    reduce=Mean(f"tts_f0_shift{source}"),
                    title=f"F0 shift{title}",
                    source="absolute difference of the mean log F0 from the original utterance's",
                    description=(
                        f"How far the mean pitch of {what} is from the original speaker's; lower is better. A right "
                        f"mean does not make a right melody.{more}"
                    ),
                )
            ]
        ),
    ]


METRICS: tuple[Metric, ...] = (
    Metric(
        name="tts_information_gain",
        unit="bit/word",
        direction="higher",
        components=("tts_gain_bits", "tts_words"),
        reduce=Ratio("tts_gain_bits", "tts_words"),
        title="Information gain from text",
        source="negative log-likelihood of the tokens under another text minus that under their own, over words",
        description=(
            "How many bits the probe saves in predicting the tokens of a word when it reads the right text instead of "
            "another one; higher means that words are easier to find in the tokens, 0 that the text told it nothing. "
            "It is what this model learnt from this much data, a lower bound of what the tokens and the text share."
        ),
    ),
    Metric(
        name="tts_bps",
        unit="bit/s",
        direction="none",
        components=("tts_bits", "tts_seconds"),
        reduce=Ratio("tts_bits", "tts_seconds"),
        title="Bits per second given the text",
        source="negative log-likelihood of the tokens and their end under their own text, over seconds of audio",
        description=(
            "What a second of speech costs when its text is known; lower leaves less to guess. What remains is voice, "
            "timing and noise as much as words, so it ranks nothing by itself."
        ),
    ),
    Metric(
        name="tts_failures",
        unit="%",
        direction="lower",
        components=("tts_failed",),
        reduce=Mean("tts_failed"),
        scale=100.0,
        title="TTS failures",
        source="share of texts whose speech did not end within twice the original's length, or could not be decoded",
        description=(
            "How often the probe never ends, or writes what the tokenizer cannot decode; lower is better. Speech that "
            "ends in time may still be babble: that is for WER to say."
        ),
    ),
    Metric(
        name="tts_duration_ratio",
        unit="",
        direction="none",
        components=("tts_generated_seconds", "tts_original_seconds"),
        reduce=Ratio("tts_generated_seconds", "tts_original_seconds"),
        title="TTS duration ratio",
        source="sum of generated lengths over sum of original lengths",
        description=(
            "Total length of the generated speech over the original's; 1 is as long, and neither direction is better. "
            "Too long and too short cancel, and failures count with the length at which they were stopped."
        ),
    ),
    *(metric for source in SOURCES for metric in _speech(source)),
)
