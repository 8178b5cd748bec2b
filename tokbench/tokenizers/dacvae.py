"""DAC-VAE at 75 Hz (64-d) and 50 Hz (80-d), by the port in `tokbench.codecs.dacvae`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tokbench.errors import MissingBackend
from tokbench.tokenizers.checkpoints import find_checkpoint
from tokbench.tokenizers.latents import LatentTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["DacVaeTokenizer"]


class DacVaeTokenizer(LatentTokenizer):
    """One latent stream at `24000 / hop` frames a second; the last frame is filled with zeros.

    Input is clamped to full scale, as the reference's own inference does.

    Args:
        card, device: see `Tokenizer`.
        weights: checkpoint (what training saved, a state dict, or safetensors), or a folder that holds just one.
        allow_pickle: take a checkpoint that holds more than tensors and training curves.

    Raises:
        MissingWeights, BadCheckpoint: in one line; the latter also where the checkpoint is the other variant's.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.dacvae.checkpoint",
        "tokbench.codecs.dacvae.config",
        "tokbench.codecs.dacvae.model",
        "tokbench.codecs.dacvae.nets",
        "tokbench.codecs.snake",
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        path = find_checkpoint(card, weights)
        try:
            from tokbench.codecs.checkpoint import BadCheckpoint
            from tokbench.codecs.dacvae.checkpoint import load_dacvae
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="mini", needed_by=f"tokenizer '{card.name}'") from None
        model, rate = load_dacvae(path, what=card.name, allow_pickle=allow_pickle)
        spec, config = card.stream_specs[0], model.config
        if (config.latent_dim, Fraction(rate or card.input_rate, config.hop)) != (spec.dim, spec.rate_hz):
            raise BadCheckpoint(
                f"is a DAC-VAE of {config.latent_dim} dimensions every {config.hop} samples, "
                f"{card.name} is {spec.dim} at {spec.rate_hz} Hz",
                where=str(path),
                hint=f"Give the checkpoint of {card.weights.location if card.weights else card.name}",
            )
        self._model, self._hop = model.to(device), config.hop

    def _frames(self, n_samples: int) -> int:
        return -(-n_samples // self._hop)

    def _coded(self, frames: int) -> int:
        return frames * self._hop

    def _posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sigma = self._model.posterior(self._model.pad(audio.clamp(-1, 1)[None, None]))
        return mean[0].T, 2 * log_sigma[0].T

    def _synthesise(self, latent: Tensor) -> Tensor:
        return self._model.decode(latent.T[None])[0, 0]
