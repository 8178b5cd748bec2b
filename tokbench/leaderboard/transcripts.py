"""Transcripts with their word differences marked, as the word error rate counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Word", "word_differences"]


@dataclass(frozen=True)
class Word:
    """One word of a comparison.

    Attributes:
        kind: "same", "wrong" (another word was heard), "extra" (heard, not said), "missing" (said, not heard).
        heard: the judge's word, empty where one is missing.
        said: the reference word, empty where one is extra.
    """

    kind: Literal["same", "wrong", "extra", "missing"]
    heard: str
    said: str


def word_differences(said: str, heard: str, *, normaliser: str = "whisper-english") -> list[Word]:
    """Align what was said with what the judge heard, after the normaliser that the word error rate uses.

    The alignment is jiwer's, so that the words marked here are the errors counted there.
    """
    import jiwer

    from tokbench.metrics.wer import normalise

    reference, hypothesis = normalise(said, normaliser).split(), normalise(heard, normaliser).split()
    if not reference:
        return [Word("extra", word, "") for word in hypothesis]
    if not hypothesis:
        return [Word("missing", "", word) for word in reference]
    words: list[Word] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        said_words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard_words = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "equal":
            words += [Word("same", w, w) for w in heard_words]
        elif chunk.type == "substitute":
            words += [Word("wrong", h, s) for h, s in zip(heard_words, said_words, strict=True)]
        elif chunk.type == "insert":
            words += [Word("extra", w, "") for w in heard_words]
        else:
            words += [Word("missing", "", w) for w in said_words]
    return words
