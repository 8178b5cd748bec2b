"""The task asr_probe, from waves to audited estimates, on a tokenizer whose codes spell the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.auditing import audit_results
from tokbench.comparison import read_table
from tokbench.config import TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.errors import DatasetError, ItemError, UserError
from tokbench.handle import TokenizerHandle
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.store.store import Store
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

WORDS = ("stone", "river", "green", "apple", "window", "seven")
LETTERS = " abcdefghijklmnopqrstuvwxyz"
CARD = """\
name: speller
summary: A code a letter, 25 a second; the wave holds the letter's number.
adapter: test_asr_probe:Speller
family: toys
capabilities: [discrete]
streams: [{name: q0, rate_hz: 25, vocab: 27}]
input_rate: 8000
licence: MIT
"""
SETTINGS = {
    "train": "manifest", "seeds": 2, "units": 30, "head_rate": 50, "beam": 4,
    "reader": {"entry": 4000, "width": 32, "hidden": 32, "dropout": 0.0, "mask": 0.0},
    "recipe": {"steps": 60, "batch": 8, "lr": 0.02, "warmup": 10},
}  # fmt: skip


class Speller(Tokenizer):
    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        if self.card.params.get("fails"):
            raise ItemError("this tokenizer fails")
        return [
            Encoded({"q0": np.round(np.abs(w).reshape(-1, 320).mean(1) * 40).astype(np.int64)}, len(w)) for w in wavs
        ]


def dataset(folder: Path, name: str, count: int, speakers: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        text = " ".join(rng.choice(WORDS, size=3))
        path = folder / f"{name}{n:02d}.wav"
        numbers = np.array([LETTERS.index(c) for c in text]) / 40
        soundfile.write(path, np.repeat(numbers, 320) + 1e-4 * rng.random(320 * len(text)), 8000, subtype="FLOAT")
        made.append(Utterance(path.stem, path, f"{name}{n % speakers}", text=text.capitalize() + "."))
    return Dataset(name, tuple(made), licence="CC0-1.0")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    folder = tmp_path_factory.mktemp("spelt")
    return dataset(folder, "train", 60, 4, 0), dataset(folder, "test", 12, 3, 1)


@pytest.fixture
def cell(corpora: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "content" / "tokenizers"
    folder.mkdir(parents=True)
    (folder / "speller.yaml").write_text(CARD)
    (folder / "failing.yaml").write_text(CARD.replace("name: speller", "name: failing") + "params: {fails: true}\n")
    set_extra_paths((folder.parent,))
    train, test = corpora
    monkeypatch.setattr("tokbench.data.load.load_dataset", lambda _: train)
    task = find_card(TaskCard, "asr_probe")
    prepared = prepare_dataset(test, tmp_path / "index")
    yield Cell(TokenizerHandle("speller"), task, prepared, {}, {**task.params, **SETTINGS})
    set_extra_paths(())


def measured(cell: Cell, tmp_path: Path) -> Result:
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=300, paths=(tmp_path / "content",))
    (result,) = run([cell], options, LocalEngine(1))
    return result


def test_spelt_tokens_are_read_and_everything_can_be_computed_again(cell: Cell, tmp_path: Path) -> None:
    result = measured(cell, tmp_path)
    assert result.status == "complete"
    assert result.train is not None
    assert result.train.name == "train"
    rows = read_table(result, "items")
    assert len(rows) == 24
    assert sorted(rows["seed"].unique()) == [0, 1]
    values = {one.metric: one for one in result.estimates}
    assert set(values) == {
        "probe_wer[codes:greedy]", "probe_wer[codes:beam]", "probe_cer[codes:greedy]", "probe_cer[codes:beam]",
        "probe_infeasible",
    }  # fmt: skip
    wer = values["probe_wer[codes:beam]"]
    assert wer.value is not None
    assert wer.value < 0.95  # how well it can read is tests/probes/test_reading.py's
    assert wer.clusters == 3
    assert wer.note is not None
    assert "by seed" in wer.note
    assert "0 of 12 utterances by voices of the training data" in wer.note
    assert values["probe_infeasible"].value == 0
    curves = read_table(result, "curves")
    assert list(curves.columns) == ["run", "seed", "step", "name", "value"]
    assert set(curves["seed"]) == {0, 1}
    assert len(set(read_table(result, "probes")["parameters"])) == 1
    assert not audit_results([tmp_path / "out"]).findings
    store = Store(tmp_path / "store")
    stages = [entry.stage for entry in store.entries()]
    assert stages.count("train") == 2
    assert stages.count("checkpoint") == 0
    # The same again comes from the store, and so do trained readers where only the reading changes.
    again = measured(cell, tmp_path)
    assert again.timings == {}
    wider = measured(replace(cell, params={**cell.params, "beam": 6}), tmp_path)
    assert "train" not in wider.timings


def test_what_cannot_be_trained_or_compared_is_told(
    cell: Cell, corpora: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = corpora
    failing = measured(replace(cell, tokenizer=TokenizerHandle("failing")), tmp_path)
    assert failing.status == "partial"
    assert failing.coverage is not None
    assert failing.coverage.scored == 0
    assert "60 of 60 training utterances have no tokens" in failing.coverage.failed[0].error
    few = replace(cell, params={**cell.params, "units": 300})
    with pytest.raises(DatasetError, match="train: has too little text for 300 units"):
        measured(few, tmp_path)
    with pytest.raises(UserError, match=r"asr_probe: recipe\.lr"):
        measured(replace(cell, params={**cell.params, "recipe": {"steps": 3, "batch": 2, "lr": -1}}), tmp_path)
    with pytest.raises(UserError, match="asr_probe: reader"):
        measured(replace(cell, params={**cell.params, "reader": {"hiden": 3}}), tmp_path)
    with pytest.raises(UserError, match="names no training data"):
        measured(replace(cell, params={**cell.params, "train": None}), tmp_path)
    silent = replace(train, utterances=(replace(train.utterances[0], text=None), *train.utterances[1:]))
    monkeypatch.setattr("tokbench.data.load.load_dataset", lambda _: silent)
    with pytest.raises(DatasetError, match="utterance train00 has no text"):
        measured(cell, tmp_path)
    monkeypatch.setattr("tokbench.data.load.load_dataset", lambda _: cell.data.dataset)
    with pytest.raises(DatasetError, match="the audio of test00 is also in the training data"):
        measured(cell, tmp_path)
