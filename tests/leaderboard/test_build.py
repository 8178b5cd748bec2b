"""The pages as files: well-formed, complete without JavaScript, nothing linked that is not there, nothing fetched."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from leaderboard.fakes import CROWD, Fake, write_result
from leaderboard.page_checks import Page, links_lead_somewhere, nothing_from_elsewhere, read_pages, well_formed

from tokbench.errors import UserError
from tokbench.leaderboard import build

TABLE = "reconstruction-mini-en"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return read_pages(site)


def test_every_page_there_should_be(pages: dict[str, Page]) -> None:
    names = {"identity", "codec2-1200", "kmeans-logmel-500", "kmeans-whisper-tiny-500", "kanade-25hz", "mimi-8",
             "losatok-25hz", "hubert-units", "broken-codec", "phone-labels"}  # fmt: skip
    assert set(pages) == {"index.html", "audio.html", "published.html", f"tasks/{TABLE}.html"} | {
        f"tokenizers/{n}.html" for n in names
    }


def test_pages_are_well_formed(pages: dict[str, Page]) -> None:
    well_formed(pages)


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    links_lead_somewhere(site, pages)


def test_links_of_the_drawer_lead_somewhere(site: Path) -> None:
    for path in [site / "index.html", site / "tasks" / f"{TABLE}.html"]:
        found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(), re.S)
        assert found
        data = json.loads(found[1])
        facts = [*data["cells"].values(), *(c["facts"] for c in data["columns"].values())]
        facts += [r["facts"] for r in data["results"].values()]
        links = [fact[2] for group in facts for fact in group if fact[2]]
        assert links
        assert all((site / link).is_file() for link in links)


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    nothing_from_elsewhere(site, pages)


def test_tables_are_complete_without_javascript(pages: dict[str, Page]) -> None:
    text = re.sub(r"<[^>]+>", "", pages["index.html"].text)
    for fake in CROWD:
        if f"tokenizers/{fake.name}.html" in pages:
            assert fake.name in text
    assert "broken-codec: not published: partial, 3 of 64 failed" in " ".join(text.split())
    assert "not applicable: phone-labels has no decoder" in text
    assert "encode-only: there is no audio to score" in text
    assert "continuous latents have no finite rate" in text
    assert "Synthetic speech." in text
    assert "Not drawn: losatok-25hz (continuous latents have no finite rate" in " ".join(text.split())
    table = pages["index.html"].text.split('<table class="results"')[1].split("</table>")[0]
    rows = re.findall(r'<tr data-name="([^"]+)".*?</tr>', table, re.S)
    assert len(rows) == 9
    for row in re.findall(r'<tr data-name=".*?</tr>', table, re.S):
        cells = re.findall(r'<td class="num[^"]*"[^>]*>(.*?)</td>', row, re.S)
        assert all(re.sub(r"<[^>]+>", "", cell).strip() for cell in cells)


def test_the_table_agrees_with_the_results(site: Path) -> None:
    data = json.loads((site / "downloads" / "results.json").read_text())
    (table,) = data["tables"]
    html = (site / "index.html").read_text()
    wer = "wer[whisper-tiny.en]"
    for result in data["results"]:
        estimate = next((e for e in result["estimates"] if e["metric"] == wer), None)
        row = next(r for r in table["rows"] if r["tokenizer"] == result["tokenizer"]["name"])
        cell = row["cells"]["wer-whisper-tiny.en"]
        if estimate is None:
            assert cell["value"] is None
            assert cell["reason"]
            continue
        assert cell["value"] == estimate["value"]
        shown = f'data-v="{estimate["value"]}"'
        assert shown in html
        half = (estimate["ci95"][1] - estimate["ci95"][0]) / 2 * 100
        printed = html.split(shown)[1].split("</td>")[0]
        assert f'<span class="v">{estimate["value"] * 100:.1f}</span><span class="h"> ± {half:.1f}</span>' in printed


def test_the_best_and_the_tied_are_marked_and_anchors_are_not(site: Path) -> None:
    table = json.loads((site / "downloads" / f"{TABLE}.json").read_text())
    for column in table["columns"]:
        cells = {r["tokenizer"]: (r, r["cells"][column["id"]]) for r in table["rows"]}
        marks = {name: cell.get("standing") for name, (_, cell) in cells.items()}
        assert all(marks[n] is None for n, (row, _) in cells.items() if row["anchor"])
        if column["metric"] in ("wer[whisper-tiny.en]", "stoi", "pesq_wb"):
            sign = 1 if column["direction"] == "lower" else -1
            values = {n: sign * c["value"] for n, (r, c) in cells.items() if c["value"] is not None and not r["anchor"]}
            best = min(values, key=values.__getitem__)
            assert [n for n, mark in marks.items() if mark == "best"] == [best]
        if column["metric"] == "dnsmos_ovrl[dnsmos]":
            assert list(marks.values()).count("tied") >= 3, "all are drawn from one distribution"
        if column["metric"].startswith(("bps_", "tokens_")):
            assert set(marks.values()) == {None}


def test_continuous_rates_have_their_own_columns(site: Path) -> None:
    table = json.loads((site / "downloads" / f"{TABLE}.json").read_text())
    rows = {r["tokenizer"]: r["cells"] for r in table["rows"]}
    assert rows["losatok-25hz"]["bps-effective"]["value"] is None
    assert rows["losatok-25hz"]["bps-quantised"]["value"] > 0
    assert rows["mimi-8"]["bps-effective"]["value"] > 0
    assert rows["mimi-8"]["bps-quantised"]["value"] is None


def test_downloads_hold_the_same_numbers(site: Path) -> None:
    downloads = site / "downloads"
    with (downloads / f"{TABLE}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = json.loads((downloads / f"{TABLE}.json").read_text())
    found = {(r["tokenizer"], r["metric"]): r for r in rows}
    assert len(found) == len(rows) == len(table["rows"]) * len(table["columns"])
    for row in table["rows"]:
        for column in table["columns"]:
            line = found[row["tokenizer"], column["metric"]]
            value = row["cells"][column["id"]]["value"]
            assert (float(line["value"]) if line["value"] else None) == value
            assert value is not None or line["reason"]
    markdown = (downloads / f"{TABLE}.md").read_text()
    lines = [x for x in markdown.splitlines() if x.startswith("|")]
    assert len(lines) == 2 + len(table["rows"])
    assert len({len(re.split(r"(?<!\\)\|", x)) for x in lines}) == 1
    latex = (downloads / f"{TABLE}.tex").read_text()
    assert latex.count(r"\\") == 1 + len(table["rows"])
    assert not re.search(r"(?<!\\)[%&_](?=\S*\\\\)", "".join(x for x in latex.splitlines() if "multicolumn" in x))


def test_rows_are_copied_unchanged(site: Path, results: Path) -> None:
    copies = sorted((site / "rows" / TABLE).glob("kanade-25hz-*.parquet"))
    assert [c.name for c in copies] == ["kanade-25hz-items.parquet", "kanade-25hz-tokens.parquet"]
    original = next((results / "kanade-25hz").rglob("items.parquet"))
    assert copies[0].read_bytes() == original.read_bytes()


def test_headings_descend_and_tables_have_scopes(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        levels = [int(tag[1]) for tag, attrs in page.tags if re.fullmatch(r"h[1-6]", tag) and "drawer" not in
                  (attrs.get("id") or "")]  # fmt: skip
        assert levels[0] == 1, name
        assert levels.count(1) == 1, name
        assert all(b - a <= 1 for a, b in pairwise(levels)), (name, levels)
        assert all("scope" in attrs for tag, attrs in page.tags if tag == "th"), name
        tables = page.text.count("<table")
        assert page.text.count("<caption") == tables, name
        for tag, attrs in page.tags:
            if tag == "svg" and attrs.get("aria-hidden") != "true":
                assert attrs.get("role") == "img"
                assert all(i in page.ids for i in str(attrs["aria-labelledby"]).split())
            if tag == "audio":
                assert attrs.get("preload") == "none"
                assert attrs.get("aria-label")
                assert "controls" in attrs, "without JavaScript the browser's own player is there"


def test_a_hostile_name_or_text_stays_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    fake = Fake("plain", evil, 0.1, 0.8)
    write_result(tmp_path / "results", fake, clips=1, draws=50)
    write_result(tmp_path / "results", Fake("other", "two", 0.1, 0.8), clips=1, draws=50)
    site = build([tmp_path / "results"], tmp_path / "site").parent
    for path in site.rglob("*.html"):
        page = Page(path)
        assert not page.problems, path
        assert all(attrs.get("src") != "x" for _, attrs in page.tags)
        assert "<script>alert" not in page.text


def test_only_its_own_folder_is_replaced(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not made by this command"):
        build([results], out)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    build([results], out, force=True)
    assert (out / "thesis.txt").read_text() == "mine"
    assert (out / "index.html").is_file()
    own = tmp_path / "own"
    build([results], own)
    (own / "stale.html").write_text("old")
    build([results], own)
    assert not (own / "stale.html").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing is left behind"


def test_the_same_results_give_the_same_bytes(results: Path, site: Path, tmp_path: Path) -> None:
    again = build([results], tmp_path / "again").parent
    for path in site.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(site)).read_bytes(), path


def test_building_imports_no_model_library(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tokbench.leaderboard import build;"
        f"build([Path({str(results)!r})], Path({str(tmp_path / 'x')!r}));"
        "print([m for m in ('torch', 'mlflow', 'transformers', 'librosa', 'faster_whisper') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_partial_results_still_make_a_page(tmp_path: Path) -> None:
    write_result(tmp_path / "results", Fake("broken", "one", 0.1, 0.8, failed=2), draws=50)
    site = build([tmp_path / "results"], tmp_path / "site").parent
    text = " ".join(re.sub(r"<[^>]+>", "", (site / "index.html").read_text()).split())
    assert "No tokenizer's result is published. " in text
    assert "Tokenizer or family" not in text
    assert "broken on Reconstruction and bit rate, mini-en: partial, 2 of 64 failed" in text
    published = build([tmp_path / "results"], tmp_path / "site", partial=True)
    assert '<span class="warn">partial</span>' in published.read_text()


@pytest.mark.parametrize(
    ("trained_on", "mark"),
    [((), None), (("other",), None), (("mini-en",), "trained on this dataset"),
     (("mini-en:train",), "trained on another part of this corpus")],
)  # fmt: skip
def test_training_on_the_evaluated_data_is_marked(
    tmp_path: Path, trained_on: tuple[str, ...], mark: str | None
) -> None:
    folder = write_result(tmp_path / "results", Fake("plain", "one", 0.1, 0.8), clips=0, draws=50)
    record = json.loads((folder / "result.json").read_text())
    record["tokenizer"]["trained_on"] = trained_on
    (folder / "result.json").write_text(json.dumps(record))
    text = build([tmp_path / "results"], tmp_path / "site").read_text()
    assert ("trained on" in text) == (mark is not None)
    assert mark is None or f"({mark})" in text


def test_missing_rows_are_an_error_and_the_old_site_stays(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "results", Fake("plain", "one", 0.1, 0.8), clips=0, draws=50)
    index = build([tmp_path / "results"], tmp_path / "site")
    before = index.read_text()
    (folder / "tokens.parquet").unlink()
    with pytest.raises(UserError, match=r"tokens\.parquet: the rows 'tokens' of plain are missing"):
        build([tmp_path / "results"], tmp_path / "site")
    assert index.read_text() == before
