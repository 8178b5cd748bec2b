"""The NanoCodec adapter on an archive that NeMo wrote: contract, parity through the adapter, one-line refusals."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from codecs_support import largest
from safetensors.torch import load_file

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import StreamDecl, TokenizerCard
from tokbench.errors import MissingWeights, NotApplicable, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.base import ExposesCodebook, ExposesFeatures
from tokbench.tokenizers.conformance import conformance
from tokbench.tokenizers.load import code_hash, load_tokenizer
from tokbench.tokenizers.nanocodec import NanoCodecTokenizer
from tokbench.types import Encoded

NAMES = ("nanocodec-0.6k", "nanocodec-1.78k", "nanocodec-1.89k")


@pytest.fixture(scope="module")
def archive(shared: Path) -> Path:
    return shared / "parity" / "nanocodec" / "tiny_nemo" / "tiny.nemo"


def tiny_card() -> TokenizerCard:
    """The 0.6k card with the archive's geometry: two codebooks, a frame every 42 samples."""
    streams = tuple(
        StreamDecl(name=f"q{i}", rate_hz=Fraction(22050, 42), vocab=4032, levels=(9, 8, 8, 7)) for i in range(2)
    )
    return find_card(TokenizerCard, "nanocodec-0.6k").model_copy(update={"streams": streams})


@pytest.fixture(scope="module")
def tokenizer(archive: Path) -> NanoCodecTokenizer:
    made = load_tokenizer(tiny_card(), weights=archive)
    assert isinstance(made, NanoCodecTokenizer)
    return made


def test_the_contract(tokenizer: NanoCodecTokenizer) -> None:
    checks = conformance(tokenizer)
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


def test_tokens_and_samples_are_nemos(tokenizer: NanoCodecTokenizer, archive: Path) -> None:
    want = load_file(archive.with_name("expected.safetensors"))
    audio = want["T1000.audio"][0].numpy()
    item = tokenizer.encode([audio])[0]
    assert item.n_samples_coded == int(want["T1000.wave_len"])
    assert np.array_equal(np.stack([item.streams["q0"], item.streams["q1"]]), want["T1000.tokens"][0].numpy())
    import torch

    wave = torch.from_numpy(tokenizer.decode([item])[0])
    assert wave.shape == (1000,)
    assert largest(wave, want["T1000.wave"][0, :1000]) < 1e-4
    before, after = (tokenizer.features([audio], which)[0] for which in ("pre_quant", "post_quant"))
    assert largest(torch.from_numpy(before), want["T1000.encoded"][0].T) < 1e-4
    assert largest(torch.from_numpy(after), want["T1000.dequantized"][0].T) < 1e-6
    assert isinstance(tokenizer, ExposesFeatures)
    assert isinstance(tokenizer, ExposesCodebook)
    book = tokenizer.codebook("q1")
    assert np.array_equal(book[item.streams["q1"]], after[:, 4:])
    with pytest.raises(TokensError, match="no stream 'q2'"):
        tokenizer.codebook("q2")


def test_tokens_of_another_length_are_refused(tokenizer: NanoCodecTokenizer) -> None:
    item = tokenizer.encode([np.zeros(1000, np.float32)])[0]
    with pytest.raises(TokensError, match="1100 samples have 27 frames"):
        tokenizer.decode([Encoded(item.streams, n_samples=1100)])
    with pytest.raises(NotApplicable):
        tokenizer.decode([item], globals_from=[item])


@pytest.mark.parametrize(
    ("name", "hop", "books", "vocab", "bps"),
    [
        ("nanocodec-0.6k", 1764, 4, 4032, 598.9),
        ("nanocodec-1.78k", 1764, 13, 2016, 1783.8),
        ("nanocodec-1.89k", 1024, 8, 2016, 1891.0),
    ],
)
def test_the_cards(name: str, hop: int, books: int, vocab: int, bps: float) -> None:
    card = find_card(TokenizerCard, name)
    assert [stream.name for stream in card.streams] == [f"q{i}" for i in range(books)]
    for spec in card.stream_specs:
        assert spec.rate_hz == Fraction(22050, hop)
        assert spec.vocab == vocab == np.prod(spec.levels or ())
    assert sum(spec.nominal_bps or 0 for spec in card.stream_specs) == pytest.approx(bps, abs=0.05)
    assert card.proven


@pytest.mark.parametrize("name", NAMES)
def test_another_variants_archive(name: str, archive: Path) -> None:
    with pytest.raises(BadCheckpoint, match=f"is a NanoCodec of 2 x 4032 codes every 42 samples .*{name}"):
        load_tokenizer(name, weights=archive)


def test_absent_weights(tmp_path: Path) -> None:
    for weights in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingWeights, match=r"nemo-nano-codec-22khz-0\.6kbps") as caught:
            load_tokenizer("nanocodec-0.6k", weights=weights)
        assert "\n" not in str(caught.value)
        assert "--weights" in str(caught.value)


def test_a_folder_with_the_published_name(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "nemo-nano-codec-22khz-0.6kbps-12.5fps.nemo").symlink_to(archive)
    load_tokenizer(tiny_card(), weights=tmp_path)
    card = tiny_card()
    by_folder, by_file = (NanoCodecTokenizer.weights_identity(card, path) for path in (tmp_path, archive))
    assert by_folder == by_file == {"weights": "sha256:" + by_file["weights"].removeprefix("sha256:")}
    assert len(by_file["weights"]) == 7 + 64
    assert NanoCodecTokenizer.weights_identity(card) == {"nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps": "main"}


def test_keys_need_no_torch(archive: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tokbench.config import TokenizerCard;"
        "from tokbench.registry import find_card; from tokbench.tokenizers.load import tokenizer_class;"
        "card = find_card(TokenizerCard, 'nanocodec-0.6k'); cls = tokenizer_class(card);"
        f"cls.weights_identity(card, Path({str(archive)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(code_hash(NanoCodecTokenizer)) == 64
