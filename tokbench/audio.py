"""Audio in and out: read, mix to mono, resample once, write.

The core owns this; no tokenizer, judge or metric resamples on its own (a model whose published pipeline
contains a resampler keeps it). The resampler is soxr at quality HQ everywhere.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np

from tokbench.errors import AudioError
from tokbench.types import Wave

__all__ = [
    "RESAMPLER",
    "SUFFIXES",
    "check_wave",
    "pcm_sha256",
    "read_audio",
    "resample",
    "to_flac",
    "write_audio",
]

RESAMPLER = "soxr-hq"
"""Name of the resampler, part of every store key that depends on it."""

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au")
"""Audio file suffixes that folder readers pick up."""


def read_audio(source: Path | bytes, *, name: str | None = None) -> tuple[Wave, int]:
    """Read a file as mono float32.

    Args:
        source: path, or the bytes of an audio file.
        name: what to call the source in errors; the path by default.

    Returns:
        Samples float32 `[n]` (channels averaged) and the sampling rate in Hz.

    Raises:
        AudioError: missing, empty, truncated or not audio; NaN or infinite samples.
    """
    import soundfile

    label = name or (str(source) if isinstance(source, Path) else "audio")
    if isinstance(source, Path) and not source.is_file():
        raise AudioError("no such file", where=label)
    handle = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with soundfile.SoundFile(handle) as file:
            declared = file.frames
            samples = file.read(dtype="float32", always_2d=True)
            rate = int(file.samplerate)
            missing = _missing_bytes(file.extra_info)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(f"not readable as audio ({error})", where=label) from error
    if missing:
        raise AudioError(f"truncated: {missing} bytes of audio are missing", where=label)
    if len(samples) < declared:
        raise AudioError(f"truncated: {len(samples)} of {declared} samples", where=label)
    wave = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return check_wave(wave, name=label), rate


def _missing_bytes(log: str) -> int:
    """Bytes that a WAV or AIFF header promises and the file lacks, from libsndfile's log of its headers.

    libsndfile reads what is there without a word. Sizes near the top of their range are what a program
    writes that cannot go back to the header (a pipe), and promise nothing.
    """
    found = re.search(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if found is None:
        return 0
    promised, there = int(found[1]), int(found[2])
    return promised - there if there < promised < 0x7FFFF000 else 0


def check_wave(wave: Wave, *, name: str = "audio") -> Wave:
    """Return the wave as contiguous float32 `[n]`; raise `AudioError` where it is empty or not finite."""
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise AudioError(f"must be mono [n], has shape {wave.shape}", where=name)
    if wave.size == 0:
        raise AudioError("has no samples", where=name)
    if not np.isfinite(wave).all():
        raise AudioError("has NaN or infinite samples", where=name)
    return wave


def resample(wave: Wave, rate: int, target: int) -> Wave:
    """Resample float32 `[n]` from `rate` to `target` Hz (soxr HQ); returns the same array where they are equal."""
    if rate == target:
        return wave
    import soxr

    return np.ascontiguousarray(soxr.resample(wave, rate, target, quality="HQ"), dtype=np.float32)


def pcm_sha256(wave: Wave, rate: int) -> str:
    """Identity of decoded audio: sha256 over the rate and the float32 little-endian samples."""
    digest = hashlib.sha256(f"float32 {rate} {len(wave)}\n".encode())
    digest.update(np.ascontiguousarray(wave, dtype="<f4").tobytes())
    return digest.hexdigest()


def to_flac(wave: Wave, rate: int) -> bytes:
    """Encode to 16-bit FLAC bytes, clipped to full scale."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def write_audio(path: Path, wave: Wave, rate: int) -> None:
    """Write 16-bit audio in the format of the suffix (.wav, .flac, .ogg)."""
    import soundfile

    try:
        soundfile.write(path, np.clip(wave, -1.0, 1.0), rate, subtype=None if path.suffix == ".ogg" else "PCM_16")
    except (soundfile.LibsndfileError, TypeError, ValueError, OSError) as error:
        raise AudioError(f"cannot be written ({error})", where=str(path), hint="Use a .wav or .flac path") from error
