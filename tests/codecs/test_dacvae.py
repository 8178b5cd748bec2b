"""DAC-VAE against the reference's outputs on random weights, and checkpoints that must be refused."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codecs_support import by_recipe, dacvae_recipe, largest, normal, shapes
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokbench.codecs.checkpoint import BadCheckpoint, fill, fold_weight_norm
from tokbench.codecs.dacvae.checkpoint import load_dacvae
from tokbench.codecs.dacvae.config import DacVaeConfig, config_of_shapes
from tokbench.codecs.dacvae.model import DacVae
from tokbench.codecs.precision import exact_inference

TINY = ("tiny_75hz_64", "tiny_50hz_80")


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "parity" / "dacvae"


def audio_of(samples: int) -> Tensor:
    wave = np.clip(0.3 * normal(f"input:dac_S{samples}", (samples,)), -1, 1).astype(np.float32)
    return torch.from_numpy(wave)[None, None]


def build(state: dict[str, Tensor]) -> DacVae:
    folded = fold_weight_norm(state, where="recipe")
    model = DacVae(config_of_shapes({key: tuple(v.shape) for key, v in folded.items()}, where="recipe"))
    fill(model, folded, where="recipe", what="recipe")
    return model.eval()


def taps(model: DacVae) -> dict[str, Tensor]:
    """Outputs of every stage of the encoder under the fixtures' names; filled by the next passes."""
    seen: dict[str, Tensor] = {}
    named = {f"enc{i}": m for i, m in enumerate(model.encoder.block)}
    named["en_conv_post"] = model.en_conv_post
    for name, module in named.items():
        module.register_forward_hook(lambda _m, _i, out, key=f"tap.{name}": seen.update({key: out.clone()}))
    return seen


def decoder_taps(model: DacVae, want: dict[str, Tensor]) -> None:
    """The fixtures' decoder taps follow their own `de_conv_pre`, which the reference makes from a drawn latent."""
    x = want["tap.de_conv_pre"].float()
    with exact_inference():
        for index, stage in enumerate(model.decoder.model):
            x = stage(x.clone())
            key = f"tap.dec{index}"
            if key in want:
                close(x, want[key], key)


def close(got: Tensor, want: Tensor, key: str) -> None:
    half = want.dtype == torch.float16
    tolerance = 2e-3 * float(want.abs().max()) if half else 1e-5
    assert largest(got[..., : want.shape[-1]], want) < tolerance, key


def compare(model: DacVae, file: Path) -> None:
    """All that a fixture file holds; its name says how long the input is and whether it is padded."""
    want = load_file(file)
    size, form = file.stem.split("_")
    audio = audio_of(int(size[1:]))
    seen = taps(model)
    with exact_inference():
        mean, log_sigma = model.posterior(model.pad(audio) if form == "pad" else audio)
        wave = model.decode(mean)
    assert largest(mean, want["mu"]) < 1e-5
    assert largest(log_sigma, want["logs"]) < 1e-5
    if "y" in want:
        part = want["y"].shape[-1]
        assert wave.shape[-1] == mean.shape[-1] * model.config.hop
        if part < wave.shape[-1]:
            wave = wave[..., -part:]
        assert largest(wave, want["y"]) < 2e-5
    for key in (key for key in want if key.startswith("tap.en")):
        close(seen[key], want[key], key)
    if "tap.de_conv_pre" in want:
        decoder_taps(model, want)


@pytest.mark.parametrize("geometry", TINY)
def test_every_small_fixture(fixtures: Path, geometry: str) -> None:
    model = build(load_file(fixtures / geometry / "state.safetensors"))
    want = json.loads((fixtures / geometry / "config.json").read_text())
    assert model.config == DacVaeConfig(
        want["encoder_dim"], tuple(want["encoder_rates"]), want["latent_dim"], want["decoder_dim"],
        tuple(want["decoder_rates"]),
    )  # fmt: skip
    files = sorted((fixtures / geometry).glob("S*.safetensors"))
    assert len(files) == 7
    for file in files:
        compare(model, file)


def test_every_full_size_fixture(fixtures: Path) -> None:
    folder = fixtures / "75hz_64"
    state = by_recipe(shapes(folder / "keys.json"), dacvae_recipe)
    check = json.loads((fixtures / "recipe_check.json").read_text())
    for key, values in check["recipe"].items():
        assert state[key].flatten()[:3].tolist() == pytest.approx(values, abs=1e-7)
    assert hashlib.sha256(audio_of(24000).numpy().tobytes()).hexdigest() == check["sha256_wav_S24000"]
    model = build(state)
    files = sorted(folder.glob("S*.safetensors"))
    assert len(files) == 3
    for file in files:
        compare(model, file)


@pytest.mark.parametrize("geometry", ["75hz_64", "50hz_80"])
def test_names_and_shapes_of_the_full_geometries(fixtures: Path, geometry: str) -> None:
    keys = shapes(fixtures / geometry / "keys.json")
    empty = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    folded = fold_weight_norm(empty, where="")
    model = DacVae(config_of_shapes({key: tuple(v.shape) for key, v in folded.items()}, where=""), device="meta")
    assert {key: v.shape for key, v in model.state_dict().items()} == {key: v.shape for key, v in folded.items()}
    want = json.loads((fixtures / geometry / "config.json").read_text())
    assert model.config.latent_dim == want["latent_dim"]
    assert model.config.hop == {"75hz_64": 320, "50hz_80": 480}[geometry]
    assert sum(v.numel() for v in empty.values()) == {"75hz_64": 60_595_938, "50hz_80": 95_153_458}[geometry]


