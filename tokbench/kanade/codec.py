"""Audio to tokens and a speaker vector and back, with every net loaded: resampling, WavLM, Kanade, vocoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.attention import Backend
from tokbench.kanade.config import SSL_RATE
from tokbench.kanade.files import KanadeFiles
from tokbench.kanade.hift import HiFT
from tokbench.kanade.lengths import padding
from tokbench.kanade.model import Content, KanadeModel
from tokbench.kanade.released import read_config
from tokbench.kanade.resample import resample
from tokbench.kanade.vocos import Vocos
from tokbench.kanade.wavlm import WavLM
from tokbench.kanade.weights import load_hift, load_kanade, load_vocos, load_wavlm

__all__ = ["KanadeCodec", "Precision", "Utterances"]

Precision = Literal["fp32", "bf16"]


class Utterances(NamedTuple):
    """A batch of encoded utterances.

    Attributes:
        tokens: int64 `[B, T]`.
        speaker: float32 `[B, G]`.
    """

    tokens: Tensor
    speaker: Tensor


class KanadeCodec:
    """The whole tokenizer for batches of equal length; nothing is padded to a common length, so nothing needs a mask.

    Args:
        model: Kanade's nets.
        wavlm: SSL front end, with as many blocks as the model's deepest layer.
        vocoder: Vocos or HiFT, as the model's config says.
        device: torch device.
        precision: "bf16" runs Kanade's own nets under autocast, as the released code does on CUDA; the SSL model and
            the vocoder stay in float32. "fp32" also keeps TensorFloat-32 out of convolutions.
        attention: backend of the local attention.
    """

    def __init__(
        self,
        model: KanadeModel,
        wavlm: WavLM,
        vocoder: Vocos | HiFT,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        attention: Backend = "auto",
    ) -> None:
        self.config = model.config
        self.device = torch.device(device)
        self.precision = precision
        self.model = model.to(self.device)
        self.wavlm = wavlm.to(self.device)
        self.vocoder = vocoder.to(self.device)
        self.model.use_backend(attention)

    @classmethod
    def load(
        cls,
        files: KanadeFiles,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        attention: Backend = "auto",
    ) -> KanadeCodec:
        """Read config and weights, strictly.

        Raises:
            CardError, IncompatibleWeights: a file is not what it should be.
        """
        config = read_config(files.config)
        return cls(
            load_kanade(files.model, config),
            load_wavlm(files.wavlm, blocks=config.deepest_layer),
            load_vocos(files.vocoder) if config.vocoder == "vocos" else load_hift(files.vocoder),
            device=device,
            precision=precision,
            attention=attention,
        )

    def encode(self, waves: Tensor) -> Utterances:
        """Tokens and speaker vectors.

        Args:
            waves: `[B, n]` at the config's sampling rate; each is scaled to peak 1 first, which the model expects.
        """
        with self._running():
            hidden = self._ssl(waves, {*self.config.local_layers, *self.config.global_layers})
            content = self.model.content_features(hidden)
            voice = self.model.global_features(hidden)
            hidden.clear()
            with self._autocast():
                return Utterances(self.model.encode_content(content).tokens, self.model.encode_global(voice).float())

    def content(self, waves: Tensor) -> Content:
        """The content branch alone, with its continuous representations in float32."""
        with self._running():
            features = self.model.content_features(self._ssl(waves, set(self.config.local_layers)))
            with self._autocast():
                made = self.model.encode_content(features)
            return Content(made.embedding.float(), made.tokens, made.pre_quant.float())

    def decode(self, tokens: Tensor, speaker: Tensor, *, n_samples: int) -> Tensor:
        """Audio float32 `[B, m]`; m is `n_samples` cut to whole mel frames (up to one frame less).

        Args:
            tokens: int64 `[B, T]`.
            speaker: `[B, G]`.
            n_samples: length to make, at the config's sampling rate; at least `config.min_samples`.
        """
        with self._running():
            with self._autocast():
                embedding = self.model.embed(tokens.to(self.device))
                mel = self.model.decode_mel(embedding, speaker.to(self.device), n_samples=n_samples)
            wave: Tensor = self.vocoder(mel.float())
            return wave

    def codebook(self) -> Tensor:
        """Embedding of every token, float32 `[vocab, D]`."""
        with self._running():
            return self.model.embed(torch.arange(self.model.local_quantizer.vocab, device=self.device)).float()

    def _ssl(self, waves: Tensor, layers: set[int]) -> dict[int, Tensor]:
        rate = self.config.mel.sample_rate
        waves = waves.to(self.device)
        waves = waves / (waves.abs().amax(dim=1, keepdim=True) + 1e-8)
        pad = padding(waves.shape[1], rate)
        hidden: dict[int, Tensor] = self.wavlm(resample(functional.pad(waves, (pad, pad)), rate, SSL_RATE), layers)
        return hidden

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Inference by deterministic algorithms, without the TensorFloat-32 (10 bits) that convolutions default to."""
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), cudnn:
            yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
