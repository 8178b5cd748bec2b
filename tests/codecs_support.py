"""Weights and inputs by recipe, and checkpoints in the released layouts, for the tests of the ports."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Shape = tuple[int, ...]


def normal(text: str, shape: Shape) -> npt.NDArray[np.float64]:
    """The fixtures' generator: standard normal, seeded by the crc32 of a name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))
    return generator.standard_normal(shape)


def shapes(path: Path) -> dict[str, Shape]:
    """`keys.json` of any of the fixture folders: name -> shape."""
    found: dict[str, Shape] = {}
    for key, value in json.loads(path.read_text()).items():
        pieces = [v for v in value if isinstance(v, list)]
        found[key] = tuple(pieces[0] if pieces else [v for v in value if isinstance(v, int)])
    return found


def by_recipe(keys: Mapping[str, Shape], recipe: Callable[[str, Shape], npt.NDArray[np.float64]]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(recipe(key, shape), np.float32)) for key, shape in keys.items()}


def nanocodec_recipe(key: str, shape: Shape) -> npt.NDArray[np.float64]:
    """Section 4 of the facts on NanoCodec."""
    n = normal(key, shape)
    if key.endswith("weight.original0"):
        gain = {"audio_encoder.post_conv": 9.0, "audio_decoder.post_conv": 0.7}
        return gain.get(key.split(".conv.")[0], 1.0) * (1 + 0.1 * n)
    if key.endswith("alpha"):
        return 1 + 0.2 * n
    return n / math.sqrt(math.prod(shape[1:])) if key.endswith("weight.original1") else 0.05 * n


def dacvae_recipe(key: str, shape: Shape) -> npt.NDArray[np.float64]:
    """Section 6 of the facts on DAC-VAE."""
    n = normal(key, shape)
    if key.endswith("alpha"):
        return 1 + 0.3 * n
    if key.endswith("weight_g"):
        return 0.7 + 0.1 * n
    return n / math.sqrt(math.prod(shape[1:])) if key.endswith("weight_v") else 0.1 * n


def losatok_recipe(key: str, shape: Shape) -> npt.NDArray[np.float64]:
    """Section 7 of the facts on LoSATok; buffers keep their true values and are not made here."""
    n = normal(key, shape)
    if key.endswith("running_mean"):
        return -20 + 5 * n
    if key.endswith("running_var"):
        return 300 * np.exp(0.2 * n)
    if key.endswith("pos_embed"):
        return 0.5 * n
    if key.endswith("head.out.bias"):
        return 1.5 * n
    if len(shape) >= 2:
        return n / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * n if key.endswith((".weight", "gamma")) else 0.1 * n


def write_nemo(path: Path, config: str, checkpoint: Any, *, mode: str = "w", prefix: str = "./") -> Path:
    """An archive as NeMo's `save_to` writes it."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with tarfile.open(path, mode) as tar:
        for name, data in (("model_config.yaml", config.encode()), ("model_weights.ckpt", buffer.getvalue())):
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def add_entry(path: Path, entry: tarfile.TarInfo, data: bytes = b"") -> None:
    entry.size = len(data)
    with tarfile.open(path, "a") as tar:
        tar.addfile(entry, io.BytesIO(data))


def largest(first: Tensor, second: Tensor) -> float:
    """Largest absolute difference of two arrays of one shape."""
    assert first.shape == second.shape, (first.shape, second.shape)
    return float((first.double() - second.double()).abs().max())


def losatok_input(name: str) -> Tensor:
    """`noise_S<n>` or `tone_S32000`, `[1, n]` at 16 kHz."""
    size = int(name.split("_S")[1])
    if name.startswith("noise"):
        wave = 0.1 * normal(f"input:{name}", (size,))
    else:
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(size) / 16000)
        wave[size // 2 :] = 0
    return torch.from_numpy(wave.astype(np.float32))[None]


def losatok_compare(model: Any, file: Path, *, wave_tolerance: float) -> dict[str, float]:
    """Largest differences from all that a fixture file holds, beside what they may be.

    Returns:
        Name -> difference over tolerance; all must be below 1.
    """
    from safetensors.torch import load_file

    from tokbench.codecs.precision import exact_inference

    want = load_file(file)
    seen: dict[str, Tensor] = {}
    codec, semantic = model.dasheng_tokenizer, model.semantic_encoder
    named = {
        "mel_db": semantic.front_end,
        "bn": semantic.encoder.init_bn,
        "sem_patch": semantic.encoder.patch_embed,
        "mel_log": codec.encoder.front_end,
        "ac_patch": codec.encoder.patch_embed,
        "upsampled": codec.upsampler,
        "dec_embed": codec.decoder.backbone.embed,
        "dec_norm": codec.decoder.backbone.norm,
        "dec_final": codec.decoder.backbone.final_layer_norm,
        "head_out": codec.decoder.head.out,
    }
    named |= {f"block{i}": block for i, block in enumerate(semantic.encoder.blocks)}
    named |= {f"convnext{j}": block for j, block in enumerate(codec.decoder.backbone.convnext)}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, key=f"tap.{name}": seen.update({key: out.clone()}))
        for name, module in named.items()
        if f"tap.{name}" in want
    ]
    audio = losatok_input(file.stem)
    with exact_inference():
        made = model.embed(audio)
        mean, log_variance = model.posterior(audio)
        wave = model.decode(want["mu"])
    for hook in hooks:
        hook.remove()
    assert wave.shape == (1, 640 * mean.shape[1])
    seen |= {
        "semantic_emb": made.semantic,
        "acoustic_emb": made.acoustic,
        "semantic_emb_low": made.semantic_low,
        "acoustic_emb_low": made.acoustic_low,
        "unified_emb_low": made.semantic_low + made.acoustic_low,
        "mu": mean,
        "logvar": log_variance,
        "wav": wave,
        "wav_head": wave[:, :1500],
        "wav_tail": wave[:, -1500:],
    }
    found = {}
    for key, value in want.items():
        if value.numel() == 0:
            continue
        got = seen[key]
        if key.startswith("tap."):
            got = got.reshape(*got.shape[:2], -1) if got.ndim == 4 else got
            for dim, size in enumerate(value.shape):
                got = got.narrow(dim, 0, size)
        if value.dtype == torch.float16:
            allowed = 4e-3 * max(1.0, float(value.abs().max()))
        elif key.startswith("wav"):
            allowed = wave_tolerance
        else:
            scale = max(1.0, float(value.abs().max())) if key.startswith("tap.") else 1.0
            allowed = 1e-5 if key == "acoustic_emb" else 2e-5 * scale
        found[key] = largest(got, value) / allowed
    return found
