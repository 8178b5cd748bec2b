"""The audit: every published estimate computed again from its stored rows, every file compared with its sha256."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tokbench.comparison import read_table
from tokbench.errors import TokbenchError, UserError
from tokbench.jobs import protocol_of
from tokbench.results import RESULT_FILE, Estimate, Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AuditReport", "Finding", "audit_results"]

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """Something that is not as the result says."""

    where: str
    what: str


@dataclass
class AuditReport:
    """What was looked at, and what was found."""

    results: int = 0
    estimates: int = 0
    findings: list[Finding] = field(default_factory=list)


def audit_results(folders: Sequence[Path]) -> AuditReport:
    """Audit every result below the folders.

    Raises:
        UserError: there is no result.
    """
    report = AuditReport()
    for folder in folders:
        for path in sorted(folder.rglob(RESULT_FILE)):
            report.results += 1
            try:
                _audit(Result.read(path), path, report)
            except ValidationError as error:
                first = error.errors()[0]
                report.findings.append(Finding(str(path), f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
            except TokbenchError as error:
                report.findings.append(Finding(str(path), str(error)))
    if not report.results:
        raise UserError("holds no result", where=", ".join(map(str, folders)), hint="Type: tokbench run --suite mini")
    return report


def _audit(result: Result, path: Path, report: AuditReport) -> None:
    folder = path.parent
    damaged = False
    for name, table in result.tables.items():
        file = folder / table.path
        if not file.is_file():
            report.findings.append(Finding(str(file), f"table '{name}' is missing"))
            damaged = True
        elif hashlib.sha256(file.read_bytes()).hexdigest() != table.sha256:
            report.findings.append(Finding(str(file), "has another sha256 than the result says"))
            damaged = True
    report.findings += [
        Finding(str(folder / clip.path), "clip is missing")
        for clip in result.samples
        if not (folder / clip.path).is_file()
    ]
    if damaged or not result.estimates:
        return
    protocol = protocol_of(result.task)(
        result.task, result.manifest.judges, result.manifest.params, result.manifest.seeds[0]
    )
    tables = {name: read_table(result, name) for name in result.tables}
    derived = protocol.derived(tables, result.tokenizer)
    for name, made in derived.items():
        if name not in tables:
            report.findings.append(Finding(str(path), f"derived table '{name}' is not there"))
        elif not _same(tables[name], made):
            report.findings.append(Finding(str(path), f"derived table '{name}' does not follow from the rows"))
    again = {e.metric: e for e in protocol.estimates(derived | tables, result.tokenizer, draws=result.manifest.draws)}
    for estimate in result.estimates:
        report.estimates += 1
        problem = _differs(estimate, again.get(estimate.metric))
        if problem:
            report.findings.append(Finding(str(path), f"{estimate.metric}: {problem}"))


def _same(stored: pd.DataFrame, made: pd.DataFrame) -> bool:
    """Whether two tables hold the same rows; numbers to the tolerance of estimates."""
    from pandas.testing import assert_frame_equal

    try:
        assert_frame_equal(stored, made, check_dtype=False, rtol=_TOLERANCE, atol=_TOLERANCE)
    except AssertionError:
        return False
    return True


def _differs(published: Estimate, again: Estimate | None) -> str | None:
    if again is None:
        return "cannot be recomputed: the protocol no longer makes this metric"
    if published.n != again.n:
        return f"published over {published.n} items, recomputed over {again.n}"
    pairs = [(published.value, again.value)]
    if published.ci95 and again.ci95:
        pairs += list(zip(published.ci95, again.ci95, strict=True))
    elif published.ci95 or again.ci95:
        return "the interval is there only once"
    for old, new in pairs:
        if (old is None) != (new is None):
            return f"published {old}, recomputed {new}"
        if old is not None and new is not None and not math.isclose(old, new, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            return f"published {old!r}, recomputed {new!r}"
    return None
