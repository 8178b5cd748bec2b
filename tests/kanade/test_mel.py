"""Both mel spectrograms and their filterbanks against the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kanade.recipe import deviation, noise, tensors

from tokbench.kanade.config import KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig
from tokbench.kanade.lengths import mel_frames
from tokbench.kanade.mel import filterbank, log_mel

STYLES = [("vocos", KANADE_25HZ), ("hift", KANADE_25HZ_CLEAN)]


@pytest.mark.parametrize(("name", "config"), STYLES)
def test_mel_matches_the_reference(shared: Path, name: str, config: KanadeConfig) -> None:
    io = tensors(shared / "parity" / "kanade" / "mel.safetensors")
    bank = filterbank(config.mel)
    assert deviation(bank, io["fb_hift"] if name == "hift" else io["fb_vocos"].T) < 1e-5
    mel = log_mel(noise("melaudio", (2, 138240), 0.1), config.mel)
    assert deviation(mel[..., :40], io[f"mel_{name}_fp32_head"]) < 1e-3
    assert deviation(mel, io[f"mel_{name}"]) < 1e-2  # half precision


@pytest.mark.parametrize(("name", "config"), STYLES)
@pytest.mark.parametrize("samples", [1921, 24000, 24479, 138240])
def test_frames_follow_the_length_law(name: str, config: KanadeConfig, samples: int) -> None:
    assert log_mel(torch.zeros(1, samples), config.mel).shape[-1] == mel_frames(samples, config.mel)


@pytest.mark.parametrize(("floor", "config"), [(1e-7, KANADE_25HZ), (1e-5, KANADE_25HZ_CLEAN)])
def test_silence_is_the_floor(floor: float, config: KanadeConfig) -> None:
    mel = log_mel(torch.zeros(1, 24000), config.mel)
    expected = torch.tensor(floor).log()
    if config.vocoder == "hift":  # sqrt(1e-9) through the bands may lie above the floor
        assert (mel >= expected - 1e-4).all()
    else:
        torch.testing.assert_close(mel, expected.expand_as(mel))


@pytest.mark.parametrize(("name", "config"), STYLES)
def test_a_tone_peaks_in_its_band(name: str, config: KanadeConfig) -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(24000) / 24000)[None]
    peak = log_mel(tone, config.mel).mean(-1).argmax()
    centres = filterbank(config.mel).argmax(1) * 24000 / config.mel.n_fft
    assert abs(float(centres[peak]) - 1000) < 50
