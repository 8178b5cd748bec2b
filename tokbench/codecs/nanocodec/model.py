"""NanoCodec put together: padding and lengths as NeMo's, tokens and audio in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.nanocodec.config import NanoCodecConfig
from tokbench.codecs.nanocodec.fsq import GroupFsq
from tokbench.codecs.nanocodec.nets import Decoder, Encoder, mask

if TYPE_CHECKING:
    from tokbench.codecs.nanocodec.channels_last import ChannelsLast

__all__ = ["NanoCodec"]


class NanoCodec(nn.Module):
    """Encoder, quantiser and decoder; parameter names are those of the released files, weight norm folded.

    In a batch of unequal lengths a short row is followed by zeros where alone it would see its own edge repeated: its
    last tokens change, in NeMo as here. Decoding does not depend on the batch.

    Lengths may lie on any device, and are best left on the CPU, where those that are returned lie: a GPU is then never
    waited for while it encodes.

    Args:
        config: geometry.
        device: "meta" to leave the weights to a loader.

    Attributes:
        channels_last: run on a CPU with time before channels, two times faster; False for the nets as they are written.
    """

    def __init__(self, config: NanoCodecConfig, *, device: str = "cpu") -> None:
        super().__init__()
        self.config = config
        self.channels_last = True
        self._fast: ChannelsLast | None = None
        with torch.device(device):
            self.audio_encoder = Encoder(config.encoder)
            self.audio_decoder = Decoder(config.decoder)
        self.vector_quantizer = GroupFsq(config.num_groups, config.levels)
        self.requires_grad_(requires_grad=False)

    def pad(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Whole frames: audio `[B, T]` is cut or filled with zeros to the longest row.

        What lies past a row's length, in its last frame or in the buffer, is left as it is.

        Returns:
            Audio `[B, T']`, T' a multiple of the hop, and the rows' padded lengths, int64 `[B]` on the CPU.
        """
        hop = self.config.hop
        padded = torch.div(lengths.cpu() + hop - 1, hop, rounding_mode="floor") * hop
        longest = int(padded.max())
        return functional.pad(audio, (0, longest - audio.shape[1])), padded

    def latent(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `[B, T]` to the encoder's output `[B, D, F]` before quantisation, and frames a row."""
        padded, n_padded = self.pad(audio, lengths)
        rows = _unequal(n_padded, padded)
        fast = self._channels_last(padded, rows)
        latent = fast.encode(padded[:, None]) if fast else self.audio_encoder(padded[:, None], rows)
        return cast(Tensor, latent), n_padded // self.config.hop

    def encode(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Audio float32 `[B, T]` with int64 lengths `[B]` to tokens.

        Returns:
            Tokens int64 `[B, K, F]`, 0 past a row's end, and frames a row, int64 `[B]` on the CPU: `ceil(n / hop)`.
        """
        latent, frames = self.latent(audio, lengths)
        return mask(self.vector_quantizer.tokens(latent), _unequal(frames, latent)), frames

    def dequantize(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Tokens int64 `[B, K, F]` to the decoder's input float32 `[B, D, F]`, zero past a row's end."""
        if tokens.numel():
            least, most = (int(end) for end in tokens.aminmax())
            if least < 0 or most >= self.config.vocab:
                raise ValueError(f"tokens must be in 0..{self.config.vocab - 1}")
        return mask(self.vector_quantizer.values(tokens), _unequal(frames, tokens))

    def decode(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Tokens int64 `[B, K, F]` with frames a row to audio float32 `[B, F * hop]`, zero past a row's end."""
        values = self.dequantize(tokens, frames)
        rows = _unequal(frames, tokens)
        fast = self._channels_last(values, rows)
        return cast(Tensor, fast.decode(values) if fast else self.audio_decoder(values, rows))

    def _channels_last(self, x: Tensor, lengths: Tensor | None) -> ChannelsLast | None:
        """The faster way, where it is one: on a CPU, in float32, without a mask."""
        if not self.channels_last or lengths is not None or x.device.type != "cpu" or x.dtype != torch.float32:
            return None
        if self._fast is None:
            try:
                from tokbench.codecs.nanocodec.channels_last import ChannelsLast, knows
            except ModuleNotFoundError:
                self.channels_last = False
                return None
            if not knows(self.config):
                self.channels_last = False
                return None
            self._fast = ChannelsLast(self.audio_encoder, self.audio_decoder)
        return self._fast


def _unequal(lengths: Tensor, x: Tensor) -> Tensor | None:
    """The lengths, beside `x [..., T]`, where a mask is needed; None where every row is full."""
    return None if bool((lengths.cpu() == x.shape[-1]).all()) else lengths.to(x.device)
