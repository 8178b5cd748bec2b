"""Building the static site: results in, a folder that opens with a double click out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokbench.errors import UserError
from tokbench.leaderboard.ablation_page import AblationPage
from tokbench.leaderboard.board import Board, load_board
from tokbench.leaderboard.clips import GAIN_RULE, collect
from tokbench.leaderboard.definitions import definition, meanings
from tokbench.leaderboard.exports import results_json, to_csv, to_json, to_latex, to_markdown
from tokbench.leaderboard.figures import Figure
from tokbench.leaderboard.load import Loaded, read_folders
from tokbench.leaderboard.model import Row, Table
from tokbench.leaderboard.numbers import dataset_label, format_number, slug
from tokbench.leaderboard.provenance import cell_facts, column_facts, direction_words, result_facts
from tokbench.leaderboard.published import load_published
from tokbench.leaderboard.row_figures import row_figures
from tokbench.leaderboard.standing import mark_ties
from tokbench.leaderboard.table_figures import make_figures
from tokbench.leaderboard.tables import make_tables
from tokbench.results import Result

__all__ = ["build"]

MARKER = ".tokbench-site"
ROWS_LIMIT = 2_000_000
"""Row files up to this many bytes are copied into the site."""


def build(
    results: Sequence[Path], out: Path, *, board: str | Path = "main", force: bool = False, partial: bool = False
) -> Path:
    """Build the leaderboard's pages.

    Args:
        results: folders that hold `result.json` files at any depth.
        out: folder of the site; one that an earlier build made is replaced as a whole.
        board: name in `leaderboards/`, or path of a board's YAML file.
        force: write into a folder that holds other things; those are left in place.
        partial: publish results with failed items too; they stay marked as partial.

    Returns:
        Path of `index.html`.

    Raises:
        UserError: nothing to publish, or `out` is somebody else's folder.
    """
    definition = load_board(board)
    foreign = out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file()
    if out.exists() and not out.is_dir():
        raise UserError("is a file, not a folder", where=str(out))
    if foreign and not force:
        raise UserError(
            "is not empty and was not made by this command", where=str(out), hint="Name another folder, or add --force"
        )
    loaded = read_folders(results, partial=partial)
    if not (loaded.published or loaded.refused or loaded.ablations):
        raise UserError("there is nothing to publish", where=", ".join(map(str, results)))
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _Site(scratch, definition, loaded).write()
        (scratch / MARKER).write_text("made by tokbench leaderboard build; replaced as a whole by the next build\n")
        scratch.chmod(0o755)
        if foreign:
            shutil.copytree(scratch, out, dirs_exist_ok=True)
        else:
            if out.exists():
                shutil.rmtree(out)
            scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out / "index.html"


class _Site:
    """One build: the tables once, then page after page."""

    def __init__(self, out: Path, board: Board, loaded: Loaded) -> None:
        self.out = out
        self.board = board
        self.loaded = loaded
        self.tables = make_tables(loaded, board)
        for table in self.tables:
            mark_ties(table)
        families = sorted(
            {r.tokenizer.family for r in loaded.published},
            key=lambda f: (all(r.tokenizer.anchor for r in loaded.published if r.tokenizer.family == f), f),
        )
        self.families = {family: index for index, family in enumerate(families)}
        self.ablations = [AblationPage(record) for record in loaded.ablations]
        self.rows_links: dict[tuple[str, int, str], str] = {}
        self.environment = _environment()

    def write(self) -> None:
        """Write every file of the site."""
        self._copy_rows()
        clips = {table.id: collect(table, self.out) for table in self.tables}
        figures = {table.id: make_figures(table, self.tables, self.board, self.families) for table in self.tables}
        self._downloads()
        own = {(t.id, row.name): row_figures(t, row) for t in self.tables for row in t.measured}
        common: dict[str, Any] = {
            "board": self.board,
            "tables": self.tables,
            "families": self.families,
            "clips": clips,
            "figures": figures,
            "gain_rule": GAIN_RULE,
            "published": load_published(),
            "ablations": self.ablations,
            "tokenizers": self._tokenizers(),
            "span": self._span(),
            "elsewhere": [r for r in self.loaded.refused if not any(r in t.refused for t in self.tables)],
        }
        self._page("index.html", "index.html.j2", common, data=[(t, t.front) for t in self.tables])
        self._page("audio.html", "audio.html.j2", common)
        self._page("published.html", "published.html.j2", common)
        for table in self.tables:
            self._page(
                f"tasks/{table.id}.html",
                "task.html.j2",
                common | {"table": table, "pictures": _links(table, own)},
                data=[(table, table.shared)],
            )
        for name, result in common["tokenizers"].items():
            appearances = [(t, row) for t in self.tables for row in t.rows if row.name == name]
            refused = [r for r in self.loaded.refused if r.result.tokenizer.name == name]
            samples = {t.id: [one for entry in clips[t.id] if (one := entry.of(name))] for t, _ in appearances}
            context = {"name": name, "card": result.tokenizer, "appearances": appearances, "refused": refused,
                       "samples": samples, "own": {t.id: own.get((t.id, name), []) for t, _ in appearances},
                       "missed": [t for t in self.tables if name in t.not_run]}  # fmt: skip
            self._page(f"tokenizers/{slug(name)}.html", "tokenizer.html.j2", common | context)
        for page in self.ablations:
            self._page(page.path, "ablation.html.j2", common | page.context())

    def _page(
        self,
        path: str,
        template: str,
        context: Mapping[str, Any],
        *,
        data: Sequence[tuple[Table, Sequence[Any]]] = (),
    ) -> None:
        root = "../" * path.count("/")
        inlined = json.dumps(self._drawer(data), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        shown = context.get("table")
        shown_tables = [shown] if shown else [t for t, _ in context.get("appearances", [])] or self.tables
        corpora = [context["data"]] if "ablation" in context else [t.dataset for t in shown_tables]
        synthetic = sorted({dataset_label(d.name) for d in corpora if d and d.synthetic})
        html = self.environment.get_template(template).render(
            **context,
            root=root,
            path=path,
            drawer=inlined if data else None,
            synthetic=synthetic,
            facts=lambda cell, row, table: cell_facts(cell, row, self._link(table, row, cell.estimate)),
            bits=self._bits,
        )
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(html, encoding="utf-8")

    def _drawer(self, data: Sequence[tuple[Table, Sequence[Any]]]) -> dict[str, Any]:
        """Provenance of the page's cells, for the script: keys are what `data-cell` holds."""
        cells: dict[str, Any] = {}
        columns: dict[str, Any] = {}
        results: dict[str, Any] = {}
        for table, shown in data:
            for column in shown:
                columns[f"{table.id}/{column.id}"] = {
                    "title": column.name,
                    "facts": [f.plain() for f in column_facts(column)],
                }
            for row in table.rows:
                results[f"{table.id}/{row.index}"] = {
                    "name": row.name,
                    "facts": [f.plain() for f in result_facts(row.result, table)],
                }
                for column in shown:
                    cell = row.cells[column.id]
                    link = self._link(table, row, cell.estimate)
                    key = f"{table.id}/{row.index}/{column.id}"
                    cells[key] = [f.plain() for f in cell_facts(cell, row, link)]
        return {"cells": cells, "columns": columns, "results": results}

    def _copy_rows(self) -> None:
        for table in self.tables:
            for row in table.rows:
                folder = row.result.folder
                for name, file in row.result.tables.items():
                    source = folder / file.path if folder else Path(file.path)
                    if not source.is_file():
                        raise UserError(
                            f"the rows '{name}' of {row.name} are missing", where=str(source), hint="Run the task again"
                        )
                    if source.stat().st_size > ROWS_LIMIT:
                        continue
                    link = f"rows/{table.id}/{row.slug}-{slug(name)}{source.suffix}"
                    target = self.out / link
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
                    self.rows_links[table.id, row.index, name] = link

    def _link(self, table: Table, row: Row, estimate: Any) -> str | None:
        return self.rows_links.get((table.id, row.index, estimate.table)) if estimate is not None else None

    def _downloads(self) -> None:
        folder = self.out / "downloads"
        folder.mkdir()
        for table in self.tables:
            (folder / f"{table.id}.csv").write_text(to_csv(table), encoding="utf-8")
            (folder / f"{table.id}.md").write_text(to_markdown(table), encoding="utf-8")
            (folder / f"{table.id}.tex").write_text(to_latex(table), encoding="utf-8")
            text = json.dumps(to_json(table), ensure_ascii=False, indent=1, allow_nan=False)
            (folder / f"{table.id}.json").write_text(text, encoding="utf-8")
        for page in self.ablations:
            (folder / page.file).write_text(page.record.model_dump_json(indent=1), encoding="utf-8")
        (folder / "results.json").write_text(results_json(self.loaded.published, self.tables), encoding="utf-8")

    def _bits(self, table: Table, row: Row) -> float | str:
        """The bit rate that the filter compares, in bit/s: the first of the board's rates that the row has."""
        for base in ("bps_effective", "bps_coded", "bps_nominal", "bps_quantised"):
            for column in table.column(base):
                value = row.cells[column.id].value
                if value is not None:
                    return value
        return ""

    def _tokenizers(self) -> dict[str, Result]:
        """One result for each tokenizer, the newest, for its card; refused ones have a page too."""
        found: dict[str, Result] = {}
        for result in [*(r.result for r in self.loaded.refused), *self.loaded.published]:
            found[result.tokenizer.name] = result
        return dict(sorted(found.items(), key=lambda item: (item[1].tokenizer.anchor is not None, item[0])))

    def _span(self) -> tuple[str, str] | None:
        days = sorted(r.manifest.started[:10] for r in self.loaded.published)
        return (days[0], days[-1]) if days else None


