"""WavLM-base-plus as Kanade's front end: transformers' weights and layers, only the blocks that are needed.

The convolutions run over pieces and the attention over rows of queries, so that memory grows linearly with the length;
the results are those of `transformers.WavLMModel` (`hidden_states[i]`) to rounding. Checkpoints of transformers and of
torchaudio are both read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.errors import MissingBackend
from tokbench.kanade.relative_attention import position_bias, relative_attention

__all__ = ["WavLM", "from_torchaudio", "normalize_keys", "unused_keys"]

HOP, RECEPTIVE = 320, 400
_CONV0_STRIDE, _CONV0_KERNEL = 5, 10

_PIECE = {"cpu": 200, "cuda": 4000}
"""Frames a piece of the convolutions: few enough for a processor's cache, many enough for a GPU."""


class WavLM(nn.Module):
    """The first blocks of WavLM-base-plus (Chen et al. 2022).

    Args:
        blocks: number of transformer blocks to build; deeper ones cannot influence what is returned.

    Raises:
        MissingBackend: transformers is not installed.
    """

    def __init__(self, *, blocks: int) -> None:
        super().__init__()
        try:
            from transformers import WavLMConfig
            from transformers.models.wavlm.modeling_wavlm import WavLMModel
        except ModuleNotFoundError:
            raise MissingBackend("transformers", extra="judges", needed_by="Kanade's SSL front end") from None
        # transformers' defaults are WavLM-base-plus; masking and its embedding belong to pre-training.
        config = WavLMConfig(num_hidden_layers=blocks, mask_time_prob=0.0, mask_feature_prob=0.0)
        self.net: Any = WavLMModel(config)
        self.blocks = blocks

    def freeze(self) -> WavLM:
        """Fix the weights, once loaded: compute the position convolution's from norm and direction; eval mode."""
        nn.utils.parametrize.remove_parametrizations(self.net.encoder.pos_conv_embed.conv, "weight")
        return self.requires_grad_(requires_grad=False).eval()

    def forward(self, wave: Tensor, layers: Iterable[int]) -> dict[int, Tensor]:
        """Outputs of some blocks for 16 kHz audio `[B, n]`, as it is: no normalisation, no mask.

        Args:
            wave: at least 400 samples.
            layers: block numbers, 1 = the first.

        Returns:
            `{layer: [B, (n - 80) // 320, 768]}`.
        """
        wanted = set(layers)
        hidden = self._features(wave).transpose(1, 2)
        hidden, _ = self.net.feature_projection(hidden)
        encoder = self.net.encoder
        hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
        bias = position_bias(encoder.layers[0].attention, hidden.shape[1])
        found = {}
        for number, layer in enumerate(encoder.layers[: max(wanted)], start=1):
            hidden = layer.layer_norm(hidden + relative_attention(layer.attention, hidden, bias))
            hidden = layer.final_layer_norm(hidden + layer.feed_forward(hidden))
            if number in wanted:
                found[number] = hidden
        return found

    def _features(self, wave: Tensor) -> Tensor:
        """Convolutional features `[B, 512, N]`, piece by piece.

        The first convolution's group norm spans the whole utterance: its statistics come first.
        """
        first, *others = self.net.feature_extractor.conv_layers
        frames = (wave.shape[1] - RECEPTIVE) // HOP + 1
        piece = _PIECE.get(wave.device.type, 1000)
        if frames <= piece:
            x = first(wave[:, None])
            for conv in others:
                x = conv(x)
            return x  # type: ignore[no-any-return]
        mean, variance = _conv0_statistics(first.conv, wave)
        norm = first.layer_norm
        scale = norm.weight * (variance + norm.eps).rsqrt()
        shift = norm.bias - mean * scale
        pieces = []
        for start in range(0, frames, piece):
            stop = min(start + piece, frames)
            x = first.conv(wave[:, None, HOP * start : HOP * (stop - 1) + RECEPTIVE])
            x = first.activation(torch.addcmul(shift[..., None], x, scale[..., None]))
            for conv in others:
                x = conv(x)
            pieces.append(x)
        return torch.cat(pieces, dim=2)


def _conv0_statistics(conv: nn.Conv1d, wave: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of the first convolution's channels, each `[B, C]`, without running it.

    The convolution is linear and has no bias: with window mean `m` and covariance `S`, taps `w` give `w m` and `w S w`.
    """
    windows = wave.double().unfold(1, _CONV0_KERNEL, _CONV0_STRIDE)
    centre = windows.mean(dim=1, keepdim=True)
    windows = windows - centre
    covariance = windows.mT @ windows / windows.shape[1]
    taps = conv.weight[:, 0].double()
    mean = (centre @ taps.T)[:, 0]
    variance = ((taps @ covariance) * taps).sum(-1).clamp(min=0.0)
    return mean.to(wave), variance.to(wave)


def normalize_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's keys as `transformers.WavLMModel` names them.

    Understands torchaudio's names, a head model's prefix `wavlm.`, and the old names of weight norm.
    """
    if any(key.startswith("encoder.transformer.") for key in state):
        state = from_torchaudio(state)
    renamed = {}
    for key, value in state.items():
        key = key.removeprefix("wavlm.")
        key = key.replace("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0")
        key = key.replace("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1")
        renamed[key] = value
    return renamed


def from_torchaudio(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A WavLM state dict of torchaudio under transformers' names; the joint projection is cut into its three parts."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("encoder.feature_projection.", "feature_projection.")
        key = key.replace("encoder.transformer.", "encoder.")
        key = key.replace(".attention.attention.", ".attention.")
        joint = re.fullmatch(r"(.*\.attention\.)in_proj_(weight|bias)", key)
        if joint:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{joint[1]}{name}_proj.{joint[2]}"] = part
        else:
            renamed[key] = value
    return renamed


def unused_keys(key: str, blocks: int) -> bool:
    """Whether a normalised key belongs to what this front end leaves out: deeper blocks, masking, training heads."""
    deeper = re.match(r"encoder\.layers\.(\d+)\.", key)
    if deeper:
        return int(deeper[1]) >= blocks
    return key.startswith(("masked_spec_embed", "aux.", "quantizer.", "project_q.", "project_hid."))
