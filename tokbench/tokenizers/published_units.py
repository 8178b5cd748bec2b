"""K-means units of a speech model's layer by centroids that somebody published; encode-only.

The speech model and the centroids are two sets of weights. `--weights` may be the centroids' file, or a folder with it,
with the speech model, or with both; what is not there comes from the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import MissingWeights, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.centroids import SUFFIXES, read_centroids
from tokbench.tokenizers.checkpoints import checkpoint_identity, find_checkpoint
from tokbench.tokenizers.clustering import assign
from tokbench.tokenizers.features import features_identity, file_sha256, load_features
from tokbench.tokenizers.params import read_params
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["PublishedParams", "PublishedUnits"]


class PublishedParams(BaseModel):
    """The card's `params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: str
    """A HuBERT or WavLM of `tokbench.tokenizers.features.NAMES`."""
    layer: int = Field(ge=0)
    """As `hidden_states` counts: i is the output of block i. Fairseq's `output_layer` counts alike."""
    lookahead_samples: int = Field(default=0, ge=0)
    """How far a frame's window reaches beyond its hop; so much may be missing from the last frame."""


class PublishedUnits(Tokenizer):
    """See the module.

    Args:
        card, device: see `Tokenizer`.
        weights: see the module.
        allow_pickle: take centroids in a pickle, as most are published.

    Raises:
        CardError, MissingBackend, MissingWeights: in one line; the last also where the centroids are not those of the
            card's vocabulary and of this speech model's width.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.tokenizers.centroids",
        "tokbench.tokenizers.checkpoints",
        "tokbench.tokenizers.clustering",
        "tokbench.tokenizers.features",
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        params = read_params(card, PublishedParams)
        path = _located(card, weights)
        self._centroids = read_centroids(path, allow_pickle=allow_pickle)
        self._frames = load_features(params.features, layer=params.layer, device=device, weights=_speech_model(weights))
        want = (card.streams[0].vocab, self._frames.dim)
        if self._centroids.shape != want:
            raise MissingWeights(
                f"holds {self._centroids.shape[0]} centroids of {self._centroids.shape[1]} dimensions, {card.name} "
                f"needs {want[0]} of {want[1]}",
                where=str(path),
            )

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the centroids' file or the hub repository's commit, and the speech model's own."""
        own = features_identity(read_params(card, PublishedParams).features, _speech_model(weights))
        path = _given(card, weights)
        found = {"centroids": f"sha256:{file_sha256(path)}"} if path is not None else checkpoint_identity(card, None)
        return own | found

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`; `floor((n - 80) / 320)` units of n samples."""
        items = []
        for wave in wavs:
            prepared = self.prepare(wave)
            codes = assign(self._frames(prepared), self._centroids)
            coded = len(prepared) if len(prepared) > len(wave) else None
            items.append(Encoded({self.card.streams[0].name: codes}, n_samples=len(wave), n_samples_coded=coded))
        return items

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """The layer's output, or the centroid of every frame, float32 `[T, D]`; see `ExposesFeatures`."""
        before = [self._frames(self.prepare(wave)) for wave in wavs]
        return before if which == "pre_quant" else [self._centroids[assign(f, self._centroids)] for f in before]

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Centroids float32 `[k, D]`; see `ExposesCodebook`."""
        if stream != self.card.streams[0].name:
            raise TokensError(f"there is no stream '{stream}', only '{self.card.streams[0].name}'")
        return self._centroids.copy()


def _given(card: TokenizerCard, weights: Path | None) -> Path | None:
    """The centroids that `--weights` names or holds: under their published name, or called `centroids`."""
    if weights is None or weights.is_file():
        return weights
    published = card.weights.files if card.weights else {}
    names = [*published, *(PurePosixPath(name).name for name in published), *(f"centroids{end}" for end in SUFFIXES)]
    return next((weights / name for name in names if (weights / name).is_file()), None)


def _located(card: TokenizerCard, weights: Path | None) -> Path:
    """The centroids' file: the user's, or else the published one from the hub.

    Raises:
        MissingWeights: it is nowhere.
    """
    path = _given(card, weights)
    if path is not None:
        return path
    if weights is not None and (card.weights is None or card.weights.source != "hub"):
        what = " or ".join([*(card.weights.files if card.weights else {}), "centroids.npy"])
        raise MissingWeights("holds no centroids", where=str(weights), hint=f"Put {what} there, or type --weights FILE")
    return find_checkpoint(card, None)


def _speech_model(weights: Path | None) -> Path | None:
    """The folder that `--weights` names where it holds a speech model."""
    return weights if weights is not None and (weights / "config.json").is_file() else None
