"""Real speech for the judges: short LibriSpeech utterances of several speakers, with transcripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tokbench.audio import read_audio
from tokbench.types import Wave


@dataclass(frozen=True)
class Spoken:
    id: str
    speaker: str
    text: str
    wave: Wave


@pytest.fixture(scope="session")
def speech(shared: Path) -> list[Spoken]:
    """Two utterances of 2.3 to 8 s of each of the six speakers of the test-other sample, 16 kHz, in id order."""
    folder = shared / "data" / "librispeech-sample" / "test-other"
    if not folder.is_dir():
        pytest.skip(f"no LibriSpeech sample at {folder}")
    found: list[Spoken] = []
    for speaker in sorted(p for p in folder.iterdir() if p.is_dir()):
        texts = {}
        for transcript in speaker.rglob("*.trans.txt"):
            texts |= dict(line.split(" ", 1) for line in transcript.read_text().splitlines())
        usable = []
        for path in sorted(speaker.rglob("*.flac")):
            wave, rate = read_audio(path)
            assert rate == 16000
            if 2.3 <= len(wave) / rate <= 8:
                usable.append(Spoken(path.stem, speaker.name, texts[path.stem].strip(), wave))
        found += sorted(usable, key=lambda item: len(item.wave))[:2]
    assert len(found) >= 10
    return found
