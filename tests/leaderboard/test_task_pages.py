"""Pages of the tasks beyond reconstruction, of ablations, and of trained probes."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaderboard.fake_tasks import TASKS, card_of, write_task
from leaderboard.fakes import ASR, CROWD, SPEAKER, Fake, dataset, manifest, task_card, write_result
from leaderboard.page_checks import Page, links_lead_somewhere, nothing_from_elsewhere, read_pages, well_formed
from test_reproduction import record

from tokbench.audio import to_flac
from tokbench.errors import UserError
from tokbench.leaderboard import build
from tokbench.leaderboard.board import load_board
from tokbench.leaderboard.ceiling import reference_lines
from tokbench.leaderboard.clips import collect
from tokbench.leaderboard.load import read_folders
from tokbench.leaderboard.model import Table
from tokbench.leaderboard.standing import mark_ties
from tokbench.leaderboard.table_figures import make_figures
from tokbench.leaderboard.tables import make_tables
from tokbench.leaderboard.trials import trial_scores
from tokbench.metrics.eer import eer
from tokbench.metrics.wer import word_errors
from tokbench.reproduction import Ablation
from tokbench.results import Coverage, Estimate, Result, SampleClip


@pytest.fixture(scope="module")
def pages(task_site: Path) -> dict[str, Page]:
    return read_pages(task_site)


@pytest.fixture(scope="module")
def tables(task_results: Path) -> dict[str, Table]:
    made = make_tables(read_folders([task_results]), load_board("main"))
    for table in made:
        mark_ties(table)
    return {table.task.name: table for table in made}


def text_of(page: Page) -> str:
    shown = re.sub(r"<(script|style)\b.*?</\1>", "", page.text, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", shown)).split())


def figures(page: Page) -> list[str]:
    return [unescape(t) for t in re.findall(r"<figcaption><h3>(.*?)</h3>", page.text)]


def test_every_page_is_sound(pages: dict[str, Page]) -> None:
    site = pages["index.html"].path.parent
    assert {p for p in pages if p.startswith("tasks/")} == {
        f"tasks/{task}-mini-en.html" for task in ("reconstruction", *TASKS)
    }
    well_formed(pages)
    links_lead_somewhere(site, pages)
    nothing_from_elsewhere(site, pages)


def test_what_equals_the_best_is_marked_like_it(tables: dict[str, Table]) -> None:
    table = deepcopy(tables["reconstruction"])
    column = next(c for c in table.columns if any(row.cells[c.id].mark == "best" for row in table.ranked))
    (best,) = [row for row in table.ranked if row.cells[column.id].mark == "best"]
    other = next(row for row in table.ranked if row is not best and row.cells[column.id].estimate is not None)
    value, equal = best.cells[column.id].estimate, other.cells[column.id].estimate
    assert value is not None
    assert equal is not None
    equal.value = value.value
    mark_ties(table)
    assert {row.name for row in table.ranked if row.cells[column.id].mark == "best"} == {best.name, other.name}


def test_streams_of_any_name_share_a_column(tables: dict[str, Table]) -> None:
    abx = tables["abx"]
    (vectors,) = [c for c in abx.column("abx_across") if c.kind == "vectors"]
    found = {row.name: row.cells[vectors.id] for row in abx.ranked}
    assert found["mimi-8"].metric == "abx_across[q0:vectors]"
    assert found["kanade-25hz"].metric == "abx_across[content:vectors]"
    assert {cell.mark for cell in found.values()} >= {"best"}, "they are compared with each other"
    assert found["losatok-25hz"].reason == "its tokens have no code vectors"
    (latents,) = [c for c in abx.column("abx_across") if c.kind == "latent"]
    assert [row.name for row in abx.rows if row.cells[latents.id].value is not None] == ["losatok-25hz"]


def test_a_table_is_led_by_the_headline_that_most_have(tables: dict[str, Table]) -> None:
    def names(table: Table, base: str) -> list[str]:
        (column,) = table.column(base)
        rows = [row for row in table.ranked if row.cells[column.id].value is not None]
        sign = -1 if column.direction == "higher" else 1
        return [row.name for row in sorted(rows, key=lambda r: (sign * (r.cells[column.id].value or 0), r.name))]

    vc, speaker = tables["vc"], tables["speaker"]
    assert [row.name for row in vc.ranked if row.applicable] == names(vc, "vc_eer")
    assert [row.name for row in speaker.ranked] == names(speaker, "eer_leakage"), "few have a global vector"


def test_the_second_stream_of_a_kind_stands_on_its_own_page(tmp_path: Path) -> None:
    card = card_of(Fake("two", "Two", 0.1, 0.8, streams=2))
    made = [
        Estimate(metric=f"pnmi[{s}]", title="PNMI", value=v, unit="%", direction="higher", method="", n=1)
        for s, v in (("q0", 0.5), ("q1", 0.2))
    ]
    made.append(Estimate(metric="probe_wer[greedy]", value=0.4, unit="%", direction="lower", method="", n=1))
    result = Result(status="complete", tokenizer=card, task=task_card(name="pnmi"), dataset=dataset(), estimates=made,
                    coverage=Coverage(expected=1, scored=1), manifest=manifest())  # fmt: skip
    (tmp_path / "result.json").write_text(result.model_dump_json())
    (table,) = make_tables(read_folders([tmp_path]), load_board("main"))
    row = table.rows[0]
    assert {c.name: row.cells[c.id].value for c in table.shared} == {
        "PNMI [first stream]": 0.5, "probe_wer [greedy]": 0.4,
    }  # fmt: skip
    assert [c.metric for _, group in table.groups_of(row) for c in group if c.stream] == ["pnmi[q1]"]


def test_trials_give_back_the_published_rates(tables: dict[str, Table]) -> None:
    checked = set()
    for table in (tables["vc"], tables["speaker"]):
        for row in table.measured:
            for estimate in row.result.estimates:
                base = estimate.metric.partition("[")[0]
                if base.startswith(("vc_eer", "eer_speaker", "eer_leakage")):
                    scores = trial_scores(row.result, estimate)
                    assert scores is not None, estimate.metric
                    assert eer(*scores).value == pytest.approx(estimate.value), estimate.metric
                    checked.add(base)
    assert checked == {
        "vc_eer", "vc_eer_real", "vc_eer_verification", "vc_eer_verification_real", "eer_speaker",
        "eer_speaker_same_gender", "eer_speaker_balanced", "eer_leakage", "eer_leakage_same_gender",
        "eer_leakage_balanced",
    }  # fmt: skip


def test_real_speech_frames_the_plane(tables: dict[str, Table]) -> None:
    import pandas as pd

    vc = tables["vc"]
    (eer_column,), (wer_column,) = vc.column("vc_eer"), vc.column("wer")
    row = vc.measured[0]
    real = row.result.estimate(f"vc_eer_real[{SPEAKER}]")
    assert real is not None
    assert real.value is not None
    assert reference_lines(vc, eer_column) == [("real speech", pytest.approx(100 * real.value))]
    folder = row.result.folder
    assert folder is not None
    items = pd.read_parquet(folder / "items.parquet")
    counts = [
        word_errors(said, heard, normaliser="whisper-english", name="wer")
        for said, heard in zip(items["text"], items[f"transcript_original[{ASR}]"], strict=True)
    ]
    value = sum(c["wer_errors"] for c in counts) / sum(c["wer_words"] for c in counts)
    assert 0 < value < 0.1
    assert reference_lines(vc, wer_column) == [("real speech", pytest.approx(100 * value))]
    (ceiling,) = reference_lines(tables["reconstruction"], tables["reconstruction"].column("wer")[0])
    assert ceiling[0] == "identity"


def test_only_pages_with_numbers_carry_their_origins(pages: dict[str, Page]) -> None:
    having = {name for name, page in pages.items() if '<dialog id="drawer"' in page.text}
    assert having == {name for name in pages if name == "index.html" or name.startswith("tasks/")}


def test_the_charts_of_each_task(pages: dict[str, Page]) -> None:
    assert figures(pages["tasks/vc-mini-en.html"]) == [
        f"Disentanglement: does the voice change, and do the words stay? ({SPEAKER}, {ASR})",
        f"Disentanglement: is the target recognised, and do the words stay? ({SPEAKER}, {ASR})",
        f"Target against source ({SPEAKER})", f"Target verification ({SPEAKER})", f"Rank intervals: WER ({ASR})",
    ]  # fmt: skip
    assert figures(pages["tasks/speaker-mini-en.html"]) == [
        "Disentanglement: do the tokens keep the words and not the voice? (pooled vectors)",
        "Speakers by the global vector (global vector)", "Speakers by the content (pooled vectors)",
    ]  # fmt: skip
    assert figures(pages["tasks/abx-mini-en.html"]) == [
        "ABX between fixed neighbours (codes)", "ABX between fixed neighbours (code vectors)",
        "ABX in any context (codes)", "ABX in any context (code vectors)",
    ]  # fmt: skip
    assert figures(pages["tasks/pnmi-mini-en.html"]) == ["PNMI and what is left of it by chance"]
    front = figures(pages["index.html"])
    assert "ABX between fixed neighbours (codes)" in front
    assert not any("any context" in title or "Rank" in title or "Target" in title for title in front)


def test_meaning_is_told_once_for_a_kind_of_chart(pages: dict[str, Page]) -> None:
    assert text_of(pages["tasks/abx-mini-en.html"]).count("nearer to another phone than to its own: shorter") == 1
    metrics = pages["tasks/abx-mini-en.html"].text.split('id="metrics"')[1]
    assert metrics.count("<dt>") == 4, "a metric is defined once, whatever it was measured on"
    assert "Measured with: codes, code vectors, latents." in text_of(pages["tasks/abx-mini-en.html"])


def test_what_has_no_value_is_told_and_not_drawn(pages: dict[str, Page]) -> None:
    abx = text_of(pages["tasks/abx-mini-en.html"])
    assert "Without a value for anybody: ABX within [codes], ABX within [code vectors], ABX within [latents]: " in abx
    assert "1 cells, at least 3 are needed" in abx
    assert "No tokenizer has a value for: within speakers." in abx
    assert "identity's tokens are samples of the waveform" in abx
    vc = text_of(pages["tasks/vc-mini-en.html"])
    assert vc.count("mimi-8 has no global vector that could be swapped") == 1
    assert "Not drawn: mimi-8" not in vc, "the table says that the task does not apply"


def test_a_table_without_a_measurement_is_a_list_of_reasons(tmp_path: Path) -> None:
    for fake in CROWD:
        if fake.name in ("mimi-8", "kmeans-logmel-500"):
            write_task(tmp_path / "results", fake, "vc")
            write_result(tmp_path / "results", fake, clips=0, draws=50)
    site = build([tmp_path / "results"], tmp_path / "site").parent
    found = read_pages(site)
    well_formed(found)
    for name in ("index.html", "tasks/vc-mini-en.html"):
        assert "No tokenizer could be measured here." in text_of(found[name])
        assert "mimi-8: mimi-8 has no global vector that could be swapped" in text_of(found[name])
    assert figures(found["tasks/vc-mini-en.html"]) == []
    assert "<table class=" not in found["tasks/vc-mini-en.html"].text


def test_many_det_curves_are_split_by_family(tmp_path: Path) -> None:
    families = ("Kanade", "k-means units")
    for index in range(12):
        fake = Fake(f"made-{index}", families[index == 11], 0.1 + 0.03 * index, 0.7)
        write_task(tmp_path, fake, "speaker", draws=50)
    tables = make_tables(read_folders([tmp_path]), load_board("main"))
    board = load_board("main")
    made = make_figures(tables[0], tables, board, {name: i for i, name in enumerate(families)})
    dets = [figure for figure in made if "-det-eer-leakage" in figure.id]
    assert sorted(figure.title.rpartition(", ")[2] for figure in dets) == [
        "Kanade 1 of 2", "Kanade 2 of 2", "k-means units",
    ]  # fmt: skip
    for figure in dets:
        drawn = figure.wide.count('class="det other"'), len(figure.body)
        assert sum(drawn) == 12
        styles = set(re.findall(r'class="det c(\d)"( stroke-dasharray)?', figure.wide))
        assert len(styles) == drawn[1], "one family: colours and dashes tell members"


def test_a_tokenizer_has_all_its_tasks_and_pictures(pages: dict[str, Page]) -> None:
    page = pages["tokenizers/kanade-25hz.html"]
    assert figures(page) == ["Phones by codes, stream content", "Training: loss", "Training: wer"]
    assert page.text.count('class="curve c0"') == 2 * (2 * 2 + 1), "two charts: two widths of two seeds, and a legend"
    for table in ("reconstruction", *TASKS):
        assert f'href="#{table}-mini-en"' in page.text
    assert text_of(page).index("Voice conversion, mini-en") < text_of(page).index("ABX phone discrimination, mini-en")
    other = pages["tokenizers/mimi-8.html"]
    assert "Voice conversion, mini-en not applicable" in text_of(other)
    pictures = pages["tasks/pnmi-mini-en.html"].text.split('id="pictures"')[1].split("</section>")[0]
    assert "Phones by codes" in pictures
    assert "tokenizers/kanade-25hz.html#pnmi-mini-en-kanade-25hz-curve-loss" in pictures
    assert "curve" not in pages["tasks/abx-mini-en.html"].text.split("<main")[1]


def test_source_reference_and_conversion_stand_side_by_side(pages: dict[str, Page], tables: dict[str, Table]) -> None:
    page = pages["tokenizers/kanade-25hz.html"]
    line = page.text.split('<li class="line several">')[1].split("</li>")[0]
    heads = re.findall(r'<span class="who">(.*?)</span>\n<audio', line, re.S)
    assert [re.sub(r"<[^>]+>", "", head) for head in heads] == [
        "source: the words", "reference: the voice", "kanade-25hz, converted",
    ]  # fmt: skip
    assert "“Another sentence”" in line, "the reference says other words"
    audio = pages["audio.html"].text.split('<ol class="clips">')[1].split("</ol>")[0]
    assert [part.count("<audio") for part in audio.split('<li class="line')[1:]] == [2, 1, 1]


def test_a_prompt_and_its_continuation_stand_side_by_side(tmp_path: Path) -> None:
    fake = next(f for f in CROWD if f.name == "mimi-8")
    (tmp_path / "samples").mkdir()
    rng = np.random.default_rng(0)
    clips = []
    for kind, text, heard in (("continuation", None, "and then it rained"), ("prompt", "The boat drifted", None)):
        path = tmp_path / "samples" / f"{kind}.flac"
        path.write_bytes(to_flac((0.1 * rng.normal(size=16000)).astype(np.float32), 16000))
        clips.append(SampleClip(item="a", kind=kind, path=f"samples/{kind}.flac", text=text, transcript=heard))
    made = [Estimate(metric="bps_h0", value=100.0, unit="bit/s", direction="lower", method="", n=1)]
    result = Result(status="complete", tokenizer=card_of(fake), task=task_card(name="slm"), dataset=dataset(),
                    estimates=made, coverage=Coverage(expected=1, scored=1), manifest=manifest(),
                    samples=clips)  # fmt: skip
    (tmp_path / "result.json").write_text(result.model_dump_json())
    (table,) = make_tables(read_folders([tmp_path]), load_board("main"))
    (entry,) = collect(table, tmp_path / "out")
    assert [[c.detail for c in line] for line in entry.lines] == [["prompt", "continuation"]]
    page = read_pages(build([tmp_path / "result.json"], tmp_path / "site").parent)["audio.html"]
    assert "mimi-8, prompt" in text_of(page)
    assert "heard: and then it rained" in text_of(page)


def test_an_ablation_has_a_page(pages: dict[str, Page]) -> None:
    page = pages["ablations/ssl-loss-mini.html"]
    shown = text_of(page)
    for piece in ("What is it worth?", "without − with", "−0.10", "−0.30 to +0.10", "−0.08", "undecided",
                  "loss.ssl=0", "tokbench reproduce run ssl_loss"):  # fmt: skip
        assert piece in shown, piece
    assert figures(page) == ["Differences: F0 correlation"]
    assert "F0 correlation: undecided" in text_of(pages["index.html"])
    assert any('href="../index.html#ablations"' in p.text for p in pages.values())
    record_file = page.path.parent.parent / "downloads" / "ablation-ssl-loss-mini.json"
    assert json.loads(record_file.read_text())["metrics"][0]["verdict"] == "undecided"


def test_an_ablation_alone_makes_a_site_and_the_newest_counts(tmp_path: Path) -> None:
    for day, title in (("02", "the newer one"), ("01", "the older one")):
        made = record(started=f"2026-01-{day}T00:00:00Z", title=title)
        Ablation.model_validate(made).write(tmp_path / "runs" / day)
    site = build([tmp_path / "runs"], tmp_path / "site").parent
    found = read_pages(site)
    well_formed(found)
    links_lead_somewhere(site, found)
    assert "the newer one" in text_of(found["index.html"])
    assert "the older one" not in text_of(found["index.html"])


def test_a_broken_record_of_an_ablation_is_named(tmp_path: Path) -> None:
    wrong: dict[str, Any] = record(metric={"verdict": "maybe"})
    (tmp_path / "ablation.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"ablation\.json: is not the record of an ablation: metrics\.0\.verdict"):
        build([tmp_path], tmp_path / "site")
