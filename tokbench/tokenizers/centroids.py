"""Centroids as people publish them: numpy and safetensors files, files of torch, and pickles of scikit-learn objects.

A pickle can run code when it is read. It is opened only where the user allowed it, and a warning names the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingBackend, MissingWeights

__all__ = ["SUFFIXES", "read_centroids"]

_log = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".npy", ".npz", ".pt", ".bin", ".joblib", ".pkl", ".km")
"""Names of centroid files end in one of these, the safe ones first."""
_KEYS = ("centroids", "cluster_centers_", "cluster_centers", "centers")
_UNSAFE = "is a pickle, which can run code when it is read"


def read_centroids(path: Path, *, allow_pickle: bool = False) -> npt.NDArray[np.float32]:
    """Centroids float32 `[k, D]` of a file.

    Read without a pickle: `.npy`, `.npz`, `.safetensors`, and files of `torch.save` that hold tensors. Of a mapping the
    entry called centroids, cluster_centers_, cluster_centers or centers counts, or its only entry. Everything else is
    taken for a joblib pickle of an object with `cluster_centers_`.

    Raises:
        MissingWeights: damaged, a pickle that was not allowed, or not a matrix of finite numbers.
        MissingBackend: a pickle needs joblib and scikit-learn.
    """
    readers = {".npy": _numpy, ".npz": _numpy, ".safetensors": _safetensors}
    read = readers.get(path.suffix)
    try:
        found = read(path) if read else _torch_or_pickle(path, allow_pickle)
    except (OSError, ValueError, KeyError, EOFError) as error:
        if path.suffix in (".npy", ".npz") and "allow_pickle" in str(error):
            raise MissingWeights("holds Python objects and no plain array", where=str(path),
                                 hint="Save the centroids alone as float32 [k, D]") from None  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingWeights(f"is damaged, or holds no centroids ({reason})", where=str(path)) from None
    array = np.asarray(_entry(found, path))
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size or not np.isfinite(array).all():
        raise MissingWeights(
            f"centroids must be finite numbers [k, D], are {array.dtype} {list(array.shape)}", where=str(path)
        )
    return np.ascontiguousarray(array, np.float32)


def _numpy(path: Path) -> Any:
    found = np.load(path, allow_pickle=False)
    return {key: found[key] for key in found.files} if path.suffix == ".npz" else found


def _safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ModuleNotFoundError:
        raise MissingBackend("safetensors", extra="mini", needed_by="centroids") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _torch_or_pickle(path: Path, allow_pickle: bool) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        from tokbench.codecs.checkpoint import BadCheckpoint, read_checkpoint

        try:
            return read_checkpoint(path, where=str(path), allow_pickle=allow_pickle)
        except BadCheckpoint as error:
            raise MissingWeights(error.what, where=error.where, hint=error.hint) from None
    if not allow_pickle:
        raise MissingWeights(
            _UNSAFE, where=str(path), hint="If you trust it, add --allow-pickle, or save its centroids as .npy"
        )
    try:
        import joblib
    except ModuleNotFoundError:
        raise MissingBackend("joblib", extra="mini", needed_by=f"the pickle {path.name}") from None
    _log.warning("%s: loading pickled objects, which can run code", path)
    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise MissingBackend(str(error.name), extra="mini", needed_by=f"the pickle {path.name}") from None
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything
        raise ValueError(str(error) or type(error).__name__) from None


def _entry(found: Any, path: Path) -> Any:
    for key in _KEYS:
        if isinstance(found, Mapping) and key in found:
            return found[key]
        if hasattr(found, key):
            return getattr(found, key)
    if isinstance(found, Mapping):
        if len(found) != 1:
            raise MissingWeights(f"has none of the entries {', '.join(_KEYS)}", where=str(path))
        return next(iter(found.values()))
    return found
