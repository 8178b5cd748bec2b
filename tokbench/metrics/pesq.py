"""Perceptual evaluation of speech quality, wide band (P.862.2) and narrow band (P.862.1)."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np

from tokbench.audio import resample
from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.align import cut_to_shorter
from tokbench.metrics.base import Mean, Metric
from tokbench.types import Wave

__all__ = ["METRICS", "RATE", "pesq_nb", "pesq_wb"]

RATE = 16_000
"""Sampling rate in Hz at which both waves are given."""
_NARROW = 8_000
_MAX_SECONDS = 60.0
_SAFE_SECONDS = 20.0
"""An utterance and the pause after it take PESQ at least 0.4 s, so this cannot overrun its 50 utterances."""
_NAN = "PESQ gives no number for this pair"
_REASONS = {
    "NoUtterancesError": "PESQ finds no utterance in the reference",
    "BufferTooShortError": "PESQ needs at least 0.25 s",
    "ValueError": _NAN,
}


def pesq_wb(reference: Wave, degraded: Wave) -> dict[str, float]:
    """Wide-band PESQ at 16 kHz, 1.04 to 4.64 MOS-LQO.

    Args:
        reference, degraded: `[n]` at 16 kHz, cut to the shorter. PESQ aligns in time and level on its own.

    Raises:
        UndefinedMetric: no utterance is found in the reference, less than 0.25 s, a silent signal, more than 60 s,
            or a crash of the C code. That code overruns its tables beyond 50 utterances, so pairs of more than 20 s
            are scored in a process of their own (about half a second more).

    Source: ITU-T P.862 (2001) and P.862.2 (2007), the ITU's C code as packaged in `pesq`.
    """
    return {"pesq_wb": _score(*cut_to_shorter(reference, degraded), RATE, "wb")}


def pesq_nb(reference: Wave, degraded: Wave) -> dict[str, float]:
    """Narrow-band PESQ at 8 kHz (both sides resampled from 16 kHz by soxr HQ), 1.02 to 4.55. As `pesq_wb`.

    Source: ITU-T P.862 (2001) and P.862.1 (2003), the ITU's C code as packaged in `pesq`.
    """
    reference, degraded = cut_to_shorter(reference, degraded)
    a, b = (resample(np.asarray(wave, np.float32), RATE, _NARROW) for wave in (reference, degraded))
    return {"pesq_nb": _score(a, b, _NARROW, "nb")}


def _score(reference: Wave, degraded: Wave, rate: int, mode: str) -> float:
    if not np.any(reference):
        raise UndefinedMetric("the reference is silent")
    if not np.any(degraded):
        raise UndefinedMetric("the degraded signal is silent")
    seconds = len(reference) / rate
    if seconds > _MAX_SECONDS:
        raise UndefinedMetric(f"PESQ takes at most {_MAX_SECONDS:g} s, this is {seconds:.1f} s")
    run = _here if seconds <= _SAFE_SECONDS else _in_child
    score = run(reference, degraded, rate, mode)
    if not np.isfinite(score):
        raise UndefinedMetric(_NAN)
    return score


def _here(reference: Wave, degraded: Wave, rate: int, mode: str) -> float:
    import pesq

    try:
        return float(pesq.pesq(rate, reference, degraded, mode))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError, ValueError) as error:
        raise UndefinedMetric(_REASONS[type(error).__name__]) from None


def _in_child(reference: Wave, degraded: Wave, rate: int, mode: str) -> float:
    waves = io.BytesIO()
    for wave in (reference, degraded):
        np.save(waves, wave)
    command = [sys.executable, "-m", "tokbench.metrics._pesq_child", str(rate), mode]
    child = subprocess.run(command, input=waves.getvalue(), capture_output=True, check=False)
    kind, _, text = child.stdout.decode().partition(" ")
    if child.returncode < 0:
        raise UndefinedMetric("PESQ's C code crashed, as it does on more than 50 utterances divided by pauses")
    if child.returncode or kind not in ("score", "none"):
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise TokbenchError(f"the PESQ process failed ({''.join(last)})", where="pesq")
    if kind == "none":
        raise UndefinedMetric(_REASONS[text])
    return float(text)


METRICS: tuple[Metric, ...] = (
    Metric(
        name="pesq_wb",
        unit="MOS-LQO",
        direction="higher",
        components=("pesq_wb",),
        reduce=Mean("pesq_wb"),
        title="PESQ-WB",
        source="ITU-T P.862.2; the package pesq",
        description=(
            "Predicted listening quality against the original up to 7 kHz; higher is better, 4.64 is the original. It "
            "was made for telephone codecs that keep the waveform, and punishes generative decoders that listeners "
            "like; values of the wide and the narrow band must not be mixed."
        ),
    ),
    Metric(
        name="pesq_nb",
        unit="MOS-LQO",
        direction="higher",
        components=("pesq_nb",),
        reduce=Mean("pesq_nb"),
        title="PESQ-NB",
        source="ITU-T P.862.1; the package pesq at 8 kHz",
        description=(
            "Predicted listening quality against the original in the telephone band; higher is better, 4.55 is the "
            "original. It hears nothing above 3.4 kHz and runs 0.4 to 0.6 above the wide-band value."
        ),
    ),
)
