"""Real-time factors and peak memory of the tokenizers that need no download, one process each.

    python benchmarks/embedded.py --seconds 4 --threads 2
    python benchmarks/embedded.py codec2-700c opus-12000

The same audio is encoded and decoded by the adapter, in the measuring process of the task speed; the median of the
calls counts, and the most memory that the process held meanwhile, imports included. Codec2 and Opus are also coded by
their libraries called directly, in turns with the adapter: the last figures are the adapter's best time over the
library's. The others are this project's own nets and k-means, and have no other implementation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tokbench.handle import TokenizerHandle
from tokbench.protocols.speed import _run
from tokbench.protocols.speed_probe import Probe
from tokbench.tokenizers.conformance import speech_like

NAMES = (
    "kmeans-whisper-tiny-500", "kmeans-logmel-500", "kmeans-mfcc-500", "codec2-1200", "opus-6000", "kanade-mini",
)  # fmt: skip


def measure(name: str, seconds: Fraction, threads: int, repeats: int) -> dict[str, object]:
    handle = TokenizerHandle(name)
    wave = speech_like(seconds, handle.card.input_rate)
    found = _run(Probe(handle=handle, waves=(wave,), batch=(), sizes=(), repeats=repeats), threads)
    row: dict[str, object] = {"name": name, "threads": threads}
    for stage, (spent,) in found["warm"].items():
        row[f"{stage}_rtf"] = round(spent / float(seconds), 5)
        row[f"{stage}_peak_mib"] = round(found["peak"][stage] / 2**20)
    library = {"codec2": codec2, "opus": opus}.get(name.partition("-")[0])
    if library is not None:
        for stage, (ours, theirs) in library(handle.live, wave).items():
            row[f"{stage}_adapter_to_library"] = round(ratio(ours, theirs, turns=30), 3)
    return row


def ratio(ours: Callable[[], object], theirs: Callable[[], object], *, turns: int) -> float:
    best = [float("inf"), float("inf")]
    for _ in range(turns):
        for number, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            work()
            best[number] = min(best[number], time.perf_counter() - start)
    return best[0] / best[1]


def codec2(tokenizer: Any, wave: Any) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """pycodec2, a frame a call, from the same samples of 16 bits to bytes and back."""
    import pycodec2

    size = tokenizer.frame_samples
    padded = np.pad(wave, (0, -(len(wave) + tokenizer.delay) % size + tokenizer.delay))
    pcm = np.rint(padded.astype(np.float64) * 32768).clip(-32768, 32767).astype(np.int16)
    item = tokenizer.encode([wave])[0]

    def encode() -> list[bytes]:
        coder = pycodec2.Codec2(tokenizer.mode)
        return [coder.encode(pcm[start : start + size]) for start in range(0, len(pcm), size)]

    frames = encode()

    def decode() -> object:
        coder = pycodec2.Codec2(tokenizer.mode)
        return np.concatenate([coder.decode(frame) for frame in frames])

    return {
        "encode": (lambda: tokenizer.encode([wave]), encode),
        "decode": (lambda: tokenizer.decode([item]), decode),
    }


def opus(tokenizer: Any, wave: Any) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """PyAV's libopus, told what the adapter tells it; its decoder gives 48 kHz, which PyAV's resampler brings down."""
    import av

    size = tokenizer.frame_samples
    frames = np.pad(wave, (0, -(len(wave) + tokenizer.delay) % size + tokenizer.delay)).reshape(-1, 1, size)
    item = tokenizer.encode([wave])[0]
    packets = item.streams["packet"].astype(np.uint8).reshape(len(frames), -1)

    def encode() -> object:
        encoder = tokenizer._encoder()
        made = []
        for samples in frames:
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate = 16000
            made += [bytes(packet) for packet in encoder.encode(frame)]
        return made

    def decode() -> object:
        decoder = av.CodecContext.create("libopus", "r")
        decoder.sample_rate, decoder.layout = 48000, "mono"
        down = av.AudioResampler(format="flt", layout="mono", rate=16000)
        frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet.tobytes()))]
        return np.concatenate([part.to_ndarray() for frame in [*frames, None] for part in down.resample(frame)], axis=1)

    return {
        "encode": (lambda: tokenizer.encode([wave]), encode),
        "decode": (lambda: tokenizer.decode([item]), decode),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--seconds", type=Fraction, default=Fraction(4))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    for name in options.names:
        print(json.dumps(measure(name, options.seconds, options.threads, options.repeats)), flush=True)


if __name__ == "__main__":
    main()
