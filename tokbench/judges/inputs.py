"""What every judge does before it judges: check the waves, read its parameters, import its library."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from tokbench.audio import check_wave
from tokbench.config import JudgeCard
from tokbench.errors import CardError, ItemError, MissingBackend
from tokbench.types import FloatArray, Wave

__all__ = ["check_params", "checked", "full_scale", "need", "require_finite", "require_sound"]


def checked(card: JudgeCard, wavs: Sequence[Wave]) -> list[Wave]:
    """The waves as contiguous float32 `[n]`; raises `AudioError`, naming judge and index, for an unusable one."""
    return [check_wave(wave, name=f"judge {card.name}, wave {index}") for index, wave in enumerate(wavs)]


def require_sound(card: JudgeCard, wave: Wave) -> None:
    """Raise `ItemError` where every sample is zero, for judges that have no answer then."""
    if not wave.any():
        raise ItemError("every sample is zero, which this judge cannot judge", where=f"judge {card.name}")


def require_finite(card: JudgeCard, values: FloatArray) -> None:
    """Raise `ItemError` where the model answered with NaN or infinity."""
    if not np.isfinite(values).all():
        raise ItemError("the model answered with a number that is not finite", where=f"judge {card.name}")


def full_scale(wave: Wave) -> Wave:
    """Clip to [-1, 1], as a 16-bit file would; for models that are defined on file samples."""
    return np.clip(wave, np.float32(-1.0), np.float32(1.0))


def check_params(card: JudgeCard, allowed: set[str]) -> None:
    """Raise `CardError` for a parameter that the adapter does not read."""
    unknown = sorted(set(card.params) - allowed)
    if unknown:
        raise CardError(
            f"'{unknown[0]}' is no parameter of this judge",
            where=f"judge {card.name}: params",
            hint=f"Parameters: {', '.join(sorted(allowed)) or 'none'}",
        )


def need(module: str, card: JudgeCard) -> ModuleType:
    """Import a library that an extra brings; `MissingBackend` with the command to type where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingBackend(package, extra=card.requires or "judges", needed_by=f"judge '{card.name}'") from None
