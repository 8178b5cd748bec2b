"""The judge contract: a pretrained scorer with an identity.

A judge maps audio to evidence (a transcript, an embedding, a pitch track, opinion scores), one utterance at a
time. Its identity enters the metric's name and the store's key, so that numbers of different judges never
share a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from tokbench.types import Wave

if TYPE_CHECKING:
    from tokbench.config import JudgeCard

__all__ = ["Evidence", "Judge"]

Evidence: TypeAlias = dict[str, str | float | npt.NDArray[np.generic]]
"""What a judge says of one utterance.

asr: {"text"}; speaker: {"embedding" float32 [D]}; mos: {name: score}; pitch: {"f0" float64 [T] in Hz, 0 where
unvoiced; "step" seconds}.
"""


class Judge(ABC):
    """A pretrained scorer built from its card.

    Args:
        card: declaration; `card.params` holds what only this family understands, `card.input_rate` is in Hz.
        device: torch device string.
        weights: local folder that replaces the hub; None for the card's own source.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        self.card = card
        self.device = device
        self.weights = weights

    @classmethod
    def identity(
        cls,
        card: JudgeCard,  # noqa: ARG003
        weights: Path | None = None,  # noqa: ARG003
    ) -> dict[str, str]:
        """Versions and sha256 of everything that decides the scores; cheap, without importing torch."""
        return {}

    @abstractmethod
    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Judge waves float32 `[n]` at `card.input_rate`; one result each, in order.

        Raises:
            ItemError: an utterance cannot be judged (too short, silent for a model that needs speech).
        """
