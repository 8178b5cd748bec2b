"""The parts of the published Kanade: WavLM-base-plus, both mel spectrograms, Vocos or HiFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from tokbench.errors import TokbenchError
from tokbench.kanade.config import SSL_HOP, SSL_RATE, KanadeConfig
from tokbench.kanade.files import VOCODERS, WAVLM, locate, sha256_file
from tokbench.kanade.lengths import padding, ssl_frames
from tokbench.kanade.mel import log_mel
from tokbench.kanade.model import KanadeModel, mix_layers
from tokbench.kanade.resample import resample
from tokbench.kanade.training.parts import Features, Parts
from tokbench.kanade.wavlm import WavLM
from tokbench.kanade.weights import load_hift, load_vocos, load_wavlm

__all__ = ["ReleasedParts"]


class ReleasedParts(Parts):
    """WavLM features of crops as the published training makes them.

    Args:
        config: geometry.
        device: where WavLM and the vocoder run.
        weights: folder that holds WavLM and the vocoder (see `tokbench.kanade.files`); None for the hub.
        ssl_weights: "pretrained", or "random" to measure speed where there are no weights.
    """

    def __init__(
        self,
        config: KanadeConfig,
        *,
        device: str | torch.device = "cpu",
        weights: str | None = None,
        ssl_weights: Literal["pretrained", "random"] = "pretrained",
        **params: Any,
    ) -> None:
        super().__init__(config, device=device, **params)
        self.folder = Path(weights).expanduser() if weights else None
        self.content_hop = self.speaker_hop = SSL_HOP * config.mel.sample_rate // SSL_RATE
        self._vocoder: Any = None
        if ssl_weights == "random":
            self.file = None
            torch.manual_seed(0)
            self.wavlm = WavLM(blocks=config.deepest_layer).freeze()
        else:
            self.file = locate(WAVLM, self.folder)
            self.wavlm = load_wavlm(self.file, blocks=config.deepest_layer)
        self.wavlm.to(self.device)

    def to(self, device: str | torch.device) -> None:
        """Move WavLM."""
        super().to(device)
        self.wavlm.to(self.device)

    def features(self, waves: Tensor, n_samples: Tensor) -> Features:  # noqa: ARG002
        """Means of the chosen WavLM layers, `[B, N, 768]` each."""
        rate = self.config.mel.sample_rate
        pad = padding(waves.shape[1], rate, multiple_of=self.config.downsample)
        hidden = self.wavlm(
            resample(functional.pad(waves, (pad, pad)), rate, SSL_RATE),
            {*self.config.local_layers, *self.config.global_layers},
        )
        return Features(mix_layers(hidden, self.config.local_layers), mix_layers(hidden, self.config.global_layers))

    def log_mel(self, waves: Tensor) -> Tensor:
        """See `tokbench.kanade.mel.log_mel`."""
        return log_mel(waves, self.config.mel)

    @torch.inference_mode()
    def vocode(self, mel: Tensor) -> Tensor | None:
        """Vocos or HiFT; None where its weights cannot be had."""
        if self._vocoder is None:
            try:
                path = locate(VOCODERS[self.config.vocoder], self.folder)
                self._vocoder = load_vocos(path) if self.config.vocoder == "vocos" else load_hift(path)
                self._vocoder.to(self.device)
            except TokbenchError:
                self._vocoder = False
        return self._vocoder(mel.float().to(self.device)) if self._vocoder else None

    def content_frames(self, n_samples: int) -> int:
        """Frames of n samples, as the released code counts them."""
        return ssl_frames(n_samples, self.config.mel.sample_rate)

    def export(self, model: KanadeModel, folder: Path) -> None:
        """As `Parts.export`; WavLM and vocoder of a local weights folder are linked, so that the export is complete."""
        super().export(model, folder)
        if self.folder is None:
            return
        for name in (WAVLM.folder, VOCODERS[self.config.vocoder].folder, "hift.pt"):
            there, link = self.folder.absolute() / name, folder / name
            if there.exists() and not link.exists():
                link.symlink_to(there)

    def identity(self) -> dict[str, str]:
        """WavLM's hash and the layers."""
        return {
            "wavlm": sha256_file(self.file) if self.file else "random",
            "layers": f"{self.config.local_layers} {self.config.global_layers}",
            "rate": str(self.config.mel.sample_rate),
        }
