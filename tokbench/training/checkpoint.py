"""Checkpoints: the state of a training as a unit of the store, so written whole or not at all, with a checksum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "pack_tensors", "unpack_tensors"]


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training lies.

    A kill in the middle of a write, or a full disk, leaves the checkpoint before it; a damaged one is reported, set
    aside, and the training begins again.

    Attributes:
        store: the artefact store.
        key: of this training, stage "checkpoint".
    """

    store: Store
    key: UnitKey

    def load(self) -> Payload | None:
        """The last state, or None."""
        return self.store.get(self.key)

    def save(self, payload: Payload) -> None:
        """Replace the last state.

        Raises:
            StoreError: the disk is full or not writable; the last state stays.
        """
        self.store.put(self.key, payload)

    def clear(self) -> None:
        """Forget it, when the training is done and its weights are kept."""
        self.store.path(self.key).unlink(missing_ok=True)


def pack_tensors(tensors: Mapping[str, torch.Tensor], prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors as numpy arrays `prefix/NAME`, and the dtype of those that numpy does not know (kept as their bits)."""
    import torch

    arrays, dtypes = {}, {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        if flat.dtype == torch.bfloat16:
            dtypes[f"{prefix}/{name}"] = "bfloat16"
            flat = flat.view(torch.int16)
        # A copy: on the CPU the array would share memory with weights that go on changing.
        arrays[f"{prefix}/{name}"] = flat.numpy().copy()
    return arrays, dtypes


def unpack_tensors(payload: Payload, prefix: str) -> dict[str, torch.Tensor]:
    """The inverse of `pack_tensors`; `payload.record["dtypes"]` holds its second part."""
    import torch

    dtypes = payload.record.get("dtypes", {})
    found = {}
    for name, array in payload.arrays.items():
        if name.startswith(f"{prefix}/"):
            tensor = torch.from_numpy(np.array(array))
            found[name[len(prefix) + 1 :]] = tensor.view(torch.bfloat16) if dtypes.get(name) == "bfloat16" else tensor
    return found
