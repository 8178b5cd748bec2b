"""Masked losses equal the losses of the items alone, and normalisation that of the model."""

from __future__ import annotations

import math

import pytest
import torch

from tokbench.kanade.model import normalize_features
from tokbench.kanade.padding import real_frames
from tokbench.kanade.training.losses import feature_loss, mel_loss, normalize_over, perplexity


def test_padding_changes_no_loss() -> None:
    made, target = torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    lengths = torch.tensor([9, 5])
    mask = real_frames(lengths, 9)
    alone = torch.cat([made[0], made[1, :5]]), torch.cat([target[0], target[1, :5]])
    for kind in ("mse", "l1"):
        masked = feature_loss(made, target, kind=kind, mask=mask)  # type: ignore[arg-type]
        whole = feature_loss(alone[0][None], alone[1][None], kind=kind, mask=None)  # type: ignore[arg-type]
        torch.testing.assert_close(masked, whole)
    mel = mel_loss(made.transpose(1, 2), target.transpose(1, 2), mask=mask)
    torch.testing.assert_close(mel, (alone[0] - alone[1]).abs().mean())


def test_without_a_mask_padding_counts() -> None:
    made = torch.zeros(1, 4, 1)
    target = torch.tensor([2.0, 2.0, 0.0, 0.0])[None, :, None]
    assert float(feature_loss(made, target, mask=None)) == 2.0
    assert float(feature_loss(made, target, mask=real_frames(torch.tensor([2]), 4))) == 4.0


def test_normalisation_over_real_frames_is_that_of_the_item_alone() -> None:
    features = torch.randn(2, 12, 3) * 5 + 2
    lengths = torch.tensor([12, 7])
    normed = normalize_over(features, real_frames(lengths, 12))
    torch.testing.assert_close(normed[0], normalize_features(features[:1])[0])
    torch.testing.assert_close(normed[1, :7], normalize_features(features[1:, :7])[0])
    assert not normed[1, 7:].any()
    torch.testing.assert_close(normalize_over(features, None), normalize_features(features))


def test_perplexity_of_uniform_and_constant_tokens() -> None:
    assert float(perplexity(torch.arange(8)[None], 8, mask=None)) == pytest.approx(8)
    assert float(perplexity(torch.zeros(1, 8, dtype=torch.long), 8, mask=None)) == pytest.approx(1)
    half = perplexity(torch.tensor([[0, 1, 5, 5]]), 8, mask=torch.tensor([[True, True, False, False]]))
    assert float(half) == pytest.approx(math.e ** math.log(2))
