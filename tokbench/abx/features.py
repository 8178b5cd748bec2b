"""Where frames come from: a folder of `.npy` or `.pt` files, or arrays in memory; checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokbench.errors import DatasetError, MissingBackend

__all__ = ["ArrayFeatures", "FeatureSource", "FolderFeatures", "load_codebook"]

SUFFIXES = (".npy", ".pt")


class FeatureSource(Protocol):
    """Frames of recordings by name."""

    def names(self) -> frozenset[str]:
        """The recordings there are."""
        ...

    def load(self, name: str) -> npt.NDArray[np.generic]:
        """Frames `[T, D]` of one recording, any real dtype.

        Raises:
            DatasetError: not frames.
        """
        ...

    def where(self, name: str) -> str:
        """The file, or the name, for messages."""
        ...


@dataclass(frozen=True)
class ArrayFeatures:
    """Frames in memory: `arrays[name]` is `[T, D]`, or `[T]` for codes."""

    arrays: Mapping[str, npt.NDArray[np.generic]]
    source: str = "features"

    def names(self) -> frozenset[str]:
        """The recordings there are."""
        return frozenset(self.arrays)

    def load(self, name: str) -> npt.NDArray[np.generic]:
        """Frames `[T, D]`."""
        return _frames(self.arrays[name], self.where(name))

    def where(self, name: str) -> str:
        """The name, for messages."""
        return f"{self.source}: {name}"


class FolderFeatures:
    """A folder of `.npy` or `.pt` files (tensors only), at any depth; a recording is named by its path without suffix.

    Raises:
        DatasetError: no such folder, no features in it, or a recording in both formats.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DatasetError("is not a folder of features", where=str(folder))
        self.folder = folder
        self._paths: dict[str, Path] = {}
        for suffix in SUFFIXES:
            for path in sorted(folder.rglob(f"*{suffix}")):
                name = path.relative_to(folder).as_posix().removesuffix(suffix)
                if name in self._paths:
                    raise DatasetError(f"'{name}' is there as {SUFFIXES[0]} and as {SUFFIXES[1]}", where=str(folder))
                self._paths[name] = path
        if not self._paths:
            raise DatasetError("holds no .npy or .pt files", where=str(folder))

    def names(self) -> frozenset[str]:
        """The recordings there are."""
        return frozenset(self._paths)

    def where(self, name: str) -> str:
        """The file of a recording."""
        return str(self._paths.get(name, self.folder / name))

    def load(self, name: str) -> npt.NDArray[np.generic]:
        """Frames `[T, D]` of one file; never unpickles.

        Raises:
            DatasetError: unreadable, or not a real array of one or two dimensions.
            MissingBackend: a `.pt` file without torch.
        """
        path = self._paths[name]
        try:
            array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _load_tensor(path)
        except (OSError, ValueError, EOFError, RuntimeError) as error:
            raise DatasetError(f"cannot be read ({str(error).splitlines()[0]})", where=str(path)) from None
        return _frames(array, str(path))


def load_codebook(path: Path) -> npt.NDArray[np.float32]:
    """Code vectors float32 `[vocab, D]` of a `.npy` file.

    Raises:
        DatasetError: unreadable, or no finite matrix.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"cannot be read ({str(error).splitlines()[0]})", where=str(path)) from None
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise DatasetError("is not a finite matrix [codes, dimensions]", where=str(path))
    return np.asarray(array, np.float32)


def _load_tensor(path: Path) -> npt.NDArray[np.generic]:
    import pickle

    try:
        import torch
    except ModuleNotFoundError:
        raise MissingBackend("torch", extra="mini", needed_by=f"reading {path}") from None
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"holds more than tensors: {error}") from None
    if not isinstance(loaded, torch.Tensor):
        raise ValueError(f"holds a {type(loaded).__name__}, not a tensor")  # noqa: TRY004 - told as a DatasetError
    loaded = loaded.detach()
    return np.asarray((loaded.float() if loaded.dtype == torch.bfloat16 else loaded).numpy())


def _frames(array: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.generic]:
    if array.dtype.kind not in "fiu":
        raise DatasetError(f"has dtype {array.dtype}, features are real numbers", where=where)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise DatasetError(f"has shape {array.shape}, features are [frames, dimensions]", where=where)
    return array
