"""Kanade's nets put together: SSL features to tokens and a speaker vector, and both to a log-mel spectrogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.kanade.attention import Backend
from tokbench.kanade.config import KanadeConfig
from tokbench.kanade.fsq import FiniteScalarQuantizer
from tokbench.kanade.global_encoder import GlobalEncoder
from tokbench.kanade.lengths import mel_frames
from tokbench.kanade.padding import interpolate
from tokbench.kanade.postnet import PostNet
from tokbench.kanade.transformer import Transformer

__all__ = ["Content", "KanadeModel", "mix_layers", "normalize_features"]


class Content(NamedTuple):
    """What the content branch makes of an utterance.

    Attributes:
        embedding: quantised, `[B, T, D]`, at the token rate.
        tokens: int64 `[B, T]`.
        pre_quant: encoder output before quantisation, `[B, T, D]`.
    """

    embedding: Tensor
    tokens: Tensor
    pre_quant: Tensor


def mix_layers(hidden: Mapping[int, Tensor], layers: Sequence[int]) -> Tensor:
    """Mean of some SSL layers, `[B, N, D]`."""
    return torch.stack([hidden[layer] for layer in layers]).mean(dim=0)


def normalize_features(features: Tensor) -> Tensor:
    """Zero mean and unit variance (unbiased) per utterance and dimension, over all frames of `[B, N, D]`."""
    mean = features.mean(dim=1, keepdim=True)
    deviation = features.std(dim=1, keepdim=True)
    return (features - mean) / (deviation + 1e-8)


class KanadeModel(nn.Module):
    """All nets but the SSL model and the vocoder; parameter names are those of the released files.

    Args:
        config: geometry.
        feature_decoder: also build the branch that reconstructs SSL features, which released files lack and only
            training uses.
    """

    def __init__(self, config: KanadeConfig, *, feature_decoder: bool = False) -> None:
        super().__init__()
        self.config = config
        width, stride = config.local_encoder.dim, config.downsample
        self.local_encoder = Transformer(config.local_encoder)
        self.conv_downsample = nn.Conv1d(width, width, stride, stride=stride)
        self.local_quantizer = FiniteScalarQuantizer(config.quantizer)
        self.global_encoder = GlobalEncoder(config.global_encoder)
        self.mel_prenet = Transformer(config.mel_prenet)
        self.mel_conv_upsample = nn.ConvTranspose1d(
            config.prenet_dim, config.prenet_dim, config.mel_upsample, stride=config.mel_upsample
        )
        self.mel_decoder = Transformer(config.mel_decoder)
        self.mel_postnet = PostNet(config.mel_postnet)
        self.conv_upsample: nn.ConvTranspose1d | None = None
        self.feature_decoder: Transformer | None = None
        if feature_decoder:
            if config.feature_decoder is None:
                raise ValueError("this model's config has no feature decoder")
            content = config.quantizer.output_dim
            self.conv_upsample = nn.ConvTranspose1d(content, content, stride, stride=stride)
            self.feature_decoder = Transformer(config.feature_decoder)

    def use_backend(self, backend: Backend) -> None:
        """Choose the attention backend of every transformer."""
        for module in self.modules():
            if isinstance(module, Transformer):
                module.use_backend(backend)

    def content_features(self, hidden: Mapping[int, Tensor]) -> Tensor:
        """SSL layers to the content encoder's input (and the feature decoder's target), `[B, N, D]`."""
        features = mix_layers(hidden, self.config.local_layers)
        return normalize_features(features) if self.config.normalize else features

    def global_features(self, hidden: Mapping[int, Tensor], mel: Tensor | None = None) -> Tensor:
        """The global encoder's input, `[B, N, D]`, not normalised.

        Args:
            hidden: SSL layers.
            mel: log-mel spectrogram `[B, n_mels, N]`, for a model whose global encoder hears that.
        """
        if self.config.global_input == "mel":
            assert mel is not None, "this model's global encoder hears the spectrogram"
            return mel.transpose(1, 2)
        return mix_layers(hidden, self.config.global_layers)

    def encode_content(self, features: Tensor, *, lengths: Tensor | None = None) -> Content:
        """Content features `[B, N, D]` to `floor(N / downsample)` tokens.

        Frames that do not fill a token are dropped.

        Args:
            features: of a batch.
            lengths: real frames of each item, int64 `[B]`, here and below: what is real then does not depend on the
                padding behind it. None: there is no padding.
        """
        encoded = self.local_encoder(features, lengths=lengths)
        pre_quant = self.conv_downsample(encoded.transpose(1, 2)).transpose(1, 2)
        embedding, tokens = self.local_quantizer(pre_quant)
        return Content(embedding, tokens, pre_quant)

    def encode_global(self, features: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Global features `[B, N, D]` to speaker vectors `[B, G]`."""
        out: Tensor = self.global_encoder(features, lengths=lengths)
        return out

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens int64 `[B, T]` to content embeddings `[B, T, D]`."""
        return self.local_quantizer.embed(tokens)

    def decode_mel(
        self, embedding: Tensor, speaker: Tensor, *, n_samples: int, lengths: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Content and speaker to a natural-log mel spectrogram.

        Args:
            embedding: content, `[B, T, D]`.
            speaker: `[B, G]`.
            n_samples: length of the audio to make, at `config.mel.sample_rate`; see `lengths.audio_length`.
            lengths: real tokens and real mel frames of each item, int64 `[B]` both; None: there is no padding.

        Returns:
            `[B, n_mels, M]`, M by `lengths.mel_frames`.
        """
        tokens, made = lengths or (None, None)
        h = self.mel_prenet(embedding, lengths=tokens)
        h = self.mel_conv_upsample(h.transpose(1, 2))
        frames = mel_frames(n_samples, self.config.mel)
        if tokens is None or made is None:
            h = functional.interpolate(h, size=frames, mode="linear", align_corners=False)
        else:
            h = interpolate(h, tokens * self.config.mel_upsample, made, frames)
        coarse = self.mel_decoder(h.transpose(1, 2), speaker, lengths=made)
        mel: Tensor = self.mel_postnet(coarse.transpose(1, 2), lengths=made)
        return mel

    def reconstruct_features(self, embedding: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Content embedding `[B, T, D]` to normalised SSL features `[B, T * downsample, D]`; training only.

        `lengths` counts real tokens.
        """
        assert self.conv_upsample is not None, "the model was built without its feature decoder"
        assert self.feature_decoder is not None
        upsampled = self.conv_upsample(embedding.transpose(1, 2)).transpose(1, 2)
        frames = None if lengths is None else lengths * self.config.downsample
        out: Tensor = self.feature_decoder(upsampled, lengths=frames)
        return out
