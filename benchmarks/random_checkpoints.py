"""Checkpoints with random weights in the released layouts and geometries, for measurements without a hub.

python benchmarks/random_checkpoints.py FOLDER     # WavLM-base-plus and Vocos, as `--set params.weights=FOLDER` reads
"""

from __future__ import annotations

import io
import math
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

__all__ = ["NANOCODEC", "nanocodec_config", "write_checkpoint", "write_front_end"]

_NEMO = "nemo.collections.tts.modules.audio_codec_modules."
NANOCODEC: dict[str, tuple[int, list[int], list[int], int, list[int]]] = {
    "nanocodec-0.6k": (1764, [2, 3, 6, 7, 7], [7, 7, 6, 3, 2], 4, [9, 8, 8, 7]),
    "nanocodec-1.78k": (1764, [2, 3, 6, 7, 7], [7, 7, 6, 3, 2], 13, [8, 7, 6, 6]),
    "nanocodec-1.89k": (1024, [2, 2, 4, 8, 8], [8, 8, 4, 2, 2], 8, [8, 7, 6, 6]),
}
"""Hop, strides down and up, codebooks, levels."""
_TRAINING: dict[str, Any] = {
    "target": "nemo.collections.tts.models.audio_codec.AudioCodecModel",
    "mel_loss_l1_scale": 1.0, "mel_loss_l2_scale": 0.0, "stft_loss_scale": 20.0, "time_domain_loss_scale": 0.0,
    "codebook_loss_scale": 0.0, "commit_loss_scale": 0.0, "disc_updates_per_period": 1, "disc_update_period": 2,
    "loss_resolutions": [[32, 8, 32], [64, 16, 64], [128, 32, 128]], "mel_loss_dims": [5, 10, 20],
    "mel_loss_log_guard": 1.0, "stft_loss_log_guard": 1.0, "feature_loss_type": "absolute", "discriminator": None,
    "generator_loss": {"_target_": "nemo.collections.tts.losses.audio_codec_loss.GeneratorSquaredLoss"},
    "discriminator_loss": {"_target_": "nemo.collections.tts.losses.audio_codec_loss.DiscriminatorSquaredLoss"},
}  # fmt: skip
"""Without these NeMo does not restore an archive; tokens and samples do not depend on them."""
DACVAE = {"dacvae-75hz": (64, [2, 4, 5, 8]), "dacvae-50hz": (80, [2, 3, 4, 4, 5])}


def write_checkpoint(name: str, folder: Path) -> Path:
    """A file that the adapter of card `name` loads."""
    torch.manual_seed(0)
    if name in NANOCODEC:
        return _nanocodec(name, folder / f"{name}.nemo")
    if name in DACVAE:
        return _dacvae(name, folder / f"{name}.pth")
    return _losatok(folder / f"{name.replace('-', '_', 1)}.pth")


def write_front_end(folder: Path) -> None:
    """What Kanade reads besides its own weights: WavLM-base-plus and Vocos."""
    from safetensors.torch import save_file
    from transformers import WavLMConfig, WavLMModel

    from tokbench.kanade.vocos import Vocos

    torch.manual_seed(0)
    WavLMModel(WavLMConfig()).save_pretrained(folder / "wavlm-base-plus")
    (folder / "vocos-mel-24khz").mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in Vocos().state_dict().items()},
        folder / "vocos-mel-24khz" / "model.safetensors",
    )


def nanocodec_config(name: str) -> dict[str, Any]:
    """What `model_config.yaml` of the release says about the nets."""
    hop, down, up, groups, levels = NANOCODEC[name]
    width = groups * len(levels)
    return _TRAINING | {
        "sample_rate": 22050,
        "samples_per_frame": hop,
        "audio_encoder": {
            "_target_": _NEMO + "HiFiGANEncoder",
            "down_sample_rates": down,
            "encoded_dim": width,
            "base_channels": 24,
            "activation": "lrelu",
            "pad_mode": "replicate",
        },
        "audio_decoder": {
            "_target_": _NEMO + "CausalHiFiGANDecoder",
            "up_sample_rates": up,
            "input_dim": width,
            "base_channels": 864,
            "activation": "half_snake",
            "output_activation": "clamp",
            "pad_mode": "zeros",
            "n_groups_equal_to_out_channels": True,
        },
        "vector_quantizer": {
            "_target_": _NEMO + "GroupFiniteScalarQuantizer",
            "num_groups": groups,
            "num_levels_per_group": levels,
        },
    }


