"""LoSATok in its full geometry: 803 million random weights by recipe, made once, against the reference's outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from codecs_support import by_recipe, losatok_compare, losatok_recipe, shapes

from tokbench.codecs.checkpoint import fill
from tokbench.codecs.losatok.checkpoint import _BUFFERS
from tokbench.codecs.losatok.config import config_of_shapes
from tokbench.codecs.losatok.model import Losatok


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "parity" / "losatok" / "full"


def test_names_and_shapes(fixtures: Path) -> None:
    keys = shapes(fixtures / "keys.json")
    assert len(keys) == 534
    named = {key: shape for key, shape in keys.items() if key not in _BUFFERS and not key.endswith("_tracked")}
    model = Losatok(config_of_shapes(named, heads=16, where=""), device="meta")
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == named
    assert model.config.chunk == 252


def test_every_full_size_fixture(fixtures: Path) -> None:
    available = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) if _linux() else 0
    if available < 8_000_000:
        pytest.skip("needs 8 GB of free memory")
    keys = shapes(fixtures / "keys.json")
    named = {key: shape for key, shape in keys.items() if key not in _BUFFERS and not key.endswith("_tracked")}
    state = by_recipe(named, losatok_recipe)
    for key, values in json.loads((fixtures / "recipe_check.json").read_text()).items():
        if key in state:
            assert state[key].flatten()[:3].tolist() == pytest.approx(values, abs=1e-5)
    model = Losatok(config_of_shapes(named, heads=16, where=""), device="meta")
    fill(model, state, where="recipe", what="recipe")
    model.eval()
    files = sorted(fixtures.glob("*_S*.safetensors"))
    assert len(files) == 2
    for file in files:
        found = losatok_compare(model, file, wave_tolerance=1e-5)
        assert {key: share for key, share in found.items() if share >= 1} == {}
    assert not torch.is_grad_enabled() or not any(p.requires_grad for p in model.parameters())


def _linux() -> bool:
    return Path("/proc/meminfo").is_file()
