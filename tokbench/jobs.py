"""A job is one shard of one task for one tokenizer; it runs in any process that can see the store.

`run_job` looks the finished shard up, and only then loads anything. Its outcome is small: rows as JSON, clips as FLAC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.bench import Bench
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.dataset import Dataset
from tokbench.errors import ItemError, TokbenchError
from tokbench.handle import TokenizerHandle, judge_identity
from tokbench.protocols.base import Item, Protocol, Shard, Take, failed_row
from tokbench.registry import import_object
from tokbench.store.code import class_hash
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey
from tokbench.training.live import live_curves
from tokbench.training.loop import Log
from tokbench.training.progress import reporter

__all__ = ["Job", "Outcome", "died", "protocol_of", "run_job"]


@dataclass(frozen=True)
class Job:
    """What a worker needs to measure one shard.

    Attributes:
        name: unique in the run, for progress and reports.
        keep: ids of the items whose clips are kept.
        store: root of the store.
        train: what probes are trained on, and its fingerprint; None where nothing is trained.
    """

    name: str
    group: str
    order: int
    tokenizer: TokenizerHandle
    task: TaskCard
    judges: dict[str, JudgeCard]
    judge_weights: dict[str, Path]
    params: dict[str, Any]
    seed: int
    items: tuple[Item, ...]
    keep: frozenset[str]
    store: Path
    device: str = "cpu"
    paths: tuple[Path, ...] = ()
    train: Dataset | None = None
    train_fingerprint: str | None = None
    tracking: tuple[str, str] | None = None
    """MLflow's address and the experiment in which trainings are followed while they run; None follows none."""


@dataclass
class Outcome:
    """What became of a job: its shard, or the error that stops the run."""

    job: Job
    shard: Shard
    seconds: dict[str, float] = field(default_factory=dict)
    computed: bool = False
    """False where the whole shard came from the store."""
    error: TokbenchError | None = None


def protocol_of(task: TaskCard) -> type[Protocol]:
    """The protocol class that the card names."""
    # The base class is abstract; only its subclasses are ever returned.
    return import_object(task.protocol, Protocol, needed_by=f"task {task.name}", extra=task.requires)  # type: ignore[type-abstract]


def run_job(job: Job) -> Outcome:
    """Measure a shard, or find it in the store. Never raises for what one item or one tokenizer did wrong."""
    try:
        return _run(job)
    except TokbenchError as error:
        return Outcome(job, Shard(), error=error)


def died(job: Job) -> Outcome:
    """The outcome of a job whose worker died twice: every item failed, and says so."""
    error = ItemError(
        "the worker process died twice on this shard (out of memory, or a crash inside a library)",
        hint="Run again with --workers 1 to see its last words",
    )
    error.stage = "worker"
    return Outcome(job, Shard({"items": [failed_row(item, error) for item in job.items]}), computed=True)


def _run(job: Job) -> Outcome:
    from tokbench.registry import set_extra_paths

    if job.paths:
        set_extra_paths(job.paths)
    store = Store(job.store)
    protocol = protocol_of(job.task)(job.task, job.judges, job.params, job.seed)
    key = UnitKey(
        "score",
        {
            "tokenizer": job.tokenizer.identity,
            "protocol": class_hash(type(protocol)),
            "task": [job.task.name, job.task.version],
            "judges": {name: judge_identity(card, job.judge_weights.get(name)) for name, card in job.judges.items()},
            "params": job.params,
            "seed": job.seed,
            "items": [item.describe() for item in job.items],
            "keep": sorted(job.keep),
            "train": job.train_fingerprint,
            **({"outside": outside} if (outside := protocol.outside()) else {}),
        },
        job.name,
    )
    found = None if protocol.alone else store.get(key)
    if found is not None:
        return Outcome(job, _unpack(found), found.record["seconds"])
    bench = _bench(job)
    before = dict(bench.seconds)
    shard = protocol.measure(bench, job.items, keep=job.keep)
    seconds = {stage: s - before.get(stage, 0.0) for stage, s in bench.seconds.items() if s > before.get(stage, 0.0)}
    if not protocol.alone and not any(row.get("error") for row in shard.tables["items"]):
        store.put(key, _pack(shard, seconds))
    return Outcome(job, shard, seconds, computed=True)


_benches: dict[tuple[Path, str], Bench] = {}


def _bench(job: Job) -> Bench:
    """The process's workbench: a tokenizer stays loaded from shard to shard, judges also across tokenizers."""
    bench = _benches.setdefault((job.store, job.device), Bench(Store(job.store), job.tokenizer, {}, job.device, {}))
    bench.judges |= job.judges
    bench.judge_weights |= job.judge_weights
    bench.training.data = job.train
    bench.training.report = reporter(job.store, _live(job))
    same = (bench.tokenizer.spec, bench.tokenizer.weights) == (job.tokenizer.spec, job.tokenizer.weights)
    if not same:
        bench.tokenizer = job.tokenizer
    return bench


def _live(job: Job) -> Callable[[str], Log] | None:
    """Where the points of a training go beside the progress bar."""
    if job.tracking is None:
        return None
    from tokbench.tracking import Tracker

    uri, experiment = job.tracking
    return live_curves(Tracker(uri, spool=job.store.parent / "spool", suite=experiment).open_training)


def _pack(shard: Shard, seconds: dict[str, float]) -> Payload:
    arrays: dict[str, npt.NDArray[np.generic]] = {
        f"take/{i}": np.frombuffer(take.flac, np.uint8) for i, take in enumerate(shard.takes)
    }
    takes = [[take.item, take.kind, take.text, take.transcript] for take in shard.takes]
    return Payload(arrays, {"tables": shard.tables, "takes": takes, "seconds": seconds})


def _unpack(payload: Payload) -> Shard:
    takes = [
        Take(item, kind, payload.arrays[f"take/{i}"].tobytes(), text, transcript)
        for i, (item, kind, text, transcript) in enumerate(payload.record["takes"])
    ]
    return Shard(payload.record["tables"], takes)
