"""Pitch judges: Praat's autocorrelation, WORLD's Harvest and DIO, and CREPE.

All give one F0 value every 10 ms, in Hz, 0 where unvoiced. Audio too short for a single analysis frame gives a
track of length 0: no value is invented, and metrics on such a track are undefined.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from tokbench.config import JudgeCard
from tokbench.errors import CardError
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, need
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import FloatArray, Wave

if TYPE_CHECKING:
    import torch

__all__ = ["Crepe", "Praat", "World"]

_STEP = 0.01
_EMPTY = np.zeros(0)


class _Tracker(Judge):
    """What the trackers share: range and step from the card, one track a wave."""

    code_modules: ClassVar[tuple[str, ...]] = ("tokbench.judges.inputs",)
    _own_params: frozenset[str] = frozenset()

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"floor_hz", "ceiling_hz", "step"} | self._own_params)
        self.floor = float(card.params.get("floor_hz", 50.0))
        self.ceiling = float(card.params.get("ceiling_hz", 550.0))
        self.step = float(card.params.get("step", _STEP))
        if not (0 < self.floor < self.ceiling < card.input_rate / 2 and self.step > 0):
            raise CardError("needs 0 < floor_hz < ceiling_hz < half the rate, and step > 0", where=f"judge {card.name}")

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Track each wave: {"f0" float64 [T] in Hz, 0 unvoiced; "step" seconds}."""
        return [
            {"f0": np.ascontiguousarray(self._track(wave), np.float64), "step": self.step}
            for wave in checked(self.card, wavs)
        ]

    @abstractmethod
    def _track(self, wave: Wave) -> FloatArray:
        """F0 in Hz `[T]` of one wave, 0 where unvoiced."""


class Praat(_Tracker):
    """Praat's `To Pitch (ac)` through parselmouth (Boersma 1993), every setting but range and step at its default.

    Frames are centred in the file, so waves of equal length share a grid. Needs three periods of the lowest pitch
    (60 ms at 50 Hz); shorter audio has no frame.
    """

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        self._parselmouth = need("parselmouth", card)

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:  # noqa: ARG003
        """Version of parselmouth, which contains its own Praat."""
        return package_versions("praat-parselmouth")

    def _track(self, wave: Wave) -> FloatArray:
        rate = self.card.input_rate
        if len(wave) < 3.0 / self.floor * rate + 1:
            return _EMPTY
        sound = self._parselmouth.Sound(wave.astype(np.float64), sampling_frequency=rate)
        pitch = sound.to_pitch_ac(time_step=self.step, pitch_floor=self.floor, pitch_ceiling=self.ceiling)
        return np.asarray(pitch.selected_array["frequency"], np.float64)


class World(_Tracker):
    """WORLD's F0 estimators through pyworld: Harvest (Morise 2017), or DIO refined by StoneMask (Morise 2009).

    The first frame is at 0 s. Audio shorter than two periods of the lowest pitch has no frame.

    Params:
        method: "harvest" or "dio".
    """

    _own_params = frozenset({"method"})

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        self._pyworld = need("pyworld.pyworld", card)
        self._method = str(card.params.get("method", "harvest"))
        if self._method not in ("harvest", "dio"):
            raise CardError("'method' must be harvest or dio", where=f"judge {card.name}: params.method")

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:  # noqa: ARG003
        """Version of pyworld, which contains WORLD."""
        return package_versions("pyworld")

    def _track(self, wave: Wave) -> FloatArray:
        rate = self.card.input_rate
        if len(wave) < 2.0 / self.floor * rate:
            return _EMPTY
        samples = wave.astype(np.float64)
        settings = {"f0_floor": self.floor, "f0_ceil": self.ceiling, "frame_period": 1000.0 * self.step}
        if self._method == "harvest":
            return np.asarray(self._pyworld.harvest(samples, rate, **settings)[0], np.float64)
        f0, times = self._pyworld.dio(samples, rate, **settings)
        return np.asarray(self._pyworld.stonemask(samples, f0, times, rate), np.float64)


class Crepe(_Tracker):
    """CREPE through torchcrepe (Kim et al. 2018, arXiv 1802.06182), weights inside its wheel.

    Viterbi decoding over the whole wave, without the library's random dither of the bins; frames every 10 ms from
    0 s. A frame is unvoiced where the periodicity, median-filtered over three frames, is under 0.21 (the value of
    torchcrepe's documentation), or where every sample of the wave is zero.

    Params:
        model: "full" or "tiny".
        threshold: 0.21.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.weights")
    _own_params = frozenset({"model", "threshold"})

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        self._capacity = str(card.params.get("model", "full"))
        self._threshold = float(card.params.get("threshold", 0.21))
        if self._capacity not in ("full", "tiny"):
            raise CardError("'model' must be full or tiny", where=f"judge {card.name}: params.model")
        files = find_files(card, weights)
        torch = need("torch", card)
        self._torchcrepe = need("torchcrepe", card)
        (path,) = files.values()
        model = self._torchcrepe.Crepe(self._capacity)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._model = model.to(device).eval()

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of torchcrepe and torch, sha256 of the weights."""
        return package_versions("torchcrepe", "torch") | weights_identity(card, weights)

    def _track(self, wave: Wave) -> FloatArray:
        import torch

        rate = self.card.input_rate
        hop = round(self.step * rate)
        if not wave.any():
            return np.zeros(1 + len(wave) // hop)
        library = self._torchcrepe
        with torch.inference_mode():
            frames = library.preprocess(torch.from_numpy(wave)[None], rate, hop, batch_size=256, device=self.device)
            logits = torch.cat([self._model(batch) for batch in frames]).reshape(1, -1, library.PITCH_BINS)
            f0, periodicity = library.postprocess(
                logits.transpose(1, 2),
                self.floor,
                self.ceiling,
                decoder=self._viterbi,
                return_periodicity=True,
            )
            periodicity = library.filter.median(periodicity, 3)
        voiced = periodicity[0].cpu().numpy() >= self._threshold
        track: npt.NDArray[np.float64] = np.where(voiced, f0[0].cpu().numpy().astype(np.float64), 0.0)
        return track

    def _viterbi(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The library's Viterbi path, its bins turned into Hz without the library's random dither."""
        bins = self._torchcrepe.decode.viterbi(logits)[0]
        cents = 20.0 * bins.double() + 1997.3794084376191
        return bins, 10.0 * 2.0 ** (cents / 1200.0)