def _unfold(state: dict[str, Tensor], gain: Callable[[str], float], names: tuple[str, str]) -> dict[str, Tensor]:
    """Random gains and directions for every weight of three dimensions, ones for alpha, small biases."""
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("alpha"):
            made[key] = 1 + 0.2 * torch.randn(value.shape)
        elif key.endswith(".weight"):
            stem = key.removesuffix("weight")
            made[stem + names[0]] = gain(key) * (1 + 0.1 * torch.randn(value.shape[0], 1, 1))
            made[stem + names[1]] = torch.randn(value.shape) / math.sqrt(math.prod(value.shape[1:]))
        else:
            made[key] = 0.05 * torch.randn(value.shape)
    return made


def _nanocodec(name: str, path: Path) -> Path:
    from tokbench.codecs.nanocodec.config import parse_config
    from tokbench.codecs.nanocodec.model import NanoCodec

    config = nanocodec_config(name)
    gains = {"audio_encoder.post_conv.conv.weight": 9.0, "audio_decoder.post_conv.conv.weight": 0.7}
    state = _unfold(
        NanoCodec(parse_config(config, where=name), device="meta").state_dict(),
        lambda key: gains.get(key, 1.0),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    levels = torch.tensor(NANOCODEC[name][4], dtype=torch.int32)
    base = torch.cat([torch.ones(1, dtype=torch.int64), torch.cumprod(levels, 0)[:-1]]).int()
    for group in range(NANOCODEC[name][3]):
        state[f"vector_quantizer.fsqs.{group}.num_levels"] = levels.view(1, -1, 1)
        state[f"vector_quantizer.fsqs.{group}.dim_base_index"] = base.view(1, -1, 1)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with tarfile.open(path, "w") as tar:
        for member, data in (
            ("model_config.yaml", yaml.safe_dump(config).encode()),
            ("model_weights.ckpt", buffer.getvalue()),
        ):
            entry = tarfile.TarInfo(f"./{member}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def _dacvae(name: str, path: Path) -> Path:
    from tokbench.codecs.dacvae.config import DacVaeConfig
    from tokbench.codecs.dacvae.model import DacVae

    latent, rates = DACVAE[name]
    config = DacVaeConfig(64, tuple(rates), latent, 1536, tuple(reversed(rates)))
    state = _unfold(DacVae(config, device="meta").state_dict(), lambda _: 0.7, ("weight_g", "weight_v"))
    torch.save({"generator": state, "step": 0}, path)
    return path


def _losatok(path: Path) -> Path:
    from tokbench.codecs.losatok.config import LosatokConfig
    from tokbench.codecs.losatok.model import Losatok

    config = LosatokConfig(1280, 32, 16, 5120, 252, 64, 512, 128, 128, 1280, 12, 5120, 2, 1280)
    state: dict[str, Tensor] = {}
    for key, value in Losatok(config, device="meta").state_dict().items():
        if key.endswith("running_mean"):
            state[key] = -20 + 5 * torch.randn(value.shape)
        elif key.endswith("running_var"):
            state[key] = 300 * (0.2 * torch.randn(value.shape)).exp()
        elif value.ndim >= 2:
            state[key] = torch.randn(value.shape) / math.sqrt(math.prod(value.shape[1:]))
        else:
            state[key] = (1.0 if key.endswith((".weight", "gamma")) else 0.0) + 0.1 * torch.randn(value.shape)
    torch.save(state, path)
    return path


if __name__ == "__main__":
    write_front_end(Path(sys.argv[1]))
