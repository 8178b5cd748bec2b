"""Fixtures that several files share, since making full-size weights by the recipe takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kanade.recipe import build, state
from torch import Tensor

from tokbench.kanade.config import KANADE_25HZ
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.wavlm import WavLM, normalize_keys, unused_keys


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    """The reference's random-weight fixtures."""
    return shared / "parity" / "kanade"


@pytest.fixture(scope="session")
def full_25hz() -> KanadeModel:
    """Kanade at 25 Hz in full size."""
    return build(KANADE_25HZ)


@pytest.fixture(scope="session")
def torchaudio_wavlm(parity: Path) -> dict[str, Tensor]:
    """WavLM-base-plus under torchaudio's names, with the ten blocks that tell whether deeper ones are left out."""
    shapes = json.loads((parity / "wavlm_keys.json").read_text())
    needed = {k: v for k, v in shapes.items() if ".layers.10." not in k and ".layers.11." not in k}
    return state(needed, prefix="ssl_feature_extractor.model.")


@pytest.fixture(scope="session")
def wavlm(torchaudio_wavlm: dict[str, Tensor]) -> WavLM:
    """Its first nine blocks."""
    with torch.device("meta"):
        built = WavLM(blocks=9)
    kept = {k: v for k, v in normalize_keys(torchaudio_wavlm).items() if not unused_keys(k, 9)}
    built.net.load_state_dict(kept, assign=True)
    return built.freeze()
