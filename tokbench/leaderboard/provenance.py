"""The origin of every number as label and text, for the drawer and for the printed details alike."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from tokbench.leaderboard.definitions import definition
from tokbench.leaderboard.model import Cell, Column, Row, Table
from tokbench.leaderboard.numbers import dataset_label, format_number
from tokbench.results import Result

__all__ = ["Fact", "cell_facts", "column_facts", "command", "direction_words", "result_facts"]

_DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "none": "a description, not a score"}


@dataclass(frozen=True)
class Fact:
    """One line of a provenance record; `link` is relative to the site's root; `code` asks for monospace."""

    label: str
    text: str
    link: str | None = None
    code: bool = False

    def plain(self) -> list[str | int | None]:
        """For inlining as JSON."""
        return [self.label, self.text, self.link, int(self.code)]


def direction_words(direction: str) -> str:
    """The direction in words."""
    return _DIRECTIONS[direction]


def cell_facts(cell: Cell, row: Row, rows_link: str | None) -> list[Fact]:
    """What belongs to one number alone."""
    column, estimate = cell.column, cell.estimate
    facts: list[Fact] = []
    if estimate is None or estimate.value is None:
        facts.append(Fact("Value", f"n/a: {cell.reason}"))
    else:
        unit = f" {column.unit}" if column.unit else ""
        facts.append(Fact("Value", f"{cell.text}{unit}"))
        if cell.ends:
            facts.append(Fact("95 % interval", f"{cell.ends[0]} to {cell.ends[1]}{unit}"))
    if estimate is not None:
        facts.append(Fact("Method", estimate.method))
        clusters = f" in {estimate.clusters} clusters" if estimate.clusters is not None else ""
        facts.append(Fact("Rests on", f"{_items(estimate.n)}{clusters}"))
        if estimate.undefined:
            why = "; ".join(f"{reason}: {count}" for reason, count in estimate.reasons.items())
            facts.append(Fact("Undefined for", _items(estimate.undefined) + (f" ({why})" if why else "")))
        if estimate.note and cell.reason != estimate.note:
            facts.append(Fact("Note", estimate.note))
        file = row.result.tables.get(estimate.table)
        if file is not None:
            text = f"{file.rows} rows of '{estimate.table}', sha256 {file.sha256[:16]}"
            facts.append(Fact("Rows", text if rows_link else f"{text} (not copied to this site: too large)", rows_link))
    if cell.mark:
        facts.append(
            Fact(
                "Standing", "best of its column" if cell.mark == "best" else "not separable from the best of its column"
            )
        )
    if row.familiarity is not None:
        facts.append(Fact("Caution", f"the tokenizer was {row.familiarity}"))
    return facts


def column_facts(column: Column) -> list[Fact]:
    """What a column means."""
    found = definition(column.metric)
    facts = [Fact("Metric", column.metric, code=True), Fact("Definition", found.text)]
    if found.source:
        facts.append(Fact("Source", found.source))
    facts.append(Fact("Direction", direction_words(column.direction)))
    if column.identity:
        identity = json.loads(column.identity)
        facts.append(Fact("Judge", (column.judge or "").partition(",")[0]))
        facts += [Fact(f"Judge: {key}", str(value), code=True) for key, value in identity.items()]
    return facts


def result_facts(result: Result, table: Table) -> list[Fact]:
    """What belongs to one tokenizer on one task."""
    manifest = result.manifest
    facts = [
        Fact("Tokenizer", result.tokenizer.name, f"tokenizers/{_page(result)}"),
        Fact("Task", f"{result.task.title}, version {result.task.version}", f"tasks/{table.id}.html"),
    ]
    if result.dataset is not None:
        data = result.dataset
        voice = "synthetic speech" if data.synthetic else "recorded speech"
        facts.append(
            Fact(
                "Data",
                f"{dataset_label(data.name)}: {data.utterances} utterances, {data.speakers} speakers, "
                f"{data.seconds:.0f} s, {voice}, licence {data.licence}",
            )
        )
        facts.append(Fact("Data fingerprint", data.fingerprint, code=True))
    if result.coverage is not None:
        facts.append(Fact("Coverage", f"{result.coverage.scored} of {result.coverage.expected} items scored"))
    commit = manifest.git_commit or "not a git checkout"
    dirty = {True: ", with uncommitted changes", False: ", clean", None: ""}[manifest.git_dirty]
    facts.append(Fact("Code", f"tokbench {manifest.tokbench}, commit {commit}{dirty}", code=False))
    weights = manifest.tokenizer_weights
    facts += [Fact(f"Weights: {name}", value, code=True) for name, value in weights.items()]
    if not weights:
        facts.append(Fact("Weights", "none"))
    torch = ", ".join(f"{key} {value}" for key, value in manifest.torch.items())
    facts.append(Fact("Machine", f"Python {manifest.python}, {manifest.platform}, {manifest.device}"))
    if torch:
        facts.append(Fact("torch", torch))
    if manifest.attention:
        facts.append(Fact("Attention", manifest.attention))
    if manifest.normaliser:
        facts.append(Fact("Text normaliser", manifest.normaliser))
    facts.append(Fact("Resampler", manifest.resampler))
    facts.append(Fact("Seeds", ", ".join(map(str, manifest.seeds)) or "none"))
    facts.append(Fact("Bootstrap draws", format_number(manifest.draws, 0)))
    facts.append(Fact("Run started", manifest.started))
    facts.append(Fact("Make it again", command(result), code=True))
    if manifest.argv:
        facts.append(Fact("Ran as", shlex.join([Path(manifest.argv[0]).name, *manifest.argv[1:]]), code=True))
    return facts


def _items(count: int) -> str:
    return f"{format_number(count, 0)} {'item' if count == 1 else 'items'}"


def command(result: Result) -> str:
    """The command that makes this result again."""
    words = ["tokbench", "run", "--tokenizer", result.tokenizer.name, "--task", result.task.name]
    if result.dataset is not None:
        words += ["--data", result.dataset.name]
    return shlex.join(words)


def _page(result: Result) -> str:
    from tokbench.leaderboard.numbers import slug

    return f"{slug(result.tokenizer.name)}.html"
