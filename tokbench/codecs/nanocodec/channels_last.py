"""The same nets with time before channels: how a CPU runs them fastest.

oneDNN convolves `[T, C]` up to three times faster than `[C, T]` at the widths of a NanoCodec, and a residual block is
then two convolutions and two passes over memory: activation, padding and the residual sum are one kernel. Residual
layers run in pieces of time, which keeps both memory and the way to it short. The decoder's longer convolutions take
half the products (`toom_cook`). What is computed is what `nets` says, and tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.nanocodec import kernels
from tokbench.codecs.nanocodec.config import Activation, NanoCodecConfig, PadMode
from tokbench.codecs.nanocodec.nets import (
    LEAK,
    Act,
    Conv,
    Decoder,
    Encoder,
    HalfSnake,
    ResidualBlock,
    ResidualBranch,
    ResidualLayer,
    Upsample,
)
from tokbench.codecs.nanocodec.toom_cook import ToomCook
from tokbench.codecs.snake import Snake

__all__ = ["ChannelsLast", "knows"]

_ACTIVATIONS: tuple[Activation, ...] = ("lrelu", "snake", "half_snake")
_PADS: tuple[PadMode, ...] = ("replicate", "zeros")
_PIECE = 1 << 19
"""Numbers of a residual layer's input at a time."""


def knows(config: NanoCodecConfig) -> bool:
    """Whether every layer of a geometry has its counterpart here; the published ones do."""
    encoder, decoder = config.encoder, config.decoder
    return (
        {encoder.activation, decoder.activation} <= set(_ACTIVATIONS)
        and encoder.pad_mode in _PADS
        and decoder.n_groups_equal_to_out_channels
        and decoder.base_channels % (1 << (len(decoder.up_sample_rates))) == 0
    )


class ChannelsLast:
    """Runs an encoder and a decoder on float32 tensors in main memory, all rows full.

    Their convolutions' weights are laid out anew in place, so that nothing is held twice.

    Args:
        encoder, decoder: loaded nets, whose weights must not change afterwards.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._tables = {
            module: _tables(module) for net in (encoder, decoder) for module in net.modules() if isinstance(module, Act)
        }
        for net in (encoder, decoder):
            for module in net.modules():
                if isinstance(module, Conv):
                    weight = module.conv.weight
                    weight.data = weight.data.permute(0, 2, 1).contiguous().permute(0, 2, 1)
        # The decoder's alone: tokens are rounded from the encoder's output, which stays as exact as it can be.
        self._quick = {
            module: ToomCook(module.conv)
            for layer in decoder.res_layers
            for module in layer.modules()
            if isinstance(module, Conv) and _quick(module)
        }
        self._taps = {module: _taps(module) for module in decoder.modules() if isinstance(module, Upsample)}

    def encode(self, audio: Tensor) -> Tensor:
        """`Encoder.forward`: `[B, 1, T]` to `[B, D, T / hop]`."""
        net = self._encoder
        x = _convolve(net.pre_conv, _padded(audio.transpose(1, 2), net.pre_conv))
        for layer, act, down in zip(net.res_layers, net.activations, net.down_sample_conv_layers, strict=True):
            x = self._residual(cast(ResidualLayer, layer), x)
            x = self._step(cast(Act, act), x, cast(Conv, down))
        return self._step(net.post_activation, x, net.post_conv).transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        """`Decoder.forward`: `[B, D, T]` to `[B, T * hop]`."""
        net = self._decoder
        x = _convolve(net.pre_conv, _padded(latent.transpose(1, 2), net.pre_conv))
        for act, up, layer in zip(net.activations, net.up_sample_conv_layers, net.res_layers, strict=True):
            x = self._upsample(cast(Upsample, up), self._activated(cast(Act, act), x, (1, 0), "zeros"))
            x = self._residual(cast(ResidualLayer, layer), x)
        x = self._step(net.post_activation, x, net.post_conv).squeeze(2)
        return x.clamp(-1, 1) if net.output_activation == "clamp" else x.tanh()

    def _residual(self, layer: ResidualLayer, x: Tensor) -> Tensor:
        """In pieces of time that stay in the cache, each with the frames of its neighbours that its own depend on."""
        batch, frames, channels = x.shape
        size = max(1, _PIECE // channels)
        left, right = _reach(layer)
        out = torch.empty_like(x)
        for row, start in product(range(batch), range(0, frames, size)):
            end = min(start + size, frames)
            first, last = max(0, start - left), min(end + right, frames)
            piece = self._branches(layer, x[row : row + 1, first:last])
            out[row, start:end] = piece[0, start - first : end - first]
        return out

    def _branches(self, layer: ResidualLayer, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for branch in cast(Iterable[ResidualBranch], layer.res_blocks):
            # The residual sum waits for the next activation, which reads both parts anyway.
            before, made = x, None
            for block in cast(Iterable[ResidualBlock], branch.res_blocks):
                if made is None:
                    hidden = self._step(block.input_activation, before, block.input_conv)
                else:
                    hidden = self._step(block.input_activation, before, block.input_conv, add=made)
                    before = made
                made = self._step(block.skip_activation, hidden, block.skip_conv)
            assert made is not None, "the configuration has a dilation"
            made.add_(before)
            total = made if total is None else total.add_(made)
        assert total is not None, "the configuration has a kernel size"
        return total.div_(len(layer.res_blocks))

    def _step(self, act: Act, x: Tensor, conv: Conv, *, add: Tensor | None = None) -> Tensor:
        quick = self._quick.get(conv)
        if quick is None:
            return _convolve(conv, self._activated(act, x, conv.pad, conv.mode, add=add))
        padded = self._activated(act, x, quick.padding(x.shape[1]), "zeros", add=add)
        return quick(padded)[:, : x.shape[1]]

    def _activated(
        self, act: Act, x: Tensor, pad: tuple[int, int], mode: PadMode, *, add: Tensor | None = None
    ) -> Tensor:
        """The activation of `[B, T, C]`, padded in time; with `add`, of their sum, which is left in `add`."""
        batch, frames, channels = x.shape
        left, right = pad
        out = x.new_empty(batch, left + frames + right, channels)
        for row in range(batch):
            inside = _flat(out[row, left : left + frames])
            if add is None:
                kernels.activate(_flat(x[row]), inside, *self._tables[act])
            else:
                kernels.add_and_activate(_flat(x[row]), _flat(add[row]), inside, *self._tables[act])
        _fill_edges(out, pad, mode)
        return out

    def _upsample(self, up: Upsample, x: Tensor) -> Tensor:
        """`[B, 1 + T, 2 C]`, a frame of zeros first, to `[B, T * r, C]`."""
        taps, bias = self._taps[up]
        out = x.new_empty(x.shape[0], x.shape[1] - 1, up.rate, up.outputs)
        for row in range(x.shape[0]):
            kernels.upsample(x[row].numpy(), out[row].numpy(), taps, bias)
        return out.flatten(1, 2)


def _quick(module: Conv) -> bool:
    """Where `ToomCook` is faster: few channels make more of its passes, and many more of its memory."""
    return 48 <= module.conv.out_channels <= 256 and module.conv.kernel_size[0] > 4


def _reach(layer: ResidualLayer) -> tuple[int, int]:
    """Frames before and after one of a layer's output that it depends on."""
    left, right = (
        max(
            sum(block.input_conv.pad[side] + block.skip_conv.pad[side] for block in branch.res_blocks)
            for branch in cast(Iterable[Any], layer.res_blocks)
        )
        for side in (0, 1)
    )
    return left, right


