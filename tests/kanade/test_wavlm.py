"""WavLM against torchaudio's layers (by the fixture) and against transformers' own forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kanade.recipe import deviation, noise, tensors
from torch import Tensor

from tokbench.kanade import relative_attention as attention_module
from tokbench.kanade import wavlm as module
from tokbench.kanade.lengths import padding
from tokbench.kanade.resample import resample
from tokbench.kanade.wavlm import WavLM, from_torchaudio, normalize_keys, unused_keys


@torch.inference_mode()
def test_layers_match_the_reference(parity: Path, wavlm: WavLM) -> None:
    io = tensors(parity / "wavlm_recipe.safetensors")
    wave = io["wav24k"]
    assert deviation(wave, noise("wav3s", (72000,), 0.1)) == 0
    pad = padding(len(wave))
    assert pad == 60
    resampled = resample(torch.nn.functional.pad(wave, (pad, pad))[None], 24000, 16000)
    assert deviation(resampled, io["resampled16k"]) < 1e-6
    found = wavlm(resampled, (1, 2, 3, 4, 6, 9))
    assert set(found) == {1, 2, 3, 4, 6, 9}
    for layer, hidden in found.items():
        assert deviation(hidden, io[f"layer{layer}"]) < 5e-3


@torch.inference_mode()
def test_layers_match_transformers(wavlm: WavLM) -> None:
    """The same weights through transformers' own forward pass; only rounding may differ."""
    wave = noise("transformers", (2, 16000), 0.1)
    theirs = wavlm.net(wave, output_hidden_states=True).hidden_states
    for layer, hidden in wavlm(wave, (1, 5, 9)).items():
        assert deviation(hidden, theirs[layer]) < 5e-5


@torch.inference_mode()
def test_pieces_and_rows_change_nothing(wavlm: WavLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = noise("pieces", (1, 320 * 50 + 223), 0.1)
    whole = wavlm(wave, (2,))[2]
    monkeypatch.setattr(module, "_PIECE", {"cpu": 7})
    monkeypatch.setattr(attention_module, "_BIAS_ELEMENTS", {"cpu": 5 * 50 * 11})
    monkeypatch.setattr(attention_module, "_MIN_ROWS", 11)
    assert deviation(wavlm(wave, (2,))[2], whole) < 5e-5


@pytest.mark.parametrize("rows", [100, 333])
@torch.inference_mode()
def test_far_keys_need_no_bias(wavlm: WavLM, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A batch of two utterances long enough for keys far before, far after and on both sides."""
    layer = wavlm.net.encoder.layers[0].attention
    hidden = noise("far", (2, 2100, 768), 1.0)
    bias = attention_module.position_bias(layer, 2100)
    whole = attention_module.relative_attention(layer, hidden, bias)
    monkeypatch.setattr(attention_module, "_FAR_FROM", 1)
    monkeypatch.setattr(attention_module, "_FAR_ROWS", rows)
    assert deviation(attention_module.relative_attention(layer, hidden, bias), whole) < 2e-5


@torch.inference_mode()
def test_position_bias_equals_transformers(wavlm: WavLM) -> None:
    """Beyond the largest bucketed distance, too."""
    attention = wavlm.net.encoder.layers[0].attention
    frames = 1000
    bias = attention_module.position_bias(attention, frames)
    rows = torch.stack([bias[:, frames - 1 - i : 2 * frames - 1 - i] for i in (0, 1, 500, 999)], dim=1)
    assert torch.equal(rows, attention.compute_bias(frames, frames)[:, [0, 1, 500, 999]])


def test_both_namings_give_the_same_keys(torchaudio_wavlm: dict[str, Tensor]) -> None:
    ours = normalize_keys(torchaudio_wavlm)
    old = {
        "wavlm."
        + k.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for k, v in from_torchaudio(torchaudio_wavlm).items()
    }
    assert normalize_keys(old).keys() == ours.keys()
    # One joint weight and bias a layer become three; the tenth layer is of no use to nine blocks.
    assert len(ours) == len(torchaudio_wavlm) + 10 * 4
    assert {k for k in ours if unused_keys(k, 9)} == {k for k in ours if ".layers.9." in k}
