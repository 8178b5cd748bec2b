"""DAC-VAE's encoder and decoder; names are those of the released state dict, weight norm folded.

Every `Conv1d` of the reference is followed by a leaky ReLU of slope 0.1, which its code does not show where the
convolution is used; transposed convolutions are not.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.dacvae.config import DacVaeConfig
from tokbench.codecs.snake import Snake

__all__ = ["Decoder", "Encoder", "conv"]

_LEAK = 0.1
_DILATIONS = (1, 3, 9)


class Leak(nn.Module):
    """Leaky ReLU of slope 0.1, in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return functional.leaky_relu_(x, _LEAK)


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, pad: int = 0) -> nn.Sequential:
    """Convolution and activation."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation, padding=pad), Leak())


class ResidualUnit(nn.Module):
    """`x + conv1(snake(conv7(snake(x))))`, the wide convolution dilated."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(width),
            conv(width, width, 7, dilation=dilation, pad=3 * dilation),
            Snake(width),
            conv(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same shape."""
        return cast(Tensor, self.block(x)).add_(x)


class EncoderStage(nn.Module):
    """Three residual units and a strided convolution that doubles the channels."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(ResidualUnit(width, dilation) for dilation in _DILATIONS),
            Snake(width),
            conv(width, 2 * width, 2 * rate, stride=rate, pad=-(-rate // 2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, 2 C, T / rate]`."""
        return cast(Tensor, self.block(x))


class DecoderStage(nn.Module):
    """A transposed convolution that halves the channels, and three residual units."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        up = nn.ConvTranspose1d(
            width, width // 2, 2 * rate, stride=rate, padding=-(-rate // 2), output_padding=rate % 2
        )
        self.block = nn.Sequential(Snake(width), up, *(ResidualUnit(width // 2, dilation) for dilation in _DILATIONS))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, C / 2, T * rate]`."""
        return cast(Tensor, self.block(x))


class Encoder(nn.Module):
    """Audio to the features before the bottleneck."""

    def __init__(self, config: DacVaeConfig) -> None:
        super().__init__()
        widths = [config.encoder_dim << i for i in range(len(config.encoder_rates) + 1)]
        self.block = nn.Sequential(
            conv(1, widths[0], 7, pad=3),
            *(EncoderStage(width, rate) for width, rate in zip(widths, config.encoder_rates, strict=False)),
            Snake(widths[-1]),
            conv(widths[-1], config.latent_dim, 3, pad=1),
        )

    def forward(self, audio: Tensor) -> Tensor:
        """`[B, 1, S]` to `[B, D, T]`."""
        return cast(Tensor, self.block(audio))


class Decoder(nn.Module):
    """Latent, after its first convolution, to audio."""

    def __init__(self, config: DacVaeConfig) -> None:
        super().__init__()
        widths = [config.decoder_dim >> i for i in range(len(config.decoder_rates) + 1)]
        self.model = nn.Sequential(
            conv(config.latent_dim, widths[0], 7, pad=3),
            *(DecoderStage(width, rate) for width, rate in zip(widths, config.decoder_rates, strict=False)),
            Snake(widths[-1]),
            conv(widths[-1], 1, 7, pad=3),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """`[B, D, T]` to `[B, 1, hop * T]`."""
        return cast(Tensor, self.model(latent))
