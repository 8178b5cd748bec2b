"""The speed task on toys: what is measured, where, and that nothing of it comes from the store. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests_support import TOY_CARD

from tokbench.auditing import audit_results
from tokbench.comparison import read_table
from tokbench.config import TaskCard
from tokbench.data.load import load_dataset
from tokbench.engines.local import LocalEngine
from tokbench.errors import TokenizerUnavailable
from tokbench.handle import TokenizerHandle
from tokbench.jobs import Job
from tokbench.protocols.speed import _best_batch, _bytes
from tokbench.protocols.speed_probe import peak_bytes, reset_peak
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, Prepared, prepare_dataset, run

FAST = {"utterances": 2, "repeats": 1, "processes": 1, "max_batch": 2, "batch_seconds": 0.1, "threads": 1}


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    failing = TOY_CARD.replace("name: toy", "name: failing") + "params: {fail_longer_than: 2.7}\n"
    dying = TOY_CARD.replace("name: toy", "name: dying") + "params: {die_on_loudest: true}\n"
    encoder = (
        TOY_CARD.replace("name: toy", "name: encoder").replace(", decode]", "]").replace("output_rate: 8000\n", "")
    )
    for card in (TOY_CARD, failing, dying, encoder):
        name = card.partition("name: ")[2].partition("\n")[0]
        (folder / "tokenizers" / f"{name}.yaml").write_text(card)
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    return prepare_dataset(load_dataset("mini-en", limit=6), tmp_path / "index")


def measured(data: Prepared, tmp_path: Path, toys: Path, tokenizer: str | TokenizerHandle, **params: object) -> Result:
    card = find_card(TaskCard, "speed")
    handle = TokenizerHandle(tokenizer) if isinstance(tokenizer, str) else tokenizer
    cell = Cell(handle, card, data, {}, dict(card.params) | FAST | params)
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=50, paths=(toys,))
    return next(run([cell], options, LocalEngine(2)))


def test_every_phase_has_a_number_and_none_is_stored(data: Prepared, tmp_path: Path, toys: Path) -> None:
    result = measured(data, tmp_path, toys, "toy", processes=2)
    assert result.status == "complete"
    names = {estimate.metric for estimate in result.estimates}
    phases = ("", "_cold", "_batch")
    assert names == {
        "load_seconds[cpu]",
        *(f"rtf_{stage}{phase}[cpu]" for stage in ("encode", "decode") for phase in phases),
        *(f"peak_memory_{stage}{phase}[cpu]" for stage in ("encode", "decode") for phase in ("", "_batch")),
    }
    for estimate in result.estimates:
        assert estimate.value is not None, estimate
        assert estimate.value > 0
        assert "1 thread" in (estimate.note or "")
    items, processes = read_table(result, "items"), read_table(result, "processes")
    assert len(items) == 2
    assert len(processes) == 2
    assert (processes["peak_memory_encode[cpu]"] > 10e6).all()  # a Python with numpy is larger than that
    assert set(read_table(result, "batches")["batch"]) <= {1, 2}
    assert audit_results([tmp_path / "out"]).findings == []
    stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert stored == []


def test_an_encoder_alone_has_no_decoder_to_time(data: Prepared, tmp_path: Path, toys: Path) -> None:
    result = measured(data, tmp_path, toys, "encoder")
    assert result.status == "complete"
    assert result.estimate("rtf_encode[cpu]") is not None
    assert not any("decode" in estimate.metric for estimate in result.estimates)


def test_what_fails_is_a_row(data: Prepared, tmp_path: Path, toys: Path) -> None:
    failing = measured(data, tmp_path, toys, "failing", utterances=6)
    assert failing.status == "partial"
    assert failing.coverage is not None
    assert 0 < failing.coverage.scored < failing.coverage.expected == 6
    assert "longer than 2.7 s" in failing.coverage.failed[0].error
    (tmp_path / "loud").mkdir()
    soundfile.write(tmp_path / "loud" / "a.wav", np.full(8000, 0.9), 8000)
    loud = prepare_dataset(load_dataset(f"folder:{tmp_path / 'loud'}"), tmp_path / "index")
    dying = measured(loud, tmp_path, toys, "dying")
    assert dying.status == "partial"
    assert dying.coverage is not None
    assert "the measuring process ended with exit code 9" in dying.coverage.failed[0].error


def test_a_replay_and_absent_weights_are_told(data: Prepared, tmp_path: Path, toys: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    utterance = data.dataset.utterances[0]
    assert utterance.path is not None
    (folder / "x.flac").write_bytes(utterance.path.read_bytes())
    replayed = measured(data, tmp_path, toys, f"replay:{folder}")
    assert replayed.status == "not_applicable"
    assert "did not run it" in (replayed.reason or "")
    with pytest.raises(TokenizerUnavailable, match=r"there is no config\.yaml"):
        measured(data, tmp_path, toys, TokenizerHandle("kanade-25hz", weights=folder))


def test_it_runs_alone_and_last(data: Prepared, tmp_path: Path, toys: Path) -> None:
    class Spy:
        calls: list[list[str]] = []  # noqa: RUF012 - one spy

        def run(self, jobs: Sequence[Job]) -> Iterator[object]:
            self.calls.append([job.task.name for job in jobs])
            return iter(())

    cells = [
        Cell(TokenizerHandle(name), find_card(TaskCard, task), data, {}, FAST)
        for task in ("speed", "reconstruction")
        for name in ("toy", "encoder")
    ]
    options = Options(store=tmp_path / "store", output=tmp_path / "out", shard_size=100, paths=(toys,))
    assert list(run(cells, options, Spy())) == []  # type: ignore[arg-type]
    assert Spy.calls == [["reconstruction", "reconstruction"], ["speed"], ["speed"]]


def test_the_best_batch_is_the_cheapest_second() -> None:
    import pandas as pd

    rows = [("encode", 1, 1.0), ("encode", 2, 1.5), ("encode", 4, 3.1), ("decode", 1, 1.0)]
    table = pd.DataFrame(
        [
            {"stage": s, "batch": b, f"batch_{s}_seconds[cpu]": t, "batch_audio_seconds[cpu]": 4.0 * b}
            for s, b, t in rows
        ]
    )
    assert _best_batch(table, "encode", "cpu") == 2
    assert _best_batch(table, "decode", "cpu") == 1


def test_memory_of_a_worker_counts() -> None:
    held = 150_000_000
    code = f"import sys; kept = bytearray({held}); kept[::4096] = b'x' * len(kept[::4096]); print(); sys.stdin.read()"
    reset_peak("cpu")
    before = peak_bytes("cpu")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        during = peak_bytes("cpu")
        worker.communicate()
    assert before is not None
    assert during is not None
    assert during - before > 0.9 * held
    assert np.isnan(_bytes(None))
