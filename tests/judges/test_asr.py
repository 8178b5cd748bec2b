"""The words judges: tiny.en on real speech; the others on random weights in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.config import JudgeCard
from tokbench.errors import AudioError, CardError, MissingWeights
from tokbench.judges.base import Judge
from tokbench.judges.ctc import TransformersCTC, greedy_text
from tokbench.judges.faster_whisper import FasterWhisper
from tokbench.judges.load import load_judge
from tokbench.judges.openai_whisper import OpenAIWhisper
from tokbench.registry import find_card
from tokbench.types import Wave

if TYPE_CHECKING:
    from tests.judges.conftest import Spoken


@pytest.fixture(scope="module")
def tiny() -> Judge:
    return load_judge("whisper-tiny.en")


def text(judge: Judge, wave: Wave) -> str:
    answer = judge([wave])[0]["text"]
    assert isinstance(answer, str)
    return answer


def noise(samples: int) -> Wave:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


def test_word_error_rate_of_real_speech(tiny: Judge, speech: list[Spoken]) -> None:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    chosen = speech[::2]
    answers = [str(evidence["text"]) for evidence in tiny([item.wave for item in chosen])]
    rate = jiwer.wer([normalise(item.text) for item in chosen], [normalise(answer) for answer in answers])
    assert 0.0 < rate < 0.35
    assert text(tiny, chosen[0].wave) == answers[0]  # alone and again: the same words


def test_silence_and_scraps_give_no_words(tiny: Judge) -> None:
    assert text(tiny, np.zeros(16000, np.float32)) == ""
    assert text(tiny, np.full(1, 0.1, np.float32)) == ""


def test_longer_than_a_window(tiny: Judge, speech: list[Spoken]) -> None:
    item = min(speech, key=lambda s: len(s.wave))
    first = text(tiny, item.wave).split()[0].lower()
    pause = np.zeros(30 * 16000 - len(item.wave), np.float32)
    both = text(tiny, np.concatenate([item.wave, pause, item.wave])).lower()
    assert both.count(first) == 2


@pytest.mark.parametrize("wave", [np.zeros(0, np.float32), np.array([0.0, np.inf], np.float32)])
def test_bad_waves(tiny: Judge, wave: Wave) -> None:
    with pytest.raises(AudioError, match=r"judge whisper-tiny\.en, wave 1"):
        tiny([np.ones(100, np.float32), wave])


def test_a_local_folder_replaces_the_package(tmp_path: Path) -> None:
    from tokbench.judges.weights import find_files

    card = find_card(JudgeCard, "whisper-tiny.en")
    for path in find_files(card).values():
        (tmp_path / path.name).symlink_to(path)
    assert find_files(card, tmp_path)["model/model.bin"] == tmp_path / "model.bin"
    judge = FasterWhisper(card, weights=tmp_path)
    assert text(judge, np.zeros(8000, np.float32)) == ""
    assert FasterWhisper.identity(card, tmp_path) == FasterWhisper.identity(card)


def test_an_unknown_parameter(tiny: Judge) -> None:
    with pytest.raises(CardError, match=r"'beams' is no parameter.*beam_size"):
        FasterWhisper(tiny.card.model_copy(update={"params": {"beams": 5}}))


@pytest.fixture(scope="module")
def openai_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Whisper in OpenAI's checkpoint layout."""
    import torch
    import whisper

    dims = {"n_mels": 128, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 2}
    dims |= {"n_vocab": 51866, "n_text_ctx": 448, "n_text_state": 32, "n_text_head": 2, "n_text_layer": 2}
    torch.manual_seed(0)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**dims))
    folder = tmp_path_factory.mktemp("openai")
    torch.save({"dims": dims, "model_state_dict": model.state_dict()}, folder / "large-v3.pt")
    return folder


def without_hashes(name: str) -> JudgeCard:
    card = find_card(JudgeCard, name)
    assert card.weights is not None
    files = dict.fromkeys(card.weights.files, "")
    return card.model_copy(update={"weights": card.weights.model_copy(update={"files": files})})


def test_openai_whisper_reads_its_checkpoint_and_stays_bounded(openai_folder: Path) -> None:
    import whisper

    judge = OpenAIWhisper(without_hashes("whisper-large-v3"), weights=openai_folder)
    wave = noise(32000)
    answer = text(judge, wave)
    assert answer == text(judge, wave)
    # A random network never stops by itself: the bound of 224 tokens does it, and the score is not thrown away.
    model = whisper.load_model(str(openai_folder / "large-v3.pt"), device="cpu")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave), n_mels=128)
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    reference = whisper.decode(model, mel, options)
    assert len(reference.tokens) <= 224
    assert answer in ("", reference.text.strip())


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random HuBERT with a CTC head, in the hub's layout."""
    import torch
    from transformers import HubertConfig, HubertForCTC

    folder = tmp_path_factory.mktemp("hubert")
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"EATOIN'"]
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(32,) * 7,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=len(symbols),
    )
    model = HubertForCTC(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(50)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": True, "feature_size": 1, "sampling_rate": 16000, "padding_value": 0})
    )
    return folder


def test_ctc_equals_transformers_own_processor(hubert_folder: Path) -> None:
    import torch
    from transformers import HubertForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    judge = TransformersCTC(find_card(JudgeCard, "hubert-large-ls960-ft"), weights=hubert_folder)
    wave = noise(24000) + np.float32(0.2)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    tokenizer = Wav2Vec2CTCTokenizer(str(hubert_folder / "vocab.json"))
    model = HubertForCTC.from_pretrained(str(hubert_folder)).eval()
    with torch.no_grad():
        ids = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).logits.argmax(-1)
    expected = " ".join(tokenizer.batch_decode(ids, skip_special_tokens=True)[0].split())
    assert expected
    # Rounding of the normalised wave may flip a near-tie of a random network, no more.
    assert jiwer.cer(expected, text(judge, wave)) < 0.05
    assert isinstance(text(judge, np.full(1, 0.1, np.float32)), str)


def test_ctc_weights_that_lack_a_tensor(hubert_folder: Path, tmp_path: Path) -> None:
    import torch

    for path in hubert_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    del state["lm_head.weight"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingWeights, match=r"lack 1 of the tensors of a HubertForCTC, for instance lm_head\.weight"):
        TransformersCTC(find_card(JudgeCard, "hubert-large-ls960-ft"), weights=tmp_path)


def test_greedy_text() -> None:
    symbols = {0: "<pad>", 1: "<unk>", 2: "|", 3: "A", 4: "B"}
    assert greedy_text([0, 3, 3, 0, 3, 2, 2, 1, 4, 2], symbols=symbols, blank=0) == "AA B"
    assert greedy_text([], symbols=symbols, blank=0) == ""


@given(st.lists(st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_greedy_text_against_the_definition(ids: list[int]) -> None:
    expected = ""
    for k, index in enumerate(ids):
        if index != 0 and (k == 0 or ids[k - 1] != index):
            expected += "_abc"[index]
    assert greedy_text(ids, symbols=dict(enumerate("_abc")), blank=0) == expected
