"""SpeechTokenizer's model (arXiv 2308.16692): SEANet around a stack of residual codebooks, from its published files.

A port, because the package `speechtokenizer` 1.0.1 cannot be imported as it installs itself: its `__init__` imports the
trainer, which needs beartype and tensorboard (undeclared), accelerate and lion-pytorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tokbench.codecs.checkpoint import BadCheckpoint, fill, fold_weight_norm, read_checkpoint, tensors_only
from tokbench.codecs.seanet import Decoder, Encoder, ResidualBooks, SeanetSize

__all__ = ["SpeechTokenizerConfig", "SpeechTokenizerNet", "load_speechtokenizer"]


class SpeechTokenizerConfig(BaseModel):
    """What the nets need of the published `config.json`; its other fields are about training."""

    model_config = ConfigDict(frozen=True)

    sample_rate: int = Field(gt=0)
    n_filters: int = Field(gt=0)
    dimension: int = Field(gt=0)
    semantic_dimension: int = Field(gt=0)
    strides: tuple[int, ...]
    lstm_layers: int = Field(gt=0)
    bidirectional: bool
    dilation_base: int = Field(gt=0)
    residual_kernel_size: int = Field(gt=0)
    n_residual_layers: int = Field(ge=0)
    activation: Literal["ELU"]
    n_q: int = Field(gt=0)
    codebook_size: int = Field(gt=0)

    @property
    def size(self) -> SeanetSize:
        """Of the nets."""
        return SeanetSize(
            width=self.n_filters,
            dimension=self.dimension,
            strides=self.strides,
            lstm_layers=self.lstm_layers,
            bidirectional=self.bidirectional,
            residual_kernel=self.residual_kernel_size,
            residual_layers=self.n_residual_layers,
            dilation_base=self.dilation_base,
        )


class SpeechTokenizerNet(nn.Module):
    """Encoder, codebooks and decoder; `transform`, to the teacher's width, is for training alone."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.size)
        self.decoder = Decoder(config.size)
        self.quantizer = ResidualBooks(config.n_q, config.codebook_size, config.dimension)
        if config.dimension != config.semantic_dimension:
            self.transform = nn.Linear(config.dimension, config.semantic_dimension)

    def encode(self, audio: Tensor, books: int) -> Tensor:
        """Audio `[n]` to codes int64 `[books, ceil(n / hop)]`."""
        return self.quantizer.encode(self.encoder(audio[None, None])[0], books)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes `[books, T]` to audio `[hop * T]`."""
        audio: Tensor = self.decoder(self.quantizer.decode(codes)[None])
        return audio[0, 0]


def load_speechtokenizer(
    config: Path, weights: Path, *, what: str, hint: str, allow_pickle: bool = False
) -> SpeechTokenizerNet:
    """The model in evaluation mode, on the CPU.

    Args:
        config: the published `config.json`.
        weights: the published `SpeechTokenizer.pt`, or the same tensors as safetensors.
        what: how errors name the model.
        hint: what to type next.
        allow_pickle: take a file that holds more than tensors.

    Raises:
        BadCheckpoint: one of the two is damaged, or not SpeechTokenizer's, or they do not belong together.
    """
    try:
        values = SpeechTokenizerConfig.model_validate(json.loads(config.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'config'}: {first['msg']}"
        raise BadCheckpoint(f"is not SpeechTokenizer's config ({reason})", where=str(config), hint=hint) from None
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"is not SpeechTokenizer's config ({error})", where=str(config), hint=hint) from None
    where = str(weights)
    state = tensors_only(read_checkpoint(weights, where=where, allow_pickle=allow_pickle), where=where)
    model = SpeechTokenizerNet(values)
    fill(model, fold_weight_norm(state, where=where), where=where, what=what, hint=hint)
    return model.eval()
