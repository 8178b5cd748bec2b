"""Time of the token statistics, and size of the real range coder against the ideal code length.

Run: `OMP_NUM_THREADS=1 python benchmarks/token_statistics.py`. Prints CPU seconds for a typical tokenizer
(50 utterances of 150 tokens), for stacks of codebooks, for a continuous latent and for 16 kHz PCM.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pandas as pd

from tokbench.config import TokenizerCard
from tokbench.metrics.coder import code_lengths, decode, encode
from tokbench.metrics.tokens import token_estimates, token_rows
from tokbench.types import Encoded

RATE = 16000
UTTERANCES = 50


def card(name: str, streams: list[dict[str, object]]) -> TokenizerCard:
    kinds = ["continuous" if s.get("kind") == "latent" else "discrete" for s in streams]
    return TokenizerCard.model_validate(
        {
            "name": name,
            "summary": "synthetic",
            "adapter": "none:None",
            "family": "synthetic",
            "capabilities": sorted(set(kinds)),
            "streams": streams,
            "input_rate": RATE,
            "licence": "MIT",
        }
    )


def markov(rng: np.random.Generator, length: int, vocab: int) -> np.ndarray:
    """Codes that stay, step nearby, or jump: compressible, with runs."""
    move = rng.choice(3, size=length, p=[0.3, 0.5, 0.2])
    step = np.where(move == 1, rng.integers(-8, 9, length), np.where(move == 2, rng.integers(0, vocab, length), 0))
    return np.cumsum(step) % vocab


def timed(name: str, streams: list[dict[str, object]], seconds: float) -> None:
    rng = np.random.default_rng(0)
    items = []
    for _ in range(UTTERANCES):
        arrays = {}
        for s in streams:
            length = round(float(Fraction(str(s["rate_hz"]))) * seconds)
            arrays[str(s["name"])] = (
                rng.standard_normal((length, int(str(s["dim"])))).astype(np.float32)
                if s.get("kind") == "latent"
                else markov(rng, length, int(str(s["vocab"])))
            )
        items.append(Encoded(arrays, n_samples=round(seconds * RATE)))
    ids = [f"u{i:03d}" for i in range(UTTERANCES)]
    start = time.process_time()
    rows = pd.DataFrame(token_rows(ids, [f"s{i % 10}" for i in range(UTTERANCES)], items, RATE))
    middle = time.process_time()
    estimates = token_estimates(rows, card(name, streams), draws=10_000, seed=0)
    end = time.process_time()
    tokens = sum(sum(len(a) for a in item.streams.values()) for item in items)
    print(
        f"{name:12s} {tokens:8d} tokens  rows {middle - start:6.3f} s  estimates {end - middle:6.3f} s  "
        f"{len(estimates)} figures"
    )


def main() -> None:
    def books(count: int, rate: object, vocab: int) -> list[dict[str, object]]:
        return [{"name": f"q{i}", "rate_hz": rate, "vocab": vocab} for i in range(count)]

    timed("kmeans", books(1, 50, 500), 3.0)
    timed("kmeans", books(1, 50, 500), 3.0)
    timed("kanade-25hz", books(1, 25, 12800), 6.0)
    timed("rvq-8", books(8, "25/2", 2048), 12.0)
    timed("rvq-32", books(32, "25/2", 2048), 12.0)
    timed("latent-64", [{"name": "z", "kind": "latent", "rate_hz": 25, "dim": 64}], 10.0)
    timed("pcm", books(1, RATE, 65536), 3.125)

    rng = np.random.default_rng(1)
    tokens = [markov(rng, 150, 500) for _ in range(UTTERANCES)]
    item = np.repeat(np.arange(UTTERANCES), 150)
    ideal = code_lengths(np.concatenate(tokens), item, vocab=500).sum() / 8
    start = time.process_time()
    payload = encode(tokens, vocab=500)
    middle = time.process_time()
    back = decode(payload, [len(t) for t in tokens], vocab=500)
    end = time.process_time()
    exact = all(np.array_equal(a, b) for a, b in zip(tokens, back, strict=True))
    print(
        f"range coder  {item.size} tokens: {len(payload)} bytes, ideal {ideal:.1f}; "
        f"encode {middle - start:.2f} s, decode {end - middle:.2f} s, exact {exact}"
    )


if __name__ == "__main__":
    main()
