"""WavTokenizer in its own environment, in full size with random weights, beside the authors' own calls."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.isolated.environments import Environment
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

AUTHORS = """
import importlib, os, sys
import numpy as np, torch
source, config, checkpoint, wave, out = sys.argv[1:]
parent, package = os.path.split(source)
sys.path.insert(0, parent)
Model = importlib.import_module(package + ".decoder.pretrained").WavTokenizer
torch.manual_seed(0)
model = Model.from_hparams0802(os.path.join(source, config)).eval()
audio = torch.from_numpy(np.load(wave))[None]
bandwidth = torch.tensor([0])
with torch.no_grad():
    found = model.feature_extractor.encodec.encoder(audio[None])[0]
    book = model.feature_extractor.encodec.quantizer.vq.layers[0]._codebook
    book.embed.copy_(found.mean(1) + found.std(1) * torch.randn(book.embed.shape))
    book.inited.fill_(1)
state = {**model.state_dict(), "multiperioddisc.weight": torch.zeros(3)}
torch.save({"state_dict": state, "epoch": 1}, checkpoint)
model = Model.from_pretrained0802(os.path.join(source, config), checkpoint)
features, codes = model.encode_infer(audio, bandwidth_id=bandwidth)
decoded = model.decode(features, bandwidth_id=bandwidth)
np.savez(out, codes=codes.numpy().reshape(-1), wave=decoded.numpy().reshape(-1), table=book.embed.numpy())
"""


@dataclass(frozen=True)
class Reference:
    card: TokenizerCard
    weights: Path
    wave: np.ndarray
    expected: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["wavtokenizer-40hz", "wavtokenizer-75hz"])
def reference(
    request: pytest.FixtureRequest,
    ready: Callable[[str], tuple[TokenizerCard, Environment]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Reference:
    card, environment = ready(request.param)
    folder = tmp_path_factory.mktemp("wavtokenizer")
    # A whole number of frames at both rates, so that padding is not in question.
    wave = speech_like(Fraction(2), 24000)
    np.save(folder / "wave.npy", wave)
    files = [str(folder / name) for name in ("model.ckpt", "wave.npy", "out.npz")]
    command = [str(environment.python), "-c", AUTHORS, str(environment.source), card.params["config"], *files]
    subprocess.run(command, check=True, cwd=folder)
    with np.load(folder / "out.npz") as found:
        return Reference(card, folder / "model.ckpt", wave, dict(found))


def test_tokens_and_samples_are_the_authors(reference: Reference) -> None:
    tokenizer = IsolatedTokenizer(reference.card, weights=reference.weights)
    item = tokenizer.encode([reference.wave])[0]
    assert np.array_equal(item.streams["q0"], reference.expected["codes"])
    assert len(np.unique(item.streams["q0"])) > 10
    made = tokenizer.decode([item])[0]
    assert made == pytest.approx(reference.expected["wave"][: len(made)], abs=1e-5)
    assert np.array_equal(tokenizer.codebook("q0"), reference.expected["table"])
    tokenizer.close()


def test_the_contract(reference: Reference) -> None:
    tokenizer = IsolatedTokenizer(reference.card, weights=reference.weights)
    checks = conformance(tokenizer, long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()


def test_another_file_is_refused(reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(reference.weights.read_bytes()[:1000])
    with pytest.raises(MissingWeights, match="is damaged, or is no checkpoint"):
        IsolatedTokenizer(reference.card, weights=tmp_path / "model.ckpt").encode([reference.wave])
