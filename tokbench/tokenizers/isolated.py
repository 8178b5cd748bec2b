"""Tokenizers that run in an environment of their own: the adapter is a worker's client, the family is a backend."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tokbench.errors import CardError, ItemError, NotApplicable, TokensError
from tokbench.isolated.environments import find_environment
from tokbench.isolated.worker import Limits, Start, Worker
from tokbench.store.code import modules_hash
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.features import file_sha256
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["IsolatedTokenizer"]

_CHILD = ("contract", "files", "precision", "serve", "start", "wire")


class IsolatedTokenizer(Tokenizer):
    """One utterance a request, in the environment that the card declares.

    `card.params.backend` names the module that runs on the other side (see `tokbench.isolated.child.contract`); the
    other parameters are its own.

    Args:
        card, device: see `Tokenizer`.
        weights: the checkpoint, or a folder that holds it under its published name; None where the backend finds it.
        allow_pickle: take a checkpoint that holds more than tensors.

    Raises:
        MissingEnvironment: with the command that makes it.
        MissingWeights, BadWorker: in one line.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.isolated.worker",
        *(f"tokbench.isolated.child.{name}" for name in _CHILD),
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        environment = find_environment(card)
        declared = card.environment
        assert declared is not None, "its environment was found"
        start = Start(
            python=environment.python,
            backend=_backend_file(card),
            packages=environment.packages,
            facts=_facts(card),
            options={
                "params": card.params,
                "device": device,
                "weights": str(weights.absolute()) if weights is not None else None,
                "files": list(card.weights.files) if card.weights is not None else [],
                "source": str(environment.source) if environment.source is not None else None,
                "allow_pickle": allow_pickle,
            },
            remedy=f"Type: tokbench env make {declared.name} --again",
        )
        limits = Limits(
            start_s=declared.start_limit_s, item_s=declared.item_limit_s, silence_s=declared.silence_limit_s
        )
        self.worker = Worker(card.name, start, limits)

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Packages and source of the environment, the backend's code, and the checkpoint's hash or revision."""
        environment = find_environment(card)
        backend = {"backend": modules_hash([_backend(card)])}
        return {**environment.identity(), **backend, **_checkpoint_identity(card, weights)}

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`."""
        return [self._encode(self.prepare(wave), len(wave)) for wave in wavs]

    def _encode(self, wave: Wave, n_samples: int) -> Encoded:
        limit = self.card.max_seconds
        if limit is not None and len(wave) > limit * self.card.input_rate:
            raise ItemError(f"is longer than the {limit:g} s that {self.card.name} takes")
        reply = self.worker.ask("encode", {"wave": wave})
        streams = _part(reply.arrays, "stream/")
        for spec in self.card.stream_specs:
            if spec.kind == "codes" and spec.name in streams and streams[spec.name].dtype.kind in "iu":
                streams[spec.name] = streams[spec.name].astype(np.int64)
        coded = reply.record.get("n_samples_coded")
        return Encoded(
            streams,
            n_samples=n_samples,
            globals={name: np.asarray(value, np.float32) for name, value in _part(reply.arrays, "global/").items()},
            n_samples_coded=None if coded is None else int(coded),
            side_info_bits=int(reply.record.get("side_info_bits", 0)),
        )

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """See `Tokenizer.decode`; cut, or filled with zeros, to the utterance's length."""
        if self.card.output_rate is None:
            return super().decode(items)
        if globals_from is not None and "swap_global" not in self.card.capabilities:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        voices = globals_from if globals_from is not None else items
        return [self._decode(item, voice) for item, voice in zip(items, voices, strict=True)]

    def _decode(self, item: Encoded, voice: Encoded) -> Wave:
        for one in (item, voice):
            one.check(self.card.stream_specs, self.card.global_specs)
        arrays = {f"stream/{name}": value for name, value in item.streams.items()}
        arrays |= {f"global/{name}": value for name, value in voice.globals.items()}
        reply = self.worker.ask("decode", arrays, n_samples=item.n_samples)
        wave = np.asarray(reply.arrays.get("wave"))
        if wave.ndim != 1 or wave.dtype.kind != "f":
            raise TokensError(f"the backend decoded {wave.dtype} {wave.shape}, and no wave")
        assert self.card.output_rate is not None, "it decodes"
        length = round(item.n_samples * self.card.output_rate / self.card.input_rate)
        return np.pad(wave[:length].astype(np.float32), (0, max(length - len(wave), 0)))

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """See `ExposesFeatures`."""
        if "features" not in self.card.capabilities:
            raise NotApplicable(f"{self.card.name} does not show its features")
        replies = [self.worker.ask("features", {"wave": self.prepare(wave)}, which=which) for wave in wavs]
        return [np.ascontiguousarray(reply.arrays["frames"], np.float32) for reply in replies]

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """See `ExposesCodebook`."""
        if "codebook" not in self.card.capabilities:
            raise NotApplicable(f"{self.card.name} does not show its codebook")
        if stream not in [spec.name for spec in self.card.stream_specs]:
            raise TokensError(f"there is no stream '{stream}'")
        return np.ascontiguousarray(self.worker.ask("codebook", stream=stream).arrays["vectors"], np.float32)

    def close(self) -> None:
        """End the worker's process; the next request starts another."""
        self.worker.close()


def _part(arrays: dict[str, npt.NDArray[np.generic]], prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _backend(card: TokenizerCard) -> str:
    name = card.params.get("backend")
    if not isinstance(name, str):
        raise CardError("names no backend", where=f"tokenizer '{card.name}': params", hint="Add 'backend: MODULE'")
    return name


def _backend_file(card: TokenizerCard) -> Path:
    """The backend's file; it is not imported on this side."""
    name = _backend(card)
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise CardError(f"there is no module '{name}'", where=f"tokenizer '{card.name}': params.backend")
    return Path(spec.origin)


def _facts(card: TokenizerCard) -> dict[str, Any]:
    """What the card declares, in the words of a backend's `facts`."""
    return {
        "input_rate": card.input_rate,
        "output_rate": card.output_rate,
        "streams": {spec.name: spec.vocab or spec.dim for spec in card.stream_specs},
        "globals": {spec.name: spec.dim for spec in card.global_specs},
    }


def _checkpoint_identity(card: TokenizerCard, weights: Path | None) -> dict[str, str]:
    if weights is not None:
        files = sorted(path for path in weights.rglob("*") if path.is_file()) if weights.is_dir() else [weights]
        digest = hashlib.sha256()
        for path in files:
            name = path.relative_to(weights).as_posix() if weights.is_dir() else "weights"
            digest.update(f"{name} {file_sha256(path)}\n".encode())
        return {"weights": f"sha256:{digest.hexdigest()}"}
    if card.weights is None:
        return {}
    declared = ",".join(f"{name}:{sha}" for name, sha in card.weights.files.items() if sha)
    return {card.weights.location: declared or card.weights.revision or "main"}
