"""Reading results from folders, and deciding which of them may be published.

A partial result is refused unless asked for, an older run of the same thing gives way to the newest, and each refusal
keeps its reason, because the pages print it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tokbench.errors import UserError
from tokbench.reproduction import ABLATION_FILE, Ablation
from tokbench.results import RESULT_FILE, Result

__all__ = ["Loaded", "Refused", "load_results", "protocol_key", "read_folders"]

Record = TypeVar("Record", Result, Ablation)


@dataclass(frozen=True)
class Refused:
    """A result that is not published, and why."""

    result: Result
    reason: str


@dataclass(frozen=True)
class Loaded:
    """What the folders hold: results to publish, in a fixed order, the others with their reasons, and ablations."""

    published: list[Result]
    refused: list[Refused]
    ablations: list[Ablation] = field(default_factory=list)


def load_results(folders: Sequence[Path], *, partial: bool = False) -> list[Result]:
    """The publishable results under these folders.

    Args:
        folders: each is searched at any depth for `result.json`; a path of such a file is taken as it is.
        partial: whether results with failed items are accepted.

    Raises:
        UserError: a folder holds no result, or a file is not one.
    """
    return read_folders(folders, partial=partial).published


def read_folders(folders: Sequence[Path], *, partial: bool = False) -> Loaded:
    """As `load_results`, with the refused results and their reasons."""
    paths = _find(folders)
    results = [_read(path, Result.read, "a result") for path in paths if path.name != ABLATION_FILE]
    ablations: dict[tuple[str, str], Ablation] = {}
    for path in paths:
        if path.name == ABLATION_FILE:
            found = _read(path, Ablation.read, "the record of an ablation")
            older_one = ablations.get((found.name, found.profile))
            if older_one is None or older_one.started < found.started:
                ablations[found.name, found.profile] = found
    refused: list[Refused] = []
    newest: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=lambda r: (r.manifest.started, str(r.folder))):
        if result.status == "partial" and not partial:
            refused.append(Refused(result, _partial_reason(result)))
            continue
        key = (result.tokenizer.name, protocol_key(result))
        older = newest.get(key)
        if older is not None and older == result.model_copy(update={"folder": older.folder}):
            # The same run twice, for instance as a tracking server's copy: the one with its rows beside it counts.
            newest[key] = result if _has_rows(result) else older
            continue
        if older is not None and older.manifest.seeds != result.manifest.seeds:
            first, other = sorted((older, result), key=lambda r: r.manifest.seeds)
            refused.append(
                Refused(other, f"seed {other.manifest.seeds[-1]}: the table shows seed {first.manifest.seeds[0]}")
            )
            newest[key] = first
            continue
        if older is not None:
            refused.append(Refused(older, f"superseded by the run started {result.manifest.started}"))
        newest[key] = result
    published = sorted(newest.values(), key=lambda r: (r.task.name, r.task.version, r.tokenizer.name))
    return Loaded(published, refused, [ablations[key] for key in sorted(ablations)])


def protocol_key(result: Result) -> str:
    """What must be equal for two results to share a table.

    Task, version, protocol and its parameters, dataset fingerprint, text normaliser and resampler. Judges are told
    apart column by column, since a column depends on one judge.
    """
    parts: list[object] = [result.task.name, result.task.version]
    if result.status != "not_applicable":
        parts += [
            result.task.protocol,
            result.manifest.params,
            result.dataset.fingerprint if result.dataset else None,
            result.manifest.normaliser,
            result.manifest.packages.get("whisper-normalizer"),
            result.manifest.resampler,
        ]
    elif result.dataset:
        parts += [result.dataset.fingerprint]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _find(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in folders:
        if folder.is_file():
            paths = [folder]
        elif folder.is_dir():
            paths = sorted(path for name in (RESULT_FILE, ABLATION_FILE) for path in folder.rglob(name))
        else:
            raise UserError("no such folder of results", where=str(folder), hint="Type: tokbench run --suite mini")
        if not paths:
            raise UserError(f"holds no {RESULT_FILE}", where=str(folder), hint="Type: tokbench run --suite mini")
        found.update(dict.fromkeys(path.resolve() for path in paths))
    return list(found)


def _read(path: Path, read: Callable[[Path], Record], what: str) -> Record:
    try:
        return read(path)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise UserError(
            f"is not {what}: {place}: {first['msg']}", where=str(path), hint="Run that task again, or remove the file"
        ) from None


def _has_rows(result: Result) -> bool:
    folder = result.folder
    return folder is not None and all((folder / file.path).is_file() for file in result.tables.values())


def _partial_reason(result: Result) -> str:
    coverage = result.coverage
    if coverage is None:
        return "partial"
    failed = coverage.expected - coverage.scored
    return f"partial, {failed} of {coverage.expected} failed"
