"""K-means: clusters found, inertia against scikit-learn, determinism, and the tokenizer from fit to decoded wave."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.config import TokenizerCard
from tokbench.errors import CardError, MissingWeights, NotApplicable, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.base import ExposesCodebook, ExposesFeatures, Fittable
from tokbench.tokenizers.clustering import _Numpy, _Torch, assign, fit_kmeans, seed_plusplus
from tokbench.tokenizers.codebook import Units
from tokbench.tokenizers.kmeans import KMeansUnits, cache_folder
from tokbench.tokenizers.unit_to_mel import fit_unit_to_mel
from tokbench.types import Encoded, Wave


def _blobs(n: int, k: int, dim: int, *, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, dim)) * 10
    labels = rng.integers(k, size=n)
    return (centres[labels] + spread * rng.standard_normal((n, dim))).astype(np.float32), labels


def test_separated_clusters_are_recovered() -> None:
    rows, labels = _blobs(3000, 12, 8, spread=0.3)
    found = fit_kmeans(rows, 12, seed=1)
    codes = assign(rows, found.centroids)
    pairs = set(zip(codes.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == 12, "each unit is one cluster"
    assert found.converged


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_inertia_is_no_worse_than_scikit_learns(seed: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    rows, _ = _blobs(6000, 60, 16, spread=6.0, seed=seed)
    ours = fit_kmeans(rows, 50, seed=seed)
    theirs = cluster.MiniBatchKMeans(50, random_state=seed, n_init=1).fit(rows)
    assert ours.inertia <= theirs.inertia_ * 1.01
    distances = ((rows[:, None].astype(float) - ours.centroids[None]) ** 2).sum(axis=2)
    assert ours.inertia == pytest.approx(distances.min(axis=1).sum(), rel=1e-4)


def test_fitting_is_deterministic_and_depends_on_the_seed() -> None:
    rows, _ = _blobs(2000, 30, 8, spread=5.0)
    one, two, other = (fit_kmeans(rows, 20, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.centroids, two.centroids)
    assert one.inertia == two.inertia
    assert not np.array_equal(one.centroids, other.centroids)


def test_torch_and_numpy_take_the_same_step() -> None:
    pytest.importorskip("torch")
    rows, _ = _blobs(9000, 30, 8, spread=5.0)
    centroids = rows[:40].copy()
    one, two = _Numpy().step(rows, centroids), _Torch("cpu").step(rows, centroids)
    assert np.abs(one.counts - two.counts).sum() <= 4
    np.testing.assert_allclose(one.inertia, two.inertia, rtol=1e-5)
    np.testing.assert_allclose(one.sums, two.sums, rtol=1e-2, atol=50)


def test_degenerate_data_and_too_few_rows() -> None:
    same = np.ones((50, 3), np.float32)
    assert fit_kmeans(same, 4, seed=0).inertia == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(ValueError, match="5 centroids cannot be fitted on 4 frames"):
        fit_kmeans(same[:4], 5, seed=0)
    assert seed_plusplus(same, 3, np.random.default_rng(0)).shape == (3, 3)


@given(n=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_assignment_is_the_lowest_index_of_the_least_distance(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (n, 2)).astype(np.float32)
    centroids = rng.integers(-2, 3, (k, 2)).astype(np.float32)  # ties and doubles on purpose
    slow = [min(range(k), key=lambda c: (((row - centroids[c]) ** 2).sum(), c)) for row in rows]
    assert assign(rows, centroids).tolist() == slow


def test_assignment_does_not_depend_on_the_block() -> None:
    rows, _ = _blobs(20_000, 30, 4, spread=5.0)
    whole = assign(rows, rows[:64])
    np.testing.assert_array_equal(whole[8190:8200], assign(rows[8190:8200], rows[:64]))


def test_unit_to_mel_learns_a_linear_rule() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((3, 5, 4))
    pairs = []
    for _ in range(20):
        units = rng.integers(5, size=100)
        padded = np.pad(units, 1, mode="edge")
        frames = 1.5 + sum(table[place, padded[place : place + 100]] for place in range(3))
        pairs.append((units, frames.reshape(200, 2).astype(np.float32)))
    fitted = fit_unit_to_mel(iter(pairs), 5, context=1, ridge=1e-3)
    np.testing.assert_allclose(fitted(pairs[0][0]), pairs[0][1], atol=0.02)


# --- the tokenizer -------------------------------------------------------------------------------------------------


def _card(k: int = 16, **params: object) -> TokenizerCard:
    card = find_card(TokenizerCard, f"kmeans-logmel-{k}")
    return card.model_copy(update={"params": {**card.params, **params}})


def _waves(count: int = 6) -> list[Wave]:
    """Noise through sliding resonances: sounds that differ from frame to frame."""
    waves = []
    for index in range(count):
        rng = np.random.default_rng(index)
        t = np.arange(16000 + 100 * index) / 16000
        sweep = np.sin(2 * np.pi * (200 + 300 * index + 900 * np.sin(2 * np.pi * t)) * t)
        waves.append((0.2 * sweep + 0.02 * rng.standard_normal(len(t))).astype(np.float32))
    return waves


@pytest.fixture(scope="module")
def fitted() -> KMeansUnits:
    tokenizer = KMeansUnits(_card())
    report = tokenizer.fit(_waves(), seed=0)
    assert report["frames"] == sum(-(-len(w) // 320) for w in _waves())
    assert report["converged"] == 1.0
    return tokenizer


@pytest.mark.parametrize("n", [1, 319, 320, 321, 16000, 16001])
def test_encoded_tokens_follow_the_card_and_decode_to_the_length(fitted: KMeansUnits, n: int) -> None:
    wave = np.resize(_waves(1)[0], n)
    (item,) = fitted.encode([wave])
    item.check(fitted.card.stream_specs, ())
    assert item.streams["units"].shape == (-(-n // 320),)
    (made,) = fitted.decode([item])
    assert made.shape == (n,)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()


def test_capabilities_are_what_the_card_says(fitted: KMeansUnits) -> None:
    assert isinstance(fitted, ExposesFeatures)
    assert isinstance(fitted, ExposesCodebook)
    assert isinstance(fitted, Fittable)
    wave = _waves(1)[0]
    (before,), (after,) = fitted.features([wave], "pre_quant"), fitted.features([wave], "post_quant")
    codes = fitted.encode([wave])[0].streams["units"]
    np.testing.assert_array_equal(after, fitted.codebook("units")[codes])
    assert before.shape == after.shape == (len(codes), 80)
    with pytest.raises(TokensError, match="only 'units'"):
        fitted.codebook("q0")
    with pytest.raises(NotApplicable):
        fitted.decode(fitted.encode([wave]), globals_from=fitted.encode([wave]))


def test_fitted_saved_reloaded_gives_the_same_tokens_and_samples(fitted: KMeansUnits, tmp_path: Path) -> None:
    path = tmp_path / "centroids.safetensors"
    fitted.save(path)
    again = KMeansUnits(_card(), weights=path)
    wave = _waves(2)[1]
    one, two = fitted.encode([wave])[0], again.encode([wave])[0]
    np.testing.assert_array_equal(one.streams["units"], two.streams["units"])
    np.testing.assert_array_equal(fitted.decode([one])[0], again.decode([two])[0])
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    metadata = Units.load(path).metadata
    assert {"corpus", "corpus_fingerprint", "features", "layer", "k", "seed", "inertia", "tokbench"} <= set(metadata)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert KMeansUnits.weights_identity(_card(), path) == {"centroids/centroids.safetensors": digest}
    assert KMeansUnits.weights_identity(_card(), tmp_path)["centroids/centroids.safetensors"] == digest


def test_decoding_from_disk_in_another_process_is_identical(fitted: KMeansUnits, tmp_path: Path) -> None:
    fitted.save(tmp_path / "centroids.safetensors")
    (item,) = fitted.encode([_waves(3)[2]])
    (tmp_path / "tokens.npz").write_bytes(item.to_npz(tokenizer=fitted.card.name))
    code = (
        "import sys, hashlib; from pathlib import Path; from tokbench.types import Encoded;"
        "from tokbench.tokenizers.load import load_tokenizer; folder = Path(sys.argv[1]);"
        "t = load_tokenizer('kmeans-logmel-16', weights=folder / 'centroids.safetensors');"
        "item, _ = Encoded.from_npz((folder / 'tokens.npz').read_bytes());"
        "print(hashlib.sha256(t.decode([item])[0].tobytes()).hexdigest(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    here = hashlib.sha256(fitted.decode([item])[0].tobytes()).hexdigest()
    assert done.stdout.split() == [here, "False"]


def test_first_use_fits_on_the_declared_corpus_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tokbench.audio import write_audio

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, wave in enumerate(_waves(3)):
        write_audio(corpus / f"{index}.wav", wave, 16000)
    monkeypatch.setenv("TOKBENCH_CACHE", str(tmp_path / "cache"))
    card = _card(corpus=f"folder:{corpus}")
    before = KMeansUnits.weights_identity(card)
    with caplog.at_level(logging.WARNING, logger="tokbench"):
        codes = KMeansUnits(card).encode(_waves(1))[0].streams["units"]
    fits = [record for record in caplog.records if "fitting on" in record.getMessage()]
    assert len(fits) == 1
    files = list(cache_folder().glob("*.safetensors"))
    assert len(files) == 1
    assert len(Units.load(files[0]).metadata["corpus_fingerprint"]) == 64
    caplog.clear()
    again = KMeansUnits(card)
    np.testing.assert_array_equal(again.encode(_waves(1))[0].streams["units"], codes)
    assert not caplog.records
    assert KMeansUnits.weights_identity(card) == before, "the store's key must not change when the file appears"


def test_a_damaged_codebook_is_one_line(tmp_path: Path, fitted: KMeansUnits) -> None:
    path = tmp_path / "centroids.safetensors"
    path.write_bytes(b"not a codebook at all")
    with pytest.raises(MissingWeights, match="not a codebook") as info:
        KMeansUnits(_card(), weights=path)
    assert "\n" not in str(info.value)
    fitted.save(path)
    with pytest.raises(MissingWeights, match=r"holds centroids \(16, 80\), the card needs \(20, 80\)"):
        KMeansUnits(_card(20), weights=path)


def test_cards_are_checked() -> None:
    with pytest.raises(CardError, match=r"params\.colour"):
        KMeansUnits(_card(colour="red"))
    with pytest.raises(CardError, match="vocab 17"):
        KMeansUnits(_card().model_copy(update={"params": {"features": "logmel", "k": 17}}))
    tokenizer = KMeansUnits(_card(400))
    with pytest.raises(CardError, match="400 units cannot be fitted on 50 frames"):
        tokenizer.fit([_waves(1)[0][:16000]], seed=0)


def test_missing_feature_weights_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(MissingWeights, match="facebook/hubert-base-ls960") as info:
        KMeansUnits(find_card(TokenizerCard, "kmeans-hubert-base-l9-500"), weights=tmp_path)
    assert "\n" not in str(info.value)


def test_ssl_units_from_a_folder_in_the_hubs_layout(tmp_path: Path, save_tiny: Callable[..., Any]) -> None:
    save_tiny(tmp_path, "wavlm-large", normalise=True)
    tokenizer = KMeansUnits(find_card(TokenizerCard, "kmeans-wavlm-large-l2-8"), weights=tmp_path)
    tokenizer.fit(_waves(3), seed=0)
    items = tokenizer.encode([_waves(1)[0], np.ones(1, np.float32)])
    assert [len(item.streams["units"]) for item in items] == [49, 1]
    assert items[1].n_samples_coded == 400
    assert [len(wave) for wave in tokenizer.decode(items)] == [16000, 1]
    tokenizer.save(tmp_path / "centroids.safetensors")
    again = KMeansUnits(tokenizer.card, weights=tmp_path)
    np.testing.assert_array_equal(again.encode(_waves(1))[0].streams["units"], items[0].streams["units"])


@pytest.mark.parametrize("name", ["kmeans-whisper-tiny-500", "kmeans-whisper-tiny-50", "kmeans-mfcc-500"])
def test_shipped_codebooks_load_and_say_where_they_come_from(name: str) -> None:
    card = find_card(TokenizerCard, name)
    if card.weights is not None:
        pytest.importorskip("ctranslate2")
    tokenizer = KMeansUnits(card)
    assert tokenizer.units.metadata["corpus"] == "mini-en:train"
    assert tokenizer.units.centroids.shape[0] == card.streams[0].vocab
    item = tokenizer.encode(_waves(1))[0]
    assert isinstance(item, Encoded)
    assert np.abs(tokenizer.decode([item])[0]).max() > 1e-3
    identity = KMeansUnits.weights_identity(card)
    assert len(identity[f"centroids/{name}.safetensors"]) == 64
