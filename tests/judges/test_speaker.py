"""The voice judges: Resemblyzer on real speech; WavLM and ECAPA on random weights in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tokbench.config import JudgeCard
from tokbench.errors import AudioError, ItemError, MissingWeights
from tokbench.judges.base import Judge
from tokbench.judges.load import load_judge
from tokbench.judges.mel import mel_power
from tokbench.judges.resemblyzer import preprocess
from tokbench.judges.speaker import MIN_SAMPLES, SpeechBrainEcapa, WavLMXVector
from tokbench.registry import find_card
from tokbench.types import Wave

if TYPE_CHECKING:
    from tests.judges.conftest import Spoken


def embedding(judge: Judge, wave: Wave) -> np.ndarray:
    vector = judge([wave])[0]["embedding"]
    assert isinstance(vector, np.ndarray)
    assert vector.dtype == np.float32
    assert vector.ndim == 1
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    return vector


def noise(samples: int) -> Wave:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


@pytest.fixture(scope="module")
def resemblyzer() -> Judge:
    return load_judge("resemblyzer")


def test_same_speakers_are_closer(resemblyzer: Judge, speech: list[Spoken]) -> None:
    vectors = np.stack([embedding(resemblyzer, item.wave) for item in speech])
    speakers = np.array([item.speaker for item in speech])
    cosines = vectors @ vectors.T
    same = speakers[:, None] == speakers[None]
    off_diagonal = ~np.eye(len(speech), dtype=bool)
    within, between = cosines[same & off_diagonal], cosines[~same]
    assert within.mean() > between.mean() + 0.1
    assert within.min() > np.median(between)
    assert np.array_equal(vectors[0], embedding(resemblyzer, speech[0].wave))


def test_equals_the_package(resemblyzer: Judge, speech: list[Spoken]) -> None:
    package = pytest.importorskip("resemblyzer")
    encoder = package.VoiceEncoder("cpu", verbose=False)
    for item in (speech[0], speech[5]):
        wave = item.wave * np.float32(0.2)  # quiet enough for the level to be raised
        ours = preprocess(wave)
        theirs = package.preprocess_wav(wave)
        assert len(ours) == len(theirs)
        assert len(ours) < len(wave)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_allclose(embedding(resemblyzer, wave), encoder.embed_utterance(theirs), atol=2e-5)


@pytest.mark.parametrize(("n_fft", "n_mels"), [(400, 40), (321, 120)])
def test_mel_equals_librosa(n_fft: int, n_mels: int) -> None:
    librosa = pytest.importorskip("librosa")
    wave = noise(16000)
    expected = librosa.feature.melspectrogram(y=wave, sr=16000, n_fft=n_fft, hop_length=160, n_mels=n_mels)
    ours = mel_power(wave, rate=16000, n_fft=n_fft, hop=160, n_mels=n_mels)
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-7)


def test_silence_and_scraps(resemblyzer: Judge) -> None:
    with pytest.raises(ItemError, match="every sample is zero"):
        resemblyzer([np.zeros(16000, np.float32)])
    embedding(resemblyzer, noise(100))  # padded to 1.6 s, as the package does
    half = np.concatenate([np.zeros(48000, np.float32), noise(16000)])
    embedding(resemblyzer, half)
    for bad in (np.zeros(0, np.float32), np.full(100, np.nan, np.float32)):
        with pytest.raises(AudioError):
            resemblyzer([bad])


def test_wavlm_equals_transformers_own_extractor(tmp_path: Path) -> None:
    import torch
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        use_weighted_layer_sum=True,
        tdnn_dim=(32, 32, 32, 32, 64),
        xvector_output_dim=24,
    )
    model = WavLMForXVector(config).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    judge = WavLMXVector(find_card(JudgeCard, "wavlm-base-plus-sv"), weights=tmp_path)
    wave = noise(16000) + np.float32(0.1)
    inputs = Wav2Vec2FeatureExtractor(do_normalize=True)(wave, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(inputs.input_values).embeddings, dim=-1)[0].numpy()
    np.testing.assert_allclose(embedding(judge, wave), expected, atol=1e-5)
    assert embedding(judge, noise(10)).shape == (24,)
    with pytest.raises(ItemError):
        judge([np.zeros(MIN_SAMPLES, np.float32)])


HYPERPARAMS = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 3
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: FOLDER/embedding_model.ckpt
"""


def test_ecapa_equals_speechbrains_own_interface(tmp_path: Path) -> None:
    import torch
    from speechbrain.inference.speaker import EncoderClassifier
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    sizes = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 12}
    torch.manual_seed(0)
    network = ECAPA_TDNN(input_size=80, kernel_sizes=[5, 3, 3, 3, 1], dilations=[1, 2, 3, 4, 1], **sizes)
    torch.save(network.state_dict(), tmp_path / "embedding_model.ckpt")
    (tmp_path / "hyperparams.yaml").write_text(HYPERPARAMS.replace("FOLDER", str(tmp_path)))
    reference = EncoderClassifier.from_hparams(source=str(tmp_path), savedir=str(tmp_path / "saved"))
    card = find_card(JudgeCard, "ecapa-voxceleb").model_copy(update={"params": sizes})
    judge = SpeechBrainEcapa(card, weights=tmp_path)
    wave = noise(20000)
    expected = reference.encode_batch(torch.from_numpy(wave)[None], normalize=False)[0, 0].numpy()
    np.testing.assert_allclose(embedding(judge, wave), expected / np.linalg.norm(expected), atol=1e-5)
    assert embedding(judge, noise(10)).shape == (12,)
    with pytest.raises(MissingWeights, match=r"is not an ECAPA-TDNN of the card's sizes"):
        SpeechBrainEcapa(find_card(JudgeCard, "ecapa-voxceleb"), weights=tmp_path)
