"""The LoSATok adapter on a small geometry: contract, parity through the adapter, one-line refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from codecs_support import largest, losatok_input
from safetensors.torch import load_file

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import StreamDecl, TokenizerCard
from tokbench.errors import CardError, MissingWeights
from tokbench.registry import find_card
from tokbench.tokenizers.base import ExposesPosterior
from tokbench.tokenizers.conformance import conformance
from tokbench.tokenizers.load import code_hash, load_tokenizer
from tokbench.tokenizers.losatok import LosatokTokenizer


def tiny_card(name: str = "losatok-kl1e-2", **params: object) -> TokenizerCard:
    """The card with the small geometry's 8 dimensions and 4 heads."""
    card = find_card(TokenizerCard, name)
    stream = StreamDecl(name="z", kind="latent", rate_hz=card.streams[0].rate_hz, dim=8)
    return card.model_copy(update={"streams": (stream,), "params": {"heads": 4} | params})


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "parity" / "losatok" / "tiny" / "state.safetensors"


@pytest.fixture(scope="module")
def tokenizer(weights: Path) -> LosatokTokenizer:
    made = load_tokenizer(tiny_card(), weights=weights)
    assert isinstance(made, LosatokTokenizer)
    return made


def test_the_contract(tokenizer: LosatokTokenizer) -> None:
    checks = conformance(tokenizer)
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


@pytest.mark.parametrize("name", ["noise_S40000", "noise_S35123", "noise_S513"])
def test_latents_and_samples_are_the_references(tokenizer: LosatokTokenizer, weights: Path, name: str) -> None:
    want = load_file(weights.with_name(f"{name}.safetensors"))
    audio = losatok_input(name)[0].numpy()
    item = tokenizer.encode([audio])[0]
    assert item.n_samples == audio.size
    assert largest(torch.from_numpy(item.streams["z"]), want["mu"][0]) < 2e-5
    wave = tokenizer.decode([item])[0]
    assert wave.shape == audio.shape
    made = want["mu"].shape[1] * 640
    assert not wave[made:].any()
    if "wav" in want:
        n = min(made, audio.size)
        assert largest(torch.from_numpy(wave[:n]), want["wav"][0, :n]) < 1e-5
        assert isinstance(tokenizer, ExposesPosterior)
        mean, log_variance = tokenizer.posterior([audio])[0]
        assert np.array_equal(mean, item.streams["z"])
        assert largest(torch.from_numpy(log_variance), want["logvar"][0]) < 2e-5


def test_a_sample_is_drawn_by_its_seed(weights: Path) -> None:
    wave = losatok_input("noise_S196803")[0].numpy()
    drawn = load_tokenizer(tiny_card(latent="sample", seed=3), weights=weights)
    assert isinstance(drawn, LosatokTokenizer)
    first, again = (item.streams["z"] for item in drawn.encode([wave, wave]))
    assert np.array_equal(first, again)
    mean, log_variance = drawn.posterior([wave])[0]
    standard = (first - mean) / np.exp(log_variance / 2)
    assert abs(standard.mean()) < 0.1
    assert standard.std() == pytest.approx(1, abs=0.1)
    with pytest.raises(CardError, match=r"params\.heads"):
        load_tokenizer(tiny_card(heads=0), weights=weights)


def test_the_other_variants_file(tmp_path: Path, weights: Path) -> None:
    for mine, other in (("kl1e-2", "kl1e-3"), ("kl1e-3", "kl1e-2")):
        path = tmp_path / f"losatok_{other}.safetensors"
        path.symlink_to(weights)
        with pytest.raises(BadCheckpoint, match=f"is {other} by its name, losatok-{mine} is {mine}") as caught:
            load_tokenizer(tiny_card(f"losatok-{mine}"), weights=path)
        assert f"--tokenizer losatok-{other}" in str(caught.value)
        load_tokenizer(tiny_card(f"losatok-{other}"), weights=path)


def test_another_geometry(weights: Path) -> None:
    with pytest.raises(BadCheckpoint, match="has 8 dimensions, losatok-kl1e-2 128"):
        load_tokenizer("losatok-kl1e-2", weights=weights)


def test_absent_weights_and_folders(tmp_path: Path, weights: Path) -> None:
    for place in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingWeights, match=r"Get losatok_kl1e-3\.pth from wxzyd123/LoSATok") as caught:
            load_tokenizer("losatok-kl1e-3", weights=place)
        assert "\n" not in str(caught.value)
    torch.save(load_file(weights), tmp_path / "losatok_kl1e-3.pth")
    load_tokenizer(tiny_card("losatok-kl1e-3"), weights=tmp_path)
    card = tiny_card("losatok-kl1e-3")
    assert set(LosatokTokenizer.weights_identity(card, tmp_path)) == {"weights"}
    (tmp_path / "semantic_encoder.pth").write_bytes(b"another part")
    assert set(LosatokTokenizer.weights_identity(card, tmp_path)) == {"weights", "semantic_encoder.pth"}
    assert LosatokTokenizer.weights_identity(card) == {"wxzyd123/LoSATok": "main"}


def test_keys_need_no_torch(weights: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tokbench.config import TokenizerCard;"
        "from tokbench.registry import find_card; from tokbench.tokenizers.load import tokenizer_class;"
        "card = find_card(TokenizerCard, 'losatok-kl1e-2'); cls = tokenizer_class(card);"
        f"cls.weights_identity(card, Path({str(weights)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(code_hash(LosatokTokenizer)) == 64
