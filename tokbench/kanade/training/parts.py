"""What a kind of Kanade brings to its training: nets, front end, mel spectrogram and vocoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tokbench.kanade.config import KanadeConfig
from tokbench.kanade.model import KanadeModel

__all__ = ["Features", "Parts"]


class Features(NamedTuple):
    """What the front end makes of a batch.

    Attributes:
        content: `[B, N, D]`, not normalised.
        speaker: what the global encoder reads, `[B, K, C]`.
    """

    content: Tensor
    speaker: Tensor


class Parts(ABC):
    """Everything a training run needs to know about one kind of Kanade.

    Args:
        config: geometry; waves are at `config.mel.sample_rate`.
        device: where the front end runs.
        params: of the recipe, for the subclass.
    """

    content_hop: int
    """Samples at `config.mel.sample_rate` between frames of the content features."""
    speaker_hop: int
    """The same for the speaker features."""
    stores_mel: bool = False
    """Whether stored features keep the mel spectrogram of the whole utterance, too."""

    def __init__(self, config: KanadeConfig, *, device: str | torch.device = "cpu", **params: Any) -> None:
        if params:
            raise TypeError(f"{type(self).__name__} knows no parameter {sorted(params)}")
        self.config = config
        self.device = torch.device(device)

    def model(self, *, feature_decoder: bool) -> KanadeModel:
        """New nets in train mode; random numbers come from torch's global generator."""
        return KanadeModel(self.config, feature_decoder=feature_decoder)

    @abstractmethod
    def features(self, waves: Tensor, n_samples: Tensor) -> Features:
        """Features of a batch, without gradients.

        Args:
            waves: float32 `[B, S]` of peak 1, zeros after the end.
            n_samples: int64 `[B]`, true lengths.
        """

    @abstractmethod
    def log_mel(self, waves: Tensor) -> Tensor:
        """Training target of float32 `[B, S]`: float32 `[B, n_mels, M]`, M by `lengths.mel_frames`."""

    def vocode(self, mel: Tensor) -> Tensor | None:  # noqa: ARG002
        """Audio `[B, n]` of `[B, n_mels, M]`; None where there is no vocoder on this machine."""
        return None

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What decides the features, for the key of stored ones."""

    def to(self, device: str | torch.device) -> None:
        """Move the front end."""
        self.device = torch.device(device)

    def content_frames(self, n_samples: int) -> int:
        """Frames of the content features of n samples."""
        return -(-n_samples // self.content_hop)

    def export(self, model: KanadeModel, folder: Path) -> None:
        """Write `config.yaml` and `model.safetensors` in the released layout."""
        from tokbench.kanade.training.export import export_released

        export_released(model, folder)
