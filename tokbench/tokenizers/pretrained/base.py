"""The mechanism: find and load a codec of `transformers`, hold it to its card, mind lengths and types.

A family says what its config means (`geometry`), and turns one padded utterance into tokens and back; everything that
is the same for all of them is here. One utterance a forward pass, in float32: none of these models keeps the tokens of
an utterance when others are padded beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.errors import CardError, MissingBackend, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.checkpoints import find_snapshot, library_versions, snapshot_identity
from tokbench.types import Encoded, StreamSpec, Wave

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["CodesCodec", "Geometry", "LatentCodec", "PretrainedCodec"]


@dataclass(frozen=True)
class Geometry:
    """What a checkpoint's config says about its tokens.

    Attributes:
        input_rate, output_rate: Hz.
        hop: input samples a frame; a fraction where frames of overlapping chunks are counted.
        books: codebooks there are; 0 for a latent.
        size: codes of a book, or dimensions of the latent.
    """

    input_rate: int
    output_rate: int
    hop: int | Fraction
    books: int
    size: int

    def __str__(self) -> str:
        tokens = f"up to {self.books} x {self.size} codes" if self.books else f"{self.size} dimensions"
        return f"{tokens} every {self.hop} samples, {self.input_rate} Hz in and {self.output_rate} Hz out"


class PretrainedCodec(Tokenizer):
    """See the module.

    Args:
        card, device: see `Tokenizer`.
        weights: folder with `config.json` and the weights file, as `save_pretrained` and the hub lay them out; None
            for the hub.
        allow_pickle: take a weights file that holds more than tensors.

    Raises:
        CardError: the card has params that the family does not know, or asks for books that there are not.
        MissingBackend, MissingWeights, BadCheckpoint: in one line; the last also where the checkpoint is of another
            variant than the card.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.checkpoint",
        "tokbench.codecs.precision",
        "tokbench.tokenizers.checkpoints",
        "tokbench.tokenizers.pretrained.loading",
    )
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    """Distributions whose code decides the tokens; their versions are part of the identity."""
    params_known: ClassVar[frozenset[str]] = frozenset()
    model_type: ClassVar[str]
    """`model_type` in the checkpoint's config."""
    model_class: ClassVar[str]
    """Name of the class in `transformers`."""

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        unknown = sorted(set(card.params) - self.params_known)
        if unknown:
            raise CardError("is not a parameter of this family", where=f"{card.name}: params.{unknown[0]}")
        config, file = find_snapshot(card, weights)
        hint = f"Give the files of {card.weights.location if card.weights else card.name}"
        self._model: Any = self._load(config, file, hint)
        self._geometry = self.geometry(self._model.config)
        self._check_variant(config, hint)
        self._model.to(device)

    def _load(self, config: Path, file: Path, hint: str) -> Any:
        """The model in evaluation mode on the CPU; has a `config`."""
        try:
            from tokbench.tokenizers.pretrained.loading import load_pretrained
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="judges", needed_by=f"tokenizer '{self.card.name}'") from None
        return load_pretrained(
            config,
            file,
            model_type=self.model_type,
            model_class=self.model_class,
            what=self.card.name,
            hint=hint,
            allow_pickle=self.allow_pickle,
        )

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of config and weights, or the hub repository's commit; and the libraries' versions."""
        return snapshot_identity(card, weights) | library_versions(*cls.libraries)

    @abstractmethod
    def geometry(self, config: Any) -> Geometry:
        """What the model's config says."""

    @abstractmethod
    def _tokens(self, audio: Tensor) -> Tensor:
        """Audio `[n]` on the device to codes `[K, T]` or a latent `[T, D]`."""

    @abstractmethod
    def _wave(self, tokens: Tensor) -> Tensor:
        """Codes `[K, T]` or a latent `[T, D]` on the device to audio `[m]`."""

    @abstractmethod
    def _streams(self, tokens: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        """Tokens as named streams."""

    @abstractmethod
    def _stacked(self, item: Encoded) -> npt.NDArray[np.generic]:
        """The inverse of `_streams`."""

    def frames(self, n_samples: int) -> int:
        """Frames of n samples; `ceil(n / hop)` unless the family says otherwise."""
        return int(-(-n_samples // self._geometry.hop))

    def coded(self, n_samples: int) -> int:
        """Samples that the frames of n samples stand for."""
        return int(self.frames(n_samples) * self._geometry.hop)

    def lengths(self, n_samples: int) -> dict[str, int]:
        """Length of every stream for n samples."""
        return dict.fromkeys((stream.name for stream in self.card.streams), self.frames(n_samples))

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`."""
        from tokbench.codecs.precision import exact_inference

        items = []
        for wave in wavs:
            prepared = self.prepare(wave)
            with exact_inference():
                streams = self._encoded(self._tensor(prepared))
            found, want = ({name: len(stream) for name, stream in streams.items()}, self.lengths(len(prepared)))
            if found != want:
                raise TokensError(f"{len(prepared)} samples gave {found} frames, not {want}")
            coded = max(self.coded(len(prepared)), len(wave))
            items.append(Encoded(streams, n_samples=len(wave), n_samples_coded=coded))
        return items

    def _encoded(self, audio: Tensor) -> dict[str, npt.NDArray[np.generic]]:
        """Audio `[n]` on the device to streams."""
        return self._streams(self._tokens(audio).cpu().numpy())

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """See `Tokenizer.decode`; cut, or filled with zeros, to the input's duration."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        from tokbench.codecs.precision import exact_inference

        item.check(self.card.stream_specs, ())
        want = self.lengths(max(item.n_samples, self.card.min_samples))
        found = {name: len(stream) for name, stream in item.streams.items()}
        if found != want:
            name = next(name for name in want if found[name] != want[name])
            raise TokensError(f"{item.n_samples} samples have {want[name]} frames, the stream '{name}' {found[name]}")
        with exact_inference():
            made = self._decoded(item).float().cpu().numpy()
        n = round(item.n_samples * Fraction(self._geometry.output_rate, self._geometry.input_rate))
        return np.ascontiguousarray(np.pad(made[:n], (0, max(0, n - len(made)))), np.float32)

    def _decoded(self, item: Encoded) -> Tensor:
        """An item whose lengths are right to audio `[m]` on the device."""
        return self._wave(self._tensor(self._stacked(item)))

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _padded(self, audio: Tensor) -> Tensor:
        """Audio `[n]` to `[1, 1, frames * hop]`, filled with zeros."""
        import torch

        missing = self.coded(audio.shape[-1]) - audio.shape[-1]
        return torch.nn.functional.pad(audio, (0, missing))[None, None]

    def _frame_specs(self) -> tuple[StreamSpec, ...]:
        """The streams of the model's own tokens, whose sizes its config tells; all unless a family has others."""
        return self.card.stream_specs

    def _check_variant(self, config: Path, hint: str) -> None:
        from tokbench.codecs.checkpoint import BadCheckpoint

        card, found = self.card, self._geometry
        specs = self._frame_specs()
        books = len(specs) if specs[0].kind == "codes" else 0
        rate = Fraction(found.input_rate, found.hop)
        fits = (
            all((spec.rate_hz, spec.vocab or spec.dim) == (rate, found.size) for spec in specs)
            and (card.input_rate, card.output_rate) == (found.input_rate, found.output_rate)
            and bool(books) == bool(found.books)
        )
        if not fits:
            mine = f"{books or 1} x {specs[0].vocab or specs[0].dim} at {specs[0].rate_hz} Hz and {card.input_rate} Hz"
            raise BadCheckpoint(f"says {found}; {card.name} is {mine}", where=str(config), hint=hint)
        if books > found.books:
            raise BadCheckpoint(f"has {found.books} codebooks, {card.name} needs {books}", where=str(config), hint=hint)


class CodesCodec(PretrainedCodec):
    """One stream of codes a codebook, `q0` first, int64 `[T]`."""

    def _streams(self, tokens: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        names = [spec.name for spec in self._frame_specs()]
        return {
            name: np.ascontiguousarray(row, np.int64)
            for name, row in zip(names, tokens[: len(names)], strict=True)
        }  # fmt: skip

    def _stacked(self, item: Encoded) -> npt.NDArray[np.generic]:
        return np.stack([np.asarray(item.streams[spec.name], np.int64) for spec in self._frame_specs()])

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """The embedding of every code, float32 `[vocab, D]`; see `ExposesCodebook`."""
        from tokbench.codecs.precision import exact_inference

        names = [spec.name for spec in self._frame_specs()]
        if stream not in names:
            raise TokensError(f"there is no codebook of the stream '{stream}', only of {', '.join(names)}")
        with exact_inference():
            return np.array(self._book(names.index(stream)).float().cpu().numpy(), np.float32, order="C")

    @abstractmethod
    def _book(self, index: int) -> Tensor:
        """Embeddings `[vocab, D]` of one codebook."""


class LatentCodec(PretrainedCodec):
    """One latent stream, float32 `[T, D]`."""

    def _streams(self, tokens: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        return {self.card.streams[0].name: np.ascontiguousarray(tokens, np.float32)}

    def _stacked(self, item: Encoded) -> npt.NDArray[np.generic]:
        return np.asarray(item.streams[self.card.streams[0].name], np.float32)