def _links(table: Table, own: Mapping[tuple[str, str], Sequence[Figure]]) -> dict[str, list[tuple[str, str]]]:
    """Tokenizers and links to their own charts of one table, by the charts' title."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in table.measured:
        for figure in own[table.id, row.name]:
            found.setdefault(figure.topic, []).append((row.name, f"tokenizers/{row.slug}.html#{figure.id}"))
    return found


def _judges_of(table: Table) -> list[tuple[Any, dict[str, str]]]:
    """Cards and identities of the judges of a table, each identity once."""
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    for row in table.rows:
        for name, card in row.result.manifest.judges.items():
            if row.applicable:
                identity = row.result.manifest.judge_identities.get(name, {})
                found.setdefault(f"{name} {sorted(identity.items())}", (card, identity))
    return [found[key] for key in sorted(found)]


def _letters(index: int) -> str:
    """a, b, ... z, aa, ab, ... for notes under a table."""
    first, last = divmod(index, 26)
    return (chr(96 + first) if first else "") + chr(97 + last)


def _prose(words: str) -> Any:
    """A sentence from a card as HTML: what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = str(words).split("`")
    if len(parts) % 2 == 0:
        return escape(words)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def _sentence(words: str) -> str:
    """Words that somebody wrote for another place, as a sentence."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _setting(value: Any) -> str:
    """A parameter as one would read it: `steps 360, batch 1` for a group of them."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(inner) for inner in value)
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup((here / "assets" / "style.css").read_text(encoding="utf-8"))
    environment.globals["script"] = Markup((here / "assets" / "board.js").read_text(encoding="utf-8"))
    environment.globals |= {
        "direction_words": direction_words,
        "column_facts": column_facts,
        "result_facts": result_facts,
        "definition": definition,
        "meanings": meanings,
        "judges_of": _judges_of,
        "marked": lambda table, columns: any(r.cells[c.id].mark for r in table.rows for c in columns),
        "letters": _letters,
        "count": lambda number: "not told" if number is None else format_number(number, 0),
        "rate": lambda hz: f"{float(hz):.4f}".rstrip("0").rstrip("."),
    }
    environment.filters |= {"slug": slug, "label": dataset_label}
    environment.filters["raw"] = Markup
    environment.filters |= {"prose": _prose, "setting": _setting, "sentence": _sentence}
    environment.filters["select_full"] = lambda mapping: [key for key, value in mapping.items() if value]
    return environment
