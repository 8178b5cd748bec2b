"""Every table as CSV, Markdown, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from tokbench.leaderboard.model import Cell, Column, Row, Table
from tokbench.leaderboard.numbers import dataset_label
from tokbench.results import Result

__all__ = ["results_json", "to_csv", "to_json", "to_latex", "to_markdown"]


def to_csv(table: Table) -> str:
    """One line per tokenizer and metric (long form), unscaled values, intervals and reasons in columns of their own."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["task", "task_version", "dataset", "dataset_fingerprint", "tokenizer", "family", "anchor", "frame_rate_hz",
         "metric", "judge", "variant", "unit", "scale", "direction", "value", "ci95_low", "ci95_high", "n", "clusters",
         "undefined", "standing", "reason", "method"]
    )  # fmt: skip
    for row in table.rows:
        for column in table.columns:
            cell = row.cells[column.id]
            estimate = cell.estimate
            low, high = estimate.ci95 if estimate and estimate.ci95 else (None, None)
            writer.writerow(
                [table.task.name, table.task.version, table.dataset.name if table.dataset else "",
                 table.dataset.fingerprint if table.dataset else "", row.name, row.result.tokenizer.family,
                 row.anchor or "", row.frame_rate, cell.metric, column.judge or "", column.variant or "",
                 column.unit, column.scale, column.direction, cell.value, low, high, estimate.n if estimate else None,
                 estimate.clusters if estimate else None, estimate.undefined if estimate else None, cell.mark,
                 cell.reason or "", estimate.method if estimate else ""]
            )  # fmt: skip
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table with all metrics, in display units."""
    head = ["tokenizer", "family", "frame rate (Hz)", *(_head(c) for c in table.columns)]
    lines = [_pipe(head), _pipe(["---", "---", "---:", *("---:" for _ in table.columns)])]
    for row in table.rows:
        name = f"{row.name} ({row.anchor})" if row.anchor else row.name
        cells = [_cell(row.cells[c.id]) for c in table.columns]
        lines.append(_pipe([name, row.result.tokenizer.family, row.frame_rate_text, *cells]))
    return "\n".join([f"{_caption(table)}", "", *lines, "", _legend(), ""])


def to_latex(table: Table) -> str:
    """A booktabs table of the front page's columns."""
    columns = table.front
    lines = [
        f"% {_caption(table)}",
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{l" + "r" * (1 + len(columns)) + "}",
        "\\toprule",
        " & ".join(["Tokenizer", "Hz", *(_tex(_head(c)) for c in columns)]) + r" \\",
        "\\midrule",
    ]
    for rows in (table.ranked, table.anchors):
        if rows is table.anchors and table.anchors and table.ranked:
            lines.append("\\midrule")
        lines += [_tex_row(row, columns) for row in rows]
    lines += ["\\bottomrule", "\\end{tabular}", f"% {_legend()}", ""]
    return "\n".join(lines)


def to_json(table: Table) -> dict[str, Any]:
    """The table as data: columns, rows and why anything is missing."""
    return {
        "id": table.id,
        "task": table.task.name,
        "task_version": table.task.version,
        "dataset": table.dataset.model_dump() if table.dataset else None,
        "columns": [
            {"id": c.id, "metric": c.metric, "judge": c.judge, "variant": c.variant,
             "judge_identity": json.loads(c.identity or "null"), "title": c.title, "unit": c.unit, "scale": c.scale,
             "direction": c.direction, "headline": c.headline}
            for c in table.columns
        ],
        "rows": [
            {"tokenizer": row.name, "family": row.result.tokenizer.family, "anchor": row.anchor,
             "frame_rate_hz": row.frame_rate, "status": row.result.status,
             "cells": {c.id: _json_cell(row.cells[c.id]) for c in table.columns}}
            for row in table.rows
        ],
        "not_run": table.not_run,
        "not_published": [{"tokenizer": r.result.tokenizer.name, "reason": r.reason} for r in table.refused],
    }  # fmt: skip


def results_json(results: Sequence[Result], tables: Sequence[Table]) -> str:
    """Everything: tables with standings, and the full records they come from."""
    data = {
        "format": 1,
        "tables": [to_json(table) for table in tables],
        "results": [result.model_dump(mode="json") for result in results],
    }
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)


def _json_cell(cell: Cell) -> dict[str, Any]:
    if cell.estimate is None or cell.value is None:
        return {"value": None, "reason": cell.reason}
    return {"value": cell.value, "ci95": cell.estimate.ci95, "n": cell.estimate.n, "standing": cell.mark or None}


def _caption(table: Table) -> str:
    data = f" on {dataset_label(table.dataset.name)}" if table.dataset else ""
    synthetic = " (synthetic speech)" if table.dataset and table.dataset.synthetic else ""
    return f"{table.task.title}{data}{synthetic}, task version {table.task.version}"


def _legend() -> str:
    return "Half-width of the 95 % interval after the sign; * best of its column, = not separable from the best."


def _head(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    label = f" [{column.label}]" if column.label else ""
    return f"{column.title}{unit}{label}"


def _cell(cell: Cell, sign: str = "±") -> str:
    if cell.value is None:
        return f"n/a ({cell.reason})" if sign == "±" else "n/a"
    mark = {"best": "*", "tied": "="}.get(cell.mark, "")
    return f"{cell.text}{f' {sign} {cell.half}' if cell.half else ''}{mark}"


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _tex_row(row: Row, columns: Sequence[Column]) -> str:
    if not row.applicable:
        reason = _tex(f"not applicable: {row.result.reason}")
        return f"{_tex(row.name)} & {row.frame_rate_text} & \\multicolumn{{{len(columns)}}}{{l}}{{{reason}}} \\\\"
    cells = []
    for column in columns:
        cell = row.cells[column.id]
        text = _cell(cell, "$\\pm$").replace("\N{MINUS SIGN}", "$-$").replace("\N{NARROW NO-BREAK SPACE}", "\\,")
        cells.append(f"\\textbf{{{text[:-1]}}}" if cell.mark == "best" else text.replace("=", "$^{=}$"))
    return " & ".join([_tex(row.name), _tex(row.frame_rate_text), *cells]) + r" \\"


def _tex(text: str) -> str:
    escapes = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
               "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}  # fmt: skip
    return "".join(escapes.get(c, c) for c in text)
