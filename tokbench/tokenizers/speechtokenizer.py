"""SpeechTokenizer (arXiv 2308.16692), by the port in `tokbench.codecs.speechtokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokbench.errors import MissingBackend
from tokbench.tokenizers.pretrained.base import CodesCodec, Geometry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SpeechTokenizer"]


class SpeechTokenizer(CodesCodec):
    """`ceil(n / 320)` frames of residual codes; `q0` is distilled from HuBERT.

    Args:
        card, device: see `Tokenizer`.
        weights: folder with the published `config.json` and `SpeechTokenizer.pt`; None for the hub.
        allow_pickle: take a weights file that holds more than tensors.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.checkpoint",
        "tokbench.codecs.precision",
        "tokbench.codecs.seanet",
        "tokbench.codecs.speechtokenizer",
        "tokbench.tokenizers.checkpoints",
    )
    libraries: ClassVar[tuple[str, ...]] = ()

    def _load(self, config: Path, file: Path, hint: str) -> Any:
        try:
            from tokbench.codecs.speechtokenizer import load_speechtokenizer
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="mini", needed_by=f"tokenizer '{self.card.name}'") from None
        return load_speechtokenizer(config, file, what=self.card.name, hint=hint, allow_pickle=self.allow_pickle)

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        return Geometry(config.sample_rate, config.sample_rate, config.size.hop, config.n_q, config.codebook_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        codes: Tensor = self._model.encode(audio, len(self.card.streams))
        return codes

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens)
        return wave

    def _book(self, index: int) -> Tensor:
        book: Tensor = self._model.quantizer.vectors(index)
        return book
