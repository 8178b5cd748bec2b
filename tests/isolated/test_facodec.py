"""FACodec in its own environment, in full size with random weights, beside the authors' own calls."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tokbench.config import TokenizerCard
from tokbench.isolated.environments import Environment
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

AUTHORS = """
import sys
import numpy as np, torch
source, folder = sys.argv[1:]
sys.path.insert(0, source)
from models.codec.ns3_codec import FACodecDecoder, FACodecEncoder, FACodecRedecoder
torch.manual_seed(0)
encoder = FACodecEncoder(ngf=32, up_ratios=[2, 4, 5, 5], out_channels=256)
decoder = FACodecDecoder(
    in_channels=256, upsample_initial_channel=1024, ngf=32, up_ratios=[5, 5, 4, 2], vq_num_q_c=2, vq_num_q_p=1,
    vq_num_q_r=3, vq_dim=256, codebook_dim=8, codebook_size_prosody=10, codebook_size_content=10,
    codebook_size_residual=10, use_gr_x_timbre=True, use_gr_residual_f0=True, use_gr_residual_phone=True,
)
redecoder = FACodecRedecoder()
with torch.no_grad():
    # Gains at which the last tanh is not saturated.
    for gain, module in ((1.0, encoder), (0.5, decoder.model), (0.5, redecoder.model)):
        for layer in module.modules():
            if hasattr(layer, "weight_g"):
                layer.weight_g.normal_(gain, 0.1 * gain)
    for embedding in [*redecoder.prosody_embs, *redecoder.content_embs, *redecoder.residual_embs]:
        embedding.weight.normal_()
parts = {"encoder": encoder, "decoder": decoder, "redecoder": redecoder}
for name, module in parts.items():
    torch.save(module.state_dict(), f"{folder}/ns3_facodec_{name}.bin")
    module.load_state_dict(torch.load(f"{folder}/ns3_facodec_{name}.bin"))
    module.eval()
one, two = (torch.from_numpy(np.load(f"{folder}/{name}.npy"))[None, None] for name in ("one", "two"))
with torch.no_grad():
    quantized, codes, _, _, timbre = decoder(encoder(one), eval_vq=False, vq=True)
    _, _, _, _, other = decoder(encoder(two), eval_vq=False, vq=True)
    wave = decoder.inference(quantized, timbre)
    converted = redecoder.inference(redecoder.vq2emb(codes, other, use_residual=False), other)
found = {"codes": codes[:, 0], "timbre": timbre[0], "wave": wave[0, 0], "converted": converted[0, 0]}
np.savez(f"{folder}/out.npz", **{name: value.numpy() for name, value in found.items()})
"""


@dataclass(frozen=True)
class Reference:
    folder: Path
    one: np.ndarray
    two: np.ndarray
    expected: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def reference(
    ready: Callable[[str], tuple[TokenizerCard, Environment]], tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    _, environment = ready("facodec")
    folder = tmp_path_factory.mktemp("facodec")
    one, two = (speech_like(Fraction(2), 16000, seed=seed) for seed in range(2))
    np.save(folder / "one.npy", one)
    np.save(folder / "two.npy", two)
    command = [str(environment.python), "-c", AUTHORS, str(environment.source), str(folder)]
    subprocess.run(command, check=True, cwd=folder)
    with np.load(folder / "out.npz") as found:
        return Reference(folder, one, two, dict(found))


def load(name: str, ready: Callable[[str], tuple[TokenizerCard, Environment]], folder: Path) -> IsolatedTokenizer:
    return IsolatedTokenizer(ready(name)[0], weights=folder)


def test_tokens_and_samples_are_the_authors(
    reference: Reference, ready: Callable[[str], tuple[TokenizerCard, Environment]]
) -> None:
    tokenizer = load("facodec", ready, reference.folder)
    item = tokenizer.encode([reference.one])[0]
    mine = np.stack([item.streams[spec.name] for spec in tokenizer.card.stream_specs])
    assert np.array_equal(mine, reference.expected["codes"])
    assert len({tuple(column) for column in mine.T}) > 10
    assert item.globals["timbre"] == pytest.approx(reference.expected["timbre"], abs=1e-5)
    assert 0.01 < float(np.abs(reference.expected["wave"]).mean()) < 0.9
    assert tokenizer.decode([item])[0] == pytest.approx(reference.expected["wave"], abs=1e-5)
    tokenizer.close()


def test_conversion_is_the_authors(
    reference: Reference, ready: Callable[[str], tuple[TokenizerCard, Environment]]
) -> None:
    tokenizer = load("facodec-redecoder", ready, reference.folder)
    one, two = tokenizer.encode([reference.one, reference.two])
    assert [*one.streams] == ["prosody", "content0", "content1"]
    made = tokenizer.decode([one], globals_from=[two])[0]
    assert made == pytest.approx(reference.expected["converted"], abs=1e-5)
    tokenizer.close()


@pytest.mark.parametrize("name", ["facodec", "facodec-redecoder"])
def test_the_contract(
    name: str, reference: Reference, ready: Callable[[str], tuple[TokenizerCard, Environment]]
) -> None:
    tokenizer = load(name, ready, reference.folder)
    checks = conformance(tokenizer, long_seconds=(Fraction(35),) if name == "facodec" else ())
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()
