"""A trained Kanade in the released layout: `config.yaml` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

from tokbench.kanade.model import KanadeModel
from tokbench.kanade.released import released_yaml
from tokbench.kanade.weights import TRAINING_ONLY

__all__ = ["export_released"]


def export_released(model: KanadeModel, folder: Path) -> None:
    """Write the float32 parameters under the released names; the feature decoder and its upsampling stay out."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.detach().float().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith(TRAINING_ONLY)
    }
    scratch = folder / "model.safetensors.tmp"
    save_file(state, scratch, metadata={"format": "pt"})
    (folder / "config.yaml").write_text(released_yaml(model.config), encoding="utf-8")
    scratch.replace(folder / "model.safetensors")
