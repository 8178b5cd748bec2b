"""Opus (RFC 6716) at constant bit rate through PyAV's libopus: a classical floor, and its packets as bytes.

Speech application, 20 ms frames. A packet of constant size is cut into bytes, so the rate is exact, and decoding
needs nothing but the bytes: the container's header is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.audio import RESAMPLER, resample
from tokbench.errors import CardError, DependencyError, MissingBackend, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["DECODER_RATE", "FRAME_SECONDS", "Opus"]

FRAME_SECONDS = Fraction(1, 50)
DECODER_RATE = 48000
"""libopus is decoded at its full rate and brought to the card's rate by the core's resampler."""


class Opus(Tokenizer):
    """Opus at `card.params["bit_rate"]` bit/s, 16 kHz in and out.

    The encoder looks ahead `card.params["lookahead_samples"]` samples (the pre-skip of RFC 7845: 312 samples at
    48 kHz, 6.5 ms). They are coded as zeros after the utterance, which may take one packet more, and are cut off the
    beginning of the output. A new encoder and decoder serve each utterance.
    """

    code_modules: ClassVar[tuple[str, ...]] = ("tokbench.audio",)

    def __init__(
        self,
        card: TokenizerCard,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        try:
            import av
        except ModuleNotFoundError:
            raise MissingBackend("av", extra="mini", needed_by=f"tokenizer '{card.name}'") from None
        self._av = av
        if "libopus" not in av.codecs_available:
            raise DependencyError(
                "this build of PyAV has no libopus",
                where=f"tokenizer '{card.name}'",
                hint="Install PyAV's wheel: python -m pip install --only-binary :all: av",
            )
        self.bit_rate: int = card.params.get("bit_rate", 0)
        self.frame_samples = int(card.input_rate * FRAME_SECONDS)
        packet, rest = divmod(Fraction(self.bit_rate, 8) * FRAME_SECONDS, 1)
        self.packet_bytes = int(packet)
        spec = card.stream_specs[0]
        matches = (
            card.output_rate == card.input_rate
            and spec.vocab == 256
            and spec.rate_hz == Fraction(self.bit_rate, 8)
            and card.params.get("symbols_per_frame") == self.packet_bytes
        )
        if rest or not matches:
            raise CardError(
                f"{self.bit_rate} bit/s are packets of {float(packet + rest)} bytes every 20 ms, not what is declared",
                where=f"tokenizer '{card.name}': streams",
            )
        self.delay = self._pre_skip()
        if self.delay != card.params.get("lookahead_samples", 0):
            raise CardError(
                f"libopus looks ahead {self.delay} samples",
                where=f"tokenizer '{card.name}': params.lookahead_samples",
            )

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:  # noqa: ARG003
        """The versions of the wheel that holds libopus and of the resampler."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {"av": version("av"), RESAMPLER: version("soxr")}
        except PackageNotFoundError:
            raise MissingBackend("av", extra="mini", needed_by=f"tokenizer '{card.name}'") from None

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """Bytes of the packets, int64 `[packets * symbols_per_frame]`, 0..255."""
        return [self._encode(self.prepare(wave)) for wave in wavs]

    def _encode(self, wave: Wave) -> Encoded:
        size = self.frame_samples
        frames = -(-(wave.size + self.delay) // size)
        padded = np.pad(np.clip(wave, -1.0, 1.0), (0, frames * size - wave.size)).reshape(frames, 1, size)
        encoder = self._encoder()
        packets: list[bytes] = []
        for index, samples in enumerate(padded):
            frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="flt", layout="mono")
            frame.sample_rate = self.card.input_rate
            frame.pts = index * size
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode(None)]
        # Flushing pushes the look-ahead out as one more packet; the zeros above have already made room for it.
        packets = packets[:frames]
        sizes = {len(packet) for packet in packets}
        if len(packets) != frames or sizes != {self.packet_bytes}:
            raise TokensError(
                f"libopus made {len(packets)} packets of {sorted(sizes)} bytes, "
                f"the card declares {frames} of {self.packet_bytes}"
            )
        codes = np.frombuffer(b"".join(packets), np.uint8).astype(np.int64)
        return Encoded({"packet": codes}, n_samples=wave.size, n_samples_coded=frames * size)

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """Float32 `[n_samples]` at the input rate, aligned with the input; libopus gives 16-bit samples.

        Raises:
            TokensError: the bytes are not the packets that the utterance's length needs, or libopus refuses them.
        """
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no global vector to swap")
        return [self._decode(item) for item in items]

    def _decode(self, item: Encoded) -> Wave:
        item.check(self.card.stream_specs, self.card.global_specs)
        data = item.streams["packet"].astype(np.uint8).tobytes()
        frames, rest = divmod(len(data), self.packet_bytes)
        if rest or frames * self.frame_samples < item.n_samples + self.delay:
            raise TokensError(
                f"{len(data)} bytes are not the packets of {self.packet_bytes} that {item.n_samples} samples need"
            )
        decoder = self._av.CodecContext.create("libopus", "r")
        decoder.sample_rate = DECODER_RATE
        decoder.layout = "mono"
        pieces = []
        try:
            for start in range(0, len(data), self.packet_bytes):
                packet = self._av.Packet(data[start : start + self.packet_bytes])
                pieces += [frame.to_ndarray()[0] for frame in decoder.decode(packet)]
            pieces += [frame.to_ndarray()[0] for frame in decoder.decode(None)]
        except self._av.FFmpegError as error:
            # FFmpeg adds a number and the name of its function, which say nothing to whoever made the tokens.
            raise TokensError("these bytes are no Opus packets: libopus cannot decode them") from error
        pcm = np.concatenate(pieces)
        full = pcm[self.delay * DECODER_RATE // self.card.input_rate :] / np.float32(32768)
        wave = resample(full.astype(np.float32), DECODER_RATE, self.card.input_rate)[: item.n_samples]
        if wave.size != item.n_samples:
            raise TokensError(f"libopus made {wave.size} samples of {item.n_samples}")
        return wave

    def _encoder(self) -> Any:
        encoder = self._av.CodecContext.create("libopus", "w")
        encoder.sample_rate = self.card.input_rate
        encoder.layout = "mono"
        encoder.format = "flt"
        encoder.time_base = Fraction(1, self.card.input_rate)
        encoder.bit_rate = self.bit_rate
        encoder.options = {
            "application": "voip",
            "vbr": "off",
            "frame_duration": str(float(FRAME_SECONDS * 1000)),
            "compression_level": "10",
        }
        encoder.open()
        return encoder

    def _pre_skip(self) -> int:
        """The encoder's look-ahead in samples at the input rate, from its OpusHead (RFC 7845, section 5.1)."""
        head = self._encoder().extradata
        return int.from_bytes(head[10:12], "little") * self.card.input_rate // DECODER_RATE
