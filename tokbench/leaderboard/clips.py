"""Audio for listening side by side: collected, brought to one loudness, and copied as FLAC."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tokbench.audio import read_audio, to_flac
from tokbench.errors import AudioError, UserError
from tokbench.leaderboard.model import Row, Table
from tokbench.leaderboard.transcripts import Word, word_differences
from tokbench.results import SampleClip
from tokbench.types import Wave

__all__ = ["GAIN_RULE", "ClipSet", "Listening", "active_level", "collect"]

TARGET_DB = -26.0
PEAK_DB = -1.0
GAIN_RULE = (
    "One rule for all clips: each is scaled so that its active level (RMS over 20 ms frames no more than 35 dB below "
    "the loudest) is −26 dB of full scale. Where a clip of an utterance would then peak above −1 dB, the "
    "level of all clips of that utterance is lowered together."
)
_ORIGINALS = ("original", "source", "reference")


@dataclass(frozen=True)
class Listening:
    """One clip ready to play.

    Attributes:
        label: tokenizer's name, or the kind for originals.
        kind: see `SampleClip.kind`.
        file: path inside the site.
        seconds: duration.
        text: what was said, None where unknown.
        words: what the judge heard with differences; None where it was not asked.
        row: the tokenizer's row, None for originals.
        data: the FLAC file.
    """

    label: str
    kind: str
    file: str
    seconds: float
    text: str | None
    words: list[Word] | None
    row: Row | None
    data: bytes = field(repr=False)

    @property
    def errors(self) -> int:
        """Words that differ."""
        return sum(word.kind != "same" for word in self.words or ())


@dataclass
class ClipSet:
    """One utterance through all tokenizers."""

    item: str
    text: str | None
    clips: list[Listening] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The text to read; corpora in capitals are set in small letters."""
        text = self.text or ""
        return text.lower() if text.isupper() else text


def active_level(wave: Wave, rate: int) -> float:
    """RMS in dB of full scale over 20 ms frames no more than 35 dB below the loudest; -inf for silence."""
    size = max(1, rate // 50)
    frames = np.pad(wave.astype(np.float64), (0, -len(wave) % size)).reshape(-1, size)
    power = (frames**2).mean(axis=1)
    active = power[power >= power.max() * 10**-3.5]
    mean = float(active.mean())
    return 10 * float(np.log10(mean)) if mean > 0 else float("-inf")


def collect(table: Table, out: Path) -> list[ClipSet]:
    """Gather a table's samples, write them under `out/audio`, and return them by utterance.

    Raises:
        UserError: a sample that a result names is missing or not audio.
    """
    found: dict[str, list[tuple[Row, SampleClip]]] = {}
    for row in table.rows:
        for clip in row.result.samples:
            found.setdefault(clip.item, []).append((row, clip))
    sets = []
    for item, clips in found.items():
        text = next((c.text for _, c in clips if c.text), None)
        sets.append(ClipSet(item, text, _level(clips, out)))
    return sets


def _level(clips: Sequence[tuple[Row, SampleClip]], out: Path) -> list[Listening]:
    waves = [_read(row, clip) for row, clip in clips]
    levels = [active_level(wave, rate) for wave, rate in waves]
    peaks = [20 * np.log10(max(float(np.abs(wave).max()), 1e-9)) for wave, _ in waves]
    room = min((PEAK_DB - (peak - level) for peak, level in zip(peaks, levels, strict=True) if np.isfinite(level)),
               default=TARGET_DB)  # fmt: skip
    target = min(TARGET_DB, room)
    listening: dict[str, Listening] = {}
    for (row, clip), (wave, rate), level in zip(clips, waves, levels, strict=True):
        original = clip.kind in _ORIGINALS
        key = clip.kind if original else f"{row.name}:{clip.kind}"
        # Every result brings its own copy of the original, cut to the length of what was decoded: keep the longest.
        if key in listening and len(wave) / rate <= listening[key].seconds:
            continue
        gain = 10 ** ((target - level) / 20) if np.isfinite(level) else 1.0
        data = to_flac((wave * gain).astype(np.float32), rate)
        words = None
        if clip.transcript is not None and clip.text:
            normaliser = str(row.result.manifest.params.get("normaliser", "whisper-english"))
            words = word_differences(clip.text, clip.transcript, normaliser=normaliser)
        listening[key] = Listening(
            label=clip.kind if original else row.name,
            kind=clip.kind,
            file=f"audio/{hashlib.sha256(data).hexdigest()[:16]}.flac",
            data=data,
            seconds=len(wave) / rate,
            text=clip.text,
            words=words,
            row=None if original else row,
        )
    for one in listening.values():
        path = out / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data)
    return sorted(listening.values(), key=lambda c: c.row is not None)


def _read(row: Row, clip: SampleClip) -> tuple[Wave, int]:
    folder = row.result.folder
    if folder is None:
        raise UserError("the result was not read from a folder, so its samples cannot be found", where=row.name)
    try:
        return read_audio(folder / clip.path)
    except AudioError as error:
        raise UserError(
            f"sample of '{clip.item}' {error.what}", where=error.where, hint="Run that task again"
        ) from error
