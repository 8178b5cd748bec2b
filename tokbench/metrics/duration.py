"""How far the length of decoded audio is from the original's."""

from __future__ import annotations

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Mean, Metric, Ratio

__all__ = ["METRICS", "duration"]


def duration(reference_samples: int, degraded_samples: int) -> dict[str, float]:
    """Lengths of one utterance, both in samples at the reference's rate.

    Returns:
        `length_error` (absolute difference), `length_difference` (degraded - reference), `reference_samples`,
        `degraded_samples`.

    Raises:
        UndefinedMetric: the reference has no samples.
    """
    if reference_samples <= 0:
        raise UndefinedMetric("the reference has no samples")
    return {
        "length_error": float(abs(degraded_samples - reference_samples)),
        "length_difference": float(degraded_samples - reference_samples),
        "reference_samples": float(reference_samples),
        "degraded_samples": float(degraded_samples),
    }


METRICS: tuple[Metric, ...] = (
    Metric(
        name="length_error",
        unit="samples",
        direction="lower",
        components=("length_error",),
        reduce=Mean("length_error"),
        title="Length error",
        source="mean absolute difference of lengths, at the reference's rate",
        description=(
            "How many samples the decoded audio is too long or too short; lower is better, 0 is exact. A frame of "
            "padding is harmless to listeners but shifts metrics that compare frame by frame."
        ),
    ),
    Metric(
        name="duration_ratio",
        unit="",
        direction="none",
        components=("degraded_samples", "reference_samples"),
        reduce=Ratio("degraded_samples", "reference_samples"),
        title="Duration ratio",
        source="sum of decoded lengths over sum of original lengths",
        description=(
            "Total length of the decoded speech over that of the original; 1 is exact, and neither direction is "
            "better. Too long and too short utterances cancel."
        ),
    ),
)
