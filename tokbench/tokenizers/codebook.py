"""A fitted codebook as one safetensors file: centroids, the unit-to-mel map, and where they come from."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingBackend, MissingWeights
from tokbench.tokenizers.unit_to_mel import UnitToMel
from tokbench.whole_files import replace_file

__all__ = ["Units"]

_TABLE, _MEAN = "unit_to_mel.table", "unit_to_mel.mean"
_KEY = "tokbench"
"""Metadata entry that holds all others as JSON."""


@dataclass(frozen=True)
class Units:
    """A fitted codebook with its map to mels.

    Attributes:
        centroids: float32 `[k, D]`.
        to_mel: for decoding; None where something else decodes centroids.
        metadata: where it comes from: corpus and fingerprint, features, layer, k, seed, inertia, version.
    """

    centroids: npt.NDArray[np.float32]
    to_mel: UnitToMel | None
    metadata: dict[str, str]

    def save(self, path: Path) -> None:
        """Write a safetensors file, under a temporary name first."""
        _require_safetensors()
        from safetensors.numpy import save

        tensors = {"centroids": self.centroids}
        if self.to_mel is not None:
            tensors[_TABLE], tensors[_MEAN] = self.to_mel.table.astype(np.float16), self.to_mel.mean
        data = save(
            tensors,
            # One key: safetensors writes several in a random order, and equal codebooks should be equal files.
            metadata={_KEY: json.dumps(self.metadata, sort_keys=True)},
        )
        replace_file(path, data)

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
                to_mel = None
                if _TABLE in file.keys():  # noqa: SIM118 - no mapping, it has keys() alone
                    to_mel = UnitToMel(file.get_tensor(_TABLE).astype(np.float32), file.get_tensor(_MEAN))
                return cls(
                    file.get_tensor("centroids"),
                    to_mel,
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
