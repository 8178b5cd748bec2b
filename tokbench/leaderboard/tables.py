"""From results to tables: one table per protocol and dataset, a row per tokenizer, a column per metric and judge."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence

from tokbench.leaderboard.board import Board
from tokbench.leaderboard.columns import REPRESENTATIONS, make_columns, pick
from tokbench.leaderboard.load import Loaded, protocol_key
from tokbench.leaderboard.model import Cell, Column, Row, Table
from tokbench.leaderboard.numbers import dataset_label, judge_of, slug
from tokbench.results import Estimate, Result

__all__ = ["make_tables"]


def make_tables(loaded: Loaded, board: Board) -> list[Table]:
    """Group results into tables; nothing in one table differs in task version, data, normaliser or resampler."""
    measured: dict[str, list[Result]] = defaultdict(list)
    silent: list[Result] = []
    for result in loaded.published:
        if result.status == "not_applicable":
            silent.append(result)
        else:
            measured[protocol_key(result)].append(result)
    placed: set[int] = set()
    for key, results in measured.items():
        for index, result in enumerate(silent):
            if _belongs(result, results[0]):
                measured[key].append(result)
                placed.add(index)
    for index, result in enumerate(silent):
        if index not in placed:
            measured[protocol_key(result)].append(result)
    order = {name: index for index, name in enumerate(board.tasks)}
    groups = sorted(
        measured.items(),
        key=lambda item: (
            order.get(item[1][0].task.name, len(order)),
            item[1][0].task.name,
            -item[1][0].task.version,
            item[1][0].dataset.name if item[1][0].dataset else "",
            -len(item[1]),
            item[0],
        ),
    )
    names = {r.tokenizer.name for r in loaded.published}
    tables: list[Table] = []
    taken: set[str] = set()
    for key, results in groups:
        first = next((r for r in results if r.status != "not_applicable"), results[0])
        data = first.dataset.name if first.dataset else "no-data"
        base = slug(f"{first.task.name}-{dataset_label(data)}")
        distinct = None
        if base in taken:
            base, distinct = f"{base}-{key[:6]}", _distinct(first)
        taken.add(base)
        columns = make_columns(results, board, first.task)
        rows = [_row(result, index, columns) for index, result in enumerate(results)]
        wanted = board.headline.get(first.task.name, first.task.headline)
        tables.append(
            Table(
                id=base,
                task=first.task,
                dataset=first.dataset,
                columns=columns,
                ranked=_sorted([r for r in rows if r.anchor is None], columns, wanted),
                anchors=_sorted([r for r in rows if r.anchor is not None], columns, wanted),
                not_run=sorted(
                    names
                    - {r.name for r in rows}
                    - {x.result.tokenizer.name for x in loaded.refused if _same_place(x.result, first)}
                ),
                refused=[x for x in loaded.refused if _same_place(x.result, first)],
                wanted=wanted,
                distinct=distinct,
            )
        )
    return tables


def _belongs(result: Result, other: Result) -> bool:
    """Whether a not-applicable result is an answer to the question of this table."""
    if (result.task.name, result.task.version) != (other.task.name, other.task.version):
        return False
    return result.dataset is None or other.dataset is None or result.dataset.fingerprint == other.dataset.fingerprint


def _same_place(result: Result, other: Result) -> bool:
    return protocol_key(result) == protocol_key(other)


def _distinct(result: Result) -> str:
    data = result.dataset.fingerprint[:12] if result.dataset else "none"
    params = hashlib.sha256(json.dumps(result.manifest.params, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"version {result.task.version}, data {data}, parameters {params}, normaliser {result.manifest.normaliser}"


def _row(result: Result, index: int, columns: Sequence[Column]) -> Row:
    row = Row(result=result, index=index)
    for column in columns:
        estimate = pick(result, column)
        reason = None
        if estimate is None:
            reason = _absence(result, column)
        elif estimate.value is None:
            reason = _reasons(estimate)
        row.cells[column.id] = Cell(column, estimate, reason)
    return row


def _absence(result: Result, column: Column) -> str:
    card = result.tokenizer
    if result.status == "not_applicable":
        return result.reason or "not applicable"
    if column.latent and "continuous" not in card.capabilities:
        return "the tokens are discrete; this rate is for continuous latents"
    if column.rate and "discrete" not in card.capabilities:
        return "continuous latents have no finite rate; see the columns for latents"
    if column.kind is not None:
        what = REPRESENTATIONS.get(column.kind)
        return f"its tokens have no {what}" if what else "does not apply to these tokens"
    if result.estimate(column.metric) is not None:
        return "measured with another identity of the judge; it has a column of its own"
    if column.base.startswith(("bps_", "code_", "codes_", "dead_")):
        return "does not apply to these tokens"
    if "decode" not in card.capabilities:
        return "encode-only: there is no audio to score"
    judge = judge_of(column.metric)
    if judge is not None and judge not in result.manifest.judges:
        return f"the judge {judge} was not run"
    return "not measured in this run"


def _reasons(estimate: Estimate) -> str:
    if len(estimate.reasons) == 1:
        return next(iter(estimate.reasons))
    if not estimate.reasons:
        # Nothing is missing, and yet the formula gives no number; the method says over what.
        return estimate.method.rpartition("; ")[2] or "has no value"
    listed = ", ".join(f"{reason} ({count})" for reason, count in estimate.reasons.items())
    return f"undefined for all items: {listed}"


def _sorted(rows: list[Row], columns: Sequence[Column], wanted: Sequence[str]) -> list[Row]:
    """By the headline metric that most rows have (the first of them), the best first; rows without it last, by name."""
    place = {base: number for number, base in enumerate(wanted)}
    leads = [c for c in columns if c.headline and not c.rate and c.direction != "none"]
    lead = max(
        leads,
        key=lambda c: (sum(row.cells[c.id].value is not None for row in rows), -place.get(c.base, len(place))),
        default=None,
    )

    def key(row: Row) -> tuple[bool, float, str]:
        value = row.cells[lead.id].value if lead else None
        if lead is None or value is None:
            return (True, 0.0, row.name)
        return (False, value if lead.direction == "lower" else -value, row.name)

    return sorted(rows, key=key)
