"""S3Tokenizer on random weights, as the package's checkpoint and as an ONNX file of the published node names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_task import pnmi, value

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.s3 import S3Tokenizer

s3tokenizer = pytest.importorskip("s3tokenizer")


def card(version: str, layers: int = 1) -> TokenizerCard:
    """The card with a smaller number of layers."""
    found = find_card(TokenizerCard, f"s3-{version}-25hz")
    return found.model_copy(update={"params": {"version": version, "layers": layers}})


def model(version: str, layers: int = 1) -> Any:
    """A random model of one head, codes spread over the vocabulary."""
    from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
    from s3tokenizer.model_v3 import ModelConfigV3, S3TokenizerV3

    torch.manual_seed(1)
    size = {"n_audio_state": 64, "n_audio_head": 1, "n_audio_layer": layers}
    if version == "v2":
        made: Any = S3TokenizerV2("speech_tokenizer_v2_25hz", ModelConfig(**size))
    else:
        made = S3TokenizerV3("speech_tokenizer_v3_25hz", ModelConfigV3(**size))
    made.quantizer._codebook.project_down.weight.data *= 30
    return made.eval()


def save(version: str, path: Path, layers: int = 1) -> Any:
    made = model(version, layers)
    torch.save(made.state_dict(), path)
    return made


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_contract(version: str, tmp_path: Path) -> None:
    save(version, tmp_path / "s3.pt")
    checks = conformance(load_tokenizer(card(version), weights=tmp_path / "s3.pt"))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_codes_are_the_packages(version: str, tmp_path: Path) -> None:
    reference = save(version, tmp_path / "s3.pt")
    tokenizer = load_tokenizer(card(version), weights=tmp_path / "s3.pt")
    wave = speech_like(Fraction(4), 16000)[:-77]
    mel = s3tokenizer.log_mel_spectrogram(torch.from_numpy(wave))
    codes, lengths = reference.quantize(mel[None], torch.tensor([mel.shape[1]]))
    mine = tokenizer.encode([wave])[0].streams["units"]
    assert np.array_equal(mine, codes[0, : int(lengths)].numpy())
    assert mine.dtype == np.int64
    assert len(np.unique(mine)) > 10


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_one_task(version: str, tmp_path: Path) -> None:
    name = f"s3-{version}-25hz"
    save(version, tmp_path / "s3.pt", layers=find_card(TokenizerCard, name).params["layers"])
    result = pnmi(name, tmp_path / "s3.pt", tmp_path)
    assert result.status == "complete"
    assert 0 < value(result, "pnmi[units]") <= 1
    assert value(result, "pnmi[units]") != value(result, "pnmi_shuffled[units]")


def test_pieces_of_thirty_seconds(tmp_path: Path) -> None:
    save("v2", tmp_path / "s3.pt")
    tokenizer = load_tokenizer(card("v2"), weights=tmp_path / "s3.pt")
    # 52.4 s is a length at which the package's own windows lose 50 codes.
    wave = np.tile(speech_like(Fraction(131, 25), 16000), 10)
    whole = tokenizer.encode([wave])[0].streams["units"]
    assert len(whole) == 1310
    first, second = (tokenizer.encode([piece])[0].streams["units"] for piece in (wave[:480000], wave[480000:]))
    assert np.array_equal(whole, np.concatenate([first, second]))
    assert len(tokenizer.encode([wave[:480001]])[0].streams["units"]) == 751


def onnx_of(made: Any, path: Path) -> Path:
    """The tensors of a v2 model in an ONNX graph whose nodes and inputs are called as in the published file."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    state = {key: value.numpy() for key, value in made.state_dict().items()}
    nodes, tensors = [], []

    def add(op: str, node: str, **inputs: np.ndarray) -> None:
        for name, array in inputs.items():
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        nodes.append(helper.make_node(op, ["x", *inputs], [f"out{len(nodes)}"], name=node))

    for number, conv in ((2216, "conv1"), (2218, "conv2")):
        weight, bias = (state[f"encoder.{conv}.{part}"] for part in ("weight", "bias"))
        add("Conv", f"/{conv}/Conv", **{f"onnx::Conv_{number}": weight, f"onnx::Conv_{number + 1}": bias})
    for norm in ("attn_ln", "mlp_ln"):
        weight, bias = (state[f"encoder.blocks.0.{norm}.{part}"] for part in ("weight", "bias"))
        add("LayerNormalization", f"/blocks.0/{norm}/LayerNormalization", **{f"{norm}.w": weight, f"{norm}.b": bias})
    for linear in ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/mlp.0", "mlp/mlp.2"):
        key = f"encoder.blocks.0.{linear.replace('mlp/mlp', 'mlp').replace('/', '.')}"
        add("MatMul", f"/blocks.0/{linear}/MatMul", **{f"{linear}.w": state[f"{key}.weight"].T})
        if f"{key}.bias" in state:
            add("Add", f"/blocks.0/{linear}/Add", **{f"{linear}.b": state[f"{key}.bias"]})
    add("Conv", "/blocks.0/attn/fsmn_block/Conv", fsmn=state["encoder.blocks.0.attn.fsmn_block.weight"])
    down = "quantizer._codebook.project_down"
    add("MatMul", "/quantizer/project_in/MatMul", **{"onnx::MatMul_2536": state[f"{down}.weight"].T})
    add("Add", "/quantizer/project_in/Add", **{"quantizer.project_in.bias": state[f"{down}.bias"]})
    onnx.save(helper.make_model(helper.make_graph(nodes, "s3", [], [], tensors)), path)
    return path


def test_an_onnx_file(tmp_path: Path) -> None:
    made = save("v2", tmp_path / "s3.pt")
    path = onnx_of(made, tmp_path / "speech_tokenizer_v2.onnx")
    wave = speech_like(Fraction(2), 16000)
    one, two, three = (load_tokenizer(card("v2"), weights=w).encode([wave])[0].streams["units"]
                       for w in (path, tmp_path, tmp_path / "s3.pt"))  # fmt: skip
    assert np.array_equal(one, three)
    assert np.array_equal(two, three)
    identity = S3Tokenizer.weights_identity(card("v2"), path)
    assert set(identity) == {"weights", "s3tokenizer", "torch"}


def test_what_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s3.pt"
    save("v2", path)
    with pytest.raises(BadCheckpoint, match="has 1 layers, s3-v2-25hz has 6"):
        load_tokenizer("s3-v2-25hz", weights=path)
    save("v3", path)
    state = torch.load(path)
    del state["encoder.blocks.0.mlp_ln.bias"]
    torch.save(state, path)
    load_tokenizer(card("v3"), weights=path)
    assert "1 biases of layer norms are not in it" in caplog.text
    del state["encoder.conv2.weight"]
    torch.save(state, path)
    with pytest.raises(BadCheckpoint, match=r"for instance encoder\.conv2\.weight"):
        load_tokenizer(card("v3"), weights=path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(BadCheckpoint, match="holds no S3Tokenizer"):
        load_tokenizer(card("v2"), weights=path)
    (tmp_path / "bad.onnx").write_bytes(b"no graph at all")
    for version in ("v2", "v3"):
        with pytest.raises(BadCheckpoint) as caught:
            load_tokenizer(card(version), weights=tmp_path / "bad.onnx")
        assert "\n" not in str(caught.value)
    for weights in (None, tmp_path / "absent"):
        with pytest.raises(MissingWeights, match=r"speech_tokenizer_v2\.onnx"):
            load_tokenizer("s3-v2-25hz", weights=weights)
