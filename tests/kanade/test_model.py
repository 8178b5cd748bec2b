"""The nets against the reference's intermediates: tiny geometries with every stage, full size with tokens and mel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kanade.recipe import build, deviation, fill, noise, tensors, tiny_config
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig
from tokbench.kanade.lengths import audio_length, padding
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.resample import resample
from tokbench.kanade.wavlm import WavLM

TINY = [f"tiny_{kind}" for kind in ("12hz", "25hz", "25hz_clean")]


@pytest.mark.parametrize("case", ["T150", "T37", "batch2"])
@pytest.mark.parametrize("kind", TINY)
@torch.inference_mode()
def test_tiny_geometries_match_the_reference_at_every_stage(parity: Path, kind: str, case: str) -> None:
    folder = parity / kind
    model = KanadeModel(tiny_config(folder), feature_decoder=True).eval()
    model.load_state_dict(tensors(folder / "state.safetensors"))
    io = tensors(folder / f"io_{case}.safetensors")

    content = model.encode_content(io["in.local_ssl"])
    assert torch.equal(content.tokens, io["tokens"])
    assert deviation(content.pre_quant, io["conv_downsample"]) < 1e-4
    assert deviation(content.embedding, io["content_embedding"]) < 1e-5
    assert deviation(model.embed(content.tokens), io["decode_from_tokens.content_embedding"]) < 1e-5
    assert deviation(model.local_encoder(io["in.local_ssl"]), io["local_encoder"]) < 1e-4
    speaker = model.encode_global(io["in.global_ssl"])
    assert deviation(speaker, io["global_embedding"]) < 1e-4
    assert deviation(model.reconstruct_features(content.embedding), io["ssl_recon"]) < 1e-4

    n_samples = int(io["meta.audio_length"][0])
    mel = model.decode_mel(content.embedding, speaker, n_samples=n_samples)
    assert deviation(mel, io["mel"]) < 2e-4
    default = audio_length(content.tokens.shape[1], downsample=model.config.downsample)
    first = model.decode_mel(content.embedding[:1], speaker[:1], n_samples=default)
    assert deviation(first[0], io["mel_default_length"]) < 2e-4


@torch.inference_mode()
def test_full_size_matches_the_reference(parity: Path, full_25hz: KanadeModel) -> None:
    model, io = full_25hz, tensors(parity / "full_25hz" / "io.safetensors")
    content = model.encode_content(io["in.local_ssl"])
    assert torch.equal(content.tokens, io["tokens"])
    assert deviation(content.embedding, io["content_embedding"]) < 1e-4
    speaker = model.encode_global(io["in.global_ssl"])
    assert deviation(speaker, io["global_embedding"]) < 1e-4
    n_samples = int(io["meta.audio_length"][0])
    assert deviation(model.decode_mel(content.embedding, speaker, n_samples=n_samples), io["mel"]) < 1e-3
    default = audio_length(content.tokens.shape[1], downsample=2)
    mel = model.decode_mel(model.embed(content.tokens), speaker, n_samples=default)
    assert deviation(mel[0], io["mel_default_length"]) < 1e-3


@pytest.mark.parametrize(("kind", "config"), [("full_12hz", KANADE_12HZ), ("full_25hz_clean", KANADE_25HZ_CLEAN)])
@torch.inference_mode()
def test_the_other_full_sizes_make_the_reference_tokens(parity: Path, kind: str, config: KanadeConfig) -> None:
    """The fixtures keep their first tokens, their number of different tokens and the shape of the mel."""
    expected = json.loads((parity / "info.json").read_text())[kind]
    io = tensors(parity / "full_25hz" / "io.safetensors")
    model = build(config)
    content = model.encode_content(io["in.local_ssl"])
    assert content.tokens[0, :12].tolist() == expected["tokens"]
    assert content.tokens.unique().numel() == expected["unique_tokens"]
    speaker = model.encode_global(io["in.global_ssl"])
    mel = model.decode_mel(content.embedding, speaker, n_samples=72000)
    assert list(mel.shape) == expected["mel_shape"]
    assert torch.isfinite(mel).all()


@torch.inference_mode()
def test_waveform_to_converted_mel(parity: Path, full_25hz: KanadeModel, wavlm: WavLM) -> None:
    """From the source's and the reference's audio, through every net, to the mel in the other voice."""
    model, io = full_25hz, tensors(parity / "full_25hz" / "io.safetensors")

    def ssl(name: str, samples: int) -> dict[int, Tensor]:
        wave = noise(name, (1, samples), 0.1)
        pad = padding(samples)
        return wavlm(resample(functional.pad(wave, (pad, pad)), 24000, 16000), {1, 2, 6, 9})

    source, reference = ssl("wav3s", 72000), ssl("ref2s", 48000)
    features = model.content_features(source)
    assert deviation(features, io["in.local_ssl"]) < 5e-4
    assert deviation(model.global_features(source), io["in.global_ssl"]) < 5e-4
    content = model.encode_content(features)
    assert torch.equal(content.tokens, io["tokens"])
    own = model.encode_global(model.global_features(source))
    assert deviation(own[0], io["e2e.global_embedding"]) < 1e-4
    voice = model.encode_global(model.global_features(reference))
    mel = model.decode_mel(content.embedding, voice, n_samples=72000)
    assert deviation(mel[0], io["vc_mel"]) < 1e-3


def test_full_size_keys_are_the_released_ones(parity: Path) -> None:
    released = json.loads((parity / "full_25hz" / "export_keys.json").read_text())
    everything = json.loads((parity / "full_25hz" / "all_keys.json").read_text())
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in KanadeModel(KANADE_25HZ).state_dict().items()}
        training = {k: list(v.shape) for k, v in KanadeModel(KANADE_25HZ, feature_decoder=True).state_dict().items()}
    assert ours == released
    assert training.items() <= everything.items()
    assert {k.split(".")[0] for k in everything.keys() - training.keys()} <= {"ssl_feature_extractor"}


@pytest.mark.parametrize(
    ("config", "tensors_", "size"),
    [(KANADE_12HZ, 282, 479_820_604), (KANADE_25HZ, 282, 470_907_692), (KANADE_25HZ_CLEAN, 280, 562_711_836)],
)
def test_full_size_parameters_fill_the_released_file(config: KanadeConfig, tensors_: int, size: int) -> None:
    with torch.device("meta"):
        state = KanadeModel(config).state_dict()
    assert len(state) == tensors_
    # What is left of a released file's size is its safetensors header.
    header = size - 4 * sum(v.numel() for v in state.values())
    assert 20_000 < header < 40_000


def test_gradients_pass_the_quantizer_and_the_padding(parity: Path) -> None:
    model = fill(KanadeModel(tiny_config(parity / "tiny_25hz"), feature_decoder=True)).train()
    ssl = noise("gradient", (1, 71, 24), 1.0)
    content = model.encode_content(ssl)
    speaker = model.encode_global(ssl)
    mel = model.decode_mel(content.embedding, speaker, n_samples=34080)
    (mel.abs().mean() + model.reconstruct_features(content.embedding).square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.local_encoder.layers[0].attention.wq.weight.grad.abs().max() > 0  # type: ignore[union-attr]
