"""Loading transformers models from a verified folder, strictly: a weight that the file lacks is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.config import JudgeCard
from tokbench.errors import MissingWeights
from tokbench.judges.inputs import need
from tokbench.judges.weights import find_files
from tokbench.types import Wave

__all__ = ["load_transformer", "pad_to", "zero_mean_unit_variance"]

_UNUSED = ("masked_spec_embed",)
"""Only training reads it, and published files may lack it."""


def load_transformer(card: JudgeCard, class_name: str, *, device: str, weights: Path | None) -> tuple[Any, Path, bool]:
    """Load a `transformers` model in evaluation mode, float32.

    Args:
        card: its weights block lists config.json, preprocessor_config.json and the weights, in one folder.
        class_name: for instance "HubertForCTC".
        device: torch device string.
        weights: local folder in the hub's layout, or None.

    Returns:
        The model, its folder, and whether its input must have zero mean and unit variance.

    Raises:
        MissingBackend, MissingWeights, WeightsMismatch: see `find_files`; or the file lacks weights of the model.
    """
    files = find_files(card, weights)
    folders = {path.parent for path in files.values()}
    if len(folders) != 1:
        raise MissingWeights("its files must lie in one folder", where=f"judge {card.name}")
    folder = folders.pop()
    need("transformers", card).utils.logging.disable_progress_bar()  # progress belongs to the runner
    model, info = getattr(need("transformers", card), class_name).from_pretrained(
        str(folder), local_files_only=True, output_loading_info=True, dtype="float32"
    )
    missing = sorted(key for key in info["missing_keys"] if not key.endswith(_UNUSED))
    if missing:
        raise MissingWeights(
            f"its weights lack {len(missing)} of the tensors of a {class_name}, for instance {missing[0]}",
            where=str(folder),
            hint=f"Put the files of {card.url or card.name} there",
        )
    settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    return model.to(device).eval(), folder, bool(settings.get("do_normalize", False))


def zero_mean_unit_variance(wave: Wave) -> Wave:
    """`(x - mean) / sqrt(variance + 1e-7)`, the input normalisation of transformers' wav2vec 2.0 family."""
    return np.asarray((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7), np.float32)


def pad_to(wave: Wave, samples: int) -> Wave:
    """Append zeros up to `samples`; longer waves are returned as they are."""
    return np.pad(wave, (0, samples - len(wave))) if len(wave) < samples else wave
