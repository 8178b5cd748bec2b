"""Opinion judges: DNSMOS against the package speechmos, UTMOS against an independent forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tokbench.config import JudgeCard
from tokbench.errors import AudioError, CardError, ItemError, MissingWeights
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.dnsmos import Dnsmos
from tokbench.judges.load import load_judge
from tokbench.judges.utmos import Utmos22Strong
from tokbench.registry import find_card
from tokbench.types import Wave

if TYPE_CHECKING:
    import torch

    from tests.judges.conftest import Spoken


@pytest.fixture(scope="module")
def dnsmos() -> Judge:
    return load_judge("dnsmos")


def numbers(evidence: Evidence) -> dict[str, float]:
    assert all(isinstance(value, float) for value in evidence.values())
    return {name: float(str(value)) for name, value in evidence.items()}


def one_window(speech: list[Spoken]) -> list[Wave]:
    """Utterances that doubling turns into a single window: 2.26 to 2.5 s, or cut to that."""
    return [item.wave[: int(2.4 * 16000)] for item in speech]


@pytest.mark.parametrize("seconds", [2.4, 9.5, 11.3])
def test_equals_speechmos(dnsmos: Judge, speech: list[Spoken], seconds: float) -> None:
    from speechmos import dnsmos as reference

    wave = np.resize(np.concatenate([item.wave for item in speech[:4]]), int(seconds * 16000))
    expected = reference.run(wave, sr=16000)
    ours = numbers(dnsmos([wave])[0])
    assert list(ours) == ["ovrl", "sig", "bak", "p808"]
    for name, value in ours.items():
        assert value == pytest.approx(float(expected[f"{name}_mos"]), abs=2e-5)


def test_speech_beats_noise(dnsmos: Judge, speech: list[Spoken]) -> None:
    generator = np.random.default_rng(0)
    clean = one_window(speech)[:3]
    noisy = [wave + generator.normal(0, 0.1, len(wave)).astype(np.float32) for wave in clean]
    for good, bad in zip(dnsmos(clean), dnsmos(noisy), strict=True):
        assert 1.5 < numbers(good)["ovrl"] < 4.5
        assert numbers(good)["ovrl"] > numbers(bad)["ovrl"]
        assert numbers(good)["bak"] > numbers(bad)["bak"] + 0.5


def test_single_window_card_is_another_judge(dnsmos: Judge, speech: list[Spoken]) -> None:
    single = load_judge("dnsmos-single")
    wave = speech[0].wave
    assert single.card.name == "dnsmos-single"
    first = numbers(single([wave])[0])
    assert first == numbers(single([wave])[0])
    # Repeating by hand to 9.01 s gives the reference one window too: the same audio, the same scores.
    assert first == numbers(dnsmos([np.resize(wave, 144160)])[0])


def test_beyond_full_scale_is_clipped(dnsmos: Judge, speech: list[Spoken]) -> None:
    wave = one_window(speech)[0]
    loud = (wave / np.abs(wave).max() * 1.5).astype(np.float32)
    assert numbers(dnsmos([loud])[0]) == numbers(dnsmos([np.clip(loud, -1, 1)])[0])


def test_nothing_to_judge_is_no_score(dnsmos: Judge) -> None:
    with pytest.raises(ItemError, match="every sample is zero"):
        dnsmos([np.zeros(48000, np.float32)])
    with pytest.raises(ItemError, match="1 samples are too few"):
        dnsmos([np.full(1, 0.1, np.float32)])
    for bad in (np.zeros(0, np.float32), np.full(16000, np.nan, np.float32)):
        with pytest.raises(AudioError):
            dnsmos([bad])


def test_repetition_is_checked() -> None:
    card = find_card(JudgeCard, "dnsmos").model_copy(update={"params": {"repetition": "mirror"}})
    with pytest.raises(CardError, match="must be double or window"):
        Dnsmos(card)


def random_utmos(layers: int) -> dict[str, torch.Tensor]:
    """Random tensors under the names and shapes of the published checkpoint, with fewer layers."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {"domain_emb": (1, 128), "judge_emb": (1, 128)}
    shapes |= {"projection.0.weight": (2048, 1024), "projection.0.bias": (2048,)}
    shapes |= {"projection.2.weight": (1, 2048), "projection.2.bias": (1,)}
    for suffix in ("", "_reverse"):
        shapes |= {f"blstm.weight_ih_l0{suffix}": (2048, 1024), f"blstm.weight_hh_l0{suffix}": (2048, 512)}
        shapes |= {f"blstm.bias_ih_l0{suffix}": (2048,), f"blstm.bias_hh_l0{suffix}": (2048,)}
    w = "wav2vec2."
    kernels = [10, 3, 3, 3, 3, 2, 2]
    for k, kernel in enumerate(kernels):
        shapes[f"{w}feature_extractor.conv_layers.{k}.0.weight"] = (512, 512 if k else 1, kernel)
    for end in ("weight", "bias"):
        shapes[f"{w}feature_extractor.conv_layers.0.2.{end}"] = (512,)
        shapes[f"{w}layer_norm.{end}"] = (512,)
        shapes[f"{w}encoder.layer_norm.{end}"] = (768,)
        for k in range(layers):
            for norm in ("self_attn_layer_norm", "final_layer_norm"):
                shapes[f"{w}encoder.layers.{k}.{norm}.{end}"] = (768,)
    for k in range(layers):
        layer = f"{w}encoder.layers.{k}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{layer}self_attn.{name}.weight": (768, 768), f"{layer}self_attn.{name}.bias": (768,)}
        shapes |= {f"{layer}fc1.weight": (3072, 768), f"{layer}fc1.bias": (3072,)}
        shapes |= {f"{layer}fc2.weight": (768, 3072), f"{layer}fc2.bias": (768,)}
    shapes |= {f"{w}post_extract_proj.weight": (768, 512), f"{w}post_extract_proj.bias": (768,)}
    shapes |= {f"{w}encoder.pos_conv.0.weight_g": (1, 1, 128), f"{w}encoder.pos_conv.0.weight_v": (768, 48, 128)}
    shapes |= {f"{w}encoder.pos_conv.0.bias": (768,), f"{w}mask_emb": (768,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def utmos_by_hand(p: dict[str, torch.Tensor], wave: Wave, layers: int) -> float:
    """The network written out with torch functions under the checkpoint's own names."""
    import torch
    from torch.nn import functional as fn

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return fn.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = torch.from_numpy(wave)[None, None]
    conv = "wav2vec2.feature_extractor.conv_layers."
    for k, stride in enumerate([5, 2, 2, 2, 2, 2, 2]):
        x = fn.conv1d(x, p[f"{conv}{k}.0.weight"], stride=stride)
        if k == 0:
            x = fn.group_norm(x, 512, p[f"{conv}0.2.weight"], p[f"{conv}0.2.bias"])
        x = fn.gelu(x)
    x = linear(norm(x[0].T, "wav2vec2.layer_norm"), "wav2vec2.post_extract_proj")
    position = "wav2vec2.encoder.pos_conv.0."
    direction = p[f"{position}weight_v"]
    kernel = p[f"{position}weight_g"] * direction / direction.pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
    shifted = fn.conv1d(x.T[None], kernel, p[f"{position}bias"], padding=64, groups=16)[0, :, :-1]
    x = norm(x + fn.gelu(shifted).T, "wav2vec2.encoder.layer_norm")
    for k in range(layers):
        layer = f"wav2vec2.encoder.layers.{k}."
        q, key, v = (
            linear(x, f"{layer}self_attn.{n}_proj").reshape(-1, 12, 64).transpose(0, 1) for n in ("q", "k", "v")
        )
        mixed = torch.softmax(q @ key.transpose(1, 2) / 8.0, dim=-1) @ v
        x = norm(
            x + linear(mixed.transpose(0, 1).reshape(-1, 768), f"{layer}self_attn.out_proj"),
            f"{layer}self_attn_layer_norm",
        )
        x = norm(x + linear(fn.gelu(linear(x, f"{layer}fc1")), f"{layer}fc2"), f"{layer}final_layer_norm")
    x = torch.cat([x, p["domain_emb"].expand(len(x), -1), p["judge_emb"].expand(len(x), -1)], dim=1)
    directions = []
    for suffix, frames in (("", x), ("_reverse", x.flip(0))):
        hidden = cell = torch.zeros(512)
        outputs = []
        for frame in frames:
            gates = p[f"blstm.weight_ih_l0{suffix}"] @ frame + p[f"blstm.bias_ih_l0{suffix}"]
            gates = gates + p[f"blstm.weight_hh_l0{suffix}"] @ hidden + p[f"blstm.bias_hh_l0{suffix}"]
            i, f, g, o = gates.chunk(4)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            outputs.append(hidden)
        directions.append(torch.stack(outputs if not suffix else outputs[::-1]))
    scores = linear(torch.relu(linear(torch.cat(directions, dim=1), "projection.0")), "projection.2")
    return float(scores.mean()) * 2 + 3


def test_utmos_reads_the_published_layout(tmp_path: Path) -> None:
    import torch

    state = random_utmos(1)
    file = tmp_path / "utmos22_strong_step7459_v1.pt"
    torch.save(state, file)
    card = find_card(JudgeCard, "utmos22-strong")
    judge = Utmos22Strong(card, weights=tmp_path)
    wave = np.random.default_rng(0).normal(0, 0.1, 6000).astype(np.float32)
    score = numbers(judge([wave])[0])["utmos"]
    assert score == pytest.approx(utmos_by_hand(state, wave, 1), abs=1e-4)
    assert score == numbers(judge([wave])[0])["utmos"]
    assert np.isfinite(numbers(judge([wave[:1]])[0])["utmos"])
    with pytest.raises(ItemError):
        judge([np.zeros(16000, np.float32)])
    assert Utmos22Strong.identity(card, tmp_path)["utmos22_strong_step7459_v1.pt"].startswith("sha256:")
    del state["wav2vec2.encoder.layers.0.fc2.bias"]
    torch.save(state, file)
    with pytest.raises(MissingWeights, match="is not SpeechMOS's UTMOS22 strong checkpoint"):
        Utmos22Strong(card, weights=tmp_path)
