"""SNAC at 24, 32 and 44.1 kHz (arXiv 2410.14411), by the package `snac`: codebooks that run at different rates.

The package pads the wave to a whole number of frames of the coarsest book, and of attention windows where there are
some. Short utterances so cost more bits than their length says; `n_samples_coded` tells the padded length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tokbench.errors import MissingBackend, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.checkpoints import find_snapshot, library_versions, snapshot_identity
from tokbench.tokenizers.params import read_params
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["Snac", "SnacParams"]


class SnacParams(BaseModel):
    """The card's `params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    """Of the noise that the decoder mixes in; every utterance starts anew from it."""
    symbols_per_frame: int = 1
    """Frames of the finest book in what is padded to; the conformance suite reads it."""


class Snac(Tokenizer):
    """One stream a codebook, `q0` the coarsest; one utterance a forward pass, in float32.

    Args:
        card, device: see `Tokenizer`.
        weights: folder with `config.json` and `pytorch_model.bin`; None for the hub.
        allow_pickle: take a weights file that holds more than tensors.

    Raises:
        MissingBackend, MissingWeights, BadCheckpoint: in one line; the last also for another rate's checkpoint.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.checkpoint",
        "tokbench.codecs.precision",
        "tokbench.tokenizers.checkpoints",
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        self._params = read_params(card, SnacParams)
        config, file = find_snapshot(card, weights)
        self._model = self._load(config, file).to(device)
        window = self._model.attn_window_size or 1
        self._hop = int(self._model.hop_length)
        self._granule = self._hop * math.lcm(self._model.vq_strides[0], window)

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of config and weights, or the hub repository's commit; and the libraries' versions."""
        return snapshot_identity(card, weights) | library_versions("snac", "torch")

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`; streams of different lengths, int64."""
        import torch

        from tokbench.codecs.precision import exact_inference

        items = []
        for wave in wavs:
            prepared = self.prepare(wave)
            with exact_inference():
                codes = self._model.encode(torch.from_numpy(prepared)[None, None].to(self.device))
            streams: dict[str, npt.NDArray[np.generic]] = {
                stream.name: np.ascontiguousarray(code[0].cpu().numpy(), np.int64)
                for stream, code in zip(self.card.streams, codes, strict=True)
            }
            items.append(Encoded(streams, n_samples=len(wave), n_samples_coded=self._padded(len(prepared))))
        return items

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """See `Tokenizer.decode`; cut to the input's length."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        import torch

        from tokbench.codecs.precision import exact_inference

        item.check(self.card.stream_specs, ())
        padded = self._padded(max(item.n_samples, self.card.min_samples))
        want = [padded // (self._hop * stride) for stride in self._model.vq_strides]
        found = [len(item.streams[stream.name]) for stream in self.card.streams]
        if found != want:
            raise TokensError(f"{item.n_samples} samples have {want} frames, the streams {found}")
        codes = [
            torch.from_numpy(np.asarray(item.streams[stream.name], np.int64))[None].to(self.device)
            for stream in self.card.streams
        ]
        gpus = [self.device] if self.device.startswith("cuda") else []
        with exact_inference(), torch.random.fork_rng(devices=gpus):
            torch.manual_seed(self._params.seed)
            made = self._model.decode(codes)[0, 0].cpu().numpy()
        n = item.n_samples
        return np.ascontiguousarray(np.pad(made[:n], (0, max(0, n - len(made)))), np.float32)

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Codes after their projection, as the decoder adds them, float32 `[vocab, D]`; see `ExposesCodebook`."""
        from tokbench.codecs.precision import exact_inference

        names = [entry.name for entry in self.card.streams]
        if stream not in names:
            raise TokensError(f"there is no stream '{stream}', only {', '.join(names)}")
        quantizer = self._model.quantizer.quantizers[names.index(stream)]
        with exact_inference():
            book = quantizer.out_proj(quantizer.codebook.weight.T[None])[0].T
        return np.array(book.cpu().numpy(), np.float32, order="C")

    def _padded(self, n_samples: int) -> int:
        return -(-n_samples // self._granule) * self._granule

    def _load(self, config: Path, file: Path) -> Any:
        try:
            from snac import SNAC

            from tokbench.codecs.checkpoint import BadCheckpoint, fill, read_checkpoint, tensors_only
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="snac", needed_by=f"tokenizer '{self.card.name}'") from None
        hint = f"Give the files of {self.card.weights.location if self.card.weights else self.card.name}"
        try:
            model = SNAC(**json.loads(config.read_text(encoding="utf-8")))
            rates = [Fraction(model.sampling_rate, int(model.hop_length) * stride) for stride in model.vq_strides]
        except Exception as error:  # noqa: BLE001 - the package checks nothing, so that anything may fail
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadCheckpoint(f"is not SNAC's config ({reason})", where=str(config), hint=hint) from None
        mine = [(spec.rate_hz, spec.vocab) for spec in self.card.stream_specs]
        if (model.sampling_rate, mine) != (self.card.input_rate, [(rate, model.codebook_size) for rate in rates]):
            told = ", ".join(f"{rate}" for rate in rates)
            raise BadCheckpoint(
                f"is a SNAC of {model.sampling_rate} Hz with books of {model.codebook_size} codes at {told} Hz, "
                f"which {self.card.name} is not",
                where=str(config),
                hint=hint,
            )
        where = str(file)
        state = tensors_only(read_checkpoint(file, where=where, allow_pickle=self.allow_pickle), where=where)
        fill(model, state, where=where, what=self.card.name, hint=hint)
        return model.eval()
