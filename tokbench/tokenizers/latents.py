"""What tokenizers with a Gaussian latent share: mean or sample, posterior, lengths. No torch import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tokbench.errors import NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.checkpoints import checkpoint_identity
from tokbench.tokenizers.params import read_params
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["LatentParams", "LatentTokenizer"]


class LatentParams(BaseModel):
    """The card's `params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent: Literal["mean", "sample"] = "mean"
    """`mean`: the mean of the posterior; `sample`: a draw from it."""
    seed: int = 0
    """Of the draw; every utterance starts anew from it, so that the same input gives the same latent."""


class LatentTokenizer(Tokenizer):
    """One latent stream, float32 `[T, D]`: the posterior's mean, or a draw from it; one utterance a forward pass."""

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.checkpoint",
        "tokbench.codecs.precision",
        "tokbench.tokenizers.checkpoints",
    )
    params_model: ClassVar[type[LatentParams]] = LatentParams
    """What the card's `params` must satisfy."""

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        self._params = read_params(card, self.params_model)

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the checkpoint, or the hub repository's commit."""
        return checkpoint_identity(card, weights)

    @abstractmethod
    def _frames(self, n_samples: int) -> int:
        """Frames of n samples, `n >= card.min_samples`."""

    @abstractmethod
    def _coded(self, frames: int) -> int:
        """Samples that frames describe."""

    @abstractmethod
    def _posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `[S]` on the device to mean and natural-log variance, each `[T, D]`."""

    @abstractmethod
    def _synthesise(self, latent: Tensor) -> Tensor:
        """Latent `[T, D]` on the device to audio `[coded]`."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`."""
        from tokbench.codecs.precision import exact_inference

        stream, items = self.card.streams[0].name, []
        for wave in wavs:
            prepared = self.prepare(wave)
            with exact_inference():
                latent = self._draw(*self._posterior(self._tensor(prepared)))
            coded = max(self._coded(len(latent)), len(wave))
            items.append(Encoded({stream: _array(latent)}, n_samples=len(wave), n_samples_coded=coded))
        return items

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """See `Tokenizer.decode`; cut, or filled with zeros, to the input's length."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        from tokbench.codecs.precision import exact_inference

        item.check(self.card.stream_specs, ())
        latent = np.asarray(item.streams[self.card.streams[0].name], np.float32)
        frames = self._frames(max(item.n_samples, self.card.min_samples))
        if len(latent) != frames:
            raise TokensError(f"{item.n_samples} samples have {frames} frames, the stream {len(latent)}")
        with exact_inference():
            wave = _array(self._synthesise(self._tensor(latent)))
        return np.pad(wave[: item.n_samples], (0, max(0, item.n_samples - len(wave))))

    def posterior(self, wavs: Sequence[Wave]) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Mean and natural-log variance, each float32 `[T, D]`; see `ExposesPosterior`."""
        from tokbench.codecs.precision import exact_inference

        found = []
        for wave in wavs:
            with exact_inference():
                mean, log_variance = self._posterior(self._tensor(self.prepare(wave)))
            found.append((_array(mean), _array(log_variance)))
        return found

    def _draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        if self._params.latent == "mean":
            return mean
        import torch

        # Drawn on the CPU, so that every device gets the same noise.
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(self._params.seed))
        return mean + noise.to(mean.device) * (log_variance / 2).exp()

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        import torch

        return torch.from_numpy(array).to(self.device)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.cpu().numpy(), np.float32, order="C")
