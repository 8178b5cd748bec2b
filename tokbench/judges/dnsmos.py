"""Opinion judge: DNSMOS P.835 and P.808, from the ONNX files inside the package speechmos.

The windows, features and polynomials are written out here, so that speechmos (which imports librosa and numba)
need not be imported; tests show equality with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.config import JudgeCard
from tokbench.errors import CardError, ItemError
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, full_scale, need, require_finite, require_sound
from tokbench.judges.mel import mel_power
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

__all__ = ["Dnsmos"]

_RATE = 16000
_SECONDS = 9.01
_WINDOW = int(_SECONDS * _RATE)
_MIN_SAMPLES = 1600
_POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
"""From the network's raw outputs, in its order, to the P.835 scale; highest power first (DNS-Challenge repository)."""


class Dnsmos(Judge):
    """SIG, BAK, OVRL (Reddy et al. 2022, arXiv 2110.01763) and P.808 (2021, arXiv 2010.15258), each about 1 to 5.

    Windows of 9.01 s, 1 s apart, scores averaged; shorter audio is repeated (doubled until long enough), as the
    reference does. Samples beyond full scale are clipped, as writing a 16-bit file would (speechmos refuses them).
    It does not rank codecs: in published comparisons original speech scores lower than most of its
    reconstructions, because the networks reward clean, denoised sound.

    Params:
        repetition: "double" as the reference (2 to 4 s of speech become up to 7 windows), or "window": repeat to
            exactly one window, several times faster, for cards of another name, as the scores differ slightly.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.mel", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"repetition"})
        repetition = card.params.get("repetition", "double")
        if repetition not in ("double", "window"):
            raise CardError("'repetition' must be double or window", where=f"judge {card.name}: params.repetition")
        self._double = repetition == "double"
        paths = find_files(card, weights)
        runtime = need("onnxruntime", card)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        sessions = {
            path.name: runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in paths.values()
        }
        self._p835: Any = sessions["sig_bak_ovr.onnx"]
        self._p808: Any = sessions["model_v8.onnx"]

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Version of onnxruntime, sha256 of both networks."""
        return package_versions("onnxruntime") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Score each wave: {"ovrl", "sig", "bak", "p808"}.

        Raises:
            ItemError: shorter than 0.1 s, or every sample is zero: the networks would answer all the same, with a
                number about nothing.
        """
        return [self._score(wave) for wave in checked(self.card, wavs)]

    def _score(self, wave: Wave) -> Evidence:
        require_sound(self.card, wave)
        if len(wave) < _MIN_SAMPLES:
            raise ItemError(f"{len(wave)} samples are too few to judge", where=f"judge {self.card.name}")
        raw, p808 = [], []
        for window in _windows(full_scale(wave), double=self._double):
            raw.append(self._p835.run(None, {"input_1": window[None]})[0][0])
            p808.append(self._p808.run(None, {"input_1": _log_mel(window[:-160])[None]})[0][0, 0])
        outputs = np.asarray(raw, np.float64)
        scores = {
            name: float(np.polyval(polynomial, outputs[:, index]).mean())
            for index, (name, polynomial) in enumerate(_POLYNOMIALS.items())
        }
        scores["p808"] = float(np.mean(p808, dtype=np.float64))
        require_finite(self.card, np.array(list(scores.values())))
        return {name: scores[name] for name in ("ovrl", "sig", "bak", "p808")}


def _windows(wave: Wave, *, double: bool) -> list[Wave]:
    """Float32 `[144160]` each; at least one."""
    if not double and len(wave) < _WINDOW:
        return [np.resize(wave, _WINDOW)]
    while len(wave) < _WINDOW:
        wave = np.concatenate([wave, wave])
    # Whole seconds of audio less the window, truncated towards zero: the reference's count.
    count = int(len(wave) // _RATE - _SECONDS) + 1
    windows = [wave[k * _RATE : int((k + _SECONDS) * _RATE)] for k in range(count)]
    return [window for window in windows if len(window) >= _WINDOW]


def _log_mel(window: Wave) -> npt.NDArray[np.float32]:
    """Float32 `[900, 120]`: decibels under the loudest bin, at most 80 below it, scaled by (x + 40) / 40."""
    power = np.maximum(mel_power(window, rate=_RATE, n_fft=321, hop=160, n_mels=120), 1e-10)
    decibels = 10.0 * np.log10(power) - 10.0 * np.log10(power.max())
    return np.ascontiguousarray((np.maximum(decibels, -80.0) + 40.0) / 40.0, np.float32).T.copy()