@pytest.fixture(scope="module")
def state(fixtures: Path) -> dict[str, Tensor]:
    return load_file(fixtures / "tiny_75hz_64/state.safetensors")


def default_list() -> list[Any]:
    return []


default_list.__module__ = "audiotools.ml.decorators"


def saved_by_training(path: Path, state: dict[str, Tensor], config: object) -> Path:
    """The dictionary that training saves, its curves in the classes that it uses."""
    import sys
    import types

    curves: Any = defaultdict(dict)
    names = ("audiotools", "audiotools.ml", "audiotools.ml.decorators")
    modules = [types.ModuleType(name) for name in names]
    vars(modules[-1])["default_list"] = default_list
    sys.modules.update(zip(names, modules, strict=True))
    try:
        curves["train"] = defaultdict(default_list)
        curves["train"]["loss"] = [1.0, 0.5]
        whole = {"generator": OrderedDict(state), "tracker": curves, "step": 7, "config": config}
        torch.save(whole, path)
    finally:
        for name in names:
            del sys.modules[name]
    return path


def declared(fixtures: Path) -> dict[str, Any]:
    return {"vae": json.loads((fixtures / "tiny_75hz_64/config.json").read_text())}


@pytest.mark.parametrize("form", ["training", "generator", "bare", "safetensors", "new names"])
def test_forms_of_the_checkpoint(tmp_path: Path, fixtures: Path, state: dict[str, Tensor], form: str) -> None:
    path, rate = tmp_path / "a.pth", None
    if form == "training":
        saved_by_training(path, state, declared(fixtures))
        rate = 24000
    elif form == "generator":
        torch.save({"generator": state}, path)
    elif form == "bare":
        torch.save(state, path)
    elif form == "safetensors":
        path = tmp_path / "a.safetensors"
        save_file(state, path)
    else:
        new = {
            key.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): value
            for key, value in state.items()
        }
        torch.save(new, path)
    model, found = load_dacvae(path)
    assert found == rate
    compare(model, fixtures / "tiny_75hz_64/S1920_pad.safetensors")


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        load_dacvae(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert caught.value.hint
    return line


@pytest.mark.parametrize(
    "fault", ["missing", "extra", "shape", "plain", "another model", "half a pair", "empty", "strides", "not tensors"]
)
def test_wrong_tensors(tmp_path: Path, state: dict[str, Tensor], fault: str) -> None:
    wrong: dict[str, Any] = dict(state)
    if fault == "missing":
        del wrong["de_conv_pre.0.bias"]
        message = "lacks 1 of the"
    elif fault == "extra":
        wrong["quantizer.weight"] = torch.ones(2)
        message = "holds 1 tensors that x does not have, for instance quantizer.weight"
    elif fault == "shape":
        wrong["de_conv_pre.0.bias"] = torch.ones(2)
        message = "de_conv_pre.0.bias is [2], x needs [6]"
    elif fault == "plain":
        wrong = {key.replace("block.0.0.", "block.0."): value for key, value in state.items()}
        message = "has the layout of a plain DAC"
    elif fault == "another model":
        wrong = {"layer.weight": torch.ones(3, 3)}
        message = "is no DAC-VAE"
    elif fault == "half a pair":
        del wrong["encoder.block.0.0.weight_v"]
        message = "lacks encoder.block.0.0.weight_v"
    elif fault == "empty":
        wrong, message = {}, "no state dict"
    elif fault == "strides":
        wrong = {key: value for key, value in state.items() if not key.startswith("encoder.block.2.")}
        message = "strided convolutions are not as expected"
    else:
        wrong["step"] = 3
        message = "holds 'step', which is a int and no tensor"
    path = tmp_path / "a.pth"
    torch.save(wrong, path)
    assert message in refusal(path, what="x")


@pytest.mark.parametrize(("name", "value"), [("latent_dim", 80), ("encoder_rates", [2, 2, 10, 8]), ("norm", True)])
def test_a_configuration_that_contradicts_its_weights(
    tmp_path: Path, fixtures: Path, state: dict[str, Tensor], name: str, value: object
) -> None:
    config = declared(fixtures)
    config["vae"][name] = value
    path = saved_by_training(tmp_path / "a.pth", state, config)
    assert f"its configuration says {name} = {value}" in refusal(path)


def test_damaged_files_and_pickles(tmp_path: Path, state: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    whole = path.read_bytes()
    for data in (b"", b"no checkpoint", whole[:1000], whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert "is damaged" in refusal(path)
    broken = tmp_path / "a.safetensors"
    broken.write_bytes(b"\x00" * 100)
    assert "is damaged" in refusal(broken)
    torch.save({"generator": state, "note": Fraction(1, 2)}, path)
    assert "--allow-pickle" in refusal(path)
    assert not caplog.text
    load_dacvae(path, allow_pickle=True)
    assert str(path) in caplog.text
