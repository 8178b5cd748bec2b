"""EnCodec beside its authors' package, where that is installed: the same random weights in full size."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tokbench.codecs.precision import exact_inference
from tokbench.tokenizers.conformance import speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.pretrained.chunked import code_scale, scale_of_code

NAMES = ("encodec-24khz-6k", "encodec-48khz-6k")


def authors(name: str) -> Any:
    encodec = pytest.importorskip("encodec", reason="the package encodec is not installed")
    if name.startswith("encodec-24khz"):
        return encodec.EncodecModel._get_model([1.5, 3.0, 6.0, 12.0, 24.0])
    return encodec.EncodecModel._get_model(
        [3.0, 6.0, 12.0, 24.0], 48000, 2, causal=False, model_norm="time_group_norm", audio_normalize=True, segment=1.0
    )


def save(name: str, folder: Path) -> dict[str, Tensor]:
    """The library's model with random weights in a folder; its tensors under the authors' names."""
    torch.manual_seed(3)
    stereo: dict[str, Any] = {
        "audio_channels": 2, "sampling_rate": 48000, "chunk_length_s": 1.0, "overlap": 0.01, "normalize": True,
        "norm_type": "time_group_norm", "use_causal_conv": False, "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    }  # fmt: skip
    model = transformers.EncodecModel(transformers.EncodecConfig(**(stereo if "48khz" in name else {})))
    channels = model.config.audio_channels
    with torch.no_grad():
        latent = model.encoder(torch.from_numpy(speech_like(Fraction(1), 24000)).expand(1, channels, -1))[0]
        for layer in model.quantizer.layers:
            # Codes lie where latents do, so that they are not all the same.
            book = layer.codebook.embed
            book.copy_(latent.mean(dim=1) + latent.std(dim=1) * torch.randn(book.shape))
    model.save_pretrained(folder)
    found = {}
    for key, tensor in model.state_dict().items():
        upsampling = re.match(r"decoder\.layers\.(3|6|9|12)\.", key)
        name = re.sub(r"^quantizer\.layers\.(\d+)\.", r"quantizer.vq.layers.\1._", key)
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        outer = "convtr" if upsampling else "conv"
        name = name.replace(".conv.", f".{outer}.{outer}.").replace(".norm.", f".{outer}.norm.")
        name = name.replace("parametrizations.weight.original0", "weight_g")
        found[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    return found


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_samples_are_the_authors(name: str, tmp_path: Path) -> None:
    reference = authors(name)
    state = save(name, tmp_path)
    expected = reference.state_dict()
    reference.load_state_dict({key: state[key] for key in expected})
    reference.eval().set_target_bandwidth(6.0)
    tokenizer = load_tokenizer(name, weights=tmp_path)
    rate = tokenizer.card.input_rate
    for n in (rate // 2, round(1.2 * rate) - 77):
        wave = speech_like(Fraction(2), rate)[:n]
        item = tokenizer.encode([wave])[0]
        with exact_inference():
            frames = reference.encode(torch.from_numpy(wave).expand(1, reference.channels, -1))
            codes = torch.cat([codes[0] for codes, _ in frames], dim=1).numpy()
            if "48khz" in name:
                scales = np.array([code_scale(float(scale)) for _, scale in frames])
                assert np.array_equal(item.streams["scale"], scales)
                rounded = torch.from_numpy(scale_of_code(scales))
                frames = [(codes, scale.view(1, 1)) for (codes, _), scale in zip(frames, rounded, strict=True)]
            decoded = reference.decode(frames)[0].mean(dim=0).numpy()
        books = np.stack([stream for key, stream in item.streams.items() if key != "scale"])
        assert np.array_equal(books, codes)
        assert len({tuple(column) for column in codes.T}) > 10
        made = tokenizer.decode([item])[0]
        assert made == pytest.approx(decoded[:n], abs=1e-5)
