"""Voice conversion from the command line, on a small tokenizer made here: pitch is the voice, loudness the words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tokbench.audio import read_audio, write_audio
from tokbench.commands.convert import convert
from tokbench.errors import AudioError, TokbenchError, UnknownName, UserError
from tokbench.registry import set_extra_paths
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

RATE = 8000
CARD = """
name: one-tone
summary: Loudness of every 10 ms as codes, and one pitch.
adapter: {module}:OneTone
family: test
capabilities: [discrete, decode, swap_global]
streams:
  - {{name: loudness, rate_hz: 100, vocab: 256}}
globals:
  - {{name: pitch, dim: 1}}
input_rate: 8000
output_rate: 8000
licence: none
"""


class OneTone(Tokenizer):
    """Codes loudness, and as its global the frequency of the largest peak."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            frames = wave[: wave.size // 80 * 80].reshape(-1, 80)
            codes = np.minimum(255, 256 * np.sqrt(2 * np.square(frames).mean(1))).astype(np.int64)
            pitch = np.abs(np.fft.rfft(wave)).argmax() * RATE / wave.size
            made.append(Encoded({"loudness": codes}, n_samples=wave.size, globals={"pitch": np.float32([pitch])}))
        return made

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        waves = []
        for item, voice in zip(items, globals_from or items, strict=True):
            level = np.resize(np.repeat(item.streams["loudness"], 80) / 256, item.n_samples)
            t = np.arange(item.n_samples) / RATE
            waves.append((level * np.sin(2 * np.pi * float(voice.globals["pitch"][0]) * t)).astype(np.float32))
        return waves


@pytest.fixture(autouse=True)
def _cards(tmp_path: Path) -> object:
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "one-tone.yaml").write_text(CARD.format(module=OneTone.__module__))
    set_extra_paths((tmp_path,))
    yield
    set_extra_paths(())


def tone(path: Path, hz: float, seconds: float, *, rate: int = RATE) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    write_audio(path, (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32), rate)
    return path


def run(*arguments: str | Path) -> str:
    app = typer.Typer()
    app.command()(convert)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, TokbenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_words_come_from_the_source_and_the_voice_from_the_reference(tmp_path: Path) -> None:
    source, reference = tone(tmp_path / "a.wav", 200, 1.0, rate=16000), tone(tmp_path / "b.wav", 500, 0.6)
    out = tmp_path / "new" / "c.wav"
    text = run("--tokenizer", "one-tone", "--source", source, "--reference", reference, "-o", out)
    assert text == f"{out}: 1.00 s at 8000 Hz\n"
    wave, rate = read_audio(out)
    assert (wave.size, rate) == (8000, 8000)
    assert np.abs(np.fft.rfft(wave)).argmax() == pytest.approx(500, abs=2)
    assert np.sqrt(2 * np.square(wave).mean()) == pytest.approx(0.5, abs=0.02)


def test_a_tokenizer_without_globals_is_declined_before_it_is_loaded(tmp_path: Path) -> None:
    a = tone(tmp_path / "a.wav", 200, 0.5)
    with pytest.raises(UserError, match="tokenizer 'identity': has no global vector to swap"):
        run("--tokenizer", "identity", "--source", a, "--reference", a, "-o", tmp_path / "c.wav")


def test_bad_input_is_named(tmp_path: Path) -> None:
    a = tone(tmp_path / "a.wav", 200, 0.5)
    with pytest.raises(AudioError, match="no such file"):
        run("--tokenizer", "one-tone", "--source", a, "--reference", tmp_path / "x.wav", "-o", tmp_path / "c.wav")
    with pytest.raises(UnknownName, match="one-tone"):
        run("--tokenizer", "one-ton", "--source", a, "--reference", a, "-o", tmp_path / "c.wav")
