"""NanoCodec's encoder and decoder: HiFi-GAN stacks whose names are those of the released state dict.

Weight normalisation is folded away before loading, so convolutions are plain. Every function takes `lengths`, valid
frames a row as int64 `[B]`, or None where all rows are full; after each convolution, bias included, frames past a row's
length become zero, as in NeMo.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.nanocodec.config import Activation, DecoderConfig, EncoderConfig, PadMode
from tokbench.codecs.snake import Snake

__all__ = [
    "LEAK",
    "Act",
    "Conv",
    "Decoder",
    "Encoder",
    "HalfSnake",
    "ResidualBlock",
    "ResidualBranch",
    "ResidualLayer",
    "Upsample",
    "mask",
]

LEAK = 0.01
"""Slope of the leaky ReLU."""


def mask(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Set `x[b, :, t]` to zero for `t >= lengths[b]`."""
    if lengths is None:
        return x
    return x * (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]


class HalfSnake(nn.Module):
    """Snake on the first `C // 2` channels, leaky ReLU on the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snake_channels = channels // 2
        self.snake_act = Snake(self.snake_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same shape."""
        made = functional.leaky_relu(x, LEAK)
        self.snake_act.write(x[:, : self.snake_channels], made[:, : self.snake_channels])
        return made


def _pad(x: Tensor, pad: tuple[int, int], mode: PadMode) -> Tensor:
    """`functional.pad`; on the CPU zeros and repeated edges by one copy, which is several times faster there."""
    if mode == "reflect" or x.is_cuda:
        return functional.pad(x, pad, mode="constant" if mode == "zeros" else mode)
    if mode == "zeros":
        left, right = (x.new_zeros(1).expand(*x.shape[:2], n) for n in pad)
    else:
        left, right = (x[..., i : i + 1 or None].expand(-1, -1, n) for i, n in zip((0, -1), pad, strict=True))
    return torch.cat([left, x, right], dim=2)


class Act(nn.Module):
    """One of the known activations, in the place where released names expect it."""

    def __init__(self, kind: Activation, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.activation: nn.Module
        if kind == "half_snake":
            self.activation = HalfSnake(channels)
        elif kind == "snake":
            self.activation = Snake(channels)
        elif kind == "elu":
            self.activation = nn.ELU()
        else:
            self.activation = nn.LeakyReLU(LEAK)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same shape."""
        return cast(Tensor, self.activation(x))


class Conv(nn.Module):
    """A convolution with its own padding.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: taps.
        stride: of the output.
        dilation: of the taps.
        pad: frames added left and right.
        mode: with what.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        pad: tuple[int, int],
        mode: PadMode,
    ) -> None:
        super().__init__()
        self.pad, self.mode = pad, mode
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, inputs, T]` to `[B, outputs, T / stride]`; `lengths` are the output's."""
        return mask(self.conv(_pad(x, self.pad, self.mode)), lengths)


def _same(width: int, kernel: int, mode: PadMode, *, dilation: int = 1, causal: bool) -> Conv:
    return _keep(width, width, kernel, mode, dilation=dilation, causal=causal)


def _keep(inputs: int, outputs: int, kernel: int, mode: PadMode, *, dilation: int = 1, causal: bool) -> Conv:
    """A convolution that keeps the length; a causal one sees zeros before the start."""
    reach = dilation * (kernel - 1)
    if causal:
        return Conv(inputs, outputs, kernel, dilation=dilation, pad=(reach, 0), mode="zeros")
    return Conv(inputs, outputs, kernel, dilation=dilation, pad=(reach // 2, reach - reach // 2), mode=mode)


class ResidualBlock(nn.Module):
    """`x + skip_conv(act(input_conv(act(x))))`; only the first convolution is dilated."""

    def __init__(
        self, width: int, kernel: int, dilation: int, activation: Activation, mode: PadMode, *, causal: bool
    ) -> None:
        super().__init__()
        self.input_activation, self.skip_activation = Act(activation, width), Act(activation, width)
        self.input_conv = _same(width, kernel, mode, dilation=dilation, causal=causal)
        self.skip_conv = _same(width, kernel, mode, causal=causal)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, C, T]` to the same shape."""
        hidden = self.input_conv(self.input_activation(x), lengths)
        return cast(Tensor, self.skip_conv(self.skip_activation(hidden), lengths)).add_(x)


class ResidualBranch(nn.Module):
    """Residual blocks of one kernel size and growing dilation, one after the other."""

    def __init__(
        self,
        width: int,
        kernel: int,
        dilations: tuple[int, ...],
        activation: Activation,
        mode: PadMode,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilation, activation, mode, causal=causal) for dilation in dilations
        )

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, C, T]` to the same shape."""
        for block in self.res_blocks:
            x = block(x, lengths)
        return x


