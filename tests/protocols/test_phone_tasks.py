"""ABX and PNMI end to end, on tones that a toy tokenizer hears perfectly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phone_toys import DEAF_CARD, EARS_CARD, corpus
from tests_support import TOY_CARD

from tokbench.auditing import audit_results
from tokbench.comparison import compare_results
from tokbench.config import TaskCard, TokenizerCard
from tokbench.data.dataset import Dataset, Segment
from tokbench.engines.local import LocalEngine
from tokbench.errors import DatasetError, NothingToCompare
from tokbench.handle import TokenizerHandle
from tokbench.protocols.abx import Abx
from tokbench.protocols.pnmi import LABELS, frame_phones
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    for name, card in (("ears", EARS_CARD), ("deaf", DEAF_CARD), ("toy", TOY_CARD)):
        (folder / "tokenizers" / f"{name}.yaml").write_text(card)
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


def measured(data: Dataset, tmp_path: Path, toys: Path, tokenizer: str, task: str, **params: object) -> Result:
    card = find_card(TaskCard, task)
    cell = Cell(
        TokenizerHandle(tokenizer), card, prepare_dataset(data, tmp_path / "index"), {}, dict(card.params) | params
    )
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=200, paths=(toys,))
    return next(run([cell], options, LocalEngine(1)))


def value(result: Result, metric: str) -> float:
    found = result.estimate(metric)
    assert found is not None, [e.metric for e in result.estimates]
    assert found.value is not None, found
    return found.value


def test_abx_tells_a_good_ear_from_none(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    good = measured(tones, tmp_path, toys, "ears", "abx", threads=2, min_cells=20)
    assert good.status == "complete"
    for condition in ("abx_within", "abx_across", "abx_within_any", "abx_across_any"):
        assert value(good, f"{condition}[band:codes]") < 0.15
        assert value(good, f"{condition}[band:vectors]") == pytest.approx(
            value(good, f"{condition}[band:post_quant]"), abs=1e-9
        )
        assert value(good, f"{condition}[band:pre_quant]") < 0.25
    bad = measured(tones, tmp_path, toys, "deaf", "abx", threads=2, min_cells=20)
    assert {e.metric.partition("[")[2] for e in bad.estimates} == {"band:codes]"}
    for estimate in bad.estimates:
        assert estimate.value == pytest.approx(0.5, abs=0.12)
        assert estimate.ci95 is not None
        assert "0 empty ones left out" in (estimate.note or "")
    assert {e.metric for e in bad.estimates if e.headline} == {"abx_across[band:codes]", "abx_within_any[band:codes]"}
    assert audit_results([tmp_path / "out"]).findings == []
    differences = {d.metric: d for d in compare_results(good, bad, draws=300)}
    assert differences["abx_within_any[band:codes]"].better == "ears"


def test_too_few_cells_have_no_value(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    result = measured(tones, tmp_path, toys, "ears", "abx", min_cells=10**6)
    for estimate in result.estimates:
        assert estimate.value is None
        assert "at least 1000000 are needed" in estimate.method
    assert audit_results([tmp_path / "out"]).findings == []


def test_pnmi_tells_a_good_ear_from_none(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    good = measured(tones, tmp_path, toys, "ears", "pnmi")
    assert good.status == "complete"
    assert value(good, "pnmi[band]") > 0.9
    assert value(good, "phone_purity_speech[band]") > 0.95
    assert value(good, "pnmi_shuffled[band]") < 0.1
    assert value(good, "pnmi_corrected[band]") == pytest.approx(value(good, "pnmi[band]"), abs=0.02)
    bad = measured(tones, tmp_path, toys, "deaf", "pnmi")
    assert value(bad, "pnmi[band]") == pytest.approx(value(bad, "pnmi_shuffled[band]"), abs=0.05)
    assert abs(value(bad, "pnmi_corrected[band]")) < value(bad, "pnmi[band]")
    for estimate in good.estimates:
        assert estimate.ci95 is not None
        assert estimate.clusters == 3
    assert audit_results([tmp_path / "out"]).findings == []


@pytest.mark.parametrize("task", ["abx", "pnmi"])
def test_samples_of_a_waveform_are_not_applicable(tones: Dataset, tmp_path: Path, toys: Path, task: str) -> None:
    fast = measured(tones, tmp_path, toys, "toy", task)
    assert fast.status == "not_applicable"
    assert "8000 symbols a second" in (fast.reason or "")
    identity = measured(tones, tmp_path, toys, "identity", task)
    assert identity.status == "not_applicable"
    assert "samples of the waveform" in (identity.reason or "")


@pytest.mark.parametrize("task", ["abx", "pnmi"])
def test_an_alignment_that_is_not_the_audios_is_a_failed_row(
    tones: Dataset, tmp_path: Path, toys: Path, task: str
) -> None:
    first, second, *rest = tones.utterances
    long = replace(first, phones=(*(first.phones or ()), Segment("AA", 30.0, 31.0)))
    strange = replace(second, phones=(Segment("QQ", 0.0, 0.1),))
    result = measured(replace(tones, utterances=(long, strange, *rest)), tmp_path, toys, "ears", task)
    assert result.status == "partial"
    assert result.coverage is not None
    failures = {failure.id: failure.error for failure in result.coverage.failed}
    assert "ends after the audio" in failures[first.id]
    assert "does not match its audio" in failures[first.id]
    assert failures[second.id] == f"utterance {second.id}, segment 0: 'QQ' is not a known phone"


@pytest.mark.parametrize("task", ["abx", "pnmi"])
def test_data_without_alignments_is_refused(tones: Dataset, tmp_path: Path, toys: Path, task: str) -> None:
    bare = replace(tones, utterances=tuple(replace(u, phones=None) for u in tones.utterances))
    with pytest.raises(DatasetError, match="s0u0 has no phone alignment, which this task needs"):
        measured(bare, tmp_path, toys, "ears", task)


def test_the_rates_of_a_comparison_are_those_of_its_tokenizers(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    """What is empty at 5 frames a second is left out for the tokenizer with 50, too, and counted."""
    slow = EARS_CARD.replace("name: ears", "name: slow").replace("rate_hz: 50", "rate_hz: 5")
    (toys / "tokenizers" / "slow.yaml").write_text(slow)
    set_extra_paths((toys,))
    cards = {name: find_card(TokenizerCard, name) for name in ("ears", "slow", "toy")}
    params = find_card(TaskCard, "abx").params
    assert Abx.for_comparison(params, [cards["ears"], cards["toy"]]) == params
    joint = Abx.for_comparison(params, list(cards.values()))
    assert joint["rates"] == ["5", "25/2", "25", "50"]
    alone = measured(tones, tmp_path, toys, "ears", "abx", min_cells=1)
    beside = measured(tones, tmp_path, toys, "ears", "abx", min_cells=1, rates=joint["rates"])
    notes = [
        (one.note or "") for r in (alone, beside) for one in r.estimates if one.metric == "abx_within_any[band:codes]"
    ]
    assert "(0 empty ones left out)" in notes[0]
    left_out = int(notes[1].partition(" empty")[0].rpartition("(")[2])
    assert left_out > 0
    assert notes[0].split()[0] == str(int(notes[1].split()[0]) + left_out)


def test_an_item_file_replaces_the_alignments(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    conditions = ["abx_within_any", "abx_across_any"]
    by_alignments = measured(tones, tmp_path, toys, "ears", "abx", min_cells=1, conditions=conditions)
    lines = ["#file onset offset #phone prev-phone next-phone speaker"]
    lines += [
        f"{u.id} {s.start:.4f} {s.end:.4f} {s.label} x x {u.speaker}"
        for u in tones.utterances for s in u.phones or () if s.label != "SIL"
    ]  # fmt: skip
    path = tmp_path / "tones.item"
    path.write_text("\n".join(lines))
    bare = replace(tones, utterances=tuple(replace(u, phones=None) for u in tones.utterances))
    options = {"min_cells": 1, "conditions": conditions, "items": str(path)}
    by_file = measured(bare, tmp_path, toys, "ears", "abx", **options)
    for condition in conditions:
        name = f"{condition}[band:codes]"
        assert value(by_file, name) == value(by_alignments, name)
    whole, dropped = (
        measured(bare, tmp_path, toys, "deaf", "abx", librilight=librilight, **options) for librilight in (False, True)
    )
    assert value(dropped, "abx_within_any[band:codes]") != value(whole, "abx_within_any[band:codes]")
    path.write_text("\n".join([*lines[:-1], lines[-1].replace(bare.utterances[-1].id, "nobody")]))
    with pytest.raises(DatasetError, match=rf"tones\.item:{len(lines)}: there are no features of 'nobody'"):
        measured(bare, tmp_path, toys, "ears", "abx", **options)
    path.write_text("\n".join([*lines, lines[-1].rpartition(" ")[0]]))
    with pytest.raises(DatasetError, match=rf"tones\.item:{len(lines) + 1}: has 6 fields"):
        measured(bare, tmp_path, toys, "ears", "abx", **options)


def test_one_speaker_cannot_be_compared_across(tones: Dataset, tmp_path: Path, toys: Path) -> None:
    """What the other conditions find is kept; with nothing to find at all, the task says so before it computes."""
    reason = "across speakers needs two speakers, all items are of 's0'"
    alone = replace(tones, utterances=tones.utterances[:4])
    result = measured(alone, tmp_path, toys, "ears", "abx", min_cells=1)
    across = result.estimate("abx_across[band:codes]")
    assert across is not None
    assert across.value is None
    assert set(across.reasons) == {reason}
    assert value(result, "abx_within_any[band:codes]") == 0
    assert audit_results([tmp_path / "out"]).findings == []
    with pytest.raises(NothingToCompare, match=reason):
        measured(alone, tmp_path, toys, "ears", "abx", conditions=["abx_across", "abx_across_any"])


def test_phones_stand_at_the_centres_of_frames() -> None:
    phones = frame_phones((Segment("SIL", 0.0, 0.03), Segment("AA", 0.03, 0.1), Segment("B", 0.12, 0.16)), 0.165)
    assert [LABELS[p] for p in phones] == ["SIL", "AA", "AA", "AA", "AA", "SIL", "B", "B"]
    assert len(frame_phones((), 0.029)) == 1
    assert len(frame_phones((), 0.031)) == 2
    assert frame_phones((), 0.005).tolist() == []
    assert np.array_equal(frame_phones((), 1.0), np.zeros(50))
