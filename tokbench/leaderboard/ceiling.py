"""What a judge says of real speech in the same place, for reference lines."""

from __future__ import annotations

from tokbench.leaderboard.figures import shown
from tokbench.leaderboard.model import Column, Row, Table
from tokbench.leaderboard.rows import read_columns

__all__ = ["reference_lines"]


def reference_lines(table: Table, column: Column) -> list[tuple[str, float]]:
    """Name and value, in display units, of everything that frames a column.

    These are the table's ceilings; where it has none, the metric's own reading of real speech (`vc_eer_real` for
    `vc_eer`), or the words that the judge missed in the untouched originals. Both belong to the data and the judge and
    are the same for every tokenizer, so the first row that has them speaks for all.
    """
    ceilings = [row for row in table.anchors if row.anchor == "ceiling" and row.cells[column.id].value is not None]
    if ceilings:
        return [(row.name, shown(row.cells[column.id])) for row in ceilings]
    for real in table.column(f"{column.base}_real"):
        if real.judge == column.judge:
            for row in table.rows:
                if row.cells[real.id].value is not None:
                    return [("real speech", shown(row.cells[real.id]))]
    if column.base == "wer" and column.judge:
        for row in table.rows:
            value = _originals(row, column) if row.cells[column.id].value is not None else None
            if value is not None:
                return [("real speech", value * column.scale)]
    return []


def _originals(row: Row, column: Column) -> float | None:
    """Word error rate of the originals from their transcripts in the rows; None where there are none."""
    from tokbench.metrics.wer import word_errors

    judge = row.cells[column.id].metric.partition("[")[2].removesuffix("]")
    frame = read_columns(row.result, "items", ("text", f"transcript_original[{judge}]"))
    if frame is None:
        return None
    normaliser = str(row.result.manifest.params.get("normaliser", "whisper-english"))
    total = {"wer_errors": 0.0, "wer_words": 0.0}
    for said, heard in frame.dropna().itertuples(index=False):
        for name, value in word_errors(said, heard, normaliser=normaliser, name="wer").items():
            if name in total:
                total[name] += value
    return total["wer_errors"] / total["wer_words"] if total["wer_words"] else None
