"""Checkpoints on the child's side: found by name, read without running what a pickle says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from tokbench_worker.contract import BadWeights, NoLibrary, Options

__all__ = ["fill", "find_file", "load_tensors", "use_source"]

_FETCH_AGAIN = "Fetch it again, and give the file with --weights"


def use_source(options: Options) -> str:
    """Put the environment's checkout on the path; returns the folder.

    Raises:
        NoLibrary: the environment has none.
    """
    if options.source is None or not os.path.isdir(options.source):  # noqa: PTH112 - plain paths on this side
        raise NoLibrary("needs a source folder, which its environment does not have")
    source: str = options.source
    sys.path.insert(0, source)
    return source


def find_file(options: Options, name: str | None = None) -> str:
    """Path of a published file: what the user gave, or that name in the folder that the user gave.

    Args:
        options: of the backend.
        name: one of the card's files; None for the only one, which may then have any name.

    Raises:
        BadWeights: it is not there; says what to put where.
    """
    wanted = name or (options.files[0] if options.files else "the checkpoint")
    hint = "Get {} and type --weights FOLDER".format(" and ".join(options.files or ("the checkpoint",)))
    if options.weights is None:
        raise BadWeights(f"the weights of {options.name} are not here", hint=hint)
    if os.path.isfile(options.weights) and (name is None or len(options.files) == 1):  # noqa: PTH113
        given: str = options.weights
        return given
    path = os.path.join(options.weights, wanted)  # noqa: PTH118
    if not os.path.isfile(path):  # noqa: PTH113
        raise BadWeights(f"holds no {wanted}", where=options.weights, hint=hint)
    return path


def load_tensors(path: str, options: Options) -> Any:
    """What a file of `torch.save` or a `.safetensors` file holds, on the CPU.

    Raises:
        BadWeights: damaged, or it needs `--allow-pickle`.
    """
    import pickle

    import torch

    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:
            raise _damaged(path, error) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(sign in str(error) for sign in ("nsupported global", "nsupported class", "not an allowed")):
            raise _damaged(path, error) from error
        if not options.allow_pickle:
            raise BadWeights(
                "holds pickled objects beside tensors, and a pickle can run code",
                where=path,
                hint="If you trust it, add --allow-pickle",
            ) from error
    except Exception as error:
        raise _damaged(path, error) from error
    sys.stderr.write(f"{path}: loading pickled objects, which can run code\n")
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise _damaged(path, error) from error


def fill(module: Any, state: Any, path: str, ignore: Sequence[str] = ()) -> None:
    """Load a state dict whose names and shapes are exactly the module's.

    Args:
        module: filled in place, put into evaluation mode.
        state: names to tensors.
        path: for messages.
        ignore: beginnings of names that belong to training only.

    Raises:
        BadWeights: names the first tensor that is missing, left over or of another shape.
    """
    if not isinstance(state, dict):
        raise BadWeights(f"holds a {type(state).__name__} and no state dict", where=path, hint=_FETCH_AGAIN)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(ignore))}
    expected: dict[str, Any] = module.state_dict()
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which the model does not have"
        raise BadWeights(what, where=path, hint="Give the checkpoint of this variant")
    for key, tensor in expected.items():
        if tuple(state[key].shape) != tuple(tensor.shape):
            raise BadWeights(
                f"{key} is {list(state[key].shape)}, the model needs {list(tensor.shape)}",
                where=path,
                hint="Give the checkpoint of this variant",
            )
    module.load_state_dict(state)
    module.eval()


def _damaged(path: str, error: Exception) -> BadWeights:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return BadWeights(f"is damaged, or is no checkpoint ({lines[0][:120]})", where=path, hint=_FETCH_AGAIN)