class ResidualLayer(nn.Module):
    """Mean of branches of several kernel sizes over the same input (Kong et al. 2020, section 2.2, with a mean)."""

    def __init__(
        self,
        width: int,
        kernels: tuple[int, ...],
        dilations: tuple[int, ...],
        activation: Activation,
        mode: PadMode,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            ResidualBranch(width, kernel, dilations, activation, mode, causal=causal) for kernel in kernels
        )

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, C, T]` to the same shape."""
        total: Tensor | None = None
        for branch in self.res_blocks:
            made = branch(x, lengths)
            total = made if total is None else total.add_(made)
        assert total is not None, "the configuration has a kernel size"
        return total.div_(len(self.res_blocks))


class Upsample(nn.Module):
    """Causal transposed convolution of stride r and 2r taps; what it makes past `T * r` is cut.

    Grouped, output channel j sees input channels 2j and 2j + 1 alone. That is a product of `[r, 4]` matrices with the
    two channels now and one frame ago, which runs several times faster than torch's grouped transposed convolution.
    """

    def __init__(self, inputs: int, rate: int, *, grouped: bool) -> None:
        super().__init__()
        self.rate, self.outputs = rate, inputs // 2
        self.grouped = grouped and inputs == 2 * self.outputs
        groups = self.outputs if grouped else 1
        self.conv = nn.ConvTranspose1d(inputs, self.outputs, 2 * rate, stride=rate, groups=groups)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, inputs, T]` to `[B, inputs // 2, T * r]`; `lengths` are the output's."""
        if not self.grouped:
            return mask(self.conv(x)[..., : x.shape[-1] * self.rate], lengths)
        now = x.view(x.shape[0], self.outputs, 2, -1)
        before = functional.pad(now, (1, 0))[..., :-1]
        taps = self.conv.weight.view(self.outputs, 2, 2, self.rate).transpose(1, 2).reshape(self.outputs, 4, self.rate)
        made = torch.matmul(torch.cat([now, before], dim=2).transpose(2, 3), taps).flatten(2)
        assert self.conv.bias is not None
        return mask(made.add_(self.conv.bias[:, None]), lengths)


class Encoder(nn.Module):
    """Audio to latent, not causal: each stage is a residual layer, an activation and a strided convolution."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.rates = config.down_sample_rates
        activation, mode = config.activation, config.pad_mode
        widths = [config.base_channels << i for i in range(len(self.rates) + 1)]
        self.pre_conv = _keep(1, widths[0], config.in_kernel_size, mode, causal=False)
        self.res_layers = nn.ModuleList(
            ResidualLayer(
                width,
                config.resblock_kernel_sizes,
                config.resblock_dilation_sizes,
                activation,
                mode,
                causal=False,
            )
            for width in widths[:-1]
        )
        self.activations = nn.ModuleList(Act(activation, width) for width in widths[:-1])
        self.down_sample_conv_layers = nn.ModuleList(
            Conv(width, 2 * width, 2 * rate, stride=rate, pad=((rate + 1) // 2, (rate + 1) // 2), mode=mode)
            for width, rate in zip(widths, self.rates, strict=False)
        )
        self.post_activation = Act(activation, widths[-1])
        self.post_conv = _keep(widths[-1], config.encoded_dim, config.out_kernel_size, mode, causal=False)

    def forward(self, audio: Tensor, lengths: Tensor | None) -> Tensor:
        """Audio `[B, 1, T]`, T a multiple of the hop, to latent `[B, D, T / hop]`; `lengths` count samples."""
        x = self.pre_conv(audio, lengths)
        for rate, layer, act, down in zip(
            self.rates, self.res_layers, self.activations, self.down_sample_conv_layers, strict=True
        ):
            x = layer(x, lengths)
            lengths = None if lengths is None else lengths // rate
            x = down(act(x), lengths)
        return cast(Tensor, self.post_conv(self.post_activation(x), lengths))


class Decoder(nn.Module):
    """Latent to audio, causal: each stage is an activation, a transposed convolution and a residual layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.rates, self.output_activation = config.up_sample_rates, config.output_activation
        activation = config.activation
        widths = [config.base_channels >> i for i in range(len(self.rates) + 1)]
        self.pre_conv = _keep(config.input_dim, widths[0], config.in_kernel_size, "zeros", causal=True)
        self.activations = nn.ModuleList(Act(activation, width) for width in widths[:-1])
        self.up_sample_conv_layers = nn.ModuleList(
            Upsample(width, rate, grouped=config.n_groups_equal_to_out_channels)
            for width, rate in zip(widths, self.rates, strict=False)
        )
        self.res_layers = nn.ModuleList(
            ResidualLayer(
                width,
                config.resblock_kernel_sizes,
                config.resblock_dilation_sizes,
                activation,
                "zeros",
                causal=True,
            )
            for width in widths[1:]
        )
        self.post_activation = Act(activation, widths[-1])
        self.post_conv = _keep(widths[-1], 1, config.out_kernel_size, "zeros", causal=True)

    def forward(self, latent: Tensor, lengths: Tensor | None) -> Tensor:
        """Latent `[B, D, T]` to audio `[B, T * hop]` in -1 to 1; `lengths` count frames."""
        x = self.pre_conv(latent, lengths)
        for rate, act, up, layer in zip(
            self.rates, self.activations, self.up_sample_conv_layers, self.res_layers, strict=True
        ):
            lengths = None if lengths is None else lengths * rate
            x = layer(up(act(x), lengths), lengths)
        x = self.post_conv(self.post_activation(x), lengths)
        bounded: Tensor = x.clamp(-1, 1) if self.output_activation == "clamp" else x.tanh()
        return bounded.squeeze(1)
