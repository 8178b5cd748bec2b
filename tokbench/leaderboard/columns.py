"""The columns of a table: one metric under one judge, or of one kind of representation of the tokens.

Tokenizers name their streams as they like, so `abx_across[units:vectors]` and `abx_across[content:vectors]` are one
column, "code vectors". Where a tokenizer has several streams of a kind its first one stands in the column, and the
others on its own page. Statistics that exist for all streams together (`bps_h0`) keep single streams off the tables.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tokbench.config import TaskCard
from tokbench.leaderboard.board import Board
from tokbench.leaderboard.model import Column
from tokbench.leaderboard.numbers import base_name, decimals_for, judge_of, slug
from tokbench.results import Estimate, Result

__all__ = ["REPRESENTATIONS", "make_columns", "pick"]

REPRESENTATIONS = {
    "codes": "codes",
    "vectors": "code vectors",
    "latent": "latents",
    "pre_quant": "before quantisation",
    "post_quant": "after quantisation",
    "histogram": "histogram of codes",
    "pooled": "pooled vectors",
    "global": "global vector",
}
"""What follows a stream's name in a metric's label -> words for table heads."""


@dataclass(frozen=True)
class _Label:
    """What stands in a metric's brackets: a judge, a stream with a kind of representation, or any other variant."""

    judge: str | None = None
    stream: str | None = None
    kind: str | None = None
    other: str | None = None


@dataclass(frozen=True)
class _Key:
    """What two estimates must share to stand in one column."""

    base: str
    label: _Label
    identity: str | None


def make_columns(results: Sequence[Result], board: Board, task: TaskCard) -> list[Column]:
    """The union of the results' metrics, split where one judge's name stands for two identities."""
    whole = {base_name(e.metric) for r in results for e in r.estimates if _label(r, e.metric).stream is None}
    found: dict[_Key, list[Estimate]] = defaultdict(list)
    several: set[_Key] = set()
    for result in results:
        for key, estimates in _keyed(result, whole).items():
            found[key].append(estimates[0])
            if len(estimates) > 1:
                several.add(key)
                for extra in estimates[1:]:
                    own = _Key(key.base, _Label(stream=judge_of(extra.metric)), None)
                    found[own].append(extra)
    identities: dict[tuple[str, _Label], set[str | None]] = defaultdict(set)
    for key in found:
        identities[key.base, key.label].add(key.identity)
    wanted = board.headline.get(task.name, task.headline)
    place = {m: (g, group.title) for g, group in enumerate(board.groups) for m in group.metrics}
    within = {m: i for group in board.groups for i, m in enumerate(group.metrics)}
    kinds = list(REPRESENTATIONS)
    columns: list[tuple[tuple[int, int, int, str, str], Column]] = []
    for key, estimates in found.items():
        base, label = key.base, key.label
        split = key.identity is not None and len(identities[base, label]) > 1
        judge = label.judge if not split else f"{label.judge}, identity {_short(key.identity)}"
        metric = estimates[0].metric if label.kind is None else f"{base}[{label.kind}]" if label.kind else base
        rank, title = place.get(base, (len(board.groups), "Other"))
        column = Column(
            id=slug(metric) + (f"-{_short(key.identity)}" if split else ""),
            metric=metric,
            identity=key.identity,
            title=_title(estimates[0]) or base,
            judge=judge,
            variant=_variant(label, first=key in several),
            unit=estimates[0].unit,
            scale=estimates[0].scale,
            direction=estimates[0].direction,
            decimals=decimals_for(estimates),
            group=title,
            headline=base in wanted or metric in wanted or (not wanted and any(e.headline for e in estimates)),
            rate=base in board.rates,
            latent=base in board.latent_rates,
            stream=label.stream,
            kind=label.kind,
        )
        order = kinds.index(label.kind) if label.kind in kinds else -1
        columns.append(((rank, within.get(base, 999), order, metric, key.identity or ""), column))
    return [column for _, column in sorted(columns, key=lambda item: item[0])]


def pick(result: Result, column: Column) -> Estimate | None:
    """The estimate of a result that stands in a column; of another identity of the judge it is none."""
    if column.kind is None:
        estimate = result.estimate(column.metric)
        return estimate if estimate is not None and _identity(result, estimate.metric) == column.identity else None
    for estimate in result.estimates:
        if base_name(estimate.metric) == column.base:
            label = _label(result, estimate.metric)
            if label.stream is not None and label.kind == column.kind:
                return estimate
    return None


def _keyed(result: Result, whole: set[str]) -> dict[_Key, list[Estimate]]:
    """A result's estimates by column; several only where several streams have one kind of representation."""
    found: dict[_Key, list[Estimate]] = defaultdict(list)
    for estimate in result.estimates:
        base, label = base_name(estimate.metric), _label(result, estimate.metric)
        if label.stream is not None and (base in whole or label.kind is None):
            label = _Label(stream=judge_of(estimate.metric))
        elif label.stream is not None:
            label = _Label(kind=label.kind)
        found[_Key(base, label, _identity(result, estimate.metric))].append(estimate)
    return found


def _label(result: Result, metric: str) -> _Label:
    text = judge_of(metric)
    if text is None:
        return _Label()
    if text in result.manifest.judges:
        return _Label(judge=text)
    card = result.tokenizer
    name, mark, rest = next(iter(re.findall(r"^([^:.]+)([:.]?)(.*)$", text)), (text, "", ""))
    known = {s.name for s in card.streams} | {g.name for g in card.globals}
    if name not in known and not (mark == ":" and rest in REPRESENTATIONS):
        return _Label(other=text)
    # A level of one stream's quantiser ("content.0") is nothing that other tokenizers have.
    return _Label(stream=name, kind=rest if mark != "." and (not rest or rest in REPRESENTATIONS) else None)


def _variant(label: _Label, *, first: bool) -> str | None:
    words = REPRESENTATIONS.get(label.kind or "", label.other)
    return ", ".join(filter(None, (words, "first stream" if first else None))) or None


def _title(estimate: Estimate) -> str:
    return estimate.title.removesuffix(f"[{judge_of(estimate.metric)}]").strip()


def _identity(result: Result, metric: str) -> str | None:
    judge = judge_of(metric)
    if judge is None or judge not in result.manifest.judges:
        return None
    return json.dumps(result.manifest.judge_identities.get(judge, {}), sort_keys=True)


def _short(identity: str | None) -> str:
    return hashlib.sha256((identity or "").encode()).hexdigest()[:6]
