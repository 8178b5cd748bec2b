"""Convolutions with half the products, and residual layers in pieces, against what they stand for."""

from __future__ import annotations

import pytest
import torch
from codecs_support import largest
from torch import nn
from torch.nn import functional

from tokbench.codecs.nanocodec.config import parse_config

pytest.importorskip("numba")

from tokbench.codecs.nanocodec import channels_last
from tokbench.codecs.nanocodec.model import NanoCodec
from tokbench.codecs.nanocodec.toom_cook import ToomCook

NEMO = "nemo.collections.tts.modules.audio_codec_modules."
CONFIG = {
    "sample_rate": 16000,
    "samples_per_frame": 6,
    "audio_encoder": {
        "_target_": NEMO + "HiFiGANEncoder",
        "down_sample_rates": [2, 3],
        "encoded_dim": 4,
        "base_channels": 8,
        "activation": "lrelu",
        "pad_mode": "replicate",
    },
    "audio_decoder": {
        "_target_": NEMO + "CausalHiFiGANDecoder",
        "up_sample_rates": [3, 2],
        "input_dim": 4,
        "base_channels": 192,
        "activation": "half_snake",
        "output_activation": "clamp",
        "pad_mode": "zeros",
        "n_groups_equal_to_out_channels": True,
    },
    "vector_quantizer": {
        "_target_": NEMO + "GroupFiniteScalarQuantizer",
        "num_groups": 1,
        "num_levels_per_group": [3, 3, 3, 3],
    },
}


@pytest.mark.parametrize("taps", [3, 4, 7, 11])
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("frames", [1, 40, 61])
def test_a_convolution(taps: int, dilation: int, frames: int) -> None:
    torch.manual_seed(taps)
    conv = nn.Conv1d(48, 48, taps, dilation=dilation).requires_grad_(requires_grad=False)
    x = torch.randn(2, frames, 48)
    quick = ToomCook(conv)
    reach = (taps - 1) * dilation
    left, right = quick.padding(frames)
    assert left == reach
    made = quick(functional.pad(x, (0, 0, left, right)))[:, :frames]
    want = conv.double()(functional.pad(x.double().transpose(1, 2), (reach, 0)))
    assert made.shape == x.shape
    assert largest(made.transpose(1, 2), want.float()) < 1e-5


def test_pieces_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder widths of 96 and 48, in pieces shorter than what a frame depends on."""
    torch.manual_seed(0)
    model = NanoCodec(parse_config(CONFIG, where="test")).eval()
    tokens, frames = torch.randint(81, (2, 1, 60)), torch.tensor([60, 60])
    audio, lengths = torch.randn(2, 360), torch.tensor([360, 360])
    model.channels_last = False
    wave, (latent, _) = model.decode(tokens, frames), model.latent(audio, lengths)
    model.channels_last = True
    for frames_a_piece in (10_000, 50, 7):
        monkeypatch.setattr(channels_last, "_PIECE", 48 * frames_a_piece)
        assert largest(model.decode(tokens, frames), wave) < 1e-5
        assert largest(model.latent(audio, lengths)[0], latent) < 1e-5
    assert model._fast is not None
    assert {quick.channels for quick in model._fast._quick.values()} == {96, 48}
