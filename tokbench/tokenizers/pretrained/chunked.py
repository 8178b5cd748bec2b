"""EnCodec at 48 kHz: a stereo model in overlapping chunks of a second, each scaled to unit level before it is coded.

The decoder needs every chunk's scale, which is a stream of its own here, so that it is charged: `scale`, the bits of a
half-precision number. The authors' container spends 32 bits on it; half precision moves the level by 0.004 dB at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.errors import CardError
from tokbench.tokenizers.pretrained.base import Geometry
from tokbench.tokenizers.pretrained.residual import Bandwidths
from tokbench.types import Encoded, IntArray, StreamSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCALES", "ChunkedEncodec", "code_scale", "scale_of_code"]

SCALES = 0x7C00
"""Codes of a scale: the bit patterns of all finite half-precision numbers that are not negative."""

_FEWEST = 2
"""Frames of a chunk: over one, the model's normalisation is not defined."""


def code_scale(scale: float) -> int:
    """The nearest half-precision number as its bit pattern; the largest one where it is beyond them."""
    largest = float(np.finfo(np.float16).max)
    return int(np.float16(min(scale, largest)).view(np.uint16))


def scale_of_code(codes: IntArray) -> npt.NDArray[np.float32]:
    """The inverse of `code_scale` for codes of any shape."""
    return codes.astype(np.uint16).view(np.float16).astype(np.float32)


class ChunkedEncodec(Bandwidths):
    """EnCodec at 48 kHz (arXiv 2210.13438), from mono and to mono.

    A chunk of L samples has `ceil(L / 320)` frames, and the last chunk is as long as what is left of the wave: the
    authors' way. The extractor of `transformers` fills it with zeros to a second instead, and codes another one. The
    model cannot normalise a chunk of one frame, so that a shorter one is filled with zeros to two.
    Both channels get the wave, and the output is their mean.
    """

    _chunk: int
    _stride: int
    _frame: int
    params_known: ClassVar[frozenset[str]] = frozenset({"symbols_per_frame"})
    """Read by the conformance suite: frames end with chunks, so that a count is up to 1.5 frames off the rate."""
    model_type: ClassVar[str] = "encodec"
    model_class: ClassVar[str] = "EncodecModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`; the hop is the stride of chunks over their frames."""
        if config.audio_channels != 2 or config.chunk_stride is None or not config.normalize:
            from tokbench.codecs.checkpoint import BadCheckpoint

            raise BadCheckpoint(
                "its config is EnCodec 24 kHz's: one channel, one chunk, no scales",
                where=self.card.name,
                hint=f"Give the files of {self.card.weights.location if self.card.weights else self.card.name}",
            )
        self._chunk, self._stride, self._frame = config.chunk_length, config.chunk_stride, config.hop_length
        rate, frames = config.sampling_rate, -(-self._chunk // self._frame)
        scales = StreamSpec("scale", "codes", Fraction(rate, self._stride), SCALES)
        mine = self.card.stream_specs[-1]
        if (mine.name, mine.rate_hz, mine.vocab) != (scales.name, scales.rate_hz, scales.vocab):
            raise CardError(
                f"the last stream must be scale, {SCALES} codes at {scales.rate_hz} Hz", where=self.card.name
            )
        return Geometry(rate, rate, Fraction(self._stride, frames), config.num_quantizers, config.codebook_size)

    def _frame_specs(self) -> tuple[StreamSpec, ...]:
        return self.card.stream_specs[:-1]

    def _chunks(self, n_samples: int) -> Iterator[tuple[int, int]]:
        """Start and length of every chunk."""
        for start in range(0, n_samples, self._stride):
            yield start, min(self._chunk, n_samples - start)

    def _frames_of(self, length: int) -> int:
        """Frames of one chunk."""
        return max(_FEWEST, -(-length // self._frame))

    def frames(self, n_samples: int) -> int:
        """Frames of all chunks."""
        return sum(self._frames_of(length) for _, length in self._chunks(n_samples))

    def coded(self, n_samples: int) -> int:
        """Up to the end of the last chunk's last frame."""
        *_, (start, length) = self._chunks(n_samples)
        return start + self._frames_of(length) * self._frame

    def lengths(self, n_samples: int) -> dict[str, int]:
        """A scale a chunk beside the frames."""
        books = dict.fromkeys((spec.name for spec in self._frame_specs()), self.frames(n_samples))
        return books | {"scale": -(-n_samples // self._stride)}

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """See `CodesCodec.codebook`; of `scale` the numbers that its codes stand for, float32 `[31744, 1]`."""
        if stream == "scale":
            return scale_of_code(np.arange(SCALES))[:, None]
        return super().codebook(stream)

    def _encoded(self, audio: Tensor) -> dict[str, npt.NDArray[np.generic]]:
        import torch

        codes, scales = [], []
        for start, length in self._chunks(len(audio)):
            missing = max(0, (_FEWEST - 1) * self._frame + 1 - length)
            chunk = torch.nn.functional.pad(audio[start : start + length], (0, missing))
            # The model's own `encode` cuts a whole chunk at the stride again, and fails on what is left.
            scale = chunk.pow(2).mean().sqrt() + 1e-8
            found = self._model.encoder((chunk / scale).expand(1, 2, -1))
            codes.append(self._model.quantizer.encode(found, self._bandwidth)[:, 0])
            scales.append(code_scale(float(scale)))
        return self._streams(torch.cat(codes, dim=1).cpu().numpy()) | {"scale": np.array(scales, np.int64)}

    def _tokens(self, audio: Tensor) -> Tensor:
        raise NotImplementedError("chunks are encoded by `_encoded`")

    def _decoded(self, item: Encoded) -> Tensor:
        import torch

        codes = self._tensor(self._stacked(item))
        scales = self._tensor(scale_of_code(np.asarray(item.streams["scale"], np.int64)))
        chunks = list(self._chunks(max(item.n_samples, self.card.min_samples)))
        sizes = [self._frames_of(length) for _, length in chunks]
        waves = [self._wave(part) * scale for part, scale in zip(torch.split(codes, sizes, dim=1), scales, strict=True)]
        # Linear cross-fades, as the library's: a triangle as long as the first chunk over every one, and the sum of
        # the chunks under their triangles is divided by the sum of the triangles.
        ramp = torch.linspace(0, 1, len(waves[0]) + 2, device=codes.device)[1:-1]
        triangle = 0.5 - (ramp - 0.5).abs()
        summed, weights = torch.zeros(2, chunks[-1][0] + self._chunk, device=codes.device)
        for (start, _), wave in zip(chunks, waves, strict=True):
            summed[start : start + len(wave)] += triangle[: len(wave)] * wave
            weights[start : start + len(wave)] += triangle[: len(wave)]
        made: Tensor = summed[: item.n_samples] / weights[: item.n_samples]
        return made

    def _wave(self, tokens: Tensor) -> Tensor:
        stereo: Tensor = self._model.decode(tokens[None, None], [None]).audio_values
        return stereo[0].mean(dim=0)

    def _book(self, index: int) -> Tensor:
        book: Tensor = self._model.quantizer.layers[index].codebook.embed
        return book
