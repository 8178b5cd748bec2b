from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.audio import check_wave, pcm_sha256, read_audio, resample, to_flac, write_audio
from tokbench.errors import AudioError

WAVE = (0.3 * np.sin(np.arange(16000) / 9)).astype(np.float32)


def as_file(format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, WAVE, 16000, format=format_, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_", "subtype", "error"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "PCM_U8", 1e-2), ("WAV", "FLOAT", 0), ("FLAC", "PCM_24", 1e-6)],
)
def test_formats_are_read(format_: str, subtype: str, error: float) -> None:
    wave, rate = read_audio(as_file(format_, subtype=subtype))
    assert rate == 16000
    assert wave.dtype == np.float32
    assert np.abs(wave - WAVE).max() <= error


def test_channels_are_averaged() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([WAVE, -WAVE], axis=1), 96000, format="WAV", subtype="FLOAT")
    wave, rate = read_audio(buffer.getvalue())
    assert (rate, np.abs(wave).max()) == (96000, 0)


@pytest.mark.parametrize("format_", ["WAV", "FLAC", "AIFF"])
def test_a_truncated_file_is_told(format_: str) -> None:
    data = as_file(format_)
    with pytest.raises(AudioError):
        read_audio(data[: len(data) // 2], name="cut file")


def test_a_header_of_unknown_length_is_no_truncation() -> None:
    data = bytearray(as_file("WAV", subtype="PCM_16"))
    position = data.index(b"data") + 4
    data[position : position + 4] = b"\xff\xff\xff\xff"
    data[4:8] = b"\xff\xff\xff\xff"
    assert len(read_audio(bytes(data))[0]) == 16000


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is no audio at all" * 20])
def test_what_is_no_audio_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_empty_and_not_finite(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="no samples"):
        check_wave(np.zeros(0, np.float32))
    with pytest.raises(AudioError, match="NaN"):
        check_wave(np.array([0, np.nan], np.float32))
    with pytest.raises(AudioError, match="mono"):
        check_wave(np.zeros((2, 5), np.float32))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(800, 4000),
    st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000]),
    st.sampled_from([8000, 16000, 24000]),
)
def test_resampling_keeps_duration(n: int, rate: int, target: int) -> None:
    out = resample(np.zeros(n, np.float32), rate, target)
    assert abs(len(out) - n * target / rate) <= 1
    assert out.dtype == np.float32


def test_identity_of_audio_depends_on_samples_and_rate() -> None:
    assert pcm_sha256(WAVE, 16000) == pcm_sha256(WAVE.copy(), 16000)
    assert pcm_sha256(WAVE, 16000) != pcm_sha256(WAVE, 8000)
    other = WAVE.copy()
    other[7] = np.nextafter(other[7], 1)
    assert pcm_sha256(WAVE, 16000) != pcm_sha256(other, 16000)


def test_written_audio_is_clipped_not_wrapped(tmp_path: Path) -> None:
    loud = np.array([0.0, 1.7, -1.7], np.float32)
    write_audio(tmp_path / "a.wav", loud, 16000)
    assert np.abs(read_audio(tmp_path / "a.wav")[0] - [0, 1, -1]).max() < 1e-3
    assert np.abs(read_audio(to_flac(loud, 16000))[0] - [0, 1, -1]).max() < 1e-3
    with pytest.raises(AudioError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.xyz", loud, 16000)
