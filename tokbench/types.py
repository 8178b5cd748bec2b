"""The values that cross every border: streams, globals, encoded utterances and capabilities.

Plain frozen dataclasses over numpy arrays. Nothing here imports torch or reads a file.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tokbench.errors import TokensError
from tokbench.streams import Capability, Direction, GlobalSpec, Role, StreamSpec

__all__ = [
    "Capability",
    "Direction",
    "Encoded",
    "FloatArray",
    "GlobalSpec",
    "IntArray",
    "Role",
    "StreamSpec",
    "Wave",
]

Wave = npt.NDArray[np.float32]
"""Mono audio, float32 `[n_samples]`, full scale 1.0."""
FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """One utterance as tokens: all that `decode` may use.

    Attributes:
        streams: codes int64 `[T]` or latents float32 `[T, D]`, by stream name.
        globals: float32 `[D]`, by name.
        n_samples: valid input samples at the tokenizer's input rate.
        n_samples_coded: samples the tokens describe, `>= n_samples` where the tokenizer pads; None means equal.
        side_info_bits: bits that decode needs beside streams and globals, declared so that they are charged.
    """

    streams: dict[str, npt.NDArray[np.generic]]
    n_samples: int
    globals: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    n_samples_coded: int | None = None
    side_info_bits: int = 0

    def check(self, streams: tuple[StreamSpec, ...], globals_: tuple[GlobalSpec, ...]) -> None:
        """Raise `TokensError` unless the arrays are what the specs declare."""
        for what, have, want in (
            ("streams", set(self.streams), {s.name for s in streams}),
            ("globals", set(self.globals), {g.name for g in globals_}),
        ):
            if have != want:
                raise TokensError(f"{what} are {sorted(have)}, the card declares {sorted(want)}")
        for spec in streams:
            _check_stream(self.streams[spec.name], spec)
        for spec_g in globals_:
            vector = self.globals[spec_g.name]
            if vector.dtype != np.float32 or vector.shape != (spec_g.dim,) or not np.isfinite(vector).all():
                raise TokensError(
                    f"global '{spec_g.name}' must be finite float32 [{spec_g.dim}], is {vector.dtype} {vector.shape}"
                )

    def to_arrays(self, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
        """Flatten to named arrays, for the store and for dumps; `from_arrays` is the inverse."""
        numbers = np.array(
            [
                self.n_samples,
                -1 if self.n_samples_coded is None else self.n_samples_coded,
                self.side_info_bits,
            ],
            np.int64,
        )
        arrays: dict[str, npt.NDArray[np.generic]] = {f"{prefix}numbers": numbers}
        arrays |= {f"{prefix}stream/{name}": value for name, value in self.streams.items()}
        arrays |= {f"{prefix}global/{name}": value for name, value in self.globals.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.generic]], prefix: str = "") -> Encoded:
        """Rebuild what `to_arrays` flattened, bit for bit."""
        n_samples, coded, side = (int(v) for v in arrays[f"{prefix}numbers"])
        streams, globals_ = f"{prefix}stream/", f"{prefix}global/"
        return cls(
            streams={k[len(streams) :]: v for k, v in arrays.items() if k.startswith(streams)},
            globals={
                k[len(globals_) :]: np.asarray(v, np.float32) for k, v in arrays.items() if k.startswith(globals_)
            },
            n_samples=n_samples,
            n_samples_coded=None if coded < 0 else coded,
            side_info_bits=side,
        )

    def to_npz(self, *, tokenizer: str) -> bytes:
        """Serialise to an `.npz` file that also names its tokenizer (`tokbench decode` reads it)."""
        buffer = io.BytesIO()
        header = np.frombuffer(json.dumps({"tokenizer": tokenizer, "format": 1}).encode(), np.uint8)
        np.savez_compressed(buffer, allow_pickle=False, header=header, **self.to_arrays())
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> tuple[Encoded, str]:
        """Read `to_npz`'s bytes; returns the tokens and the tokenizer's name."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        header = json.loads(arrays.pop("header").tobytes().decode())
        return cls.from_arrays(arrays), str(header["tokenizer"])


def _check_stream(array: npt.NDArray[np.generic], spec: StreamSpec) -> None:
    if spec.kind == "codes":
        if array.dtype != np.int64 or array.ndim != 1:
            raise TokensError(f"stream '{spec.name}' must be int64 [T], is {array.dtype} {array.shape}")
        if array.size and (int(array.min()) < 0 or int(array.max()) >= (spec.vocab or 0)):
            raise TokensError(f"stream '{spec.name}' has ids outside 0..{(spec.vocab or 0) - 1}")
    elif array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != spec.dim:
        raise TokensError(f"stream '{spec.name}' must be float32 [T, {spec.dim}], is {array.dtype} {array.shape}")
    elif not np.isfinite(array).all():
        raise TokensError(f"stream '{spec.name}' has NaN or infinite values")
