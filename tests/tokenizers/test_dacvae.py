"""The DAC-VAE adapter on a small geometry: contract, parity through the adapter, one-line refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from codecs_support import largest, normal
from safetensors.torch import load_file

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import StreamDecl, TokenizerCard
from tokbench.errors import CardError, MissingWeights, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.base import ExposesPosterior
from tokbench.tokenizers.conformance import conformance
from tokbench.tokenizers.dacvae import DacVaeTokenizer
from tokbench.tokenizers.load import code_hash, load_tokenizer
from tokbench.types import Encoded

NAMES = {"dacvae-75hz": "tiny_75hz_64", "dacvae-50hz": "tiny_50hz_80"}


def tiny_card(name: str, **params: object) -> TokenizerCard:
    """The card with the small geometry's 6 dimensions."""
    card = find_card(TokenizerCard, name)
    stream = StreamDecl(name="z", kind="latent", rate_hz=card.streams[0].rate_hz, dim=6)
    return card.model_copy(update={"streams": (stream,), "params": params or card.params})


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "parity" / "dacvae"


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> DacVaeTokenizer:
    weights = folder / NAMES[request.param] / "state.safetensors"
    made = load_tokenizer(tiny_card(request.param), weights=weights)
    assert isinstance(made, DacVaeTokenizer)
    return made


def test_the_contract(tokenizer: DacVaeTokenizer) -> None:
    checks = conformance(tokenizer)
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


def test_latents_and_samples_are_the_references(tokenizer: DacVaeTokenizer, folder: Path) -> None:
    hop = {75: 320, 50: 480}[int(tokenizer.card.stream_specs[0].rate_hz)]
    size = 6 * hop + 101
    want = load_file(folder / NAMES[tokenizer.card.name] / f"S{size}_pad.safetensors")
    audio = np.clip(0.3 * normal(f"input:dac_S{size}", (size,)), -1, 1).astype(np.float32)
    item = tokenizer.encode([audio])[0]
    assert item.n_samples_coded == 7 * hop
    assert largest(torch.from_numpy(item.streams["z"]), want["mu"][0].T) < 1e-5
    assert largest(torch.from_numpy(tokenizer.decode([item])[0]), want["y"][0, 0, :size]) < 2e-5
    assert isinstance(tokenizer, ExposesPosterior)
    mean, log_variance = tokenizer.posterior([audio])[0]
    assert np.array_equal(mean, item.streams["z"])
    assert largest(torch.from_numpy(log_variance), 2 * want["logs"][0].T) < 2e-5  # the reference's is log sigma
    assert np.array_equal(
        tokenizer.encode([3 * audio])[0].streams["z"], tokenizer.encode([np.clip(3 * audio, -1, 1)])[0].streams["z"]
    )
    with pytest.raises(TokensError, match=f"{9 * hop} samples have 9 frames"):
        tokenizer.decode([Encoded(item.streams, n_samples=9 * hop)])


def test_a_sample_is_drawn_by_its_seed(folder: Path) -> None:
    weights = folder / "tiny_75hz_64" / "state.safetensors"
    wave = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    draws = []
    for seed in (0, 0, 1):
        drawn = load_tokenizer(tiny_card("dacvae-75hz", latent="sample", seed=seed), weights=weights)
        assert isinstance(drawn, DacVaeTokenizer)
        first, again = (item.streams["z"] for item in drawn.encode([wave, wave]))
        assert np.array_equal(first, again)
        draws.append(first)
    assert np.array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])
    mean, log_variance = drawn.posterior([wave])[0]
    standard = (draws[0] - mean) / np.exp(log_variance / 2)
    assert abs(standard.mean()) < 0.2
    assert standard.std() == pytest.approx(1, abs=0.15)
    with pytest.raises(CardError, match=r"params\.latent"):
        load_tokenizer(tiny_card("dacvae-75hz", latent="mode"), weights=weights)


def test_the_other_variants_checkpoint(folder: Path) -> None:
    for name, other in (("dacvae-75hz", "tiny_50hz_80"), ("dacvae-50hz", "tiny_75hz_64")):
        with pytest.raises(BadCheckpoint, match=f"is a DAC-VAE of 6 dimensions every .* samples, {name} is"):
            load_tokenizer(tiny_card(name), weights=folder / other / "state.safetensors")
        with pytest.raises(BadCheckpoint, match=f"{name} is (64|80) at"):
            load_tokenizer(name, weights=folder / NAMES[name] / "state.safetensors")


def test_absent_weights_and_folders(tmp_path: Path, folder: Path) -> None:
    for weights in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingWeights, match="releases/tag/64dim-3xframe_rate and type --weights") as caught:
            load_tokenizer("dacvae-75hz", weights=weights)
        assert "\n" not in str(caught.value)
    source = folder / "tiny_75hz_64" / "state.safetensors"
    (tmp_path / "any.safetensors").symlink_to(source)
    load_tokenizer(tiny_card("dacvae-75hz"), weights=tmp_path)
    assert DacVaeTokenizer.weights_identity(tiny_card("dacvae-75hz"), tmp_path)["weights"].startswith("sha256:")
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(MissingWeights):  # two candidates: the user must say which
        load_tokenizer(tiny_card("dacvae-75hz"), weights=tmp_path)


def test_keys_need_no_torch(folder: Path) -> None:
    weights = str(folder / "tiny_75hz_64" / "state.safetensors")
    code = (
        "import sys; from pathlib import Path; from tokbench.config import TokenizerCard;"
        "from tokbench.registry import find_card; from tokbench.tokenizers.load import tokenizer_class;"
        "card = find_card(TokenizerCard, 'dacvae-75hz'); cls = tokenizer_class(card);"
        f"cls.weights_identity(card, Path({weights!r})); cls.weights_identity(card); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(code_hash(DacVaeTokenizer)) == 64
