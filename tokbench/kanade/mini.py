"""kanade-mini: Kanade's nets on Whisper's features, with log-mels for the voice and a vocoder without weights.

The front end serves the tokenizer and training (`tokbench.kanade.training.mini`), so that both hear the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tokbench.codecs.griffin_lim import vocode
from tokbench.codecs.mel import MelSpec
from tokbench.kanade.codec import Utterances
from tokbench.kanade.config import SSL_HOP, KanadeConfig
from tokbench.kanade.mel import log_mel
from tokbench.kanade.model import Content, KanadeModel, mix_layers, normalize_features
from tokbench.kanade.released import read_config
from tokbench.kanade.weights import load_kanade
from tokbench.kanade.whisper import WhisperEncoder, load_whisper

__all__ = ["LEVEL_DBFS", "Heard", "MiniCodec", "griffin_lim_spec", "hear", "levelled", "synthesise"]

LEVEL_DBFS = -28.0
"""Root mean square of what is decoded, pauses included: near the -26 dBov of active speech that listening tests use
(ITU-T P.800, P.56). The level is not coded, and the nets know audio of peak 1 alone, ten decibels above speech."""


class Heard(NamedTuple):
    """What the front end makes of a batch.

    Attributes:
        content: mean of the content layers, `[B, N, D]`, not normalised.
        speaker: what the global encoder reads, `[B, N, C]`.
    """

    content: Tensor
    speaker: Tensor


def griffin_lim_spec(config: KanadeConfig) -> MelSpec:
    """The decoder's mel spectrogram as the vocoder names it."""
    mel = config.mel
    return MelSpec(rate=mel.sample_rate, window=mel.n_fft, hop=mel.hop, n_mels=mel.n_mels)


def hear(waves: Tensor, config: KanadeConfig, whisper: WhisperEncoder) -> Heard:
    """Content features and the global encoder's input of audio `[B, n]` of peak 1, all of it speech (no padding)."""
    hidden = whisper(waves, {*config.local_layers, *config.global_layers})
    content = mix_layers(hidden, config.local_layers)
    if config.global_input == "mel":
        return Heard(content, log_mel(waves, config.mel).transpose(1, 2))
    return Heard(content, mix_layers(hidden, config.global_layers))


def synthesise(mel: Tensor, config: KanadeConfig, n_samples: int) -> Tensor:
    """Log-mels `[B, n_mels, M]` to audio float32 `[B, n_samples]` by Griffin-Lim; deterministic."""
    spec = griffin_lim_spec(config)
    frames = mel.transpose(1, 2).float().cpu().numpy()
    waves = [vocode(np.ascontiguousarray(utterance), n_samples, spec) for utterance in frames]
    return torch.from_numpy(np.stack(waves))


def levelled(waves: Tensor) -> Tensor:
    """Each of the waves `[B, n]` at `LEVEL_DBFS`, or at peak 1 where that is less; silence stays silence."""
    power = waves.double().square().mean(dim=1, keepdim=True).sqrt()
    gain = 10 ** (LEVEL_DBFS / 20) / power.clamp(min=1e-12)
    loudest = 1 / waves.double().abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    return (waves * torch.minimum(gain, loudest)).float()


class MiniCodec:
    """The tokenizer for batches of equal length: whole tokens of 640 samples, the last one filled up with zeros.

    Args:
        model: the nets.
        whisper: SSL front end.
        device: torch device.
    """

    def __init__(self, model: KanadeModel, whisper: WhisperEncoder, *, device: str | torch.device = "cpu") -> None:
        self.config = model.config
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.whisper = whisper.to(self.device)
        self.model.use_backend("sdpa")

    @classmethod
    def load(cls, folder: Path, whisper: Path, *, device: str | torch.device = "cpu") -> MiniCodec:
        """Read `config.yaml` and `model.safetensors` of a folder, strictly, and Whisper's `model.bin`.

        Raises:
            CardError, IncompatibleWeights: a file is not what it should be.
        """
        config = read_config(folder / "config.yaml")
        return cls(load_kanade(folder / "model.safetensors", config), load_whisper(whisper), device=device)

    def encode(self, waves: Tensor) -> Utterances:
        """Tokens `[B, ceil(n / 640)]` and speaker vectors of audio `[B, n]`, each scaled to peak 1 first."""
        with self._running():
            heard = self._hear(waves)
            tokens = self.model.encode_content(self._normalised(heard)).tokens
            return Utterances(tokens, self.model.encode_global(heard.speaker).float())

    def content(self, waves: Tensor) -> Content:
        """The content branch alone, with its continuous representations."""
        with self._running():
            return self.model.encode_content(self._normalised(self._hear(waves)))

    def decode(self, tokens: Tensor, speaker: Tensor, *, n_samples: int) -> Tensor:
        """Audio float32 `[B, n_samples]`; n_samples is at most 640 a token."""
        with self._running():
            embedding = self.model.embed(tokens.to(self.device))
            whole = tokens.shape[1] * self.config.downsample * SSL_HOP
            mel = self.model.decode_mel(embedding, speaker.to(self.device), n_samples=whole)
        return levelled(synthesise(mel, self.config, whole)[:, :n_samples])

    def codebook(self) -> Tensor:
        """Embedding of every token, float32 `[vocab, D]`."""
        with self._running():
            return self.model.embed(torch.arange(self.model.local_quantizer.vocab, device=self.device)).float()

    def _hear(self, waves: Tensor) -> Heard:
        token = self.config.downsample * SSL_HOP
        waves = functional.pad(waves.to(self.device), (0, -waves.shape[1] % token))
        waves = waves / (waves.abs().amax(dim=1, keepdim=True) + 1e-8)
        return hear(waves, self.config, self.whisper)

    def _normalised(self, heard: Heard) -> Tensor:
        return normalize_features(heard.content) if self.config.normalize else heard.content

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Inference by deterministic algorithms in full float32."""
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), cudnn:
            yield
