"""A run: tokenizers x tasks x datasets, cut into shards, measured by an engine, collected into results.

Data flows one way: plan -> jobs -> outcomes -> rows -> estimates -> result folder -> tracking. Run the same command
again, and only what is missing is computed.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.audio import RESAMPLER
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.dataset import Dataset
from tokbench.errors import DatasetError, NotApplicable, TokenizerUnavailable
from tokbench.handle import TokenizerHandle, judge_identity
from tokbench.jobs import Job, Outcome, protocol_of
from tokbench.manifest import git_state, machine, package_versions, started_now, torch_facts
from tokbench.protocols.base import Item, Protocol, Row, Take
from tokbench.result_files import parquet, write_result
from tokbench.results import Coverage, DatasetRecord, Estimate, Failure, Manifest, Result
from tokbench.store.code import modules_hash
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.engines.base import Engine

__all__ = ["Cell", "Options", "Prepared", "prepare_dataset", "result_folder", "run"]

log = logging.getLogger("tokbench.runner")

Progress = Callable[[int, int, str], None]
"""Called with (shards done, shards in all, what was just finished)."""


@dataclass(frozen=True)
class Prepared:
    """A dataset whose audio has been identified."""

    dataset: Dataset
    record: DatasetRecord


@dataclass(frozen=True)
class Cell:
    """One tokenizer on one task on one dataset."""

    tokenizer: TokenizerHandle
    task: TaskCard
    data: Prepared
    judges: dict[str, JudgeCard]
    params: dict[str, Any]
    seed: int = 0
    train: Prepared | None = None
    """What probes are trained on; found by the run from the protocol's `train_spec`."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes a number.

    Attributes:
        store: root of the artefact store.
        output: folder that result folders are written into.
        device: "cpu" or "cuda".
        shard_size: items a shard.
        draws: bootstrap draws.
        tracking_uri: MLflow, where trainings are to be followed while they run; None follows none.
    """

    store: Path
    output: Path
    device: str = "cpu"
    shard_size: int = 8
    draws: int = 10_000
    suite: str | None = None
    judge_weights: dict[str, Path] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    tracking_uri: str | None = None


def prepare_dataset(dataset: Dataset, cache: Path) -> Prepared:
    """Identify every utterance's audio and describe the dataset; unreadable files become failed items later.

    Raises:
        DatasetError: there is no utterance.
    """
    from tokbench.data.fingerprint import AudioFacts, dataset_facts, dataset_fingerprint

    if not dataset.utterances:
        raise DatasetError("has no utterances", where=dataset.name)
    facts = dataset_facts(dataset, cache)
    known = tuple(
        replace(u, pcm_sha256=fact.sha256) if isinstance(fact, AudioFacts) else u
        for u, fact in zip(dataset.utterances, facts, strict=True)
    )
    dataset = replace(dataset, utterances=known)
    record = DatasetRecord(
        name=dataset.name,
        fingerprint=dataset_fingerprint(dataset, [f.sha256 if isinstance(f, AudioFacts) else f for f in facts]),
        utterances=len(dataset),
        speakers=len(dataset.speakers),
        seconds=sum(fact.seconds for fact in facts if isinstance(fact, AudioFacts)),
        licence=dataset.licence,
        language=dataset.language,
        synthetic=dataset.synthetic,
    )
    return Prepared(dataset, record)


def result_folder(cell: Cell, options: Options) -> Path:
    """Where the cell's result is written: `OUTPUT/SUITE/TOKENIZER/TASK/DATASET[-SEED]`."""
    seed = f"-seed{cell.seed}" if cell.seed else ""
    parts = (options.suite or "adhoc", cell.tokenizer.card.name, cell.task.name, cell.data.record.name + seed)
    return options.output.joinpath(*(re.sub(r"[^A-Za-z0-9._+-]+", "_", part).strip("_") for part in parts))


