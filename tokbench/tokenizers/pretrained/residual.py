"""Stacks of residual codebooks: Mimi, EnCodec 24 kHz, DAC and X-Codec.

In every one of them book k codes what books 0 to k-1 left, so that the first K of many books are the codes that a
model with K books would give.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokbench.errors import CardError
from tokbench.tokenizers.pretrained.base import CodesCodec, Geometry

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["Bandwidths", "Dac", "Encodec", "Mimi", "XCodec"]


class Mimi(CodesCodec):
    """Mimi (arXiv 2410.00037): `q0` is distilled from WavLM, the others are the acoustic residual; causal."""

    model_type: ClassVar[str] = "mimi"
    model_class: ClassVar[str] = "MimiModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        rate = config.sampling_rate
        return Geometry(rate, rate, config.frame_size, config.num_quantizers, config.codebook_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        codes: Tensor = self._model.encode(audio[None, None], num_quantizers=len(self.card.streams)).audio_codes
        return codes[0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens[None]).audio_values
        return wave[0, 0]

    def _book(self, index: int) -> Tensor:
        quantizer = self._model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        layers = [*semantic, *quantizer.acoustic_residual_vector_quantizer.layers]
        book: Tensor = layers[index].codebook.embed
        return book


class Bandwidths(CodesCodec):
    """Codecs that were trained with a few numbers of books, which their config tells as bandwidths in kbit/s."""

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        quantizer, books = self._model.quantizer, len(self._frame_specs())
        every = {quantizer.get_num_quantizers_for_bandwidth(b): b for b in self._model.config.target_bandwidths}
        if books not in every:
            raise CardError(
                f"{books} books are none of those that it was trained with",
                where=f"{card.name}: streams",
                hint=f"There are {', '.join(map(str, sorted(every)))}",
            )
        self._bandwidth = every[books]


class Encodec(Bandwidths):
    """EnCodec at 24 kHz (arXiv 2210.13438): causal, no normalisation, one chunk however long."""

    model_type: ClassVar[str] = "encodec"
    model_class: ClassVar[str] = "EncodecModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        if config.audio_channels != 1 or config.chunk_length_s is not None or config.normalize:
            from tokbench.codecs.checkpoint import BadCheckpoint

            raise BadCheckpoint(
                "its config is EnCodec 48 kHz's: two channels, in chunks that are scaled",
                where=self.card.name,
                hint=f"Give the files of {self.card.weights.location if self.card.weights else self.card.name}",
            )
        rate = config.sampling_rate
        return Geometry(rate, rate, config.hop_length, config.num_quantizers, config.codebook_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        codes: Tensor = self._model.encode(audio[None, None], bandwidth=self._bandwidth).audio_codes
        return codes[0, 0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens[None, None], [None]).audio_values
        return wave[0, 0]

    def _book(self, index: int) -> Tensor:
        book: Tensor = self._model.quantizer.layers[index].codebook.embed
        return book


class XCodec(Bandwidths):
    """X-Codec (arXiv 2408.17175): residual codes over a mean of SSL layers beside an acoustic encoder's output."""

    model_type: ClassVar[str] = "xcodec"
    model_class: ClassVar[str] = "XcodecModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        rate = config.sample_rate
        return Geometry(rate, rate, config.hop_length, config.num_quantizers, config.codebook_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        codes: Tensor = self._model.encode(self._padded(audio), bandwidth=self._bandwidth).audio_codes
        return codes[0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens[None]).audio_values
        return wave[0, 0]

    def _book(self, index: int) -> Tensor:
        book: Tensor = self._model.quantizer.quantizers[index].codebook.embed
        return book


class Dac(CodesCodec):
    """DAC (arXiv 2306.06546). Its decoder has odd strides, so that output is up to 8 samples short; zeros fill it."""

    model_type: ClassVar[str] = "dac"
    model_class: ClassVar[str] = "DacModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        rate = config.sampling_rate
        return Geometry(rate, rate, config.hop_length, config.n_codebooks, config.codebook_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        codes: Tensor = self._model.encode(self._padded(audio), n_quantizers=len(self.card.streams)).audio_codes
        return codes[0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(audio_codes=tokens[None]).audio_values
        return wave[0]

    def _book(self, index: int) -> Tensor:
        quantizer = self._model.quantizer.quantizers[index]
        book: Tensor = quantizer.out_proj(quantizer.codebook.weight.T[None])[0].T
        return book
