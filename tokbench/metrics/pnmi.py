"""How much of the phone a discrete unit tells: phone-normalised mutual information and purities, from joint counts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.base import Columns, Metric

__all__ = [
    "METRICS",
    "JointReduce",
    "PhoneUnitScores",
    "joint_counts",
    "phone_unit_scores",
    "shuffled_units",
    "unit_of_frame",
]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Field = Literal["pnmi", "pnmi_corrected", "phone_purity", "cluster_purity"]


class PhoneUnitScores(NamedTuple):
    """Scores of phones and units (natural logarithms; the base cancels in PNMI).

    Attributes:
        pnmi: I(phone; unit) / H(phone), 0 to 1.
        pnmi_corrected: the same with Miller's and Madow's correction of all three entropies; may be a little below 0.
        mutual_information: I(phone; unit) in nats.
        phone_entropy: H(phone) in nats.
        phone_purity: probability of the commonest phone of each unit, averaged over frames.
        cluster_purity: probability of the commonest unit of each phone, averaged over frames.
    """

    pnmi: float
    pnmi_corrected: float
    mutual_information: float
    phone_entropy: float
    phone_purity: float
    cluster_purity: float


def joint_counts(phones: npt.ArrayLike, units: npt.ArrayLike, *, n_phones: int, n_units: int) -> Int:
    """Frames of every phone with every unit, int64 `[n_phones, n_units]`.

    Args:
        phones: integers `[N]`, 0 .. n_phones - 1.
        units: integers `[N]`, 0 .. n_units - 1.

    Raises:
        TokbenchError: lengths differ, or a number is out of range.
    """
    y, z = np.asarray(phones), np.asarray(units)
    if y.shape != z.shape or y.ndim != 1:
        raise TokbenchError(f"phones {y.shape} and units {z.shape} must be equally long", where="pnmi")
    for what, values, limit in (("phone", y, n_phones), ("unit", z, n_units)):
        if values.size and (int(values.min()) < 0 or int(values.max()) >= limit):
            raise TokbenchError(f"a {what} is outside 0..{limit - 1}", where="pnmi")
    counts = np.zeros(n_phones * n_units, np.int64)
    for start in range(0, len(y), 1 << 20):
        cell = y[start : start + (1 << 20)].astype(np.int64) * n_units
        cell += z[start : start + (1 << 20)]
        counts += np.bincount(cell, minlength=len(counts))
    return counts.reshape(n_phones, n_units)


def phone_unit_scores(joint: npt.ArrayLike, *, samples: float | None = None) -> PhoneUnitScores:
    """Scores from joint counts `[phones, units]`.

    Args:
        joint: counts or weights of frames, not negative.
        samples: independent observations for the correction; None for the sum of the counts. Units that are repeated
            over several frames are one observation.

    Raises:
        UndefinedMetric: there are no frames, or only one phone, whose entropy is 0.

    Source: Hsu et al., HuBERT, 2021, section IV.F; fairseq `measure_teacher_quality.py` (without its 1e-8 inside the
        logarithms). Correction: Miller, Note on the bias of information estimates, 1955.
    """
    counts = np.asarray(joint, np.float64)
    total = float(counts.sum())
    if total <= 0:
        raise UndefinedMetric("there are no frames with a phone and a unit")
    by_phone, by_unit = counts.sum(axis=1), counts.sum(axis=0)
    h_phone, phones = _entropy(by_phone, total)
    h_unit, units = _entropy(by_unit, total)
    h_joint, cells = _entropy(counts.ravel(), total)
    if phones < 2:
        raise UndefinedMetric("there is only one phone, which has no entropy to explain")
    n = total if samples is None else samples
    information = max(h_phone + h_unit - h_joint, 0.0)
    corrected = h_phone + h_unit - h_joint + ((phones - 1) + (units - 1) - (cells - 1)) / (2 * n)
    return PhoneUnitScores(
        pnmi=information / h_phone,
        pnmi_corrected=corrected / (h_phone + (phones - 1) / (2 * n)),
        mutual_information=information,
        phone_entropy=h_phone,
        phone_purity=float(counts.max(axis=0).sum() / total),
        cluster_purity=float(counts.max(axis=1).sum() / total),
    )


def _entropy(counts: Float, total: float) -> tuple[float, int]:
    """Entropy in nats, and how many are not 0."""
    used = counts[counts > 0]
    return float(np.log(total) - (used @ np.log(used)) / total), len(used)


def unit_of_frame(frames: int, rate: Fraction, frame_rate: Fraction, units: int) -> Int:
    """The unit under the centre of each frame, int64 `[n]`; n is cut where the units end.

    Frame i stands at (i + 1/2) / frame_rate seconds; unit k covers k / rate .. (k + 1) / rate. At 25 Hz units and 50 Hz
    frames this repeats every unit twice.
    """
    step = rate / frame_rate
    index = (2 * np.arange(frames, dtype=np.int64) + 1) * step.numerator // (2 * step.denominator)
    return index[index < units]


def shuffled_units(units: npt.NDArray[np.integer], *, seed: int) -> npt.NDArray[np.integer]:
    """The units in random order: what is left of PNMI then is the bias of a small sample."""
    return np.random.default_rng(seed).permutation(units)


@dataclass(frozen=True)
class JointReduce:
    """A score of the joint counts that rows (phone, unit, frames, samples) add up to."""

    score: Field

    def __str__(self) -> str:
        return f"{self.score} of joint counts"

    def __call__(self, columns: Columns, weights: Float) -> Float:
        """Values `[draws]`; NaN where a draw holds fewer than two phones."""
        phone, unit, frames, samples = (columns[name] for name in _COMPONENTS)
        (y, y_count), (z, z_count) = _numbered(phone), _numbered(unit)
        values = np.full(len(weights), np.nan)
        for draw, weight in enumerate(weights):
            joint = np.bincount(y * z_count + z, weights=weight * frames, minlength=y_count * z_count)
            try:
                scores = phone_unit_scores(joint.reshape(y_count, z_count), samples=float(weight @ samples))
            except UndefinedMetric:
                continue  # a draw without a value is NaN, by the contract of a reduce
            values[draw] = getattr(scores, self.score)
        return values


def _numbered(values: Float) -> tuple[Int, int]:
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), len(names)


_SOURCE = "Hsu et al., HuBERT, 2021, section IV.F; fairseq measure_teacher_quality.py"
_COMPONENTS = ("phone", "unit", "frames", "samples")


def _metrics(suffix: str, title: str, words: str) -> tuple[Metric, ...]:
    def one(name: str, score: Field, head: str, description: str, *, shuffled: bool = False) -> Metric:
        return Metric(
            name=f"{name}{suffix}",
            unit="%",
            direction="none" if shuffled else "higher",
            components=_COMPONENTS,
            reduce=JointReduce(score),
            title=f"{head}{title}",
            source=_SOURCE,
            scale=100.0,
            description=f"{description} {words}",
        )

    return (
        one(
            "pnmi", "pnmi", "PNMI",
            "Share of the uncertainty about the phone of a frame that its unit removes; higher is better. It grows "
            "with the vocabulary and with a small corpus: read it beside the shuffled baseline. It is blind to order.",
        ),
        one(
            "pnmi_corrected", "pnmi_corrected", "PNMI, corrected",
            "PNMI with the entropies corrected for the size of the sample (Miller and Madow), a unit that is repeated "
            "over frames counted once; higher is better. It still misses codes that never occurred.",
        ),
        one(
            "pnmi_shuffled", "pnmi", "PNMI, shuffled",
            "PNMI after the units have been put in random order, which should be 0: what is there is the bias of the "
            "sample's size, to be subtracted by eye. Neither direction is better.",
            shuffled=True,
        ),
        one(
            "phone_purity", "phone_purity", "Phone purity",
            "How often the commonest phone of a unit is the right one; higher is better. Many units make it high "
            "without being phone-like: with one unit a frame it is 1.",
        ),
        one(
            "cluster_purity", "cluster_purity", "Cluster purity",
            "How often the commonest unit of a phone is the one that occurs; higher is better. It falls as the "
            "vocabulary grows, so compare it between vocabularies of one size.",
        ),
    )  # fmt: skip


METRICS: tuple[Metric, ...] = (
    *_metrics("", "", "Silence is one more phone here."),
    *_metrics("_speech", " (speech)", "Frames of silence are left out."),
)
