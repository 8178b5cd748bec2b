"""A dataset is a manifest of utterances with a fingerprint; audio is read on demand.

`Utterance` and `Dataset` are the only data types that protocols see. Readers for official layouts build them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokbench.audio import pcm_sha256, read_audio
from tokbench.errors import AudioError
from tokbench.types import Wave

__all__ = ["Dataset", "Segment", "Utterance"]


@dataclass(frozen=True)
class Segment:
    """One aligned phone or word: label, start and end in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """One item of a dataset.

    Attributes:
        id: unique in the dataset.
        path: audio file.
        speaker: speaker id; the cluster of the bootstrap.
        text: orthographic transcript, None where there is none.
        gender: "f", "m" or None.
        chapter: recording unit within which trials are not drawn (same channel); None where unknown.
        pcm_sha256: identity of the decoded audio; checked when it is read. None: computed on first use.
        duration: seconds, None where it is not known without reading.
        phones, words: alignments, None where there are none.
        extra: further columns of the manifest, as text.
    """

    id: str
    path: Path
    speaker: str
    text: str | None = None
    gender: str | None = None
    chapter: str | None = None
    pcm_sha256: str | None = None
    duration: float | None = None
    phones: tuple[Segment, ...] | None = None
    words: tuple[Segment, ...] | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def read(self) -> tuple[Wave, int]:
        """Mono float32 `[n]` and the file's rate in Hz.

        Raises:
            AudioError: unusable, or other samples than the manifest promises.
        """
        wave, rate = read_audio(self.path, name=f"utterance {self.id} ({self.path})")
        if self.pcm_sha256 is not None and pcm_sha256(wave, rate) != self.pcm_sha256:
            raise AudioError(
                "the audio is not what the manifest says (sha256 differs)",
                where=f"utterance {self.id} ({self.path})",
                hint="Restore the file, or make the manifest again",
            )
        return wave, rate


@dataclass(frozen=True)
class Dataset:
    """A named, ordered set of utterances.

    Attributes:
        name: as typed, for instance "mini-en" or "librispeech:DIR".
        utterances: in a fixed order.
        licence: of the audio.
        synthetic: True where a machine spoke; pages say so.
        language: BCP 47 tag.
    """

    name: str
    utterances: tuple[Utterance, ...]
    licence: str = "unknown"
    synthetic: bool = False
    language: str = "en"

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Sorted speaker ids."""
        return tuple(sorted({u.speaker for u in self.utterances}))

    def fingerprint(self, hashes: Sequence[str]) -> str:
        """Sha256 over ids, speakers, texts and the audio identities given in the order of the utterances."""
        digest = hashlib.sha256()
        for utterance, audio in zip(self.utterances, hashes, strict=True):
            digest.update(repr((utterance.id, utterance.speaker, utterance.text, audio)).encode())
        return digest.hexdigest()
