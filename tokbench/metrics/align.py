"""Bringing two waves to one length, and finding the constant delay between them.

The policy of every waveform metric: lengths are cut to the shorter, and nothing else is done. A delay is measured
and reported; it is taken out only where a task asks for it.
"""

from __future__ import annotations

import numpy as np

from tokbench.errors import UndefinedMetric
from tokbench.types import Wave

__all__ = ["constant_delay", "cut_to_shorter", "remove_delay"]


def cut_to_shorter(reference: Wave, degraded: Wave) -> tuple[Wave, Wave]:
    """Both waves `[n]`, cut at the end to the shorter of the two."""
    n = min(len(reference), len(degraded))
    return reference[:n], degraded[:n]


def constant_delay(reference: Wave, degraded: Wave, *, rate: int, max_ms: float = 50.0) -> int:
    """Samples by which `degraded` lags behind `reference`, negative where it leads.

    The lag of the largest absolute value of the cross-correlation within `max_ms`, so that inverted polarity does
    not hide it; the smallest shift wins a tie.

    Args:
        reference, degraded: `[n]`, both at `rate` Hz; lengths may differ.
        rate: sampling rate in Hz.
        max_ms: largest delay that is looked for, in milliseconds.

    Raises:
        UndefinedMetric: one of the waves is silent.
    """
    if not np.any(reference) or not np.any(degraded):
        raise UndefinedMetric("no delay can be found against silence")
    span = min(round(rate * max_ms / 1000), len(degraded) - 1, len(reference) - 1)
    size = 1 << (len(reference) + len(degraded)).bit_length()
    spectrum = np.fft.rfft(degraded.astype(np.float64), size) * np.conj(np.fft.rfft(reference.astype(np.float64), size))
    correlation = np.abs(np.fft.irfft(spectrum, size))
    lags = np.array(sorted(range(-span, span + 1), key=abs), dtype=np.int64)
    return int(lags[np.argmax(correlation[lags])])


def remove_delay(reference: Wave, degraded: Wave, delay: int) -> tuple[Wave, Wave]:
    """Both waves without the `delay` that `constant_delay` found, cut to the shorter."""
    if delay > 0:
        degraded = degraded[delay:]
    elif delay < 0:
        reference = reference[-delay:]
    return cut_to_shorter(reference, degraded)
