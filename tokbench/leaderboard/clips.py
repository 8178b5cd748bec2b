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

__all__ = ["GAIN_RULE", "KINDS", "ClipSet", "Kind", "Listening", "active_level", "collect"]

TARGET_DB = -26.0
PEAK_DB = -1.0
GAIN_RULE = (
    "One rule for all clips: each is scaled so that its active level (RMS over 20 ms frames no more than 35 dB below "
    "the loudest) is −26 dB of full scale. Where a clip of an utterance would then peak above −1 dB, the "
    "level of all clips of that utterance is lowered together."
)


@dataclass(frozen=True)
class Kind:
    """A kind of clip: what readers call it, and whether it is a recording that all tokenizers share."""

    words: str
    shared: bool = False


KINDS = {
    "original": Kind("original", shared=True),
    "source": Kind("source: the words", shared=True),
    "reference": Kind("reference: the voice", shared=True),
    "truth": Kind("recording", shared=True),
    "decoded": Kind("decoded"),
    "converted": Kind("converted"),
    "resynthesis": Kind("its recording, decoded"),
    "prompt": Kind("prompt"),
    "continuation": Kind("continuation"),
    "generated": Kind("generated"),
}
"""In the order in which they are shown; a kind that is not here follows under its own name."""


@dataclass(frozen=True)
class Listening:
    """One clip ready to play.

    Attributes:
        label: tokenizer's name, or the kind for recordings that all share.
        detail: the kind in words, of a tokenizer's own clip.
        kind: see `SampleClip.kind`.
        file: path inside the site.
        seconds: duration.
        text: what was said, None where unknown.
        words: what the judge heard with differences; None where it was not asked, or nobody knows what was said.
        row: the tokenizer's row, None for originals.
        data: the FLAC file.
        transcript: what the judge heard.
    """

    label: str
    kind: str
    file: str
    seconds: float
    text: str | None
    words: list[Word] | None
    row: Row | None
    data: bytes = field(repr=False)
    transcript: str | None = None
    detail: str | None = None

    @property
    def errors(self) -> int:
        """Words that differ."""
        return sum(word.kind != "same" for word in self.words or ())


@dataclass
class ClipSet:
    """One item through all tokenizers; recordings that all share come first."""

    item: str
    text: str | None
    clips: list[Listening] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The text to read; corpora in capitals are set in small letters."""
        return _small(self.text or "")

    @property
    def lines(self) -> list[list[Listening]]:
        """Clips that stand side by side: the recordings, then each tokenizer's own."""
        found: dict[str | None, list[Listening]] = {}
        for clip in self.clips:
            found.setdefault(clip.row.name if clip.row else None, []).append(clip)
        return list(found.values())

    def of(self, name: str) -> ClipSet | None:
        """The recordings and one tokenizer's clips; None where it has none."""
        mine = [clip for clip in self.clips if clip.row is None or clip.row.name == name]
        return ClipSet(self.item, self.text, mine) if any(clip.row for clip in mine) else None

    def beside(self, clip: Listening) -> str | None:
        """What to read beside a clip that nobody transcribed: its own words, where they are not the item's."""
        return _small(clip.text) if clip.text and clip.text != self.text else None


def _small(text: str) -> str:
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
    for item, unordered in found.items():
        clips = sorted(unordered, key=lambda entry: _place(entry[1].kind))
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
    listening: dict[tuple[str, ...], Listening] = {}
    for (row, clip), (wave, rate), level in zip(clips, waves, levels, strict=True):
        kind = KINDS.get(clip.kind, Kind(clip.kind))
        # Every result brings its own copy of the original, cut to the length of what was decoded: keep the longest.
        # A tokenizer's own clips are all kept: another seed may have written another continuation.
        key = (clip.kind,) if kind.shared else (row.name, clip.kind, clip.path)
        if key in listening and len(wave) / rate <= listening[key].seconds:
            continue
        gain = 10 ** ((target - level) / 20) if np.isfinite(level) else 1.0
        data = to_flac((wave * gain).astype(np.float32), rate)
        words = None
        if clip.transcript is not None and clip.text:
            normaliser = str(row.result.manifest.params.get("normaliser", "whisper-english"))
            words = word_differences(clip.text, clip.transcript, normaliser=normaliser)
        listening[key] = Listening(
            label=kind.words if kind.shared else row.name,
            detail=None if kind.shared else kind.words,
            kind=clip.kind,
            file=f"audio/{hashlib.sha256(data).hexdigest()[:16]}.flac",
            data=data,
            seconds=len(wave) / rate,
            text=clip.text,
            words=words,
            row=None if kind.shared else row,
            transcript=clip.transcript,
        )
    for one in listening.values():
        path = out / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data)
    return sorted(listening.values(), key=lambda c: (c.row is not None, c.row.index if c.row else 0, _place(c.kind)))


def _place(kind: str) -> tuple[int, str]:
    known = list(KINDS)
    return (known.index(kind) if kind in known else len(known), kind)


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
