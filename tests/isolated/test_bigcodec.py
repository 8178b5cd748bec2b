"""BigCodec in its own environment, on random weights: the contract in small, the authors' calls in full size."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from isolated_support import call_authors

from tokbench.config import StreamDecl, TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.isolated.environments import Environment
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

Ready = Callable[[str], tuple[TokenizerCard, Environment]]
GEOMETRY = {
    "encoder": {"ngf": 4, "out_channels": 32},
    "decoder": {"in_channels": 32, "upsample_initial_channel": 64, "vq_dim": 32, "codebook_size": 256},
}
MAKE = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from vq.codec_decoder import CodecDecoder
from vq.codec_encoder import CodecEncoder
torch.manual_seed(0)
geometry = json.loads(sys.argv[2])
encoder, decoder = CodecEncoder(**geometry["encoder"]), CodecDecoder(**geometry["decoder"])
torch.save({"CodecEnc": encoder.state_dict(), "generator": decoder.state_dict()}, sys.argv[3])
"""


@pytest.fixture(scope="module")
def small(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenizerCard, Path]:
    card, environment = ready("bigcodec")
    path = tmp_path_factory.mktemp("bigcodec") / "bigcodec.pt"
    command = [str(environment.python), "-c", MAKE, str(environment.source), json.dumps(GEOMETRY), str(path)]
    subprocess.run(command, check=True, cwd=path.parent)
    stream = StreamDecl(name="q0", rate_hz=80, vocab=256)
    return card.model_copy(update={"streams": (stream,), "params": card.params | {"geometry": GEOMETRY}}), path


def test_the_contract(small: tuple[TokenizerCard, Path]) -> None:
    card, path = small
    tokenizer = IsolatedTokenizer(card, weights=path)
    checks = conformance(tokenizer, long_seconds=(35,))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    assert tokenizer.codebook("q0").shape == (256, 8)
    wave = np.zeros(401, np.float32)
    encoded = tokenizer.encode([wave])[0]
    assert (len(encoded.streams["q0"]), encoded.n_samples_coded) == (3, 600)


def test_another_geometry_is_refused(small: tuple[TokenizerCard, Path]) -> None:
    card, path = small
    with pytest.raises(
        MissingWeights, match=r"bigcodec\.pt: .* is \[.*\], the model needs \[.*\]\. Give the checkpoint"
    ):
        IsolatedTokenizer(find_card(TokenizerCard, "bigcodec"), weights=path)
    other = card.model_copy(update={"streams": (StreamDecl(name="q0", rate_hz=80, vocab=512),)})
    with pytest.raises(MissingWeights, match=r"has streams \{'q0': 256\}, the card of bigcodec declares \{'q0': 512\}"):
        IsolatedTokenizer(other, weights=path)


def test_full_size_tokens_and_samples_are_the_authors(ready: Ready, tmp_path: Path) -> None:
    reference = call_authors(*ready("bigcodec"), tmp_path, [speech_like(Fraction(1), 16000)])
    tokenizer = IsolatedTokenizer(reference.card, weights=reference.weights)
    item = tokenizer.encode([reference.waves[0]])[0]
    assert np.array_equal(item.streams["q0"], reference.expected["codes"])
    assert len(np.unique(item.streams["q0"])) > 10
    assert 0.01 < float(np.abs(reference.expected["wave"]).max()) < 0.99
    assert tokenizer.decode([item])[0] == pytest.approx(reference.expected["wave"], abs=1e-5)
    tokenizer.close()
