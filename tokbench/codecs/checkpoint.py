"""Reading published checkpoints safely, and putting them into a net without a tensor missing or left over."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from tokbench.errors import DependencyError

__all__ = ["BadCheckpoint", "fill", "fold_weight_norm", "read_checkpoint", "tensors_only"]

_log = logging.getLogger(__name__)

_WEIGHT_NORM = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)
"""Suffixes of gain and direction: torch's parametrisation, and the hook that it replaced."""

_REFUSED = ("nsupported global", "nsupported class", "unrecognized function", "not an allowed")
"""How torch says that a pickle names something beside tensors."""

FETCH_AGAIN = "Fetch it again, and give the file with --weights"


class BadCheckpoint(DependencyError):
    """A weights file is there, but damaged, unsafe, or not the model's."""


def read_checkpoint(
    source: Path | IO[bytes],
    *,
    where: str,
    allow_pickle: bool = False,
    safe_globals: Collection[tuple[Callable[..., Any], str]] = (),
) -> Any:
    """What a `.safetensors` file or a file of `torch.save` holds, on the CPU.

    Args:
        source: path, or an open seekable file of `torch.save`.
        where: how errors name the file.
        allow_pickle: load objects beside tensors too, which can run code; says so with a warning that names the file.
        safe_globals: harmless stand-ins for classes that the pickle names, as `(callable, "module.name")`.

    Raises:
        BadCheckpoint: damaged, or needs `allow_pickle`.
    """
    if isinstance(source, Path) and source.suffix == ".safetensors":
        return _read_safetensors(source, where)
    mmap = isinstance(source, Path) and _is_zip(source)
    try:
        with torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        refused = any(sign in str(error) for sign in _REFUSED)
        if not refused:
            raise _damaged(where, error) from None
        if not allow_pickle:
            raise BadCheckpoint(
                "holds pickled objects beside tensors, and a pickle can run code",
                where=where,
                hint="If you trust it, add --allow-pickle",
            ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise _damaged(where, error) from None
    _log.warning("%s: loading pickled objects, which can run code", where)
    if not isinstance(source, Path):
        source.seek(0)
    try:
        return torch.load(source, map_location="cpu", weights_only=False, mmap=mmap)
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything
        raise _damaged(where, error) from None


def _is_zip(path: Path) -> bool:
    """Whether `torch.save` wrote its present form, which can be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_safetensors(path: Path, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(where, error) from None
    return tensors


def _damaged(where: str, error: Exception) -> BadCheckpoint:
    reason = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".")[:120] or type(error).__name__
    return BadCheckpoint(f"is damaged, or is no checkpoint ({reason})", where=where, hint=FETCH_AGAIN)


def tensors_only(found: object, *, where: str) -> dict[str, Tensor]:
    """A state dict: names to tensors.

    Raises:
        BadCheckpoint: it is something else.
    """
    if not isinstance(found, Mapping) or not found:
        raise BadCheckpoint(f"holds a {type(found).__name__} and no state dict", where=where, hint=FETCH_AGAIN)
    for key, value in found.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise BadCheckpoint(
                f"holds '{str(key)[:60]}', which is a {type(value).__name__} and no tensor",
                where=where,
                hint="It must be a state dict",
            )
    return dict(found)


def fold_weight_norm(state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Replace every pair of gain and direction by the weight `v * g / |v|`, the norm over all dimensions but the first.

    Salimans and Kingma 2016, equation 2; for a transposed convolution the first dimension is the input channel, as in
    torch.

    Raises:
        BadCheckpoint: a gain without its direction, or the reverse.
    """
    folded = dict(state)
    for gain_suffix, direction_suffix in _WEIGHT_NORM:
        for one, other in ((gain_suffix, direction_suffix), (direction_suffix, gain_suffix)):
            for key in state:
                if key.endswith(one) and key.removesuffix(one) + other not in state:
                    raise BadCheckpoint(f"lacks {key.removesuffix(one)}{other}", where=where, hint=FETCH_AGAIN)
        for key in state:
            if key.endswith(gain_suffix):
                stem = key.removesuffix(gain_suffix)
                gain = folded.pop(key).float()
                direction = folded.pop(stem + direction_suffix).float()
                if gain.shape != (direction.shape[0], *[1] * (direction.ndim - 1)):
                    raise BadCheckpoint(
                        f"{key} is {list(gain.shape)}, which does not fit a weight of {list(direction.shape)}",
                        where=where,
                        hint=FETCH_AGAIN,
                    )
                dims = tuple(range(1, direction.ndim))
                folded[f"{stem}.weight"] = direction * (
                    gain / torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
                )
    return folded


def fill(module: nn.Module, state: Mapping[str, Tensor], *, where: str, what: str, hint: str = FETCH_AGAIN) -> None:
    """Load a state dict whose names and shapes are exactly the module's; floats become float32.

    The module may have been made on the "meta" device: tensors are taken, not copied.

    Args:
        module: filled in place.
        state: names to tensors.
        where: how errors name the file.
        what: how errors name the model, for instance "nanocodec-0.6k".
        hint: what to type next.

    Raises:
        BadCheckpoint: names the first tensor that is missing, left over, of another shape or not finite.
    """
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    if missing:
        raise BadCheckpoint(
            f"lacks {len(missing)} of the {len(expected)} tensors of {what}, for instance {missing[0]}",
            where=where,
            hint=hint,
        )
    unexpected = [key for key in state if key not in expected]
    if unexpected:
        raise BadCheckpoint(
            f"holds {len(unexpected)} tensors that {what} does not have, for instance {unexpected[0]}",
            where=where,
            hint=hint,
        )
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape:
            raise BadCheckpoint(
                f"{key} is {list(state[key].shape)}, {what} needs {list(tensor.shape)}", where=where, hint=hint
            )
        if not torch.isfinite(state[key]).all():
            raise BadCheckpoint(f"{key} has NaN or infinite values", where=where, hint=hint)
    # Not the module's own method: a package may have replaced it by one that takes less.
    nn.Module.load_state_dict(
        module, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
    )
