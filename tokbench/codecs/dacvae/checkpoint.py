"""Reading a DAC-VAE checkpoint: the training dictionary, a state dict, or safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokbench.codecs.checkpoint import fill, fold_weight_norm, read_checkpoint, tensors_only
from tokbench.codecs.dacvae.config import check_declared, config_of_shapes
from tokbench.codecs.dacvae.model import DacVae

__all__ = ["load_dacvae"]


def _no_history(*_arguments: Any) -> dict[str, Any]:
    """Stands for the defaultdicts of training curves; an empty mapping that can be filled."""
    return {}


def _no_list(*_arguments: Any) -> list[Any]:
    return []


_CURVES: tuple[tuple[Callable[..., Any], str], ...] = (
    (dict, "builtins.dict"),
    (list, "builtins.list"),
    (_no_history, "collections.defaultdict"),
    (_no_list, "audiotools.ml.decorators.default_list"),
)
"""What training pickles beside tensors: logs, of classes that need not be imported to be skipped."""


def load_dacvae(path: Path, *, what: str = "a DAC-VAE", allow_pickle: bool = False) -> tuple[DacVae, int | None]:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: what training saved (with `generator`, and perhaps `config`), a bare state dict, or safetensors.
        what: how errors name the model.
        allow_pickle: load objects beside tensors too, which can run code.

    Returns:
        The model, and the sample rate where the checkpoint holds its configuration.

    Raises:
        BadCheckpoint: damaged, another layout, a tensor missing, left over or of another shape, or a configuration that
            contradicts the weights.
    """
    where = str(path)
    found = read_checkpoint(path, where=where, allow_pickle=allow_pickle, safe_globals=_CURVES)
    declared = None
    if isinstance(found, Mapping) and "generator" in found:
        declared, found = found.get("config"), found["generator"]
    state = fold_weight_norm(tensors_only(found, where=where), where=where)
    config = config_of_shapes({key: tuple(value.shape) for key, value in state.items()}, where=where)
    model = DacVae(config, device="meta")
    fill(model, state, where=where, what=what)
    return model.eval(), check_declared(declared, config, where=where)
