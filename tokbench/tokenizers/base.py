"""The tokenizer contract: what every adapter is, and the optional things it may be.

An adapter is built from its card. It resamples nothing, prints nothing and keeps nothing between calls:
`encode` takes waves at `card.input_rate`, `decode` uses the `Encoded` items alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tokbench.errors import AudioError, NotApplicable
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["ExposesCodebook", "ExposesFeatures", "ExposesPosterior", "Fittable", "Tokenizer"]


class Tokenizer(ABC):
    """Speech to tokens, and where `card` says so, back.

    Args:
        card: declaration and parameters; `card.params` holds what only this family understands.
        device: torch device string such as "cpu" or "cuda:0"; classical coders ignore it.
        weights: folder (or file) that replaces the card's own weights; None to use the card's.
        allow_pickle: whether a pickle may be loaded; False unless the user typed the flag.

    Raises:
        MissingBackend: a library is not installed.
        MissingWeights: the weights are nowhere; the message says which files to put where.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()
    """Modules besides the adapter's own whose code decides the tokens; hashed into store keys."""

    def __init__(
        self,
        card: TokenizerCard,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        self.card = card
        self.device = device
        self.weights = weights
        self.allow_pickle = allow_pickle

    @classmethod
    def weights_identity(
        cls,
        card: TokenizerCard,  # noqa: ARG003
        weights: Path | None = None,  # noqa: ARG003
    ) -> dict[str, str]:
        """Everything outside the card that decides the tokens: file or package name -> sha256 or version.

        Must be cheap and must not import torch: it is asked for every store key. {} where there are no weights.
        """
        return {}

    @abstractmethod
    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """Encode utterances, float32 `[n]` at `card.input_rate`, each on its own unless the card allows batches.

        Raises:
            AudioError: an utterance is empty or not finite (shorter than `card.min_samples` is padded with zeros).
        """

    def decode(  # the default body uses neither argument
        self,
        items: Sequence[Encoded],  # noqa: ARG002
        *,
        globals_from: Sequence[Encoded] | None = None,  # noqa: ARG002
    ) -> list[Wave]:
        """Synthesise float32 `[n]` at `card.output_rate` from tokens alone.

        Args:
            items: content.
            globals_from: where given, the utterances whose globals replace the items' own (voice conversion).

        Raises:
            NotApplicable: the tokenizer cannot decode, or cannot swap globals.
        """
        raise NotApplicable(f"{self.card.name} turns speech into tokens only; it has no decoder")

    def prepare(self, wave: Wave) -> Wave:
        """Check one input and pad it with zeros to `card.min_samples`; adapters call this first."""
        if wave.ndim != 1 or wave.size == 0:
            raise AudioError("has no samples")
        if not np.isfinite(wave).all():
            raise AudioError("has NaN or infinite samples")
        missing = self.card.min_samples - wave.size
        wave = np.ascontiguousarray(wave, dtype=np.float32)
        return np.pad(wave, (0, missing)) if missing > 0 else wave


@runtime_checkable
class ExposesFeatures(Protocol):
    """Continuous representations before and after quantisation, for probes and ABX."""

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """Float32 `[T, D]` an utterance at the content stream's rate."""
        ...


@runtime_checkable
class ExposesCodebook(Protocol):
    """Embedding tables of discrete streams."""

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Float32 `[vocab, D]`."""
        ...


@runtime_checkable
class ExposesPosterior(Protocol):
    """Variational latents: mean and natural-log variance per frame."""

    def posterior(self, wavs: Sequence[Wave]) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """`(mu, log_variance)`, each float32 `[T, D]`."""
        ...


@runtime_checkable
class Fittable(Protocol):
    """Tokenizers that are fitted on a declared corpus (k-means)."""

    def fit(self, wavs: Iterable[Wave], *, seed: int) -> dict[str, float]:
        """Fit on waves at `card.input_rate`; returns a report such as inertia and number of frames."""
        ...
