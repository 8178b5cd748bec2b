"""LoSATok against the reference's outputs on random weights in a small geometry, and checkpoints to be refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codecs_support import largest, losatok_compare, losatok_recipe
from safetensors.torch import load_file
from torch import Tensor

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.codecs.losatok.checkpoint import load_losatok
from tokbench.codecs.losatok.frontend import mel_filters
from tokbench.codecs.losatok.model import Losatok
from tokbench.codecs.losatok.vocos import SpectralHead
from tokbench.codecs.precision import exact_inference

FILES = (
    "noise_S161279", "noise_S161280", "noise_S161920", "noise_S196803", "noise_S35123", "noise_S40000", "noise_S513",
    "noise_S640", "tone_S32000",
)  # fmt: skip


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "parity" / "losatok" / "tiny"


@pytest.fixture(scope="module")
def state(fixtures: Path) -> dict[str, Tensor]:
    return load_file(fixtures / "state.safetensors")


@pytest.fixture(scope="module")
def model(fixtures: Path) -> Losatok:
    return load_losatok(fixtures / "state.safetensors", heads=4)


@pytest.mark.parametrize("name", FILES)
def test_every_small_fixture(model: Losatok, fixtures: Path, name: str) -> None:
    found = losatok_compare(model, fixtures / f"{name}.safetensors", wave_tolerance=3e-6)
    assert {key: share for key, share in found.items() if share >= 1} == {}


def test_no_fixture_is_forgotten(fixtures: Path) -> None:
    assert {path.stem for path in fixtures.glob("*_S*.safetensors")} == set(FILES)


def test_the_recipe(fixtures: Path, state: dict[str, Tensor]) -> None:
    for key, values in json.loads((fixtures / "recipe_check.json").read_text()).items():
        if key in state:
            assert state[key].flatten()[:3].tolist() == pytest.approx(values, abs=1e-6)
            made = losatok_recipe(key, tuple(state[key].shape)).astype(np.float32)
            assert np.array_equal(state[key].numpy(), made)


def test_windows_and_filters_are_those_of_the_release(model: Losatok, state: dict[str, Tensor]) -> None:
    """Computed here, not taken from the checkpoint."""
    fresh = Losatok(model.config)
    encoder = fresh.dasheng_tokenizer.encoder.front_end
    prefix = "dasheng_tokenizer.encoder.front_end.mel_spec."
    assert torch.equal(encoder.window, state[f"{prefix}spectrogram.window"])
    assert torch.equal(encoder.filters, state[f"{prefix}mel_scale.fb"])
    assert torch.equal(
        fresh.dasheng_tokenizer.decoder.head.window, state["dasheng_tokenizer.decoder.head.istft.window"]
    )
    torchaudio = pytest.importorskip("torchaudio")
    for bins, mels in ((257, 64), (513, 128)):
        theirs = torchaudio.functional.melscale_fbanks(bins, 0.0, 8000.0, mels, 16000, norm=None, mel_scale="htk")
        assert torch.equal(mel_filters(bins, mels), theirs)


def test_norms_that_the_fixtures_cannot_tell_apart(model: Losatok) -> None:
    from tokbench.codecs.losatok import semantic

    assert model.dasheng_tokenizer.encoder.norm.eps == 1e-5
    others = [
        m for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm) and "encoder.norm" not in name
    ]
    assert {m.eps for m in others} == {1e-6}
    assert model.semantic_encoder.encoder.norm.eps == 1e-6
    assert semantic.BATCH_NORM_EPS == 1e-5


def test_spectra_of_a_wave_give_it_back() -> None:
    head = SpectralHead(4, 1280)
    wave = torch.randn(1, 3200)
    frames = torch.nn.functional.pad(wave, (480, 480)).unfold(1, 1280, 320) * head.window
    assert largest(head.samples(torch.fft.rfft(frames, dim=2)), wave) < 1e-5


@pytest.mark.parametrize(
    ("samples", "tokens"), [(513, 1), (640, 1), (1119, 1), (1120, 2), (161279, 252), (161760, 253)]
)
def test_token_counts(model: Losatok, samples: int, tokens: int) -> None:
    assert Losatok.tokens(samples) == tokens
    with exact_inference():
        mean, _ = model.posterior(torch.zeros(1, samples))
    assert mean.shape == (1, tokens, 8)


def test_the_floor_is_each_items_own(model: Losatok) -> None:
    loud, quiet = torch.randn(1, 8000), 1e-4 * torch.randn(1, 8000)
    with exact_inference():
        together, _ = model.posterior(torch.cat([loud, quiet]))
        alone = [model.posterior(item)[0] for item in (loud, quiet)]
    assert largest(together, torch.cat(alone)) < 1e-5


def write(path: Path, state: dict[str, Any]) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["bare", "wrapped", "two files", "original names", "no buffers", "bfloat16"])
def test_forms_of_the_checkpoint(tmp_path: Path, fixtures: Path, state: dict[str, Tensor], form: str) -> None:
    semantic = {key: value for key, value in state.items() if key.startswith("semantic_encoder.")}
    kept: dict[str, Any] = dict(state)
    tolerance = 3e-6
    if form == "wrapped":
        kept = {"state_dict": state}
    elif form == "two files":
        kept = {key: value for key, value in state.items() if key not in semantic}
        inner = {key.removeprefix("semantic_encoder."): value for key, value in semantic.items()}
        write(tmp_path / "semantic_encoder.pth", {"state_dict": inner})
    elif form == "original names":
        kept = {key.replace(".init_bn.", ".init_bn.1."): value for key, value in state.items()}
        kept["semantic_encoder.encoder.front_end.0.spectrogram.window"] = torch.hann_window(512)
        kept["semantic_encoder.encoder.front_end.0.mel_scale.fb"] = mel_filters(257, 64)
    elif form == "no buffers":
        kept = {k: v for k, v in state.items() if "front_end" not in k and "istft" not in k and "tracked" not in k}
    elif form == "bfloat16":
        kept = {key: v.bfloat16() if v.is_floating_point() else v for key, v in state.items()}
    made = load_losatok(write(tmp_path / "losatok.pth", kept), heads=4)
    assert all(value.dtype == torch.float32 for value in made.state_dict().values())
    if form == "bfloat16":
        assert torch.equal(made.fc_mu.weight, state["fc_mu.weight"].bfloat16().float())
        return
    found = losatok_compare(made, fixtures / "noise_S640.safetensors", wave_tolerance=tolerance)
    assert max(found.values()) < 1


def test_stored_buffers_are_used(tmp_path: Path, model: Losatok, state: dict[str, Tensor]) -> None:
    window = torch.hann_window(512).bfloat16().float()
    kept = state | {"semantic_encoder.encoder.front_end.spectrogram_window": window}
    made = load_losatok(write(tmp_path / "a.pth", kept), heads=4)
    assert torch.equal(made.semantic_encoder.front_end.window, window)
    audio = torch.randn(1, 8000)
    with exact_inference():
        moved = largest(made.posterior(audio)[0], model.posterior(audio)[0])
    assert 0 < moved < 0.05


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        load_losatok(path, **({"heads": 4} | options))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert caught.value.hint
    return line


WINDOW = "dasheng_tokenizer.decoder.head.istft.window"
FAULTS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "missing": ({}, ("fc_a.bias",), "lacks 1 of the 80 tensors of x, for instance fc_a.bias"),
    "layer scale": ({"semantic_encoder.encoder.blocks.0.ls1.gamma": torch.ones(32)}, (), "holds 1 tensors that x"),
    "DashengTokenizer": ({"dasheng_tokenizer.encoder.model.norm.bias": torch.ones(3)}, (), "is a DashengTokenizer"),
    "shape": ({"fc_a.bias": torch.ones(9)}, (), "fc_a.bias is [9], x needs [8]"),
    "window": ({WINDOW: torch.ones(7)}, (), "window is [7], must be [1280]"),
    "NaN": ({"fc_a.bias": torch.full((8,), torch.nan)}, (), "fc_a.bias has NaN"),
    "no latent": ({}, ("fc_mu.weight",), "is no LoSATok: fc_mu.weight is missing"),
    "twice": ({"semantic_encoder.encoder.init_bn.1.bias": torch.ones(64)}, (), "init_bn.bias twice"),
    "upsampling": ({"dasheng_tokenizer.upsampler.weight": torch.ones(8, 32, 4)}, (), "makes 4 decoder frames a token"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_tensors(tmp_path: Path, state: dict[str, Tensor], fault: str) -> None:
    more, less, message = FAULTS[fault]
    kept = {key: value for key, value in (state | more).items() if key not in less}
    assert message in refusal(write(tmp_path / "a.pth", kept), what="x")


def test_the_semantic_encoder_is_asked_for(tmp_path: Path, state: dict[str, Tensor]) -> None:
    kept = {key: value for key, value in state.items() if not key.startswith("semantic_encoder.")}
    line = refusal(write(tmp_path / "a.pth", kept))
    assert "lacks the semantic encoder. Put semantic_encoder.pth beside it" in line


def test_heads_damage_and_pickles(tmp_path: Path, state: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.pth", state)
    assert "which 5 heads do not divide" in refusal(path, heads=5)
    whole = path.read_bytes()
    for data in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert "is damaged" in refusal(path)
    write(path, {"state_dict": state, "note": Fraction(1, 2)})
    assert "--allow-pickle" in refusal(path)
    load_losatok(path, heads=4, allow_pickle=True)
    assert str(path) in caplog.text
