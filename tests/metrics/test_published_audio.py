"""The values that the issue pins, on audio that the authors of Kanade published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokbench.audio import read_audio
from tokbench.metrics.intelligibility import estoi, stoi
from tokbench.metrics.pesq import pesq_wb
from tokbench.metrics.pitch import f0_corr, f0_rmse, gpe, vuv_error
from tokbench.types import Wave

NAMES = ("pesq_wb", "stoi", "estoi", "f0_corr", "vuv_error", "gpe", "f0_rmse")
PUBLISHED = {
    "kanade_25hz": (1.7016, 0.8539, 0.7537, 0.7494, 0.1352, 0.0282, 278.57),
    "mimi": (2.3007, 0.9105, 0.8144, 0.9106, 0.0758, 0.0199, 177.35),
}


def praat_f0(wave: Wave) -> np.ndarray:
    """Praat's autocorrelation over the whole wave: 10 ms, 50 to 550 Hz."""
    import parselmouth

    sound = parselmouth.Sound(wave.astype(np.float64), 16_000)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=50.0, pitch_ceiling=550.0)
    return np.asarray(pitch.selected_array["frequency"], np.float64)


@pytest.mark.parametrize("system", sorted(PUBLISHED))
def test_means_over_utterances(system: str, shared: Path) -> None:
    pytest.importorskip("parselmouth")
    rows = []
    for path in sorted((shared / "data/published-audio/reconstruction/orig").glob("*.wav")):
        a, rate = read_audio(path)
        b, _ = read_audio(path.parents[1] / system / path.name)
        assert rate == 16_000
        row = pesq_wb(a, b) | stoi(a, b) | estoi(a, b)
        tracks = praat_f0(a), praat_f0(b)
        for function in (f0_corr, vuv_error, gpe, f0_rmse):
            row |= function(*tracks)
        rows.append(row)
    assert len(rows) == 4
    means = [float(np.mean([row[name] for row in rows])) for name in NAMES]
    np.testing.assert_allclose(means[:-1], PUBLISHED[system][:-1], rtol=0, atol=0.0002)
    assert round(means[-1], 2) == PUBLISHED[system][-1], "cents, published with two decimals"
