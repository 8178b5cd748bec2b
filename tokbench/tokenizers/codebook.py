"""A fitted codebook as one safetensors file: centroids, the unit-to-mel map, and where they come from."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingBackend, MissingWeights
from tokbench.tokenizers.unit_to_mel import UnitToMel

__all__ = ["Units"]

_KEY = "tokbench"
"""Metadata entry that holds all others as JSON."""


@dataclass(frozen=True)
class Units:
    """A fitted codebook with its map to mels.

    Attributes:
        centroids: float32 `[k, D]`.
        to_mel: for decoding.
        metadata: where it comes from: corpus and fingerprint, features, layer, k, seed, inertia, version.
    """

    centroids: npt.NDArray[np.float32]
    to_mel: UnitToMel
    metadata: dict[str, str]

    def save(self, path: Path) -> None:
        """Write a safetensors file, under a temporary name first."""
        _require_safetensors()
        from safetensors.numpy import save

        data = save(
            {
                "centroids": self.centroids,
                "unit_to_mel.table": self.to_mel.table.astype(np.float16),
                "unit_to_mel.mean": self.to_mel.mean,
            },
            # One key: safetensors writes several in a random order, and equal codebooks should be equal files.
            metadata={_KEY: json.dumps(self.metadata, sort_keys=True)},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp's file is for its owner alone, a shared cache is for all
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise

    @classmethod
    def load(cls, path: Path) -> Units:
        """Read what `save` wrote.

        Raises:
            MissingWeights: the file is not a codebook.
        """
        _require_safetensors()
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                table = file.get_tensor("unit_to_mel.table").astype(np.float32)
                mean = file.get_tensor("unit_to_mel.mean")
                return cls(
                    file.get_tensor("centroids"),
                    UnitToMel(table, mean),
                    json.loads((file.metadata() or {}).get(_KEY, "{}")),
                )
        except (SafetensorError, OSError) as error:
            raise MissingWeights(
                f"is not a codebook of k-means units ({str(error).splitlines()[0]})",
                where=str(path),
                hint="Delete it, and it is fitted again on the next use",
            ) from None


def _require_safetensors() -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise MissingBackend("safetensors", extra="mini", needed_by="a codebook of k-means units")
