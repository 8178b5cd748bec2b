"""Results as words: numbers with intervals for the terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokbench.results import Estimate, Result

__all__ = ["format_estimate", "print_results"]


_NAME_WIDTH = 28
_CELL_WIDTH = 17


def digits(estimate: Estimate) -> int:
    """Decimals such that the half-width has two significant figures, between 0 and 3; 1 where there is no width."""
    width = (
        estimate.scale * (estimate.ci95[1] - estimate.ci95[0]) / 2
        if estimate.ci95
        else abs(estimate.value or 0.0) / 100
    )
    if width == 0:
        return 1
    for decimals in range(4):
        if width >= 10 ** (1 - decimals):
            return decimals
    return 3


def format_estimate(estimate: Estimate | None) -> str:
    """`12.3 ± 1.4`, the half-width of the 95 % interval; a dash where there is no value."""
    if estimate is None or estimate.value is None:
        return "-"
    decimals = digits(estimate)
    text = f"{estimate.value * estimate.scale:.{decimals}f}"
    if estimate.ci95 is None:
        return text
    return f"{text} ± {estimate.scale * (estimate.ci95[1] - estimate.ci95[0]) / 2:.{decimals}f}"


def print_results(results: Sequence[Result], console: Console | None = None) -> None:
    """One table a task and dataset: tokenizers down, headline metrics across."""
    console = console or Console()
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.task.name, result.dataset.name if result.dataset else "-"].append(result)
    for (_, dataset), group in groups.items():
        first = group[0]
        synthetic = " (synthetic speech)" if first.dataset and first.dataset.synthetic else ""
        title = f"{first.task.title} on {dataset}{synthetic}"
        heads = _headline(group)
        # As many tables as the width of the terminal asks for: a folded number cannot be read.
        fit = max(1, (console.width - _NAME_WIDTH) // _CELL_WIDTH)
        for start in range(0, max(1, len(heads)), fit):
            console.print(_table(title if start == 0 else None, group, heads, slice(start, start + fit)))
        for result in group:
            if result.status == "not_applicable":
                console.print(
                    f"{result.tokenizer.name}: not applicable: {result.reason}",
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )
            if result.coverage and result.coverage.failed:
                failure, count = result.coverage.failed[0], len(result.coverage.failed)
                console.print(
                    f"{result.tokenizer.name}: {count} of {result.coverage.expected} items failed, "
                    f"first {failure.id} in {failure.stage}: {failure.error}",
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )


def _table(title: str | None, group: Sequence[Result], heads: Sequence[str], shown: slice) -> Table:
    """A table of the metrics `heads[shown]`; a title that several share is followed by what tells them apart."""
    table = Table(title=title, title_justify="left")
    table.add_column("tokenizer", no_wrap=True)
    examples = {name: next(e for r in group if (e := r.estimate(name))) for name in heads}
    titles = Counter(example.title or name for name, example in examples.items())
    for name in heads[shown]:
        example = examples[name]
        arrow = {"higher": " ↑", "lower": " ↓", "none": ""}[example.direction]
        unit = f" ({example.unit})" if example.unit else ""
        which = name.partition("[")[2].rstrip("]")
        apart = f", {which}" if which and titles[example.title or name] > 1 else ""
        table.add_column(escape(f"{example.title or name}{apart}{unit}{arrow}"), justify="right", min_width=9)
    for result in group:
        if result.status == "not_applicable":
            table.add_row(result.tokenizer.name, *["n/a"] * len(heads[shown]))
            continue
        mark = " (partial)" if result.status == "partial" else ""
        cells = [format_estimate(result.estimate(name)).replace(" ", "\u00a0") for name in heads[shown]]
        table.add_row(result.tokenizer.name + mark, *cells)
    return table


def _headline(group: Sequence[Result]) -> list[str]:
    """Headline metrics in the order of the task card, then of first appearance."""
    order: dict[str, None] = {}
    for result in group:
        for estimate in result.estimates:
            if estimate.headline:
                order.setdefault(estimate.metric)
    wanted = group[0].task.headline
    rank = {name: position for position, name in enumerate(wanted)}
    return sorted(order, key=lambda name: rank.get(name, rank.get(name.partition("[")[0], len(wanted))))
