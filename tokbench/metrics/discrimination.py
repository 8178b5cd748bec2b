"""Speaker discrimination: equal error rates of trials scored by a vector of the tokenizer, and a trained probe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokbench.errors import UndefinedMetric
from tokbench.metrics.base import Metric
from tokbench.metrics.eer import Eer, eer
from tokbench.types import Direction

__all__ = ["METRICS", "VARIANTS", "histogram", "probe_eers"]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

VARIANTS: dict[str, str] = {
    "": "all pairs",
    "_same_gender": "pairs of one gender only, so that gender does not help",
    "_balanced": "different-speaker pairs half of one gender and half of two",
}
"""Suffix of a metric -> which trials it counts."""

_DIMENSIONS = 64
_SHRINKAGE = 0.1


def histogram(units: npt.ArrayLike, used: Int) -> Float:
    """Relative frequencies of the units `used` (sorted) in a sequence, float64 `[len(used)]`."""
    place = np.searchsorted(used, np.asarray(units, np.int64))
    return np.bincount(place, minlength=len(used)) / max(1, len(place))


def probe_eers(vectors: npt.ArrayLike, speakers: Int, *, seed: int) -> list[float]:
    """Equal error rates of a linear probe on speakers it was not trained on, one for each half of the speakers.

    Speakers are split in two halves by the seed. On one half, principal components (at most 64, whitened) and linear
    discriminants with a shrunken within-speaker covariance are fitted; pairs of the other half are scored by cosine.

    Args:
        vectors: `[n, D]`, one an utterance.
        speakers: int64 `[n]`, numbers of the speakers.
        seed: of the split.

    Raises:
        UndefinedMetric: fewer than four speakers with two utterances each.

    Source: Belhumeur et al., Fisherfaces, 1997 (PCA before LDA); Friedman, Regularized discriminant analysis, 1989.
    """
    x = np.asarray(vectors, np.float64)
    names, counts = np.unique(speakers, return_counts=True)
    usable = names[counts >= 2]
    if len(usable) < 4:
        raise UndefinedMetric(f"a probe needs four speakers with two utterances, there are {len(usable)}")
    order = np.random.default_rng(seed).permutation(usable)
    half = len(order) // 2
    made = []
    for train, test in ((order[:half], order[half:]), (order[half:], order[:half])):
        project = _discriminants(x[np.isin(speakers, train)], speakers[np.isin(speakers, train)])
        chosen = np.isin(speakers, test)
        y, who = project(x[chosen]), speakers[chosen]
        y = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
        i, j = np.triu_indices(len(y), 1)
        scores, same = np.einsum("nd,nd->n", y[i], y[j]), who[i] == who[j]
        made.append(eer(scores[same], scores[~same]).value)
    return made


def _discriminants(x: Float, speakers: Int):  # type: ignore[no-untyped-def]
    """A projection onto linear discriminants of the speakers."""
    mean = x.mean(axis=0)
    _, spread, axes = np.linalg.svd(x - mean, full_matrices=False)
    kept = min(_DIMENSIONS, int(np.sum(spread > 1e-9 * max(spread[0], 1e-30))))
    white = axes[:kept].T / np.maximum(spread[:kept], 1e-30) * np.sqrt(len(x))
    z = (x - mean) @ white
    names, place = np.unique(speakers, return_inverse=True)
    centres = np.stack([z[place == k].mean(axis=0) for k in range(len(names))])
    inside = z - centres[place]
    within = inside.T @ inside / len(z)
    within = (1 - _SHRINKAGE) * within + _SHRINKAGE * np.trace(within) / max(1, kept) * np.eye(kept)
    within += 1e-9 * np.eye(kept)
    # Whitened by the within-speaker covariance, the directions between the speakers' means are the discriminants.
    values, vectors = np.linalg.eigh(within)
    inverse = vectors / np.sqrt(values)
    _, _, between = np.linalg.svd(centres @ inverse, full_matrices=False)
    project = white @ inverse @ between[: max(1, min(len(names) - 1, kept))].T

    def apply(values: Float) -> Float:
        return np.asarray((values - mean) @ project, np.float64)

    return apply


def _metrics(name: str, title: str, direction: Direction, words: str) -> list[Metric]:
    return [
        Metric(
            name=f"{name}{suffix}",
            unit="%",
            direction=direction,
            components=("score", "target"),
            reduce=Eer(),
            title=f"{title}{', ' if suffix else ''}{suffix[1:].replace('_', ' ')}",
            source="SpeechBrain 1.1, utils.metric_stats.EER, over cosines",
            scale=100.0,
            description=f"{words} Trials: {which}.",
        )
        for suffix, which in VARIANTS.items()
    ]


METRICS: tuple[Metric, ...] = (
    *_metrics(
        "eer_speaker", "Speaker EER of the global vector", "lower",
        "How often the tokenizer's own utterance vector takes two speakers for one or one for two; lower is better, "
        "50 % is chance. It hears channel and noise as well as the voice, and does not say whether decoding uses it.",
    ),
    *_metrics(
        "eer_leakage", "Speaker EER of the content", "higher",
        "The same trials scored by pooled content tokens; higher means that less of the voice is left in them, 50 % is "
        "none that a cosine finds. A trained model may still find more, and what was said moves it, too.",
    ),
    Metric(
        name="eer_probe",
        unit="%",
        direction="higher",
        components=("score", "target"),
        reduce=Eer(),
        title="Speaker EER of a probe on the content",
        source="mean of EERs on held-out halves of the speakers; PCA and linear discriminants, 3 splits",
        scale=100.0,
        description=(
            "Pairs of speakers that a small linear probe was not trained on, scored by its projection of pooled "
            "content tokens; higher means less leakage. It is linear and sees few speakers, so more may leak."
        ),
    ),
)  # fmt: skip
