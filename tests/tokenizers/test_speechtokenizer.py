"""SpeechTokenizer's port: what the package's model gave on weights by recipe, and the package itself where it is."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codecs_support import normal
from one_task import reconstruction, value

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import LONG_SECONDS, conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.pretrained.base import CodesCodec
from tokbench.types import Wave

CONFIG = {
    "sample_rate": 16000, "n_filters": 2, "dimension": 16, "semantic_dimension": 12, "strides": [8, 5, 4, 2],
    "lstm_layers": 2, "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
    "activation": "ELU", "n_q": 8, "codebook_size": 1024, "batch_size": 7,
}  # fmt: skip
"""The published config with smaller widths; `batch_size` stands for the fields about training."""
EXPECTED = Path(__file__).with_name("speechtokenizer_expected.npz")
"""Codes and samples of `wave()` by the model of the package speechtokenizer 1.0.1 with the weights of `state()`; beside
it the names and shapes of that model's tensors."""


def state() -> dict[str, torch.Tensor]:
    """Every tensor of the published layout, by recipe: unit gain for matrices, random codebooks."""
    made = {}
    for key, shape in json.loads(EXPECTED.with_suffix(".json").read_text()).items():
        values = normal(key, tuple(shape))
        fan = np.prod(shape[1:]) if len(shape) > 1 and "embed" not in key else 1.0
        made[key] = torch.from_numpy(np.asarray(values / np.sqrt(fan), np.float32))
        if "embed" in key or ".bias" in key:
            made[key] *= 0.1
        if key.endswith("inited"):
            made[key] = torch.ones(shape)
    return made


def save(folder: Path, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    torch.save(state(), folder / "SpeechTokenizer.pt")
    return folder


def wave() -> Wave:
    return speech_like(Fraction(1, 2), 16000)[:-37]


@pytest.fixture
def tokenizer(tmp_path: Path) -> CodesCodec:
    made = load_tokenizer("speechtokenizer", weights=save(tmp_path))
    assert isinstance(made, CodesCodec)
    return made


def test_the_contract(tokenizer: CodesCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    # A new process for every family takes too long; Mimi's goes through one.
    monkeypatch.setattr(
        "tokbench.tokenizers.conformance.decode_elsewhere",
        lambda own, item: load_tokenizer("speechtokenizer", weights=own.weights).decode([item])[0],
    )
    checks = conformance(tokenizer, long_seconds=LONG_SECONDS[:1])
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


def test_tokens_and_samples_are_those_stored(tokenizer: CodesCodec) -> None:
    item = tokenizer.encode([wave()])[0]
    with np.load(EXPECTED) as want:
        assert np.array_equal(np.stack(list(item.streams.values())), want["codes"])
        assert tokenizer.decode([item])[0] == pytest.approx(want["samples"][: item.n_samples], abs=1e-5)
    assert len(np.unique(item.streams["q7"])) > 5


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package's model, imported around its `__init__`, which needs a training stack."""
    spec = importlib.util.find_spec("speechtokenizer")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the package speechtokenizer is not installed")
    bare = types.ModuleType("speechtokenizer")
    bare.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "speechtokenizer", bare)
    yield importlib.import_module("speechtokenizer.model")
    for name in [name for name in sys.modules if name.startswith("speechtokenizer.")]:
        del sys.modules[name]


def test_tokens_and_samples_are_the_packages(tokenizer: CodesCodec, package: Any, tmp_path: Path) -> None:
    reference = package.SpeechTokenizer.load_from_checkpoint(
        str(tmp_path / "config.json"), str(tmp_path / "SpeechTokenizer.pt")
    ).eval()
    for audio in (wave(), speech_like(Fraction(1), 16000)[:200]):
        with torch.inference_mode():
            codes = reference.encode(torch.from_numpy(audio)[None, None])
            samples = reference.decode(codes)[0, 0].numpy()
        item = tokenizer.encode([audio])[0]
        assert np.array_equal(np.stack(list(item.streams.values())), codes[:, 0].numpy())
        assert tokenizer.decode([item])[0] == pytest.approx(samples[: len(audio)], abs=1e-5)


def test_fewer_books_and_codebooks(tokenizer: CodesCodec) -> None:
    assert tokenizer.weights is not None
    one = load_tokenizer("speechtokenizer-1", weights=tokenizer.weights)
    assert np.array_equal(
        one.encode([wave()])[0].streams["q0"], tokenizer.encode([wave()])[0].streams["q0"]
    )  # fmt: skip
    assert tokenizer.codebook("q7").shape == (1024, 16)
    card = find_card(TokenizerCard, "speechtokenizer")
    assert [stream.role for stream in card.streams[:2]] == ["semantic", "acoustic"]
    assert sum(spec.nominal_bps or 0 for spec in card.stream_specs) == pytest.approx(4000)


def test_one_task(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    result = reconstruction("speechtokenizer-2", save(tmp_path / "weights"), tmp_path)
    assert result.status == "complete"
    assert value(result, "bps_nominal") == pytest.approx(1000)


def test_what_is_refused(tmp_path: Path) -> None:
    def refused(message: str, name: str = "speechtokenizer", **changes: object) -> None:
        with pytest.raises(BadCheckpoint, match=message) as caught:
            load_tokenizer(name, weights=save(tmp_path, **changes))
        assert "\n" not in str(caught.value)

    refused("has 8 codebooks, speechtokenizer-9 needs 9", "speechtokenizer-9")
    refused(r"not SpeechTokenizer's config \(activation", activation="Snake")
    refused(r"\[2\], speechtokenizer needs|is \[", n_filters=4)
    refused("24000 Hz in", sample_rate=24000)
    refused("lacks", n_q=9)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="not SpeechTokenizer's config"):
        load_tokenizer("speechtokenizer", weights=tmp_path)
    (tmp_path / "config.json").unlink()
    for weights in (None, tmp_path):
        with pytest.raises(MissingWeights, match=r"config\.json.* and .*SpeechTokenizer\.pt .*--weights DIR"):
            load_tokenizer("speechtokenizer", weights=weights)
