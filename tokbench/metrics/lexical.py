"""How well a probe trained on tokens reads words from them. Never the same column as a recogniser of decoded audio."""

from __future__ import annotations

from tokbench.metrics.base import Metric, Ratio

__all__ = ["METRICS"]

_BLIND = (
    "It says how easily a small model finds words in the tokens with this much data, not whether the words are there: "
    "more data or a larger model lowers it, so compare it only within one task, suite and training set."
)

METRICS: tuple[Metric, ...] = (
    Metric(
        name="probe_wer",
        unit="%",
        direction="lower",
        components=("wer_errors", "wer_words"),
        reduce=Ratio("wer_errors", "wer_words"),
        title="Probe WER",
        source="minimum edit distance, jiwer 4; sum of errors over sum of reference lengths, over all seeds",
        scale=100.0,
        description=f"Share of words that a probe trained on the tokens gets wrong; lower is better. {_BLIND}",
    ),
    Metric(
        name="probe_cer",
        unit="%",
        direction="lower",
        components=("cer_errors", "cer_characters"),
        reduce=Ratio("cer_errors", "cer_characters"),
        title="Probe CER",
        source="minimum edit distance, jiwer 4; sum of errors over sum of reference lengths, over all seeds",
        scale=100.0,
        description=f"Share of characters that a probe trained on the tokens gets wrong; lower is better. {_BLIND}",
    ),
    Metric(
        name="probe_infeasible",
        unit="%",
        direction="lower",
        components=("infeasible", "utterances"),
        reduce=Ratio("infeasible", "utterances"),
        title="Too few frames",
        source="CTC needs a frame a label and one between equal labels (Graves et al. 2006)",
        scale=100.0,
        description=(
            "Share of utterances whose text has more labels than the probe has frames, so that CTC cannot spell it; "
            "lower is better. Such utterances of the training data are left out of training, those of the test count "
            "with all their errors."
        ),
    ),
)
