"""LoSATok kl1e-2 and kl1e-3 (arXiv 2605.27840), by the port in `tokbench.codecs.losatok`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tokbench.errors import MissingBackend
from tokbench.tokenizers.checkpoints import checkpoint_identity, find_checkpoint
from tokbench.tokenizers.features import file_sha256
from tokbench.tokenizers.latents import LatentParams, LatentTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["LosatokParams", "LosatokTokenizer"]

_VARIANT = re.compile(r"kl\d+e-\d+")


class LosatokParams(LatentParams):
    """The card's `params`."""

    heads: int = Field(default=16, gt=0)
    """Attention heads of the semantic encoder; no tensor of the checkpoint tells them."""


class LosatokTokenizer(LatentTokenizer):
    """One latent stream at 25 Hz: `(S // 160 + 1) // 4` tokens of S samples, each for 640 samples.

    The semantic encoder attends inside chunks of 252 tokens counted from the start, so utterances are never cut here.
    Decoded audio is 640 samples a token, cut or filled with zeros to the input's length.

    Args:
        card, device: see `Tokenizer`.
        weights: `losatok_kl1e-*.pth`, or the folder that holds it; None for the hub. `semantic_encoder.pth` is
            read only where the checkpoint lacks the semantic encoder.
        allow_pickle: take a checkpoint that holds more than tensors.

    Raises:
        MissingWeights, BadCheckpoint: in one line; the latter also where the file's name is the other variant's, since
            nothing inside tells them apart.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.losatok.checkpoint",
        "tokbench.codecs.losatok.config",
        "tokbench.codecs.losatok.frontend",
        "tokbench.codecs.losatok.model",
        "tokbench.codecs.losatok.semantic",
        "tokbench.codecs.losatok.vocos",
    )
    params_model: ClassVar[type[LatentParams]] = LosatokParams

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        path = find_checkpoint(card, weights)
        try:
            from tokbench.codecs.losatok.checkpoint import load_losatok
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="mini", needed_by=f"tokenizer '{card.name}'") from None
        from tokbench.codecs.checkpoint import BadCheckpoint

        named, mine = _VARIANT.search(path.name), _VARIANT.search(card.name)
        if named and mine and named[0] != mine[0]:
            raise BadCheckpoint(
                f"is {named[0]} by its name, {card.name} is {mine[0]}",
                where=str(path),
                hint=f"Type --tokenizer {card.name.replace(mine[0], named[0])}, or give the other file",
            )
        assert isinstance(self._params, LosatokParams)
        model = load_losatok(path, heads=self._params.heads, what=card.name, allow_pickle=allow_pickle)
        if model.config.latent != card.stream_specs[0].dim:
            raise BadCheckpoint(
                f"has {model.config.latent} dimensions, {card.name} {card.stream_specs[0].dim}",
                where=str(path),
                hint=f"Give the checkpoint of {card.weights.location if card.weights else card.name}",
            )
        self._model = model.to(device)

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the checkpoint (and of `semantic_encoder.pth` beside it), or the hub repository's commit."""
        identity = checkpoint_identity(card, weights)
        if weights is not None:
            beside = find_checkpoint(card, weights).with_name("semantic_encoder.pth")
            if beside.is_file():
                identity[beside.name] = f"sha256:{file_sha256(beside)}"
        return identity

    def _frames(self, n_samples: int) -> int:
        return self._model.tokens(n_samples)

    def _coded(self, frames: int) -> int:
        return frames * 640

    def _posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self._model.posterior(audio[None])
        return mean[0], log_variance[0]

    def _synthesise(self, latent: Tensor) -> Tensor:
        return self._model.decode(latent[None])[0]
