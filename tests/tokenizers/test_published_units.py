"""Published centroids: every kind of file, pickles only when allowed, and units against the library's hidden states."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from one_task import reconstruction, value
from safetensors.numpy import save_file
from sklearn.cluster import MiniBatchKMeans

from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights, TokbenchError
from tokbench.registry import find_card
from tokbench.tokenizers.centroids import read_centroids
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.published_units import PublishedUnits

NAME = "published-units-hubert-base-l2-8"
CENTROIDS = np.random.default_rng(5).standard_normal((8, 16)).astype(np.float32)


def fitted() -> MiniBatchKMeans:
    """A scikit-learn object with the centroids, as fairseq and SpeechBrain pickle it."""
    model = MiniBatchKMeans(8, n_init=1, random_state=0, max_iter=1).fit(CENTROIDS.repeat(20, axis=0))
    model.cluster_centers_ = CENTROIDS.astype(np.float64)
    return model


def write(folder: Path, kind: str) -> Path:
    path = folder / f"centroids{kind}"
    writers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.save(path, CENTROIDS),
        ".npz": lambda: np.savez(path, cluster_centers=CENTROIDS, other=np.zeros(3)),
        ".safetensors": lambda: save_file({"centroids": CENTROIDS}, path),
        ".pt": lambda: torch.save({"cluster_centers_": torch.from_numpy(CENTROIDS), "n_features_in_": 16}, path),
        ".bin": lambda: joblib.dump(fitted(), path),
    }
    writers[kind]()
    return path


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors", ".pt"])
def test_files_that_need_no_flag(kind: str, tmp_path: Path) -> None:
    assert np.array_equal(read_centroids(write(tmp_path, kind)), CENTROIDS)


def test_a_pickle_needs_the_flag(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, ".bin")
    with pytest.raises(MissingWeights, match=r"centroids\.bin: is a pickle.*--allow-pickle"):
        read_centroids(path)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_centroids(path, allow_pickle=True), CENTROIDS)
    assert str(path) in caplog.text


def test_files_without_centroids(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "vector.npy", np.zeros(4))
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    np.savez(tmp_path / "many.npz", a=CENTROIDS, b=CENTROIDS)
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "torn.bin").write_bytes(b"no pickle")
    torch.save({"centroids": torch.zeros(2, 2), "what": Fraction(1, 2)}, tmp_path / "objects.pt")
    messages = {
        "objects.npy": "Python objects",
        "vector.npy": r"are float64 \[4\]",
        "nan.npy": "finite",
        "many.npz": "none of the entries",
        "torn.safetensors": "damaged",
        "torn.npy": "damaged",
        "torn.bin": "damaged",
        "objects.pt": "--allow-pickle",
    }
    for name, message in messages.items():
        with pytest.raises(MissingWeights, match=message) as caught:
            read_centroids(tmp_path / name, allow_pickle=name == "torn.bin")
        assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, save_tiny: Callable[..., Any]) -> Path:
    save_tiny(tmp_path / "model", "hubert-base", normalise=False)
    write(tmp_path / "model", ".npy")
    return tmp_path / "model"


def test_the_contract(folder: Path) -> None:
    checks = conformance(load_tokenizer(NAME, weights=folder), long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


def test_one_task(folder: Path, tmp_path: Path) -> None:
    result = reconstruction(NAME, folder, tmp_path)
    assert result.status == "complete"
    assert value(result, "bps_nominal") == pytest.approx(150)


def test_units_are_the_nearest_centroids_of_the_librarys_layer(folder: Path) -> None:
    import transformers

    wave = speech_like(Fraction(2), 16000)
    tokenizer = load_tokenizer(NAME, weights=folder)
    assert isinstance(tokenizer, PublishedUnits)
    model = transformers.HubertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(torch.from_numpy(wave)[None], output_hidden_states=True).hidden_states[2][0].numpy()
    want = ((hidden[:, None] - CENTROIDS[None]) ** 2).sum(axis=2).argmin(axis=1)
    units = tokenizer.encode([wave])[0].streams["units"]
    assert np.array_equal(units, want)
    assert np.array_equal(tokenizer.codebook("units")[units], tokenizer.features([wave], "post_quant")[0])
    assert "decode" not in tokenizer.card.capabilities


def test_where_centroids_and_speech_model_are_looked_for(folder: Path, tmp_path: Path) -> None:
    card = find_card(TokenizerCard, NAME)
    own = PublishedUnits.weights_identity(card, folder)
    assert own["centroids"].startswith("sha256:")
    assert {"hubert-base/config.json", "hubert-base/model.safetensors"} <= set(own)
    # The file alone: the speech model is the hub's, which cannot be had here.
    with pytest.raises(MissingWeights, match="facebook/hubert-base-ls960"):
        load_tokenizer(NAME, weights=folder / "centroids.npy")
    (folder / "centroids.npy").rename(tmp_path / "mine.npy")
    with pytest.raises(MissingWeights, match="holds no centroids"):
        load_tokenizer(NAME, weights=folder)
    np.save(folder / "centroids.npy", CENTROIDS[:5])
    with pytest.raises(MissingWeights, match=r"holds 5 centroids of 16 dimensions, .* needs 8 of 16"):
        load_tokenizer(NAME, weights=folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fairseq-units-hubert-base-l9-500", "hubert_base_ls960_L9_km500.bin"),
        ("speechbrain-units-hubert-large-l7-1000", "kmeans/LibriSpeech_hubert_k1000_L7.pt"),
        ("speechbrain-units-wavlm-large-l23-1000", "kmeans/LibriSpeech_wavlm_k1000_L23.pt"),
    ],
)
def test_published_names(name: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=file):
        load_tokenizer(name)
    place = tmp_path / Path(file).name
    shutil.copy(write(tmp_path, ".bin"), place)
    for weights in (tmp_path, place):
        with pytest.raises(TokbenchError, match=r"is a pickle.*--allow-pickle"):
            load_tokenizer(name, weights=weights)
