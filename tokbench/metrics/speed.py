"""Speed: real-time factors and peak memory, from seconds and bytes that a fresh process measured."""

from __future__ import annotations

from tokbench.metrics.base import Mean, Metric, Ratio

__all__ = ["METRICS"]

_CLOCK = "seconds of a monotonic clock over seconds of audio, tokbench.protocols.speed"
_BYTES = "resident memory's high-water mark, of the process and its workers; on CUDA, that of what torch has allocated"
_CAVEAT = "It belongs to one machine and its load: compare only what one run measured."
_DID = {"encode": "turning audio into tokens", "decode": "turning tokens into audio"}


def _rtf(stage: str, variant: str, head: str, words: str) -> Metric:
    prefix = f"{variant}_" if variant else ""
    seconds, audio = f"{prefix}{stage}_seconds", f"{prefix}audio_seconds"
    return Metric(
        name=f"rtf_{stage}{f'_{variant}' if variant else ''}",
        unit="",
        direction="lower",
        components=(seconds, audio),
        reduce=Ratio(seconds, audio),
        title=f"Real-time factor, {stage}{head}",
        source=_CLOCK,
        description=f"Seconds that {_DID[stage]} takes for one second of audio, {words}; lower is better. {_CAVEAT}",
    )


def _peak(stage: str, variant: str, head: str, words: str) -> Metric:
    name = f"peak_memory_{stage}{f'_{variant}' if variant else ''}"
    return Metric(
        name=name,
        unit="MB",
        direction="lower",
        components=(name,),
        reduce=Mean(name),
        title=f"Peak memory, {stage}{head}",
        source=_BYTES,
        scale=1e-6,
        description=(
            f"Most memory that {_DID[stage]} needs, {words}, libraries and weights included; lower is better. It grows "
            "with the length of the audio, and a library that keeps what it once had looks larger than it must be."
        ),
    )


METRICS: tuple[Metric, ...] = (
    *(
        metric
        for stage in ("encode", "decode")
        for metric in (
            _rtf(stage, "", "", "one utterance a call, after a first call"),
            _rtf(stage, "cold", ", cold", "at the first call of a fresh process, which also compiles and fills caches"),
            _rtf(stage, "batch", ", best batch", "at the number of equally long utterances a call that is fastest"),
            _peak(stage, "", "", "one utterance a call"),
            _peak(stage, "batch", ", best batch", "at the fastest number of utterances a call"),
        )
    ),
    Metric(
        name="load_seconds",
        unit="s",
        direction="lower",
        components=("load_seconds",),
        reduce=Mean("load_seconds"),
        title="Loading",
        source="seconds of a monotonic clock, tokbench.protocols.speed",
        description=(
            "Seconds from a fresh process to a loaded tokenizer, imports of its libraries included; lower is better. "
            "It says nothing of the first download, and files that the system still has in memory load faster."
        ),
    ),
)
