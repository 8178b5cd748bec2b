"""Voice conversion: similarity to the target and to the source, and equal error rates in two readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokbench.metrics.base import Columns, Mean, Metric
from tokbench.metrics.eer import Eer
from tokbench.types import Direction

__all__ = ["METRICS", "PairedEer"]

Float = npt.NDArray[np.float64]

_EER = Eer()


@dataclass(frozen=True)
class PairedEer:
    """Equal error rate where every item brings a target and a non-target score."""

    target: str
    nontarget: str

    def __str__(self) -> str:
        return f"equal error rate of {self.target} against {self.nontarget}, SpeechBrain's rule"

    def _doubled(self, columns: Columns) -> dict[str, Float]:
        accepted, rejected = columns[self.target], columns[self.nontarget]
        kind = np.concatenate([np.ones(len(accepted)), np.zeros(len(rejected))])
        return {"score": np.concatenate([accepted, rejected]), "target": kind}

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`."""
        return _EER(self._doubled(columns), np.hstack([weights, weights]))

    def sums(self, columns: Columns, groups: npt.NDArray[np.int64], count: int) -> Float:
        """Histograms of both kinds of scores a group."""
        return _EER.sums(self._doubled(columns), np.concatenate([groups, groups]), count)

    def finish(self, totals: Float) -> Float:
        """Equal error rates `[draws]`."""
        return _EER.finish(totals)

    def renamed(self, names: Mapping[str, str]) -> PairedEer:
        """The same rate of other columns."""
        return PairedEer(names[self.target], names[self.nontarget])


def _similarity(name: str, title: str, direction: Direction, description: str) -> Metric:
    return Metric(
        name=name,
        unit="",
        direction=direction,
        components=(name,),
        reduce=Mean(name),
        title=title,
        source="cosine of the judge's utterance embeddings",
        description=description,
    )


def _eer(
    name: str, title: str, direction: Direction, reduce: PairedEer | Eer, components: tuple[str, ...], description: str
) -> Metric:
    return Metric(
        name=name,
        unit="%",
        direction=direction,
        components=components,
        reduce=reduce,
        title=title,
        source="SpeechBrain 1.1, utils.metric_stats.EER, over cosines",
        scale=100.0,
        description=description,
    )


_SIMILAR = ("similarity_target", "similarity_source")
_REAL = ("similarity_real_target", "similarity_real_source")

METRICS: tuple[Metric, ...] = (
    _similarity(
        "similarity_target", "Similarity to target", "higher",
        "How much the converted voice resembles the reference of its target in the eyes of the speaker model; higher "
        "is better. Channel and noise of the reference count as voice.",
    ),
    _similarity(
        "similarity_source", "Similarity to source", "lower",
        "How much of the source's voice the converted speech keeps; lower is better, down to what two strangers have "
        "in common. Broken speech resembles nobody and looks good here.",
    ),
    _similarity(
        "similarity_real_target", "Similarity of real speech", "none",
        "Cosine of two real recordings of the target speaker: as far as a perfect conversion could be expected to get. "
        "It belongs to the pairs and to the judge, not to the tokenizer.",
    ),
    _eer(
        "vc_eer", "VC EER (target against source)", "lower", PairedEer(*_SIMILAR), _SIMILAR,
        "Converted speech against its target (accept) and against its source (reject), reading H1; lower is better, "
        "0 % is a full change of voice and an unchanged voice gives 100 %. It rewards broken speech that resembles "
        "nobody: read it beside the word error rate and F0 correlation.",
    ),
    _eer(
        "vc_eer_real", "VC EER of real speech", "none", PairedEer(*_REAL), _REAL,
        "The same reading for another real recording of the target speaker in place of the conversion: the ceiling of "
        "these pairs under this judge, the same for every tokenizer.",
    ),
    _eer(
        "vc_eer_verification", "VC EER (target verification)", "lower", Eer(), ("score", "target"),
        "Converted speech against the reference of its target (accept) and those of other speakers (reject), reading "
        "H2; lower is better, 50 % is no identity of the target at all. It does not see what is left of the source.",
    ),
    _eer(
        "vc_eer_verification_real", "Verification EER of real speech", "none", Eer(), ("score", "target"),
        "Target verification of another real recording of the target speaker: the ceiling of these pairs under this "
        "judge, the same for every tokenizer.",
    ),
)  # fmt: skip
