"""Speed: real-time factor and peak memory of encode and decode, cold and warm, one utterance a call and the best batch.

Every measurement is made in a process of its own, with nothing else of the run beside it and nothing from the store;
the audio is read and resampled before the clock starts. Numbers carry the device in brackets, and the machine stands
in their note.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench import registry
from tokbench.bench import Bench
from tokbench.clip import Clip
from tokbench.config import TokenizerCard
from tokbench.data.dataset import Dataset
from tokbench.errors import ItemError, NotApplicable, TokenizerUnavailable
from tokbench.metrics.catalogue import metric
from tokbench.metrics.speed import METRICS
from tokbench.protocols.base import Item, Protocol, Row, Shard, failed_row
from tokbench.protocols.phones import utterances_of
from tokbench.protocols.speed_probe import Probe
from tokbench.stats import estimate

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.results import Estimate

__all__ = ["Speed"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_TABLE = {"cold": "processes", "load": "processes", "peak": "processes", "batch": "batches"}


class Speed(Protocol):
    """Load in a fresh process, time the first call, then others, then batches."""

    optional_params: ClassVar[frozenset[str]] = frozenset({"threads"})
    alone: ClassVar[bool] = True
    estimate_modules: ClassVar[tuple[str, ...]] = ("tokbench.stats", "tokbench.metrics.speed", "tokbench.metrics.base")

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` for a replay, which runs elsewhere."""
        super().check(card)
        if card.adapter.startswith("tokbench.tokenizers.replay"):
            raise NotApplicable(f"{card.name} is replayed from files; tokbench did not run it")

    def items(self, dataset: Dataset) -> list[Item]:
        """Some utterances spread evenly over the dataset, as one item."""
        count = min(len(dataset.utterances), int(self.params.get("utterances", 6)))
        chosen = [dataset.utterances[(2 * k + 1) * len(dataset.utterances) // (2 * count)] for k in range(count)]
        return [Item("utterances", {f"{i:06d}": u for i, u in enumerate(chosen)}, "utterances")]

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of tables "items" (utterances), "processes" and "batches"."""
        shard = Shard({"items": [], "processes": [], "batches": []})
        for item in items:
            self._measured(bench, item, shard)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:  # noqa: ARG002
        """Ratios of sums over utterances with intervals over speakers; over processes for what happens once in each."""
        processes = tables["processes"]
        if not len(processes):
            return []
        device, machine = str(processes["device"].iloc[0]), str(processes["machine"].iloc[0])
        batches = tables["batches"]
        made: list[Estimate] = []
        for definition in METRICS:
            one = metric(f"{definition.name}[{device}]")
            note, table = machine, next((t for part, t in _TABLE.items() if part in definition.name), "items")
            rows = tables[table]
            if "batch" in definition.name:
                if not len(batches):
                    continue
                table, stage = "batches", definition.name.removesuffix("_batch").rpartition("_")[2]
                best = _best_batch(batches, stage, device)
                rows = batches[(batches["stage"] == stage) & (batches["batch"] == best)]
                note = f"{best} utterances a call; {machine}"
            if one.components[0] not in rows or not rows[one.components[0]].notna().any():
                continue
            rows = rows[rows[one.components[0]].notna()]
            value = estimate(one, rows, draws=draws, seed=self.seed, table=table)
            value.note = note
            value.headline = definition.name in self.task.headline
            made.append(value)
        return made

    def _measured(self, bench: Bench, item: Item, shard: Shard) -> None:
        card, device = bench.tokenizer.card, bench.tokenizer.device
        rows: list[tuple[Item, Clip]] = []
        utterances = utterances_of(item)
        for utterance, clip in zip(utterances, bench.clips(utterances, card.input_rate), strict=True):
            own = Item(utterance.id, {}, utterance.speaker)
            if isinstance(clip, ItemError):
                shard.tables["items"].append(failed_row(own, clip))
            else:
                rows.append((own, clip))
        if not rows:
            return
        threads = int(self.params.get("threads") or len(os.sched_getaffinity(0)))
        probe = self._probe(bench, [clip for _, clip in rows])
        count = int(self.params.get("processes", 2))
        try:
            runs = [_run(probe, threads) for _ in range(count)]
        except ItemError as error:
            shard.tables["items"] += [failed_row(own, error) for own, _ in rows]
            return
        seconds = [clip.wave.size / clip.rate for _, clip in rows]
        for number, ((own, _), length) in enumerate(zip(rows, seconds, strict=True)):
            wrong = next((run["failed"][str(number)] for run in runs if str(number) in run["failed"]), None)
            if wrong is not None:
                shard.tables["items"].append(failed_row(own, ItemError(wrong)))
                continue
            row: Row = {"id": own.id, "speaker": own.cluster, "error": None, "stage": None}
            row[f"audio_seconds[{device}]"] = length
            for stage in runs[0]["warm"]:
                row[f"{stage}_seconds[{device}]"] = float(np.median([run["warm"][stage][number] for run in runs]))
            shard.tables["items"].append(row)
        machine = _machine(device, threads)
        length = probe.batch[0].size / card.input_rate
        for number, run in enumerate(runs, start=1):
            name = f"process {number}"
            row = {"id": name, "speaker": name, "device": device, "machine": machine}
            row[f"load_seconds[{device}]"] = run["load"]
            for stage, (number_of_wave, spent) in run["cold"].items():
                # Both stages begin with the first utterance that can be encoded.
                row[f"cold_{stage}_seconds[{device}]"] = spent
                row[f"cold_audio_seconds[{device}]"] = seconds[number_of_wave]
            row |= {f"peak_memory_{stage}[{device}]": _bytes(peak) for stage, peak in run["peak"].items()}
            shard.tables["processes"].append(row)
            shard.tables["batches"] += [
                {
                    "id": f"{name}, {one['stage']}, {one['batch']}",
                    "speaker": name,
                    "stage": one["stage"],
                    "batch": one["batch"],
                    f"batch_{one['stage']}_seconds[{device}]": one["seconds"],
                    f"batch_audio_seconds[{device}]": length * one["batch"],
                    f"peak_memory_{one['stage']}_batch[{device}]": _bytes(one["peak"]),
                }
                for one in run["batches"]
            ]

    def _probe(self, bench: Bench, clips: Sequence[Clip]) -> Probe:
        rate = bench.tokenizer.card.input_rate
        length = max(1, int(float(self.params.get("batch_seconds", 4.0)) * rate))
        largest = int(self.params.get("max_batch", 16))
        return Probe(
            handle=bench.tokenizer,
            waves=tuple(clip.wave for clip in clips),
            batch=tuple(np.resize(clips[i % len(clips)].wave, length) for i in range(largest)),
            sizes=tuple(2**k for k in range(largest.bit_length()) if 2**k <= largest),
            repeats=int(self.params.get("repeats", 3)),
            paths=registry.extra_paths,
        )


def _best_batch(batches: pd.DataFrame, stage: str, device: str) -> int:
    """The number of utterances a call with the fewest seconds for a second of audio, over all processes; 1 if none."""
    own = batches[batches["stage"] == stage] if len(batches) else batches
    if not len(own):
        return 1
    sums = own.groupby("batch")[[f"batch_{stage}_seconds[{device}]", f"batch_audio_seconds[{device}]"]].sum()
    cost = (sums.iloc[:, 0] / sums.iloc[:, 1]).to_numpy(np.float64)
    return int(sums.index[int(cost.argmin())])


def _bytes(peak: int | None) -> float:
    """NaN for a peak that cannot be seen, so that the metric is left out."""
    return float("nan") if peak is None else float(peak)


def _run(probe: Probe, threads: int) -> dict[str, Any]:
    """One fresh process.

    Raises:
        TokenizerUnavailable: the tokenizer cannot be loaded.
        ItemError: the process failed, with its last words.
    """
    environment = os.environ | dict.fromkeys(_THREADS, str(threads))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "tokbench.protocols.speed_probe"],
        input=pickle.dumps(probe),
        capture_output=True,
        check=False,
        env=environment,
    )
    if done.returncode or not done.stdout:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "no message"
        raise ItemError(f"the measuring process ended with exit code {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "unavailable" in found:
        what, where, hint = found["unavailable"]
        raise TokenizerUnavailable(what, where=where, hint=hint)
    if "error" in found:
        raise ItemError(found["error"])
    return found


def _machine(device: str, threads: int) -> str:
    """What it ran on, in words."""
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}"
