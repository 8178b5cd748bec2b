"""Predicted opinion scores: the means of what a MOS judge says, one metric a score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tokbench.errors import TokbenchError, UndefinedMetric
from tokbench.metrics.base import Mean, Metric

__all__ = ["EVIDENCE", "METRICS", "opinion_scores"]


EVIDENCE = {
    "ovrl": "dnsmos_ovrl",
    "sig": "dnsmos_sig",
    "bak": "dnsmos_bak",
    "p808": "dnsmos_p808",
    "utmos": "utmos",
}
"""What a judge calls its score -> the metric."""


def opinion_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The components of one utterance from a judge's scores, by metric name (`dnsmos_ovrl`, `utmos`, ...).

    Raises:
        UndefinedMetric: a score is not finite.
        TokbenchError: a score belongs to no metric.
    """
    components = {}
    for name, score in scores.items():
        if name not in EVIDENCE:
            raise TokbenchError(f"no metric is made from '{name}'", where="opinion scores", hint=", ".join(EVIDENCE))
        if not np.isfinite(score):
            raise UndefinedMetric(f"{EVIDENCE[name]} is not a number")
        components[EVIDENCE[name]] = float(score)
    return components


_DNSMOS = "Reddy et al., DNSMOS P.835, ICASSP 2022"
_BLIND = (
    "It was trained on noisy and enhanced speech and ranks codecs poorly: originals often score below their copies."
)


def _opinion(name: str, title: str, source: str, description: str) -> Metric:
    return Metric(
        name=name,
        unit="MOS",
        direction="higher",
        components=(name,),
        reduce=Mean(name),
        title=title,
        source=source,
        description=description,
    )


METRICS: tuple[Metric, ...] = (
    _opinion(
        "dnsmos_ovrl",
        "DNSMOS overall",
        _DNSMOS,
        f"Predicted overall quality without a reference, 1 to 5; higher is better. {_BLIND}",
    ),
    _opinion(
        "dnsmos_sig",
        "DNSMOS signal",
        _DNSMOS,
        f"Predicted quality of the speech signal without a reference, 1 to 5; higher is better. {_BLIND}",
    ),
    _opinion(
        "dnsmos_bak",
        "DNSMOS background",
        _DNSMOS,
        "Predicted absence of background noise, 1 to 5; higher is better. A codec that wipes out room and noise gains, "
        "though it is less faithful.",
    ),
    _opinion(
        "dnsmos_p808",
        "DNSMOS P.808",
        "Reddy et al., DNSMOS, ICASSP 2021",
        f"Predicted overall quality on the P.808 scale, 1 to 5; higher is better. {_BLIND}",
    ),
    _opinion(
        "utmos",
        "UTMOS",
        "Saeki et al., UTMOS, Interspeech 2022 (UTMOS22 strong)",
        "Predicted naturalness without a reference, 1 to 5; higher is better. It never hears the original, so other "
        "words or another voice cost nothing, and it is biased by language.",
    ),
)