def run(
    cells: Sequence[Cell],
    options: Options,
    engine: Engine,
    progress: Progress | None = None,
    *,
    skip_unavailable: bool = False,
) -> Iterator[Result]:
    """Measure every cell; yields each result as soon as its last shard is in, already written.

    Args:
        cells: what to measure.
        options: how.
        engine: where.
        progress: called after each shard.
        skip_unavailable: report a tokenizer whose weights or libraries are absent, and go on with the others.

    Raises:
        UserError: a tokenizer or judge cannot be loaded; what was finished before stays in the store.
    """
    started = started_now()
    jobs: list[Job] = []
    alone: list[Job] = []
    plans: dict[str, tuple[Cell, Protocol, int]] = {}
    trainings: dict[str, Prepared] = {}
    several = len({cell.task.name for cell in cells}) > 1
    for index, cell in enumerate(cells):
        protocol = protocol_of(cell.task)(cell.task, cell.judges, cell.params, cell.seed)
        try:
            protocol.check(cell.tokenizer.card)
        except NotApplicable as reason:
            nothing = _not_applicable(cell, options, reason.what, started)
            yield write_result(nothing, result_folder(cell, options), {}, [])
            continue
        cell = _with_training(cell, protocol, options, trainings)
        group = str(index)
        try:
            cell_jobs = _cut(cell, protocol, options, group)
        except DatasetError as reason:
            if not several:
                raise
            # The run's other tasks can use this corpus; this one says why it cannot.
            nothing = _not_applicable(cell, options, reason.what, started)
            yield write_result(nothing, result_folder(cell, options), {}, [])
            continue
        plans[group] = (cell, protocol, len(cell_jobs))
        (alone if protocol.alone else jobs).extend(cell_jobs)
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    skipped: set[str] = set()
    everything = chain(engine.run(jobs), *(engine.run([job]) for job in alone))
    for done, outcome in enumerate(everything, start=1):
        if outcome.error is not None:
            if not (skip_unavailable and isinstance(outcome.error, TokenizerUnavailable)):
                raise outcome.error
            name = outcome.job.tokenizer.spec
            if name not in skipped:
                skipped.add(name)
                log.warning("%s is left out: %s", name, outcome.error)
            continue
        if progress is not None:
            progress(done, len(jobs) + len(alone), outcome.job.name)
        group = outcome.job.group
        outcomes[group].append(outcome)
        cell, protocol, expected = plans[group]
        if len(outcomes[group]) == expected:
            yield _collect(cell, protocol, outcomes.pop(group), options, started)


def _with_training(cell: Cell, protocol: Protocol, options: Options, known: dict[str, Prepared]) -> Cell:
    """The cell with the data that its probes are trained on, identified once a run and checked against the test."""
    from tokbench.data.load import load_dataset

    spec = protocol.train_spec()
    if spec is None:
        return cell
    if spec not in known:
        known[spec] = prepare_dataset(load_dataset(spec), options.store.parent / "index")
    protocol.check_training(known[spec].dataset, cell.data.dataset)
    return replace(cell, train=known[spec])


def _cut(cell: Cell, protocol: Protocol, options: Options, group: str) -> list[Job]:
    items = protocol.items(cell.data.dataset)
    keep = _sample_ids(items, cell.task.samples)
    parts = protocol.shards(items, options.shard_size)
    name = f"{cell.tokenizer.card.name} · {cell.task.name} · {cell.data.record.name}"
    return [
        Job(
            name=f"{name} · {k + 1}/{len(parts)}",
            group=group,
            order=k,
            tokenizer=cell.tokenizer,
            task=cell.task,
            judges=cell.judges,
            judge_weights=options.judge_weights,
            params=cell.params,
            seed=cell.seed,
            items=tuple(part),
            keep=keep & {item.id for item in part},
            store=options.store,
            device=options.device,
            paths=options.paths,
            train=cell.train.dataset if cell.train else None,
            train_fingerprint=cell.train.record.fingerprint if cell.train else None,
            tracking=(options.tracking_uri, options.suite or "adhoc") if options.tracking_uri else None,
        )
        for k, part in enumerate(parts)
    ]


