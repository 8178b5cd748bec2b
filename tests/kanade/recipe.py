"""The weight and input recipe of the parity fixtures, and the geometry of the tiny ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokbench.kanade.config import (
    GlobalEncoderConfig,
    KanadeConfig,
    MelConfig,
    PostNetConfig,
    QuantizerConfig,
    TransformerConfig,
)
from tokbench.kanade.model import KanadeModel


def noise(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """A fixture's input: seeded standard normal times `scale`."""
    generator = np.random.Generator(np.random.PCG64(crc32(f"input:{name}".encode())))
    return torch.from_numpy((generator.standard_normal(shape) * scale).astype(np.float32))


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """A fixture's weight, decided by its key and shape."""
    draw = np.random.Generator(np.random.PCG64(crc32(key.encode()))).standard_normal(shape)
    if len(shape) >= 2:
        value = 1 + 0.1 * draw if key.endswith("weight.original0") else draw / math.sqrt(math.prod(shape[1:]))
    else:
        value = 1 + 0.1 * draw if key.endswith((".weight", "gamma")) else 0.1 * draw
    return torch.from_numpy(np.asarray(value, np.float32))


def state(shapes: dict[str, list[int]], prefix: str = "") -> dict[str, Tensor]:
    """A state dict by the recipe; `prefix` is part of the recipe's keys and not of the dict's."""
    return {key: weight(prefix + key, tuple(shape)) for key, shape in shapes.items()}


def fill(module: nn.Module, prefix: str = "") -> nn.Module:
    """Give a module the recipe's weights, in eval mode."""
    module.load_state_dict({key: weight(prefix + key, tuple(v.shape)) for key, v in module.state_dict().items()})
    return module.eval()


def build(config: KanadeConfig) -> KanadeModel:
    """A full-size Kanade with the recipe's weights, in eval mode."""
    with torch.device("meta"):
        model = KanadeModel(config)
    model.load_state_dict({k: weight(k, tuple(v.shape)) for k, v in model.state_dict().items()}, assign=True)
    return model.requires_grad_(requires_grad=False).eval()


def tiny_config(folder: Path) -> KanadeConfig:
    """Geometry of a `tiny_*` fixture."""
    c = json.loads((folder / "config.json").read_text())
    clean = c["kind"] == "25hz_clean"
    common = {"n_layers": c["layers"], "n_heads": c["heads"], "multiple_of": c["ffn_multiple_of"]}
    ssl = common | {"dim": c["ssl_dim"]}
    return KanadeConfig(
        local_layers=(6, 9),
        global_layers=(1, 2),
        downsample=c["downsample"],
        mel_upsample=c["mel_upsample"],
        local_encoder=TransformerConfig(**ssl, window=c["local_window"]),
        quantizer=QuantizerConfig(input_dim=c["ssl_dim"], output_dim=c["ssl_dim"], levels=c["levels"]),
        feature_decoder=TransformerConfig(**ssl, window=c["feature_decoder_window"]),
        global_encoder=GlobalEncoderConfig(
            input_channels=c["ssl_dim"],
            output_channels=c["global_dim"],
            num_layers=c["convnext_layers"],
            dim=c["convnext_dim"],
            intermediate_dim=c["convnext_intermediate"],
            attention_channels=c["pool_attention_channels"],
        ),
        mel_prenet=TransformerConfig(**ssl, window=c["prenet_window"], output_dim=c["prenet_output_dim"]),
        mel_decoder=TransformerConfig(
            **common,
            dim=c["decoder_dim"],
            window=c["decoder_window"],
            output_dim=c["n_mels"],
            condition_dim=c["global_dim"],
        ),
        mel_postnet=PostNetConfig(
            input_channels=c["n_mels"],
            channels=c["postnet_channels"],
            kernel_size=c["postnet_kernel"],
            num_layers=c["postnet_layers"],
        ),
        mel=MelConfig(
            style="hift" if clean else "vocos",
            n_fft=c["n_fft"],
            hop=c["hop"],
            n_mels=c["n_mels"],
            padding=c["mel_padding"],
        ),
        vocoder="hift" if clean else "vocos",
    )


def tensors(path: Path) -> dict[str, Tensor]:
    """A fixture's tensors, half precision widened."""
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in load_file(path).items()}


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; the shapes must agree."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float((ours - theirs).abs().max())
