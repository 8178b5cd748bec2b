"""A trained Kanade in the released layout: `config.yaml` and `model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tokbench.kanade.model import KanadeModel
from tokbench.kanade.released import released_yaml
from tokbench.kanade.weights import TRAINING_ONLY

__all__ = ["export_released", "exported"]


def exported(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a release holds of a training model's state: all but the feature decoder and its upsampling."""
    return {name: value for name, value in state.items() if not name.startswith(TRAINING_ONLY)}


def export_released(model: KanadeModel, folder: Path) -> None:
    """Write the float32 parameters under the released names; the feature decoder and its upsampling stay out."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().float().cpu().contiguous() for name, value in exported(model.state_dict()).items()}
    scratch = folder / "model.safetensors.tmp"
    save_file(state, scratch, metadata={"format": "pt"})
    (folder / "config.yaml").write_text(released_yaml(model.config), encoding="utf-8")
    scratch.replace(folder / "model.safetensors")
