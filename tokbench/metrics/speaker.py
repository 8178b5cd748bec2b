"""Speaker similarity of two embeddings of the same judge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Mean, Metric

__all__ = ["METRICS", "cosine", "speaker_similarity"]


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Cosine of two vectors `[D]`, -1 to 1.

    Raises:
        UndefinedMetric: one of them is zero or not finite.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    if not np.isfinite(norm) or norm == 0.0:
        raise UndefinedMetric("a speaker embedding is zero or not finite")
    return float(np.clip((x @ y) / norm, -1.0, 1.0))


def speaker_similarity(reference: npt.ArrayLike, degraded: npt.ArrayLike) -> dict[str, float]:
    """Cosine similarity of the embeddings `[D]` of two waves under one judge. Errors as `cosine`."""
    return {"speaker_similarity": cosine(reference, degraded)}


METRICS: tuple[Metric, ...] = (
    Metric(
        name="speaker_similarity",
        unit="",
        direction="higher",
        components=("speaker_similarity",),
        reduce=Mean("speaker_similarity"),
        title="Speaker similarity",
        source="cosine of the judge's utterance embeddings of original and decoded speech",
        description=(
            "How much the decoded voice resembles the original's in the eyes of the speaker model; higher is better. "
            "Scales of different models cannot be compared, and channel and noise move it as well as the voice."
        ),
    ),
)
