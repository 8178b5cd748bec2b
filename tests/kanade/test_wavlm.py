"""WavLM against torchaudio's layers (by the fixture) and against transformers' own forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kanade.recipe import deviation, noise, state, tensors
from torch import Tensor

from tokbench.kanade import wavlm
from tokbench.kanade.lengths import padding
from tokbench.kanade.resample import resample
from tokbench.kanade.wavlm import WavLM, from_torchaudio, normalize_keys, unused_keys


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> dict[str, Tensor]:
    """A whole WavLM-base-plus under torchaudio's names."""
    shapes = json.loads((shared / "parity" / "kanade" / "wavlm_keys.json").read_text())
    return state(shapes, prefix="ssl_feature_extractor.model.")


@pytest.fixture(scope="module")
def model(checkpoint: dict[str, Tensor]) -> WavLM:
    with torch.device("meta"):
        built = WavLM(blocks=9)
    kept = {k: v for k, v in normalize_keys(checkpoint).items() if not unused_keys(k, 9)}
    built.net.load_state_dict(kept, assign=True)
    return built.freeze()


@torch.inference_mode()
def test_layers_match_the_reference(shared: Path, model: WavLM) -> None:
    io = tensors(shared / "parity" / "kanade" / "wavlm_recipe.safetensors")
    wave = io["wav24k"]
    assert deviation(wave, noise("wav3s", (72000,), 0.1)) == 0
    pad = padding(len(wave))
    assert pad == 60
    resampled = resample(torch.nn.functional.pad(wave, (pad, pad))[None], 24000, 16000)
    assert deviation(resampled, io["resampled16k"]) < 1e-6
    found = model(resampled, (1, 2, 3, 4, 6, 9))
    assert set(found) == {1, 2, 3, 4, 6, 9}
    for layer, hidden in found.items():
        assert deviation(hidden, io[f"layer{layer}"]) < 5e-3


@torch.inference_mode()
def test_layers_match_transformers(model: WavLM) -> None:
    """The same weights through transformers' own forward pass; only rounding may differ."""
    wave = noise("transformers", (2, 16000), 0.1)
    theirs = model.net(wave, output_hidden_states=True).hidden_states
    for layer, hidden in model(wave, (1, 5, 9)).items():
        assert deviation(hidden, theirs[layer]) < 5e-5


@torch.inference_mode()
def test_pieces_and_rows_change_nothing(model: WavLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = noise("pieces", (1, 320 * 50 + 223), 0.1)
    whole = model(wave, (2,))[2]
    monkeypatch.setattr(wavlm, "_PIECE", 7)
    monkeypatch.setattr(wavlm, "_BIAS_ELEMENTS", 12 * 50 * 11)
    assert deviation(model(wave, (2,))[2], whole) < 5e-5


@torch.inference_mode()
def test_position_bias_equals_transformers(model: WavLM) -> None:
    """Beyond the largest bucketed distance, too."""
    attention = model.net.encoder.layers[0].attention
    frames = 1000
    bias = wavlm._position_bias(attention, frames)
    rows = torch.stack([bias[:, frames - 1 - i : 2 * frames - 1 - i] for i in (0, 1, 500, 999)], dim=1)
    assert torch.equal(rows, attention.compute_bias(frames, frames)[:, [0, 1, 500, 999]])


def test_both_namings_give_the_same_keys(checkpoint: dict[str, Tensor]) -> None:
    ours = normalize_keys(checkpoint)
    old = {
        "wavlm."
        + k.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for k, v in from_torchaudio(checkpoint).items()
    }
    assert normalize_keys(old).keys() == ours.keys()
    assert len(ours) == 199 + 12 * 4  # one joint weight and bias a layer become three
    assert sum(unused_keys(k, 9) for k in ours) == 3 * len({k for k in ours if ".layers.11." in k})
