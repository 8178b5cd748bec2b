"""`tokbench run`: measure tokenizers on tasks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokbench.commands.options import (
    Device,
    Json,
    Output,
    StorePath,
    Weights,
    Workers,
    check_settings,
    parse_judge_weights,
    parse_settings,
    store_path,
    with_settings,
)
from tokbench.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tokbench.config import JudgeCard, SuiteCard
    from tokbench.engines.base import Engine
    from tokbench.results import Result
    from tokbench.runner import Cell, Options, Prepared

__all__ = ["execute", "make_engine", "plan", "run"]

DEFAULT_OUTPUT = Path("tokbench-results")


def run(
    tokenizer: Annotated[
        list[str] | None, typer.Option("--tokenizer", "-t", help="Name, or replay:FOLDER (repeatable).")
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Task (repeatable).")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="mini-en, librispeech:DIR, libritts:DIR, vctk:DIR, folder:DIR, manifest:FILE (repeatable)."
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="Tasks with their settings: mini, core, paper.")] = None,
    all_tokenizers: Annotated[bool, typer.Option("--all-tokenizers", help="Every tokenizer of the suite.")] = False,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help="Judges instead of the task's (repeatable).")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First utterances only; for trying out.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Task parameter, name=value (repeatable).")] = None,
    device: Device = "auto",
    workers: Workers = None,
    engine: Annotated[str, typer.Option("--engine", help="local or ray.")] = "local",
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Utterances a unit of work.")] = 8,
    draws: Annotated[int, typer.Option("--draws", min=100, help="Bootstrap draws.")] = 10_000,
    weights: Weights = None,
    judge_weights: Annotated[
        list[str] | None, typer.Option("--judge-weights", help="NAME=FOLDER (repeatable).")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load pickled weights; a pickle can run code.")
    ] = False,
    store: StorePath = None,
    output: Output = DEFAULT_OUTPUT,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log to MLflow.")] = True,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow; MLFLOW_TRACKING_URI is honoured.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure tokenizers on tasks; run again, and only what is missing is computed.

    Examples: `tokbench run --suite mini --all-tokenizers`, `tokbench run --tokenizer codec2-1200 --task reconstruction
    --data mini-en`.
    """
    from tokbench.config import SuiteCard
    from tokbench.manifest import resolve_device
    from tokbench.registry import extra_paths, find_card
    from tokbench.runner import Options

    suite_card = find_card(SuiteCard, suite).located(os.environ) if suite else None
    folders = parse_judge_weights(judge_weights or [])
    options = Options(
        store=store_path(store).absolute(),
        output=output,
        device=resolve_device(device),
        shard_size=shard_size,
        draws=draws,
        suite=suite,
        judge_weights=folders,
        paths=extra_paths,
        # Only where a server was named: following trainings loads MLflow in every worker.
        tracking_uri=(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")) if track else None,
    )
    cells = plan(
        tokenizer or [],
        task or [],
        data or [],
        suite_card,
        all_tokenizers=all_tokenizers,
        judges=judge or [],
        settings=parse_settings(setting or []),
        limit=limit,
        weights=weights,
        allow_pickle=allow_pickle,
        options=options,
    )
    results = execute(
        cells,
        options,
        make_engine(engine, workers, options.device),
        tracking_uri=tracking_uri if track else None,
        track=track,
        skip_unavailable=all_tokenizers or (suite is not None and not tokenizer),
    )
    report(results, json=json)
    if any(result.status == "partial" for result in results):
        raise typer.Exit(3)


def plan(
    tokenizers: list[str],
    tasks: list[str],
    data: list[str],
    suite: SuiteCard | None,
    *,
    all_tokenizers: bool,
    judges: list[str],
    settings: dict[str, object],
    limit: int | None,
    weights: Path | None,
    allow_pickle: bool,
    options: Options,
) -> list[Cell]:
    """Turn what was typed into cells, checking every name before anything is computed."""
    from tokbench.config import JudgeCard, TaskCard, TokenizerCard
    from tokbench.data.load import load_dataset
    from tokbench.handle import TokenizerHandle
    from tokbench.jobs import protocol_of
    from tokbench.registry import find_card, names
    from tokbench.runner import Cell, prepare_dataset

    if suite is None and not tasks:
        raise UserError("neither --task nor --suite is given", hint="Type: tokbench list tasks")
    if not tokenizers:
        if suite is not None:
            tokenizers = list(suite.tokenizers)
        elif all_tokenizers:
            tokenizers = [name for name in names(TokenizerCard) if "{" not in name]
        else:
            raise UserError("no --tokenizer is given", hint="Type: tokbench list tokenizers, or add --all-tokenizers")
    if weights is not None and len(tokenizers) != 1:
        raise UserError("belongs to one tokenizer", where="--weights", hint="Name exactly one --tokenizer")
    handles = [TokenizerHandle(name, options.device, weights, allow_pickle) for name in tokenizers]
    for handle in handles:
        handle.card  # noqa: B018 - a wrong name is told before anything is computed
    prepared: dict[str, Prepared] = {}
    cells: list[Cell] = []
    cards = [find_card(TaskCard, name) for name in tasks or (suite.tasks if suite else ())]
    known = {card.name: set(card.params) | protocol_of(card).optional_params for card in cards}
    check_settings(settings, set().union(*known.values()))
    for card in cards:
        name = card.name
        chosen = judges or (list(suite.judges.get(name, card.judges)) if suite else list(card.judges))
        judge_cards: dict[str, JudgeCard] = {one: find_card(JudgeCard, one) for one in chosen}
        params: dict[str, Any] = {**card.params, **(suite.params.get(name, {}) if suite else {})}
        params = with_settings(params, {k: v for k, v in settings.items() if k.partition(".")[0] in known[name]})
        params = protocol_of(card).for_comparison(params, [handle.card for handle in handles])
        specs = data or (list(suite.data.get(name, card.data)) if suite else list(card.data))
        for spec in specs:
            if spec not in prepared:
                prepared[spec] = prepare_dataset(load_dataset(spec, limit=limit), options.store.parent / "index")
            cells += [
                Cell(handle, card, prepared[spec], judge_cards, params, seed)
                for handle in handles
                for seed in card.seeds
            ]
    return cells


def make_engine(name: str, workers: int | None, device: str) -> Engine:
    """The engine of that name."""
    if name == "local":
        from tokbench.engines.local import LocalEngine, default_workers

        local: Engine = LocalEngine(workers or default_workers(device))
        return local
    if name == "ray":
        from tokbench.engines.ray import RayEngine

        ray_engine: Engine = RayEngine(workers, gpus=device != "cpu")
        return ray_engine
    raise UserError(f"'{name}' is not an engine", where="--engine", hint="Use local or ray")


def execute(
    cells: list[Cell],
    options: Options,
    engine: Engine,
    *,
    track: bool,
    tracking_uri: str | None,
    skip_unavailable: bool,
) -> list[Result]:
    """Run the cells with a progress bar on stderr, and log each result as it comes."""
    from contextlib import ExitStack, nullcontext

    from rich import progress
    from rich.console import Console

    from tokbench.runner import run as run_cells

    tracker: Any = nullcontext()
    if track:
        from tokbench.tracking import Tracker

        tracker = Tracker(tracking_uri, spool=options.store.parent / "spool", suite=options.suite or "adhoc")
    results: list[Result] = []
    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )  # fmt: skip
    shown = sys.stderr.isatty()
    with tracker as sink, progress.Progress(*columns, console=console, disable=not shown) as bar, ExitStack() as stack:
        line = bar.add_task("shards", total=None)

        def advance(done: int, total: int, name: str) -> None:
            bar.update(line, completed=done, total=total, description=name[:60])

        stack.enter_context(_trainings(bar, options.store))
        for result in run_cells(cells, options, engine, advance, skip_unavailable=skip_unavailable):
            results.append(result)
            if sink is not None:
                sink.log_result(result)
    return results


@contextmanager
def _trainings(bar: Progress, store: Path) -> Iterator[None]:
    """A line for every probe that is being trained: step, loss, speed, time left."""
    from tokbench.training.progress import running

    done = threading.Event()
    lines: dict[str, TaskID] = {}

    def follow() -> None:
        while not done.wait(0.5):
            there = {one.label: one for one in running(store)}
            for label in lines.keys() - there.keys():
                bar.remove_task(lines.pop(label))
            for label, one in there.items():
                if label not in lines:
                    lines[label] = bar.add_task(one.words, total=one.steps)
                bar.update(lines[label], completed=one.step, total=one.steps, description=one.words)

    thread = threading.Thread(target=follow, daemon=True)
    if not bar.disable:
        thread.start()
    try:
        yield
    finally:
        done.set()


def report(results: list[Result], *, json: bool) -> None:
    """Print the results: a table, or JSON."""
    if json:
        from pydantic_core import to_json

        sys.stdout.write(to_json({"results": [r.model_dump(mode="json") for r in results]}, indent=1).decode() + "\n")
        return
    from tokbench.report import print_results

    print_results(results)
