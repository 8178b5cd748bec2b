"""The multi-band discriminator of Kanade's adversarial training, and its losses.

It judges log-mel spectrograms: convolutions over time and frequency, each frequency band with its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

__all__ = [
    "BandDiscriminator",
    "Judgement",
    "adversarial_loss",
    "discriminator_loss",
    "feature_matching_loss",
]

BANDS = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
"""Shares of the mel bins that form the bands."""

Objective = Literal["hinge", "least_squares"]


class Judgement(NamedTuple):
    """What the discriminator says.

    Attributes:
        scores: `[B, 1, T', F']`, larger for real.
        features: outputs of all convolutions but the last, band by band.
    """

    scores: Tensor
    features: list[Tensor]


class BandDiscriminator(nn.Module):
    """Discriminator of log-mel spectrograms `[B, 1, n_mels, M]`.

    Args:
        n_mels: mel bins.
        channels: of every convolution.
        kernel: time and frequency; (3, 3) for the Vocos mel, (7, 7) for HiFT's.
        layers: convolutions a band.
        downsample: whether scores are averaged over 4 x 4 with stride 2.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        channels: int = 64,
        kernel: tuple[int, int] = (3, 3),
        layers: int = 5,
        downsample: bool = True,
    ) -> None:
        super().__init__()
        self.bands = [(int(low * n_mels), int(high * n_mels)) for low, high in BANDS]
        self.stacks = nn.ModuleList(
            nn.ModuleList(_conv(1 if i == 0 else channels, channels, kernel) for i in range(layers)) for _ in BANDS
        )
        self.conv_post = _conv(channels, 1, kernel)
        self.pool = nn.AvgPool2d(4, stride=2, padding=1, count_include_pad=False) if downsample else nn.Identity()

    def forward(self, mel: Tensor) -> Judgement:
        """Judge `[B, 1, n_mels, M]`."""
        x = mel.transpose(2, 3)
        features, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            h = x[..., low:high]
            for conv in stack:  # type: ignore[attr-defined]
                h = functional.leaky_relu(conv(h), 0.1)
                features.append(h)
            ends.append(h)
        return Judgement(self.pool(self.conv_post(torch.cat(ends, dim=-1))), features)


def discriminator_loss(real: Tensor, fake: Tensor, *, objective: Objective = "hinge") -> Tensor:
    """What the discriminator minimises, from its scores of real and of generated spectrograms."""
    if objective == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return (real - 1).square().mean() + fake.square().mean()


def adversarial_loss(fake: Tensor, *, objective: Objective = "hinge") -> Tensor:
    """What the generator minimises, from the scores of its spectrograms; clipped at 1 in the hinge form, too."""
    if objective == "hinge":
        return functional.relu(1 - fake).mean()
    return (fake - 1).square().mean()


def feature_matching_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean over the feature maps of their mean absolute difference; no gradient reaches the real ones."""
    return torch.stack([(r.detach() - f).abs().mean() for r, f in zip(real, fake, strict=True)]).mean()


def _conv(inputs: int, outputs: int, kernel: tuple[int, int]) -> nn.Module:
    normed: nn.Module = weight_norm(nn.Conv2d(inputs, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2)))
    return normed
