"""The process that `tokbench.protocols.speed` measures in: loads one tokenizer, times it, and prints one JSON object.

Started as `python -m tokbench.protocols.speed_probe` with a pickled `Probe` on its standard input, so that nothing of
another tokenizer, judge or test is in its memory or its caches.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tokbench.errors import TokbenchError, TokenizerUnavailable
from tokbench.handle import TokenizerHandle
from tokbench.types import Wave

__all__ = ["Probe", "measure", "peak_bytes", "reset_peak"]

_Out = TypeVar("_Out")
_GAIN = 1.02
"""A larger batch must be faster by this factor, or the search for the best one ends."""


@dataclass(frozen=True)
class Probe:
    """What to measure.

    Attributes:
        waves: utterances at the tokenizer's input rate, float32 `[n]` each.
        batch: as many utterances of one length, to be encoded together.
        sizes: numbers of them to try, ascending.
        repeats: timed calls of each; the median counts.
    """

    handle: TokenizerHandle
    waves: tuple[Wave, ...]
    batch: tuple[Wave, ...]
    sizes: tuple[int, ...]
    repeats: int
    paths: tuple[Path, ...] = field(default=())


def measure(probe: Probe) -> dict[str, Any]:
    """Seconds and bytes of every phase.

    Returns:
        `load`; `cold` by stage, number of the wave and seconds; `peak` by stage; `warm` by stage, for every wave the
        median or None where it failed; `batches`, a list of `{stage, batch, seconds, peak}`; `failed`, by number of
        the wave.
    """
    import numpy as np

    device = probe.handle.device
    decodes = probe.handle.card.output_rate is not None
    start = time.perf_counter()
    tokenizer = probe.handle.live
    _wait(device)
    found: dict[str, Any] = {"load": time.perf_counter() - start, "cold": {}, "warm": {}, "peak": {}}
    found |= {"batches": [], "failed": {}}

    def timed(call: Callable[[], _Out]) -> tuple[float, _Out]:
        begin = time.perf_counter()
        made = call()
        _wait(device)
        return time.perf_counter() - begin, made

    def median(call: Callable[[], object]) -> float:
        return float(np.median([timed(call)[0] for _ in range(probe.repeats)]))

    def phase(stage: str, calls: Sequence[Callable[[], object] | None]) -> list[Any]:
        """Every call once, the first of which was the cold one, and then the median of its repeats."""
        reset_peak(device)
        made: list[Any] = []
        found["warm"][stage] = []
        for number, call in enumerate(calls):
            spent, result = None, None
            if call is not None:
                try:
                    first, result = timed(call)
                    found["cold"].setdefault(stage, [number, first])
                    spent = median(call)
                except TokbenchError as error:
                    result = None
                    found["failed"][number] = str(error)
            made.append(result)
            found["warm"][stage].append(spent)
        found["peak"][stage] = peak_bytes(device)
        return made

    encoded = phase("encode", [partial(tokenizer.encode, [wave]) for wave in probe.waves])
    if decodes:
        phase("decode", [None if made is None else partial(tokenizer.decode, made) for made in encoded])
    if len(found["failed"]) == len(probe.waves):
        return found
    batch = tokenizer.encode(probe.batch) if probe.batch and decodes else []

    def encode(size: int) -> object:
        return tokenizer.encode(probe.batch[:size])

    def decode(size: int) -> object:
        return tokenizer.decode(batch[:size])

    for stage, call in (("encode", encode), *((("decode", decode),) if decodes else ())):
        found["batches"] += _batches(stage, call, probe.sizes, median, device)
    return found


def _batches(
    stage: str,
    call: Callable[[int], object],
    sizes: Sequence[int],
    median: Callable[[Callable[[], object]], float],
    device: str,
) -> list[dict[str, Any]]:
    """Growing batches until one is no longer faster, or does not fit into memory."""
    made: list[dict[str, Any]] = []
    best = float("inf")
    for size in sizes:
        reset_peak(device)
        try:
            call(size)
            seconds = median(lambda size=size: call(size))  # type: ignore[misc]
        except (MemoryError, RuntimeError) as error:  # torch's out of memory is a RuntimeError
            if "memory" in str(error).lower() or isinstance(error, MemoryError):
                break
            raise
        made.append({"stage": stage, "batch": size, "seconds": seconds, "peak": peak_bytes(device)})
        if seconds / size > best / _GAIN:
            break
        best = min(best, seconds / size)
    return made


def _wait(device: str) -> None:
    """Until the device has finished what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Forget the most memory that was in use so far: of the GPU, or of this process and those that it has started."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    for folder in _processes():
        # Where it cannot be forgotten, the mark rises over the whole process: later phases show the largest so far.
        with contextlib.suppress(OSError):
            (folder / "clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: str) -> int | None:
    """Bytes at most since the last reset, workers of isolated tokenizers included.

    None on a GPU where this process has allocated nothing: what a worker has allocated there cannot be seen from here.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated()) or None
    peaks = [_high_water_mark(folder) for folder in _processes()]
    if peaks and peaks[0] is not None:
        return sum(peak or 0 for peak in peaks)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage if sys.platform == "darwin" else usage * 1024)


def _processes() -> list[Path]:
    """Folders in /proc of this process and of all below it; none where there is no /proc."""
    folders = [Path("/proc/self")] if Path("/proc/self/status").is_file() else []
    for folder in folders:  # grows meanwhile
        for listing in folder.glob("task/*/children"):
            with contextlib.suppress(OSError):
                folders += [Path("/proc", pid) for pid in listing.read_text(encoding="ascii").split()]
    return folders


def _high_water_mark(folder: Path) -> int | None:
    """Most resident memory of a process in bytes; None if it has ended."""
    with contextlib.suppress(OSError):
        for line in (folder / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Read the probe, measure, print."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand beside the answer
    probe: Probe = pickle.load(sys.stdin.buffer)  # written by the parent process
    from tokbench.registry import set_extra_paths

    set_extra_paths(probe.paths)
    try:
        made = measure(probe)
    except TokenizerUnavailable as error:
        made = {"unavailable": [error.what, error.where, error.hint]}
    except TokbenchError as error:
        made = {"error": str(error)}
    answers.write(json.dumps(made))
    answers.close()


if __name__ == "__main__":
    main()
