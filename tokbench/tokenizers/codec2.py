"""Codec2 (D. Rowe's open parametric vocoder, 700 to 3200 bit/s) through `pycodec2`: a classical floor.

Tokens are the packed frames cut into 4-bit symbols, most significant first, so the bit rate is exact in every mode.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokbench.errors import CardError, DependencyError, MissingBackend, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, IntArray, Wave

if TYPE_CHECKING:
    import numpy.typing as npt

    from tokbench.config import TokenizerCard

__all__ = ["MODES", "SYMBOL_BITS", "Codec2", "nibbles", "pack_nibbles"]

MODES = {3200: 0, 2400: 1, 1600: 2, 1400: 3, 1300: 4, 1200: 5, 700: 8}
"""Bit rate that `pycodec2` knows a mode by -> number of the mode in codec2's C interface (700 is mode 700C)."""

_ONE_AT_A_TIME = threading.Lock()
"""A library that is loaded twice at once is one library, with one state."""

SYMBOL_BITS = 4
"""Bits a token; every mode's frame is a whole number of them."""


class Codec2(Tokenizer):
    """Codec2 in the mode `card.params["mode"]`, 8 kHz in and out.

    Encoder and decoder carry state from frame to frame, so each utterance gets its own. The decoder also draws the
    phases of unvoiced harmonics from a generator that is global to the loaded library and cannot be seeded: decoding
    is repeatable only because every utterance is decoded by a private copy of that library, loaded anew.

    `card.params["lookahead_samples"]` is the delay of encoder and decoder together. It is fed as zeros after the
    utterance and cut off the beginning of the output, so that output and input are aligned.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        card: TokenizerCard,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        self._library = _library_bytes(card.name)
        self.mode: int = card.params.get("mode", 0)
        if self.mode not in MODES:
            raise CardError(
                f"there is no mode {self.mode}",
                where=f"tokenizer '{card.name}': params.mode",
                hint=f"Modes: {', '.join(map(str, MODES))}",
            )
        from pycodec2 import pycodec2

        self._coder = pycodec2.Codec2
        probe = self._coder(self.mode)
        self.frame_samples = int(probe.samples_per_frame())
        self.frame_symbols, rest = divmod(int(probe.bits_per_frame()), SYMBOL_BITS)
        self.delay: int = card.params.get("lookahead_samples", 0)
        spec = card.stream_specs[0]
        matches = (
            card.input_rate == card.output_rate == 8000
            and spec.vocab == 1 << SYMBOL_BITS
            and spec.rate_hz * self.frame_samples == self.frame_symbols * card.input_rate
            and card.params.get("symbols_per_frame") == self.frame_symbols
        )
        if rest or not matches:
            raise CardError(
                f"mode {self.mode} has {self.frame_symbols} symbols of {SYMBOL_BITS} bits "
                f"in {self.frame_samples} samples at 8000 Hz",
                where=f"tokenizer '{card.name}': streams",
            )

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:  # noqa: ARG003
        """The version of the wheel that holds libcodec2."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {"pycodec2": version("pycodec2")}
        except PackageNotFoundError:
            raise MissingBackend("pycodec2", extra="mini", needed_by=f"tokenizer '{card.name}'") from None

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """Codes int64 `[frames * symbols_per_frame]`, 0..15; the last frame is filled with zeros."""
        return [self._encode(self.prepare(wave), wave.size) for wave in wavs]

    def _encode(self, wave: Wave, n_samples: int) -> Encoded:
        size = self.frame_samples
        frames = -(-(wave.size + self.delay) // size)
        pcm = np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
        pcm = np.pad(pcm, (0, frames * size - pcm.size))
        coder = self._coder(self.mode)
        packed = b"".join(coder.encode(pcm[start : start + size]) for start in range(0, pcm.size, size))
        codes = nibbles(packed, frames=frames, symbols=self.frame_symbols)
        return Encoded({"frame": codes}, n_samples=n_samples, n_samples_coded=frames * size)

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """Float32 `[n_samples]` at 8 kHz, aligned with the input."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no global vector to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        item.check(self.card.stream_specs, self.card.global_specs)
        codes = item.streams["frame"].astype(np.int64)
        frames, rest = divmod(codes.size, self.frame_symbols)
        if rest or frames * self.frame_samples < item.n_samples + self.delay:
            raise TokensError(
                f"{codes.size} symbols are not the frames of {self.frame_symbols} that {item.n_samples} samples need"
            )
        packed = pack_nibbles(codes, symbols=self.frame_symbols)
        width = len(packed) // frames
        pcm = np.empty((frames, self.frame_samples), np.int16)
        with _private_library(self._library) as library:
            state = ctypes.c_void_p(library.codec2_create(MODES[self.mode]))
            try:
                for index, row in enumerate(pcm):
                    frame = packed[index * width : (index + 1) * width]
                    library.codec2_decode(state, ctypes.c_void_p(row.ctypes.data), frame)
            finally:
                library.codec2_destroy(state)
        wave = (pcm.reshape(-1)[self.delay :] / np.float32(32768)).astype(np.float32)[: item.n_samples]
        return np.pad(wave, (0, item.n_samples - wave.size))


def nibbles(packed: bytes, *, frames: int, symbols: int) -> IntArray:
    """Cut packed frames of whole bytes into `symbols` 4-bit symbols each, int64 `[frames * symbols]`.

    A frame of an odd number of symbols ends in 4 padding bits, which are dropped.
    """
    rows = np.frombuffer(packed, np.uint8).reshape(frames, -1)
    halves = np.stack([rows >> SYMBOL_BITS, rows & 15], axis=2).reshape(frames, -1)
    return halves[:, :symbols].reshape(-1).astype(np.int64)


def pack_nibbles(codes: npt.NDArray[np.integer], *, symbols: int) -> bytes:
    """Inverse of `nibbles`; a last frame that is not complete is an error of `reshape`."""
    rows = codes.reshape(-1, symbols).astype(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, symbols % 2)))
    return ((rows[:, 0::2] << SYMBOL_BITS) | rows[:, 1::2]).tobytes()


@lru_cache(maxsize=1)
def _library_bytes(needed_by: str) -> bytes:
    """The shared library that `pycodec2` has loaded, as a file's bytes."""
    try:
        from pycodec2 import pycodec2
    except ModuleNotFoundError:
        raise MissingBackend("pycodec2", extra="mini", needed_by=f"tokenizer '{needed_by}'") from None
    maps = Path("/proc/self/maps")
    loaded = [Path(line.split(maxsplit=5)[5].strip()) for line in _lines(maps) if "libcodec2" in line]
    beside = sorted(Path(pycodec2.__file__).parents[1].glob("pycodec2*/**/libcodec2*"))
    for path in [*loaded, *beside]:
        if path.is_file():
            return path.read_bytes()
    raise DependencyError(
        "the shared library libcodec2 that pycodec2 uses cannot be found",
        where=f"tokenizer '{needed_by}'",
        hint="Install pycodec2's wheel: python -m pip install --only-binary :all: pycodec2",
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


@contextmanager
def _private_library(data: bytes) -> Iterator[ctypes.CDLL]:
    """Load libcodec2 in its initial state, apart from any other copy, and unload it again; one at a time."""
    with _ONE_AT_A_TIME, _private_file(data) as path:
        library = ctypes.CDLL(str(path))
        library.codec2_create.restype = ctypes.c_void_p
        library.codec2_create.argtypes = [ctypes.c_int]
        library.codec2_decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
        library.codec2_decode.restype = None
        library.codec2_destroy.argtypes = [ctypes.c_void_p]
        library.codec2_destroy.restype = None
        try:
            yield library
        finally:
            close = ctypes.CDLL(None).dlclose
            close.argtypes = [ctypes.c_void_p]
            close(library._handle)


@contextmanager
def _private_file(data: bytes) -> Iterator[Path]:
    """A file that the dynamic linker takes for another library than the one that pycodec2 has loaded."""
    if hasattr(os, "memfd_create"):  # also works where the temporary folder forbids execution
        yield _memory_file(data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "libcodec2"
            path.write_bytes(data)
            yield path


@lru_cache(maxsize=1)
def _memory_file(data: bytes) -> Path:
    """Written once a process: writing it takes ten times as long as loading it."""
    handle = os.memfd_create("libcodec2")
    path = Path(f"/proc/self/fd/{handle}")
    path.write_bytes(data)
    return path
