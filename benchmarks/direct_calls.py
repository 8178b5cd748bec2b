"""The calls of a model itself, without its adapter: from samples to tokens and back, for `benchmarks/full_size.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from tokbench.codecs.precision import exact_inference

__all__ = ["direct_calls"]

Calls = dict[str, Callable[[], Tensor | list[Tensor]]]
EXTRACTORS = {
    "xcodec2": "Xcodec2FeatureExtractor",
    "neucodec": "NeuCodecFeatureExtractor",
    "vibevoice-acoustic": "VibeVoiceAcousticTokenizerFeatureExtractor",
}


def direct_calls(name: str, tokenizer: Any, wave: Any, item: Any) -> dict[str, Callable[[], object]]:
    """`encode` of a wave float32 `[n]` and `decode` of its tokens, as the model's own documentation has them.

    Tokens come back to the CPU, as from an adapter, and all is in full float32. Empty for a port, which wraps nothing.
    """
    if name == "speechtokenizer":
        return {}
    audio = torch.from_numpy(wave).to(tokenizer.device)
    streams = [torch.from_numpy(np.asarray(stream)).to(tokenizer.device) for stream in item.streams.values()]
    if name.startswith("published-units"):
        calls = _units(tokenizer, wave)
    elif name.startswith("s3-"):
        calls = _s3(tokenizer._model, audio)
    elif name in EXTRACTORS:
        calls = _extracted(name, tokenizer, wave, streams[0])
    elif name == "pocket-tts":
        model = tokenizer._model
        calls = {
            "encode": lambda: model.encode(tokenizer._padded(audio)).latents,
            "decode": lambda: model.decode(streams[0][None]).audio_values,
        }
    elif name == "snac-24khz":
        model = tokenizer._model
        calls = {
            "encode": lambda: model.encode(audio[None, None]),
            "decode": lambda: model.decode([codes[None] for codes in streams]),
        }
    elif name == "encodec-48khz-6k":
        calls = _stereo(tokenizer._model, audio)
    else:
        calls = _residual(name, tokenizer, audio, torch.stack(streams)[None])
    return {stage: _on_the_cpu(call) for stage, call in calls.items()}


def _units(tokenizer: Any, wave: Any) -> Calls:
    speech, normalise = tokenizer._frames._model, tokenizer._frames._normalise
    centroids = torch.from_numpy(tokenizer.codebook("units")).to(tokenizer.device)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise)

    def encode() -> Tensor:
        given = extractor(wave, sampling_rate=16000, return_tensors="pt").input_values.to(tokenizer.device)
        return torch.cdist(speech(given).last_hidden_state[0], centroids).argmin(1)

    return {"encode": encode}


def _s3(model: Any, audio: Tensor) -> Calls:
    from s3tokenizer import log_mel_spectrogram

    def encode() -> Tensor:
        mel = log_mel_spectrogram(audio)
        codes: Tensor = model.quantize(mel[None], torch.tensor([mel.shape[1]], device=audio.device))[0]
        return codes

    return {"encode": encode}


def _extracted(name: str, tokenizer: Any, wave: Any, tokens: Tensor) -> Calls:
    """Models that read what an extractor makes of the wave."""
    model, rate = tokenizer._model, tokenizer.card.input_rate
    make = getattr(transformers, EXTRACTORS[name])
    if name == "vibevoice-acoustic":
        extractor = make(pad_to_multiple_of=model.config.hop_length)

        def latents() -> Tensor:
            given = extractor(wave, sampling_rate=rate)["input_values"].to(tokenizer.device)
            found: Tensor = model.encode(given, sample=False).latents
            return found

        return {"encode": latents, "decode": lambda: model.decode(tokens[None]).audio}
    extractor = make(sampling_rate=rate)

    def codes() -> Tensor:
        given = extractor(wave, sampling_rate=rate, return_tensors="pt")
        found: Tensor = model.encode(**{key: value.to(tokenizer.device) for key, value in given.items()}).audio_codes
        return found

    return {"encode": codes, "decode": lambda: model.decode(audio_codes=tokens[None, None]).audio_values}


def _stereo(model: Any, audio: Tensor) -> Calls:
    """EnCodec 48 kHz; its own call codes whole chunks alone, so that it gets as many as there are."""
    chunk, stride = model.config.chunk_length, model.config.chunk_stride
    stereo = audio[: (len(audio) - chunk) // stride * stride + chunk].expand(1, 2, -1)
    with exact_inference():
        made = model.encode(stereo, bandwidth=6.0)
    return {
        "encode": lambda: model.encode(stereo, bandwidth=6.0).audio_codes,
        "decode": lambda: model.decode(made.audio_codes, made.audio_scales).audio_values,
    }


def _residual(name: str, tokenizer: Any, audio: Tensor, codes: Tensor) -> Calls:
    model = tokenizer._model
    if name.startswith("mimi"):
        return {
            "encode": lambda: model.encode(audio[None, None], num_quantizers=codes.shape[1]).audio_codes,
            "decode": lambda: model.decode(codes).audio_values,
        }
    if name.startswith("dac"):
        return {
            "encode": lambda: model.encode(tokenizer._padded(audio), n_quantizers=codes.shape[1]).audio_codes,
            "decode": lambda: model.decode(audio_codes=codes).audio_values,
        }
    bandwidth = tokenizer._bandwidth
    if name.startswith("encodec"):
        return {
            "encode": lambda: model.encode(audio[None, None], bandwidth=bandwidth).audio_codes,
            "decode": lambda: model.decode(codes[None], [None]).audio_values,
        }
    return {
        "encode": lambda: model.encode(tokenizer._padded(audio), bandwidth=bandwidth).audio_codes,
        "decode": lambda: model.decode(codes).audio_values,
    }


def _on_the_cpu(work: Callable[[], Tensor | list[Tensor]]) -> Callable[[], object]:
    def call() -> object:
        with exact_inference():
            made = work()
            return [one.cpu() for one in made] if isinstance(made, list) else made.cpu()

    return call
