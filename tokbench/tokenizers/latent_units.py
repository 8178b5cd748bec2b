"""K-means over the latents of a continuous tokenizer, decoded by that tokenizer from the centroids.

A continuous tokenizer can so take part in tasks for discrete ones, at a rate that has a meaning. What its quantised
latents lose against the latents themselves is what k-means costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.errors import CardError, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.features import LATENTS, FrameFeatures
from tokbench.tokenizers.kmeans import KMeansUnits
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard
    from tokbench.tokenizers.kmeans import _Spool
    from tokbench.tokenizers.unit_to_mel import UnitToMel

__all__ = ["LatentFeatures", "LatentUnits", "latents_identity"]


class LatentFeatures(FrameFeatures):
    """The latent stream of another tokenizer.

    Args:
        name: its card, with one latent stream.
        device: torch device.
        weights: its weights; None for its own.
        allow_pickle: whether they may be a pickle.

    Raises:
        CardError: it has no single latent stream.
        MissingWeights, MissingBackend, BadCheckpoint: of the tokenizer.
    """

    def __init__(
        self, name: str, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        from tokbench.tokenizers.load import load_tokenizer

        spec = _latent_card(name).stream_specs[0]
        self.tokenizer = load_tokenizer(name, device=device, weights=weights, allow_pickle=allow_pickle)
        self.rate_hz, self.dim, self._stream = spec.rate_hz, spec.dim or 0, spec.name

    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """Float32 `[n]` at the tokenizer's input rate to float32 `[T, dim]`."""
        return np.asarray(self.tokenizer.encode([wave])[0].streams[self._stream], np.float32)

    def decode(self, latent: npt.NDArray[np.float32], n_samples: int) -> Wave:
        """Audio of a latent `[T, dim]` that stands for n samples."""
        return self.tokenizer.decode([Encoded({self._stream: latent}, n_samples=n_samples)])[0]


def latents_identity(name: str, weights: Path | None) -> dict[str, str]:
    """What decides the latents: the tokenizer's code, parameters and weights. No torch import."""
    from tokbench.tokenizers.load import code_hash, tokenizer_class

    card = _latent_card(name)
    cls = tokenizer_class(card)
    own = {"latents": name, "code": code_hash(cls), "params": repr(sorted(card.params.items()))}
    return own | cls.weights_identity(card, weights)


def _latent_card(name: str) -> TokenizerCard:
    from tokbench.config import TokenizerCard

    card = find_card(TokenizerCard, name)
    if [stream.kind for stream in card.streams] != ["latent"] or card.globals:
        raise CardError(f"'{name}' has not just one latent stream", where="params.features")
    return card


class LatentUnits(KMeansUnits):
    """Units over `latents:NAME`; `weights` is a folder with NAME's weights, `centroids.safetensors`, or both.

    Decoding replaces every unit by its centroid and hands the latent to NAME's own decoder.

    Raises:
        CardError: `params.features` names no latents, or the card does not fit NAME's rates.
    """

    code_modules: ClassVar[tuple[str, ...]] = ("tokbench.tokenizers.kmeans",)

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        if not isinstance(self._frames, LatentFeatures):
            raise CardError(f"must be {LATENTS}NAME of a tokenizer", where=f"{card.name}: params.features")
        self._latents: LatentFeatures = self._frames
        base = self._latents.tokenizer.card
        mine = (card.streams[0].rate_hz, card.input_rate, card.output_rate)
        if mine != (base.streams[0].rate_hz, base.input_rate, base.output_rate) or card.min_samples < base.min_samples:
            raise CardError(f"rates and min_samples must be those of {base.name}", where=card.name)

    def _heard(self, wave: Wave) -> npt.NDArray[np.float32]:  # noqa: ARG002 - nothing is fitted to it
        return np.zeros((0, 1), np.float32)

    def _fit_decoder(self, spool: _Spool, centroids: npt.NDArray[np.float32]) -> UnitToMel | None:  # noqa: ARG002
        return None

    def _synthesise(self, item: Encoded) -> Wave:
        item.check(self.card.stream_specs, ())
        codes = np.asarray(item.streams[self.card.streams[0].name], np.int64)
        if codes.size == 0:
            raise TokensError("there are no tokens to decode")
        return self._latents.decode(self.units.centroids[codes], item.n_samples)
