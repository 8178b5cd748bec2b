"""One book of finite scalar codes over a speech model's features: X-Codec2 and NeuCodec.

Both read the wave and its log-mel features; the features come from the extractor that `transformers` has for each, at
the published settings, which needs torchaudio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.tokenizers.pretrained.base import CodesCodec, Geometry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NeuCodec", "XCodec2"]


class XCodec2(CodesCodec):
    """X-Codec2 (arXiv 2502.04128): `floor(n / hop) + 1` codes, the last one over zeros."""

    model_type: ClassVar[str] = "xcodec2"
    model_class: ClassVar[str] = "Xcodec2Model"
    extractor: ClassVar[str] = "Xcodec2FeatureExtractor"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "torchaudio", "transformers")

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        rate = config.sampling_rate
        return Geometry(rate, rate, config.hop_length, 1, int(np.prod(config.quantization_levels)))

    def frames(self, n_samples: int) -> int:
        """`floor(n / hop) + 1`: the extractor adds a zero before it fills the last frame."""
        return n_samples // self._geometry.hop + 1

    def _tokens(self, audio: Tensor) -> Tensor:
        import transformers

        extractor = getattr(transformers, self.extractor)(
            sampling_rate=self._geometry.input_rate, hop_length=self._geometry.hop
        )
        inputs = extractor(audio.cpu().numpy(), sampling_rate=self._geometry.input_rate, return_tensors="pt")
        codes: Tensor = self._model.encode(
            **{name: value.to(self.device) for name, value in inputs.items()}
        ).audio_codes
        return codes[0].long()

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(audio_codes=tokens[None]).audio_values
        return wave[0, 0]

    def _book(self, index: int) -> Tensor:  # noqa: ARG002 - there is one
        import torch

        vocab = self._geometry.size
        every = torch.arange(vocab, device=self.device).reshape(1, vocab, 1)
        book: Tensor = self._model.quantizer.from_codes(every)[0]
        return book


class NeuCodec(XCodec2):
    """NeuCodec (arXiv 2509.09550): 16 kHz in, 24 kHz out, `floor(n / hop)` codes; the rest of the wave is not coded."""

    model_type: ClassVar[str] = "neucodec"
    model_class: ClassVar[str] = "NeuCodecModel"
    extractor: ClassVar[str] = "NeuCodecFeatureExtractor"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        size = int(np.prod(config.quantization_levels))
        return Geometry(config.input_sampling_rate, config.output_sampling_rate, config.encoder_hop_length, 1, size)

    def frames(self, n_samples: int) -> int:
        """`floor(n / hop)`: the features' windows do not reach into the last, partly filled frame."""
        return n_samples // self._geometry.hop
