"""SEANet as SpeechTokenizer uses it: a non-causal convolutional encoder and decoder with an LSTM at the latent rate.

Convolutions see reflected edges, and as much more at the end as fills the last window. Weights carry the names of the
published checkpoints, with gain and direction already folded into one tensor (`tokbench.codecs.checkpoint`).

Tagliasacchi et al. 2020, SEANet; Defossez et al. 2022, section 3.1; Zhang et al. 2024, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder", "Encoder", "SeanetSize"]

_EDGE_KERNEL = 7
"""Window of the first and the last convolution."""


@dataclass(frozen=True)
class SeanetSize:
    """What decides the nets.

    Attributes:
        width: channels at the sample rate; every stride doubles them.
        dimension: of the latent.
        strides: of the decoder, the encoder's in reverse.
        lstm_layers: at the latent rate.
        bidirectional: whether the encoder's LSTM also runs backwards; the decoder's never does.
        residual_kernel, residual_layers, dilation_base: of the residual blocks before each stride.
    """

    width: int
    dimension: int
    strides: tuple[int, ...]
    lstm_layers: int
    bidirectional: bool
    residual_kernel: int
    residual_layers: int
    dilation_base: int

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.strides)


class _Named(nn.Module):
    """A layer under the name that it has in the checkpoints."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.add_module(name, layer)


class _Conv(nn.Module):
    """A convolution whose output has `ceil(n / stride)` frames of n samples."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv: Any = _Named("conv", nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation))
        self._reach, self._stride = (kernel - 1) * dilation + 1, stride

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, n]` to `[B, C', ceil(n / stride)]`."""
        total = self._reach - self._stride
        extra = -x.shape[-1] % self._stride
        right = total // 2
        convolved: Tensor = self.conv.conv(_reflected(x, total - right, right + extra))
        return convolved


def _reflected(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect the edges; an input too short for that is first filled with zeros at its end."""
    short = max(0, max(left, right) - x.shape[-1] + 1)
    padded = functional.pad(functional.pad(x, (0, short)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - short]


class _Transposed(nn.Module):
    """A transposed convolution of twice its stride's width, cut to `stride * n` samples."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convtr: Any = _Named("convtr", nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride))
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, n]` to `[B, C', stride * n]`."""
        made: Tensor = self.convtr.convtr(x)
        right = self._stride // 2
        return made[..., self._stride - right : made.shape[-1] - right]


class _Residual(nn.Module):
    """A dilated bottleneck beside a convolution of one sample."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.block = nn.Sequential(
            nn.ELU(), _Conv(channels, hidden, kernel, dilation=dilation), nn.ELU(), _Conv(hidden, channels, 1)
        )
        self.shortcut = _Conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, n]` to the same."""
        added: Tensor = self.shortcut(x) + self.block(x)
        return added


class _Lstm(nn.Module):
    """An LSTM over time with its input added; both directions each add it."""

    def __init__(self, channels: int, layers: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, n]` to `[B, C or 2 C, n]`."""
        steps = x.permute(2, 0, 1)
        made, _ = self.lstm(steps)
        added: Tensor = made + (steps.repeat(1, 1, 2) if self.lstm.bidirectional else steps)
        return added.permute(1, 2, 0)


def _residuals(channels: int, size: SeanetSize) -> list[nn.Module]:
    return [
        _Residual(channels, size.residual_kernel, size.dilation_base**depth) for depth in range(size.residual_layers)
    ]


class Encoder(nn.Module):
    """Audio `[B, 1, n]` to latents `[B, dimension, ceil(n / hop)]`."""

    def __init__(self, size: SeanetSize) -> None:
        super().__init__()
        channels = size.width
        layers: list[nn.Module] = [_Conv(1, channels, _EDGE_KERNEL)]
        for stride in reversed(size.strides):
            layers += [*_residuals(channels, size), nn.ELU()]
            layers.append(_Conv(channels, 2 * channels, 2 * stride, stride=stride))
            channels *= 2
        layers.append(_Lstm(channels, size.lstm_layers, bidirectional=size.bidirectional))
        channels *= 2 if size.bidirectional else 1
        self.model = nn.Sequential(*layers, nn.ELU(), _Conv(channels, size.dimension, _EDGE_KERNEL))

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        latent: Tensor = self.model(audio)
        return latent


class Decoder(nn.Module):
    """Latents `[B, dimension, T]` to audio `[B, 1, hop * T]`."""

    def __init__(self, size: SeanetSize) -> None:
        super().__init__()
        channels = size.width * 2 ** len(size.strides)
        layers: list[nn.Module] = [_Conv(size.dimension, channels, _EDGE_KERNEL)]
        layers.append(_Lstm(channels, size.lstm_layers, bidirectional=False))
        for stride in size.strides:
            layers += [nn.ELU(), _Transposed(channels, channels // 2, stride), *_residuals(channels // 2, size)]
            channels //= 2
        self.model = nn.Sequential(*layers, nn.ELU(), _Conv(size.width, 1, _EDGE_KERNEL))

    def forward(self, latent: Tensor) -> Tensor:
        """See the class."""
        audio: Tensor = self.model(latent)
        return audio


class Codebook(nn.Module):
    """Vectors of one book, with the running sums that training leaves in a checkpoint."""

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.embed: Tensor
        self.register_buffer("embed", torch.zeros(size, dimension))
        self.register_buffer("embed_avg", torch.zeros(size, dimension))


class _Book(nn.Module):
    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, dimension)


class ResidualBooks(nn.Module):
    """A stack of codebooks, each coding what the ones before left; the nearest vector by Euclidean distance."""

    def __init__(self, books: int, size: int, dimension: int) -> None:
        super().__init__()
        self.vq: Any = _Named("layers", nn.ModuleList(_Book(size, dimension) for _ in range(books)))

    def vectors(self, index: int) -> Tensor:
        """The vectors `[size, dimension]` of one book."""
        embed: Tensor = self.vq.layers[index]._codebook.embed
        return embed

    def encode(self, latent: Tensor, books: int) -> Tensor:
        """`[dimension, T]` to codes int64 `[books, T]`."""
        residual, codes = latent.T, []
        for index in range(books):
            book = self.vectors(index)
            distance = residual.pow(2).sum(1, keepdim=True) - 2 * residual @ book.T + book.pow(2).sum(1)
            codes.append(distance.argmin(dim=1))
            residual = residual - book[codes[-1]]
        return torch.stack(codes)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes `[books, T]` to `[dimension, T]`."""
        total = self.vectors(0)[codes[0]]
        for index in range(1, len(codes)):
            total = total + self.vectors(index)[codes[index]]
        return total.T