def _sample_ids(items: Sequence[Item], count: int) -> frozenset[str]:
    """Items to listen to: evenly spread over the list, which is in speaker order in every reader."""
    if len(items) <= count:
        return frozenset(item.id for item in items)
    return frozenset(items[(2 * k + 1) * len(items) // (2 * count)].id for k in range(count))


def _collect(cell: Cell, protocol: Protocol, outcomes: list[Outcome], options: Options, started: str) -> Result:
    import pandas as pd

    outcomes.sort(key=lambda o: o.job.order)
    rows: dict[str, list[Row]] = defaultdict(list)
    takes: list[Take] = []
    seconds: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        for table, part in outcome.shard.tables.items():
            rows[table] += part
        takes += outcome.shard.takes
        if outcome.computed:
            for stage, spent in outcome.seconds.items():
                seconds[stage] += spent
    tables = {name: pd.DataFrame(part) for name, part in rows.items()}
    files = {name: parquet(table) for name, table in tables.items()}
    # What is published is computed from what is stored, exactly as the audit will do it.
    tables = {name: pd.read_parquet(io.BytesIO(data)) for name, data in files.items()}
    derived = _derived(cell, protocol, tables, files, options)
    files |= derived
    tables |= {name: pd.read_parquet(io.BytesIO(data)) for name, data in derived.items()}
    items = tables["items"]
    failed = [
        Failure(id=str(row["id"]), stage=str(row["stage"]), error=str(row["error"]))
        for row in rows["items"]
        if row.get("error")
    ]
    estimates = _estimates(cell, protocol, tables, files, options)
    result = Result(
        status="partial" if failed else "complete",
        reason=protocol.limitation(cell.tokenizer.card),
        suite=options.suite,
        tokenizer=cell.tokenizer.card,
        task=cell.task,
        dataset=cell.data.record,
        train=cell.train.record if cell.train else None,
        estimates=estimates,
        coverage=Coverage(expected=len(items), scored=len(items) - len(failed), failed=failed),
        manifest=_manifest(cell, options, started),
        timings=dict(seconds),
    )
    return write_result(result, result_folder(cell, options), files, takes)


def _derived(
    cell: Cell, protocol: Protocol, tables: dict[str, pd.DataFrame], files: dict[str, bytes], options: Options
) -> dict[str, bytes]:
    """Derived tables as Parquet, kept in the store as the estimates are."""
    if type(protocol).derived is Protocol.derived:
        return {}
    store, key = Store(options.store), _summary_key("derive", cell, protocol, files)
    found = store.get(key)
    if found is None:
        made = protocol.derived(tables, cell.tokenizer.card)
        found = Payload({name: np.frombuffer(parquet(table), np.uint8) for name, table in made.items()})
        store.put(key, found)
    return {name: data.tobytes() for name, data in found.arrays.items()}


def _estimates(
    cell: Cell, protocol: Protocol, tables: dict[str, pd.DataFrame], files: dict[str, bytes], options: Options
) -> list[Estimate]:
    """Estimates, kept in the store: they depend on the rows and the code alone."""
    if protocol.alone:
        return protocol.estimates(tables, cell.tokenizer.card, draws=options.draws)
    store, key = Store(options.store), _summary_key("estimate", cell, protocol, files, draws=options.draws)
    found = store.get(key)
    if found is not None:
        return [Estimate.model_validate(one) for one in found.record["estimates"]]
    made = protocol.estimates(tables, cell.tokenizer.card, draws=options.draws)
    store.put(key, Payload(record={"estimates": [one.model_dump(mode="json") for one in made]}))
    return made


def _summary_key(stage: str, cell: Cell, protocol: Protocol, files: dict[str, bytes], **more: int) -> UnitKey:
    """The key of what is computed from the rows of all shards."""
    return UnitKey(
        stage,
        {
            "rows": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "code": modules_hash((type(protocol).__module__, *protocol.estimate_modules)),
            "task": cell.task.model_dump(mode="json", include={"name", "version", "headline", "metrics"}),
            "card": cell.tokenizer.card.model_dump(mode="json", include={"name", "streams", "globals", "capabilities"}),
            "judges": sorted(cell.judges),
            "params": cell.params,
            "outside": protocol.outside(),
            "seed": cell.seed,
            **more,
        },
        f"{cell.tokenizer.card.name}: {stage} of {cell.task.name}",
    )


def _manifest(cell: Cell, options: Options, started: str) -> Manifest:
    commit, dirty = git_state()
    from tokbench import __version__

    normalisers = {str(cell.params["normaliser"])} if "normaliser" in cell.params else set()
    return Manifest(
        tokbench=__version__,
        git_commit=commit,
        git_dirty=dirty,
        **machine(),
        packages=package_versions(),
        device=options.device,
        torch=torch_facts(options.device),
        seeds=[cell.seed],
        draws=options.draws,
        argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
        started=started,
        judges=cell.judges,
        judge_identities={
            name: judge_identity(card, options.judge_weights.get(name))["weights"] for name, card in cell.judges.items()
        },
        tokenizer_weights=cell.tokenizer.weights_identity,
        normaliser=next(iter(normalisers), None),
        resampler=RESAMPLER,
        params=cell.params,
    )


def _not_applicable(cell: Cell, options: Options, reason: str, started: str) -> Result:
    return Result(
        status="not_applicable",
        reason=reason,
        suite=options.suite,
        tokenizer=cell.tokenizer.card,
        task=cell.task,
        dataset=cell.data.record,
        estimates=[],
        coverage=None,
        manifest=_manifest(cell, options, started),
    )
