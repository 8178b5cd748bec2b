"""S3Tokenizer v2 at 25 Hz and v3 (CosyVoice 2 and 3), by the package `s3tokenizer`; encode-only.

The package encodes up to 30 s at once; its way with longer audio loses tokens at some lengths (52.4 s gave 1260 of
1310). So a wave is cut here into pieces of exactly 30 s, encoded one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import MissingBackend, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.checkpoints import checkpoint_identity, find_checkpoint, library_versions
from tokbench.tokenizers.params import read_params
from tokbench.types import Encoded, IntArray, Wave

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.config import TokenizerCard

__all__ = ["S3Params", "S3Tokenizer"]

_log = logging.getLogger(__name__)

PIECE = 30 * 16000
MEL_HOP, HOP = 160, 640
_HEAD = 64
"""Width of an attention head, fixed by the package's rotary positions."""


class S3Params(BaseModel):
    """The card's `params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal["v2", "v3"]
    layers: int = Field(gt=0)
    """Transformer blocks; what tells the versions' checkpoints apart."""


class S3Tokenizer(Tokenizer):
    """One stream of 3^8 scalar codes: `ceil(floor(n / 160) / 4)` of a piece of n samples.

    Args:
        card, device: see `Tokenizer`.
        weights: the ONNX file as published, the package's own `.pt`, or safetensors; or a folder with one under its
            published name; None for the hub.
        allow_pickle: take a `.pt` that holds more than tensors.

    Raises:
        MissingBackend, MissingWeights, BadCheckpoint: in one line; the last also where the file is another version's.
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
        self._params = read_params(card, S3Params)
        self._model = self._load(find_checkpoint(card, weights)).to(device)

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the file, and the libraries' versions."""
        return checkpoint_identity(card, weights) | library_versions("s3tokenizer", "torch")

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`."""
        items = []
        for wave in wavs:
            prepared = self.prepare(wave)
            pieces = [self._piece(prepared[start : start + PIECE]) for start in range(0, len(prepared), PIECE)]
            codes = np.concatenate(pieces)
            coded = max(len(codes) * HOP, len(wave))
            items.append(Encoded({self.card.streams[0].name: codes}, n_samples=len(wave), n_samples_coded=coded))
        return items

    def _piece(self, wave: Wave) -> IntArray:
        """Codes of at most 30 s."""
        import torch
        from s3tokenizer import log_mel_spectrogram

        from tokbench.codecs.precision import exact_inference

        # A last piece may be shorter than one code, and than the transform's reflected edges.
        padded = np.pad(wave, (0, max(0, HOP - len(wave))))
        with exact_inference():
            mel: Tensor = log_mel_spectrogram(torch.from_numpy(padded).to(self.device))
            lengths = torch.tensor([mel.shape[1]], device=self.device)
            codes, count = self._model.quantize(mel[None], lengths)
        want = -(-(len(padded) // MEL_HOP) // 4)
        if codes.shape[1] != want or int(count) != want:
            raise TokensError(f"{len(padded)} samples gave {codes.shape[1]} codes, not {want}")
        return np.ascontiguousarray(codes[0].cpu().numpy(), np.int64)

    def _load(self, path: Path) -> Any:
        try:
            import s3tokenizer  # noqa: F401 - the first import tells what is missing
            from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
            from s3tokenizer.model_v3 import ModelConfigV3, S3TokenizerV3

            from tokbench.codecs.checkpoint import BadCheckpoint, fill
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="s3", needed_by=f"tokenizer '{self.card.name}'") from None
        name, where = self.card.name, str(path)
        hint = f"Give {next(iter(self.card.weights.files), 'the file') if self.card.weights else 'the file'} of {name}"
        state = self._state(path)
        first = state.get("encoder.conv1.weight")
        if first is None or first.ndim != 3:
            raise BadCheckpoint("holds no S3Tokenizer", where=where, hint=hint)
        layers = len({key.split(".")[2] for key in state if key.startswith("encoder.blocks.")})
        if layers != self._params.layers:
            raise BadCheckpoint(f"has {layers} layers, {name} has {self._params.layers}", where=where, hint=hint)
        width = int(first.shape[0])
        size = {"n_mels": int(first.shape[1]), "n_audio_state": width, "n_audio_head": max(1, width // _HEAD)}
        model: Any
        if self._params.version == "v2":
            model = S3TokenizerV2("speech_tokenizer_v2_25hz", ModelConfig(n_audio_layer=layers, **size))
        else:
            model = S3TokenizerV3("speech_tokenizer_v3_25hz", ModelConfigV3(n_audio_layer=layers, **size))
        fill(model, self._completed(state, model.state_dict(), where), where=where, what=name, hint=hint)
        return model.eval()

    def _state(self, path: Path) -> dict[str, Tensor]:
        """Tensors by the package's names; ONNX files are read by the package."""
        from tokbench.codecs.checkpoint import FETCH_AGAIN, BadCheckpoint, read_checkpoint, tensors_only

        where = str(path)
        if path.suffix != ".onnx":
            return tensors_only(read_checkpoint(path, where=where, allow_pickle=self.allow_pickle), where=where)
        from s3tokenizer import onnx2torch, onnx2torch_v3

        read = onnx2torch if self._params.version == "v2" else onnx2torch_v3
        try:
            return tensors_only(read(where), where=where)
        except BadCheckpoint:
            raise
        except Exception as error:  # noqa: BLE001 - a file of another model fails in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise BadCheckpoint(
                f"cannot be read as S3Tokenizer {self._params.version} ({reason})", where=where, hint=FETCH_AGAIN
            ) from None

    def _completed(self, state: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """V3's export may leave out biases of layer norms that are zero, as the package's loader allows."""
        import torch

        absent = [key for key in expected if key not in state and key.endswith("_ln.bias")]
        if self._params.version == "v2" or not absent:
            return state
        _log.warning("%s: %d biases of layer norms are not in it, taken as zero, for instance %s", where, len(absent),
                     absent[0])  # fmt: skip
        return state | {key: torch.zeros_like(expected[key]) for key in absent}
