"""HiFT against the reference with a given source; Vocos against its own package; pieces, pitch and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kanade.recipe import deviation, fill, noise, tensors

from tokbench.kanade import hift
from tokbench.kanade.hift import HarmonicSource, HiFT
from tokbench.kanade.vocos import Vocos


@pytest.fixture(scope="module")
def vocoder() -> HiFT:
    with torch.device("cpu"):
        return fill(HiFT(), "hift.")  # type: ignore[return-value]


def test_hift_has_the_published_keys(shared: Path, vocoder: HiFT) -> None:
    keys = json.loads((shared / "parity" / "kanade" / "hift_keys.json").read_text())
    assert {k: list(v.shape) for k, v in vocoder.state_dict().items()} == keys
    assert len(keys) == 328


@torch.inference_mode()
def test_hift_matches_the_reference_with_a_given_source(shared: Path, vocoder: HiFT) -> None:
    io = tensors(shared / "parity" / "kanade" / "hift_recipe.safetensors")
    assert deviation(vocoder.f0_predictor(io["mel"]), io["f0"]) < 1e-4
    assert deviation(vocoder(io["mel"], source=io["source"]), io["wav"]) < 1e-3


@torch.inference_mode()
def test_hift_in_pieces_equals_the_whole(vocoder: HiFT, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = noise("pieces", (1, 80, 70), 1.0)
    whole = vocoder(mel)
    monkeypatch.setattr(hift, "_PIECE", 15)
    monkeypatch.setattr(hift, "_CONTEXT", 20)
    assert whole.shape == (1, 70 * 480)
    assert deviation(vocoder(mel), whole) < 1e-4


@torch.inference_mode()
def test_hift_is_deterministic_and_its_seed_matters(vocoder: HiFT) -> None:
    mel = noise("seed", (1, 80, 6), 1.0)
    first = vocoder(mel)
    torch.manual_seed(7)
    assert torch.equal(vocoder(mel), first)
    assert not torch.equal(vocoder(mel, seed=1), first)
    assert torch.isfinite(first).all()


@torch.inference_mode()
def test_the_source_sings_the_pitch_it_is_given() -> None:
    source = HarmonicSource()
    source.l_linear.weight.zero_()
    source.l_linear.weight[0, 0] = 1.0  # the fundamental alone
    source.l_linear.bias.zero_()
    f0 = torch.full((1, 100), 220.0)
    wave = source(f0)[0, 0].numpy()
    assert wave.shape == (48000,)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(48000)))
    assert spectrum.argmax() / 2 == pytest.approx(220, abs=1)
    unvoiced = source(torch.zeros(1, 100))[0, 0]
    assert float(unvoiced.std()) == pytest.approx(0.1 / 3, rel=0.05)
    assert torch.equal(source(f0), source(f0))


def test_vocos_equals_its_package() -> None:
    package = pytest.importorskip("vocos")
    from vocos.feature_extractors import MelSpectrogramFeatures
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    theirs = package.Vocos(
        MelSpectrogramFeatures(),
        VocosBackbone(input_channels=100, dim=512, intermediate_dim=1536, num_layers=8),
        ISTFTHead(dim=512, n_fft=1024, hop_length=256, padding="center"),
    ).eval()
    ours = Vocos().eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("feature_extractor.")}
    ours.load_state_dict(state)
    mel = noise("vocos", (2, 100, 30), 1.0)
    with torch.inference_mode():
        wave = ours(mel)
    assert wave.shape == (2, 29 * 256)
    assert deviation(wave, theirs.decode(mel)) < 1e-5
