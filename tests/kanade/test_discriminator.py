"""The discriminator and its losses against the reference, for both released kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kanade.recipe import deviation, fill, noise, tensors

from tokbench.kanade.discriminator import (
    BandDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)

KINDS = [
    ("vocos", {"n_mels": 100}, 41, 743_938),
    ("hift", {"n_mels": 80, "kernel": (7, 7), "downsample": False}, 23, 4_036_098),
]


@pytest.mark.parametrize(("kind", "options", "frames", "parameters"), KINDS)
def test_outputs_and_losses_match_the_reference(
    parity: Path, kind: str, options: dict[str, Any], frames: int, parameters: int
) -> None:
    net = BandDiscriminator(**options)
    keys = json.loads((parity / f"disc_{kind}_keys.json").read_text())
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == keys
    assert sum(p.numel() for p in net.parameters()) == parameters
    fill(net, "disc.")
    io = tensors(parity / f"disc_{kind}.safetensors")
    shape = (2, 1, options["n_mels"], frames)
    with torch.inference_mode():
        real, fake = (net(noise(f"disc.{which}.{kind}", shape, 1.0)) for which in ("real", "fake"))
        assert deviation(real.scores, io["real_out"]) < 1e-4
        assert deviation(fake.scores, io["fake_out"]) < 1e-4
        means = torch.stack([feature.mean() for feature in real.features])
        assert deviation(means, io["intermediate_means"]) < 1e-5
        for objective, name in (("hinge", "hinge"), ("least_squares", "lsgan")):
            loss = discriminator_loss(real.scores, fake.scores, objective=objective)  # type: ignore[arg-type]
            torch.testing.assert_close(loss[None], io[f"d_{name}"], atol=1e-5, rtol=1e-5)
            loss = adversarial_loss(fake.scores, objective=objective)  # type: ignore[arg-type]
            torch.testing.assert_close(loss[None], io[f"g_{name}"], atol=1e-5, rtol=1e-5)
        matching = feature_matching_loss(real.features, fake.features)
        torch.testing.assert_close(matching[None], io["feature_matching"], atol=1e-5, rtol=1e-5)


def test_feature_matching_teaches_the_generator_alone() -> None:
    real, fake = (torch.ones(2, 3, requires_grad=True) * k for k in (1.0, 2.0))
    real.retain_grad()
    fake.retain_grad()
    feature_matching_loss([real], [fake]).backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.full((2, 3), 1 / 6))


def test_the_hinge_is_flat_where_the_generator_already_fools() -> None:
    scores = torch.tensor([1.5, 0.0], requires_grad=True)
    adversarial_loss(scores).backward()
    torch.testing.assert_close(scores.grad, torch.tensor([0.0, -0.5]))
