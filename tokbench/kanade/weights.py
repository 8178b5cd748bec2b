"""Reading weights strictly: every tensor is expected, has the right shape, and is used, or the load fails by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tokbench.errors import DependencyError
from tokbench.kanade.config import KanadeConfig
from tokbench.kanade.hift import HiFT
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.vocos import FEATURE_PREFIX, Vocos
from tokbench.kanade.wavlm import WavLM, normalize_keys, unused_keys

__all__ = [
    "TRAINING_ONLY",
    "IncompatibleWeights",
    "load_hift",
    "load_kanade",
    "load_strictly",
    "load_vocos",
    "load_wavlm",
    "read_tensors",
]

TRAINING_ONLY = ("feature_decoder.", "conv_upsample.", "ssl_feature_extractor.")
"""Modules that a training checkpoint may hold and a released file leaves out; inference does not read them."""

_LISTED = 3


class IncompatibleWeights(DependencyError):
    """A weights file does not hold what the model needs, or holds what it does not know."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from `.safetensors`, or from a PyTorch file that holds tensors alone (no pickled code is run).

    Raises:
        IncompatibleWeights: the file is damaged or is not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise several kinds for a damaged file
        raise IncompatibleWeights(
            f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})",
            where=str(path),
            hint="Fetch the file again",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise IncompatibleWeights("is not a state dict of tensors", where=str(path))
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: Path, ignore: tuple[str, ...] = ()) -> None:
    """Give a module (which may be on the meta device) exactly the tensors of a state dict, as float32.

    Args:
        module: to be loaded.
        state: tensors by key.
        where: file, for the error.
        ignore: prefixes of keys that are known and not needed.

    Raises:
        IncompatibleWeights: a key is missing or unexpected, or a shape differs; names the first few.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: value for key, value in state.items() if key in wanted or not key.startswith(ignore or ("\0",))}
    problems = []
    for label, keys in (
        ("missing", wanted.keys() - given.keys()),
        ("unexpected", given.keys() - wanted.keys()),
        ("of another shape", {k for k in wanted.keys() & given.keys() if wanted[k] != tuple(given[k].shape)}),
    ):
        if keys:
            more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
            problems.append(f"{label}: {', '.join(sorted(keys)[:_LISTED])}{more}")
    if problems:
        raise IncompatibleWeights(f"does not fit {type(module).__name__}; {'; '.join(problems)}", where=str(where))
    module.load_state_dict({key: value.float() for key, value in given.items()}, strict=True, assign=True)


def load_kanade(path: Path, config: KanadeConfig) -> KanadeModel:
    """The released `model.safetensors`, in eval mode, without the training-only modules."""
    with torch.device("meta"):
        model = KanadeModel(config)
    load_strictly(model, read_tensors(path), where=path, ignore=TRAINING_ONLY)
    return model.requires_grad_(requires_grad=False).eval()


def load_wavlm(path: Path, *, blocks: int) -> WavLM:
    """WavLM-base-plus from transformers' or torchaudio's checkpoint, its first blocks only."""
    state = normalize_keys(read_tensors(path))
    with torch.device("meta"):
        model = WavLM(blocks=blocks)
    wanted = {key: value for key, value in state.items() if not unused_keys(key, blocks)}
    load_strictly(model.net, wanted, where=path)
    return model.freeze()


def load_vocos(path: Path) -> Vocos:
    """The published Vocos checkpoint; its mel spectrogram's buffers are not needed to decode."""
    with torch.device("meta"):
        model = Vocos()
    load_strictly(model, read_tensors(path), where=path, ignore=(FEATURE_PREFIX,))
    return model.requires_grad_(requires_grad=False).eval()


def load_hift(path: Path) -> HiFT:
    """CosyVoice 2's `hift.pt`; weight norms are resolved once, since inference keeps them fixed."""
    state = {key.removeprefix("generator."): value for key, value in read_tensors(path).items()}
    with torch.device("meta"):
        model = HiFT()
    load_strictly(model, state, where=path)
    for module in model.modules():
        if nn.utils.parametrize.is_parametrized(module, "weight"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
    return model.requires_grad_(requires_grad=False).eval()
