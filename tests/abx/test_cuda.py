"""The engine on CUDA beside the CPU's, and fastabx's published scores there."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tokbench.abx.engine import score_abx
from tokbench.abx.features import ArrayFeatures, FolderFeatures
from tokbench.abx.items import SCALE, Items, Labels, read_items

pytest.importorskip("numba")
torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

RATE = Fraction(50)
CONDITIONS = [("within", "within"), ("within", "any"), ("across", "within"), ("across", "any")]


def sounds(count: int, dim: int, distance: str) -> tuple[Items, ArrayFeatures]:
    """Items of 3 to 12 frames around the vectors of 6 phones, by 4 speakers, in 4 contexts."""
    rng = np.random.default_rng(0)
    length = rng.integers(3, 13, count)
    edge = np.concatenate([[0], np.cumsum(length)])
    labels = [rng.integers(high, size=count) for high in (6, 2, 2, 4)]
    centre = rng.standard_normal((6, dim))[labels[0]] + 0.5 * rng.standard_normal((4, dim))[labels[3]]
    frames = np.repeat(centre, length, axis=0) + 2 * rng.standard_normal((edge[-1], dim))
    if distance == "identical":
        frames = frames[:, :3].argmax(axis=1)[:, None]
    elif distance == "kl":
        frames = np.exp(frames) / np.exp(frames).sum(axis=1, keepdims=True)
    tick = SCALE // 50
    named = [Labels.of([f"{name}{v}" for v in values]) for name, values in zip("plrs", labels, strict=True)]
    items = Items(
        "sounds", Labels.of(["f"] * count), edge[:-1] * tick, edge[1:] * tick, *named, np.arange(count)
    )  # fmt: skip
    return items, ArrayFeatures({"f": frames.astype(np.float32)})


@pytest.mark.parametrize("slicing", ["fixed", "librilight_last_frame_dropped"])
def test_scores_equal_fastabx(shared: Path, slicing: str) -> None:
    folder = shared / "parity" / "abx"
    items = read_items(folder / "items.item")
    for row, value in json.loads((folder / "scores.json").read_text())[slicing].items():
        if row == "constant codes":
            continue
        condition, _, distance = row.partition("/")
        score = score_abx(
            items, FolderFeatures(folder / ("codes" if "codes" in distance else "features")), rate=RATE,
            speaker=condition.split()[-1], context="any" if "any" in condition else "within",
            distance=distance.split()[0], drop_last=slicing != "fixed", device="cuda",
        )  # fmt: skip
        assert score.error == pytest.approx(value, abs=1e-6), row


@pytest.mark.parametrize("distance", ["angular", "euclidean", "kl", "identical"])
@pytest.mark.parametrize(("speaker", "context"), CONDITIONS)
def test_scores_equal_the_cpus(speaker: str, context: str, distance: str) -> None:
    """One triplet of thousands may fall to the other side where two distances agree to float32's last bits."""
    items, source = sounds(400, 32, distance)
    found = {
        device: score_abx(
            items, source, rate=RATE, speaker=speaker, context=context, distance=distance, device=device
        ).error
        for device in ("cpu", "cuda")
    }  # fmt: skip
    assert found["cuda"] == pytest.approx(found["cpu"], abs=2e-5)
    assert 0.02 < found["cpu"] < 0.5
