"""Which charts one tokenizer gets on its own page: phones by codes, and training curves."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from tokbench.leaderboard.figures import Figure, both_widths, said_once
from tokbench.leaderboard.lines import Curve, line_chart, line_keys
from tokbench.leaderboard.matrix import matrix_keys, matrix_plot, phone_codes
from tokbench.leaderboard.model import Row, Table
from tokbench.leaderboard.numbers import format_number, quantity, slug
from tokbench.leaderboard.rows import read_columns

__all__ = ["row_figures"]

MOST_CODES = (96, 48)
"""Codes in the wide and in the narrow picture."""
CURVES = ("run", "seed", "step", "name", "value")
"""Columns of a table of rows called "curves", which trained probes write: a value called `name` after `step` steps."""


def row_figures(table: Table, row: Row) -> list[Figure]:
    """The charts of one tokenizer in one table; none where its rows hold nothing to draw."""
    return [*said_once(_matrices(table, row)), *said_once(_curves(table, row))]


def _matrices(table: Table, row: Row) -> list[Figure]:
    joint = read_columns(row.result, "joint", ("stream", "shuffled", "label", "unit", "frames"))
    if joint is None:
        return []
    joint = joint[~joint["shuffled"].astype(bool)]
    return [_matrix(table, row, str(stream), own) for stream, own in joint.groupby("stream", sort=True)]


def _matrix(table: Table, row: Row, stream: str, joint: pd.DataFrame) -> Figure:
    labels, units = joint["label"].tolist(), joint["unit"].to_numpy(np.float64)
    pictures = [phone_codes(labels, units, joint["frames"].to_numpy(np.float64), most=most) for most in MOST_CODES]
    title = f"Phones by codes, stream {stream}"
    identifier = f"{table.id}-{row.slug}-matrix-{slug(stream)}"
    drawings = [
        matrix_plot(
            found, identifier=f"{identifier}-{kind}", title=title, width=width,
            description=f"{len(found.phones)} phones by the {len(found.codes)} most frequent codes, which cover "
            f"{found.covered:.0%} of the frames; shades are the probability of the phone given the code.",
        )
        for found, kind, width in zip(pictures, ("wide", "narrow"), (640, 360), strict=True)
    ]  # fmt: skip
    found = pictures[0]
    total = float(found.frames.sum())
    return Figure(
        id=identifier,
        title=title,
        topic="Phones by codes",
        caption="Each column is a code, each row a phone: the darker a cell, the surer the code is of the phone. A "
        "clean diagonal is an inventory that follows phones; smears are confusions, and a long row of silence is codes "
        "spent on pauses. It shows frequent codes alone, and not how long or in which order they come.",
        wide=drawings[0],
        narrow=drawings[1],
        legend=matrix_keys(),
        head=["Phone", "Share of frames", "Codes of which it is the commonest phone", "Its commonest code",
              "Share of the phone with that code"],
        body=[
            [phone, f"{frames / total:.1%}", str(owned), format_number(code, 0), f"{share:.0%}"]
            for phone, frames, owned, (code, share) in zip(
                found.phones, found.frames, found.owned.tolist(), found.best, strict=True
            )
        ],
    )  # fmt: skip


def _curves(table: Table, row: Row) -> list[Figure]:
    rows = read_columns(row.result, "curves", CURVES)
    if rows is None or not len(rows):
        return []
    runs = sorted(rows["run"].astype(str).unique())
    figures = []
    for name, own in rows.groupby("name", sort=False):
        curves = [
            Curve(
                f"{run}, seed {seed}",
                runs.index(str(run)),
                one["step"].to_numpy(np.float64),
                one["value"].to_numpy(np.float64),
            )
            for (run, seed), one in own.sort_values("step", kind="stable").groupby(["run", "seed"], sort=True)
        ]
        curves = [curve for curve in curves if np.isfinite(curve.values).any()]
        if not curves:
            continue
        title = f"Training: {name}"
        draw = partial(
            line_chart, curves, title=title, y_label=str(name),
            description=f"{name} over training steps, {len(curves)} lines, one for each seed.",
        )  # fmt: skip
        identifier = f"{table.id}-{row.slug}-curve-{slug(str(name))}"
        wide, narrow = both_widths(draw, identifier, (280, 260))
        figures.append(
            Figure(
                id=identifier,
                title=title,
                topic=title,
                caption="One line for each seed"
                + (", one colour for each run." if len(runs) > 1 else ".")
                + " Long curves are averaged over neighbouring steps; the last value is as it was logged.",
                wide=wide,
                narrow=narrow,
                legend=line_keys(runs),
                head=["Run and seed", "Steps", "Last value", "Lowest", "Highest"],
                body=[_summary(curve) for curve in curves],
            )
        )
    return figures


def _summary(curve: Curve) -> list[str]:
    finite = np.isfinite(curve.values)
    values, steps = curve.values[finite], curve.steps[finite]
    ends = [
        f"{quantity(float(values[i]))} at {format_number(float(steps[i]), 0)}"
        for i in (int(values.argmin()), int(values.argmax()))
    ]
    return [curve.name, format_number(float(curve.steps[-1]), 0), quantity(float(values[-1])), *ends]