def _convolve(module: Conv, padded: Tensor) -> Tensor:
    """`[B, T', inputs]` to `[B, T, outputs]`, contiguous."""
    conv = module.conv
    made = functional.conv2d(
        padded[:, None].permute(0, 3, 1, 2),
        conv.weight[:, :, None],
        conv.bias,
        stride=(1, conv.stride[0]),
        dilation=(1, conv.dilation[0]),
    )
    return made.permute(0, 2, 3, 1)[:, 0].contiguous()


def _padded(x: Tensor, conv: Conv) -> Tensor:
    left, right = conv.pad
    out = x.new_empty(x.shape[0], left + x.shape[1] + right, x.shape[2])
    out[:, left : left + x.shape[1]] = x
    _fill_edges(out, conv.pad, conv.mode)
    return out


def _fill_edges(out: Tensor, pad: tuple[int, int], mode: PadMode) -> None:
    left, right = pad
    end = out.shape[1] - right
    out[:, :left] = 0 if mode == "zeros" else out[:, left : left + 1]
    out[:, end:] = 0 if mode == "zeros" else out[:, end - 1 : end]


def _flat(x: Tensor) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], x.view(-1).numpy())


def _tables(act: Act) -> kernels.Tables:
    """An activation as `max(x, slope x) + gain sin^2(alpha x)`."""
    kind: nn.Module = act.activation
    channels = act.channels
    alpha = torch.zeros(channels, dtype=torch.float32)
    gain, slope = torch.zeros_like(alpha), torch.full_like(alpha, LEAK)
    snake = kind.snake_act if isinstance(kind, HalfSnake) else kind if isinstance(kind, Snake) else None
    if snake is not None:
        count = snake.alpha.shape[1]
        alpha[:count] = snake.alpha.flatten()
        gain[:count] = snake.gain.flatten()
        slope[:count] = 1
    return kernels.tables(alpha.numpy(), gain.numpy(), slope.numpy())


def _taps(up: Upsample) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    weight, bias = up.conv.weight.detach(), up.conv.bias
    assert bias is not None, "every convolution of a NanoCodec has a bias"
    # [C, channel, now or before, r] to [now or before, channel, r, C].
    taps = weight.view(up.outputs, 2, 2, up.rate).permute(2, 1, 3, 0).contiguous()
    return taps.numpy(), bias.detach().numpy()
