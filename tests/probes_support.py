"""Small geometries for the tests of probes."""

from fractions import Fraction

import numpy as np

from tokbench.probes.decoder import DecoderConfig
from tokbench.probes.layout import Layout
from tokbench.streams import StreamSpec

SMALL = DecoderConfig(layers=2, width=32, heads=4, kv_heads=2)


def stack(*sizes: int, rate: str = "25") -> list[StreamSpec]:
    """Streams q0, q1, ... of one rate."""
    return [StreamSpec(f"q{i}", "codes", Fraction(rate), size) for i, size in enumerate(sizes)]


def random_frames(layout: Layout, count: int, rng: np.random.Generator) -> np.ndarray:
    """Frames int64 `[count, slots]` of uniform codes."""
    columns = [rng.integers(0, slot.size, count) + slot.first for slot in layout.slots]
    return np.stack(columns, axis=1).astype(np.int64)
