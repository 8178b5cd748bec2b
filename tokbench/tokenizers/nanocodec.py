"""NanoCodec 0.6k, 1.78k and 1.89k (arXiv 2508.05835), by the port in `tokbench.codecs.nanocodec`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingBackend, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.checkpoints import checkpoint_identity, find_checkpoint
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.codecs.nanocodec.config import NanoCodecConfig
    from tokbench.config import TokenizerCard

__all__ = ["NanoCodecTokenizer"]


class NanoCodecTokenizer(Tokenizer):
    """One stream of codes a codebook, `q0` first; one utterance a forward pass, in float32.

    `ceil(n / hop)` frames: the last one is filled with zeros, and cut off again after decoding. Utterances of different
    length are never encoded together, since the shorter one's last tokens would change.

    Args:
        card, device: see `Tokenizer`.
        weights: the `.nemo` archive, or a folder that holds it under its published name; None for the hub.
        allow_pickle: take an archive whose checkpoint holds more than tensors.

    Raises:
        MissingWeights, BadCheckpoint: in one line; the latter also where the archive is another variant's.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.checkpoint",
        "tokbench.codecs.precision",
        "tokbench.codecs.nanocodec.archive",
        "tokbench.codecs.nanocodec.channels_last",
        "tokbench.codecs.nanocodec.config",
        "tokbench.codecs.nanocodec.fsq",
        "tokbench.codecs.nanocodec.kernels",
        "tokbench.codecs.nanocodec.model",
        "tokbench.codecs.nanocodec.nets",
        "tokbench.codecs.nanocodec.toom_cook",
        "tokbench.codecs.snake",
        "tokbench.tokenizers.checkpoints",
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        path = find_checkpoint(card, weights)
        try:
            from tokbench.codecs.nanocodec.archive import load_nanocodec, read_config
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="mini", needed_by=f"tokenizer '{card.name}'") from None
        _check_variant(card, read_config(path), path)
        self._model = load_nanocodec(path, what=card.name, allow_pickle=allow_pickle).to(device)
        self._hop = self._model.config.hop

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the archive, or the hub repository's commit."""
        return checkpoint_identity(card, weights)

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`; streams `q0`, `q1`, ... int64 `[ceil(n / hop)]`."""
        from tokbench.codecs.precision import exact_inference

        items = []
        for wave in wavs:
            audio, lengths = self._tensors(self.prepare(wave))
            with exact_inference():
                tokens, _ = self._model.encode(audio, lengths)
            rows = tokens[0].cpu().numpy()
            items.append(
                Encoded(
                    streams={f"q{index}": np.ascontiguousarray(row) for index, row in enumerate(rows)},
                    n_samples=len(wave),
                    n_samples_coded=rows.shape[1] * self._hop,
                )
            )
        return items

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """See `Tokenizer.decode`."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        from tokbench.codecs.precision import exact_inference

        item.check(self.card.stream_specs, ())
        frames = self._model.config.frames(max(item.n_samples, self.card.min_samples))
        codes = [np.asarray(item.streams[stream.name], np.int64) for stream in self.card.streams]
        if any(len(row) != frames for row in codes):
            raise TokensError(f"{item.n_samples} samples have {frames} frames, the streams {sorted(map(len, codes))}")
        tokens, lengths = self._tensors(np.stack(codes))
        with exact_inference():
            wave = self._model.decode(tokens, lengths)
        return np.ascontiguousarray(wave[0, : item.n_samples].cpu().numpy())

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """The encoder's output, or its quantised values, float32 `[T, D]` over all codebooks; see `ExposesFeatures`."""
        from tokbench.codecs.precision import exact_inference

        found = []
        for wave in wavs:
            audio, lengths = self._tensors(self.prepare(wave))
            with exact_inference():
                latent, frames = self._model.latent(audio, lengths)
                if which == "post_quant":
                    latent = self._model.dequantize(self._model.vector_quantizer.tokens(latent), frames)
            found.append(np.ascontiguousarray(latent[0].T.cpu().numpy()))
        return found

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """The quantiser's grid, float32 `[vocab, levels]`, the same for every codebook; see `ExposesCodebook`."""
        import torch

        names = [entry.name for entry in self.card.streams]
        if stream not in names:
            raise TokensError(f"there is no stream '{stream}', only {', '.join(names)}")
        config = self._model.config
        every = torch.arange(config.vocab, device=self.device).expand(1, config.num_groups, -1)
        values = self._model.vector_quantizer.values(every)[0, : len(config.levels)]
        return np.ascontiguousarray(values.T.cpu().numpy())

    def _tensors(self, array: npt.NDArray[np.generic]) -> tuple[Tensor, Tensor]:
        """A batch of one and its length, which stays on the CPU."""
        import torch

        return torch.from_numpy(array)[None].to(self.device), torch.tensor([array.shape[-1]])


def _check_variant(card: TokenizerCard, config: NanoCodecConfig, path: Path) -> None:
    from tokbench.codecs.checkpoint import BadCheckpoint

    declared = [(stream.rate_hz, stream.vocab, stream.levels) for stream in card.streams]
    rate = Fraction(config.sample_rate, config.hop)
    found = [(rate, config.vocab, config.levels)] * config.num_groups
    if card.input_rate != config.sample_rate or declared != found:
        raise BadCheckpoint(
            f"is a NanoCodec of {config.num_groups} x {config.vocab} codes every {config.hop} samples at "
            f"{config.sample_rate} Hz, {card.name} is {len(declared)} x {card.streams[0].vocab} at "
            f"{card.streams[0].rate_hz} Hz",
            where=str(path),
            hint=f"Give the archive of {card.weights.location if card.weights else card.name}",
        )
