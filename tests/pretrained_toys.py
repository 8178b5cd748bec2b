"""Codecs of `transformers` in their published architecture made small, with random weights, laid out as on the hub.

`save_pretrained` writes the layout. Strides, rates, codebook sizes and bandwidths are the published ones, widths and
depths are not. Matrices get unit gain and codebooks random rows: the library starts some near zero and some at it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


def _mimi() -> Any:
    return transformers.MimiModel(
        transformers.MimiConfig(
            num_filters=2, hidden_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8, num_hidden_layers=1,
            intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, upsample_groups=16, sliding_window=20,
        )
    )  # fmt: skip


def _encodec() -> Any:
    return transformers.EncodecModel(
        transformers.EncodecConfig(num_filters=2, hidden_size=8, num_lstm_layers=1, codebook_dim=8)
    )


def _encodec_48khz() -> Any:
    return transformers.EncodecModel(
        transformers.EncodecConfig(
            num_filters=2, hidden_size=8, num_lstm_layers=1, codebook_dim=8, audio_channels=2, sampling_rate=48000,
            chunk_length_s=1.0, overlap=0.01, normalize=True, norm_type="time_group_norm", use_causal_conv=False,
            target_bandwidths=[3.0, 6.0, 12.0, 24.0],
        )
    )  # fmt: skip


def _dac(strides: list[int], books: int, rate: int) -> Any:
    return transformers.DacModel(
        transformers.DacConfig(
            encoder_hidden_size=2, decoder_hidden_size=32, downsampling_ratios=strides, n_codebooks=books,
            sampling_rate=rate,
        )
    )  # fmt: skip


def _small_hubert() -> Any:
    return transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(4,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip


def _xcodec() -> Any:
    acoustic = {"model_type": "dac", "encoder_hidden_size": 2, "downsampling_ratios": [8, 5, 4, 2],
                "decoder_hidden_size": 32, "upsampling_ratios": [8, 5, 4, 2], "hidden_size": 32}  # fmt: skip
    return transformers.XcodecModel(
        transformers.XcodecConfig(acoustic_model_config=acoustic, semantic_model_config=_small_hubert())
    )


def _fsq(family: str) -> Any:
    speech = transformers.Wav2Vec2BertConfig(
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16, add_adapter=False,
    )  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        head_dim=16, encoder_hidden_size=2, semantic_model_config=speech, quantization_dim=80,
    )  # fmt: skip
    return getattr(transformers, f"{family}Model")(config)


def _pocket() -> Any:
    return transformers.PocketTTSAudioTokenizerModel(
        transformers.PocketTTSAudioTokenizerConfig(
            num_filters=2, hidden_size=16, num_hidden_layers=1, intermediate_size=16, num_attention_heads=2,
            num_key_value_heads=2, upsample_groups=16, sliding_window=20,
        )
    )  # fmt: skip


def _vibevoice() -> Any:
    return transformers.VibeVoiceAcousticTokenizerModel(
        transformers.VibeVoiceAcousticTokenizerConfig(num_filters=1, depths=[1] * 7)
    )


TOYS: dict[str, Callable[[], Any]] = {
    "mimi-8": _mimi,
    "encodec-24khz-6k": _encodec,
    "encodec-48khz-6k": _encodec_48khz,
    "dac-16khz": lambda: _dac([2, 4, 5, 8], 12, 16000),
    "dac-24khz-4": lambda: _dac([2, 4, 5, 8], 32, 24000),
    "dac-44khz": lambda: _dac([2, 4, 8, 8], 9, 44100),
    "xcodec-hubert-librispeech-4": _xcodec,
    "xcodec2": lambda: _fsq("Xcodec2"),
    "neucodec": lambda: _fsq("NeuCodec"),
    "pocket-tts": _pocket,
    "vibevoice-acoustic": _vibevoice,
}
"""A card's name -> a random model that it can load."""


def save_toy(name: str, folder: Path) -> Any:
    """Write the model behind a card to a folder; returns it, in evaluation mode."""
    torch.manual_seed(7)
    model = TOYS[name]().eval()
    # DAC's periodic activations add to what they get: at unit gain they double a rounding error many times over, so
    # that samples of two devices would differ by more than 1e-3.
    gain = 0.7 if model.config.model_type in ("dac", "xcodec") else 1.0
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith(("codebook.embed", "embed_sum")):
                tensor.copy_(torch.randn(tensor.shape))
            elif key.endswith("gamma"):
                tensor.copy_(torch.rand(tensor.shape))
            elif tensor.is_floating_point() and tensor.ndim > 1 and not key.endswith(("alpha", "filter")):
                # Unit gain, so that tokens and samples of a small net are not all the same.
                tensor.copy_(gain * torch.randn(tensor.shape) / tensor[0].numel() ** 0.5)
    model.save_pretrained(folder)
    return model
