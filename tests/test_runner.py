"""Runs of a toy tokenizer on generated speech-like audio, with judges that need no weights."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests_support import TOY_CARD

from tokbench.audio import resample
from tokbench.auditing import audit_results
from tokbench.comparison import compare_results
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.errors import StoreError, TokenizerUnavailable, UserError
from tokbench.handle import TokenizerHandle
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.store.store import Store


def speechlike(seed: int, seconds: float = 1.2, rate: int = 16000) -> np.ndarray:
    """Harmonics of a gliding pitch under a syllable-like envelope, with pauses and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    f0 = rng.uniform(90, 220) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * t))
    phase = 2 * np.pi * np.cumsum(f0) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 25))
    envelope = np.clip(np.sin(2 * np.pi * 3 * t), 0, 1) ** 0.5
    return (0.2 * tone * envelope + 0.002 * rng.normal(size=len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for n in range(12):
        path = folder / f"u{n:02d}.wav"
        wave = speechlike(n)
        wave[800:830] = 0.99 if n == 5 else wave[800:830]  # a click that the tokenizer "deadly" does not survive
        soundfile.write(path, wave, 16000)
        utterances.append(Utterance(f"u{n:02d}", path, f"s{n % 4}", text="some words"))
    return Dataset("toy-corpus", tuple(utterances), licence="CC0-1.0")


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    (folder / "tokenizers" / "toy.yaml").write_text(TOY_CARD)
    (folder / "tokenizers" / "fragile.yaml").write_text(
        TOY_CARD.replace("name: toy", "name: fragile") + "params: {fail_longer_than: 2.0}\n"
    )
    (folder / "tokenizers" / "mute.yaml").write_text(
        TOY_CARD.replace("name: toy", "name: mute")
        .replace("[discrete, decode]", "[discrete]")
        .replace("output_rate: 8000\n", "")
    )
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


def options(tmp_path: Path, toy: Path) -> Options:
    return Options(store=tmp_path / "store", output=tmp_path / "out", shard_size=4, draws=500, paths=(toy,))


def cell(corpus: Dataset, tmp_path: Path, name: str = "toy", task: TaskCard | None = None) -> Cell:
    task = task or find_card(TaskCard, "reconstruction")
    judges = {"praat-ac": find_card(JudgeCard, "praat-ac")}
    return Cell(TokenizerHandle(name), task, prepare_dataset(corpus, tmp_path / "index"), judges, dict(task.params))


def test_a_run_gives_estimates_rows_clips_and_a_manifest(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    (result,) = run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1))
    assert result.status == "complete"
    assert result.coverage is not None
    assert (result.coverage.expected, result.coverage.scored) == (12, 12)
    stoi = result.estimate("stoi")
    assert stoi is not None
    assert stoi.value is not None
    assert stoi.ci95 is not None
    assert 0 < stoi.ci95[0] <= stoi.value <= stoi.ci95[1] < 1
    assert stoi.clusters == 4
    nominal = result.estimate("bps_nominal")
    assert nominal is not None
    assert nominal.value == pytest.approx(24000)
    assert result.dataset is not None
    assert result.dataset.speakers == 4
    assert result.manifest.packages["numpy"] == np.__version__
    assert len(result.samples) == 12  # six items, original and decoded
    assert result.folder is not None
    read = Result.read(result.folder)
    assert read.model_dump(mode="json") == result.model_dump(mode="json")


def test_the_second_run_computes_nothing_and_says_the_same(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    first = next(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    before = sorted(Store(tmp_path / "store").files())
    second = next(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    assert second.timings == {}
    assert second.estimates == first.estimates
    assert second.tables == first.tables
    assert sorted(Store(tmp_path / "store").files()) == before


def test_processes_give_the_same_as_one(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    one = next(run([cell(corpus, tmp_path)], options(tmp_path / "a", toy), LocalEngine(1)))
    two = next(run([cell(corpus, tmp_path)], options(tmp_path / "b", toy), LocalEngine(2)))
    assert one.estimates == two.estimates
    assert one.tables == two.tables


def test_one_bad_item_is_a_typed_row_and_the_rest_is_scored(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, speechlike(99, 3.0), 16000)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    data = Dataset("mixed", (*corpus.utterances[:6], Utterance("long", long, "s9"), Utterance("broken", broken, "s9")))
    (result,) = run([cell(data, tmp_path, "fragile")], options(tmp_path, toy), LocalEngine(1))
    assert result.status == "partial"
    assert result.coverage is not None
    failures = {failure.id: failure for failure in result.coverage.failed}
    assert set(failures) == {"long", "broken"}
    assert failures["long"].stage == "encode"
    assert failures["long"].error == "longer than 2.0 s"
    assert failures["broken"].stage == "read"
    stoi = result.estimate("stoi")
    assert stoi is not None
    assert stoi.n == 6


def test_an_encode_only_tokenizer_gets_its_token_statistics(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    (result,) = run([cell(corpus, tmp_path, "mute")], options(tmp_path, toy), LocalEngine(1))
    assert result.status == "complete"
    assert result.reason is not None
    assert "encode-only" in result.reason
    assert result.estimate("stoi") is None
    assert result.estimate("bps_measured") is not None


def test_a_variational_latent_gets_its_kl_rate(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    card = TOY_CARD.replace("name: toy", "name: latent").replace("tests_support:Toy", "tests_support:ToyLatent")
    card = card.replace("[discrete, decode]", "[continuous, posterior]").replace("output_rate: 8000\n", "")
    card = card.replace("{name: q0, rate_hz: 8000, vocab: 8}", "{name: z, kind: latent, rate_hz: 100, dim: 1}")
    (toy / "tokenizers" / "latent.yaml").write_text(card)
    set_extra_paths((toy,))
    (result,) = run([cell(corpus, tmp_path, "latent")], options(tmp_path, toy), LocalEngine(1))
    rate = result.estimate("bps_kl")
    assert rate is not None
    assert rate.value is not None
    # KL of N(m, 1) from N(0, 1) is m^2 / 2 nats, and the mean square of the audio is known.
    power = np.mean(
        [np.mean(resample(soundfile.read(u.path, dtype="float32")[0], 16000, 8000) ** 2) for u in corpus.utterances]
    )
    assert rate.value == pytest.approx(100 * power / 2 / np.log(2), rel=0.02)
    assert result.estimate("bps_effective") is None


def test_a_missing_capability_is_not_applicable(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    task = find_card(TaskCard, "reconstruction").model_copy(update={"needs": ("swap_global",)})
    (result,) = run([cell(corpus, tmp_path, task=task)], options(tmp_path, toy), LocalEngine(1))
    assert result.status == "not_applicable"
    assert result.reason == "toy lacks swap_global, which reconstruction needs"


def test_the_audit_recomputes_and_finds_tampering(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    (result,) = run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1))
    report = audit_results([tmp_path / "out"])
    assert report.findings == []
    assert report.estimates == len(result.estimates) > 10
    assert result.folder is not None
    path = result.folder / "result.json"
    text = path.read_text()
    stoi = result.estimate("stoi")
    assert stoi is not None
    path.write_text(text.replace(repr(stoi.value), repr((stoi.value or 0) + 0.001)))
    (finding,) = audit_results([tmp_path / "out"]).findings
    assert finding.what.startswith("stoi: published")
    path.write_text(text)
    rows = result.folder / "items.parquet"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(data)
    (finding,) = audit_results([tmp_path / "out"]).findings
    assert "another sha256" in finding.what


def test_compare_finds_a_difference_and_refuses_other_data(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    first, second = run(
        [cell(corpus, tmp_path), cell(corpus, tmp_path, "codec2-700c")], options(tmp_path, toy), LocalEngine(1)
    )
    rows = {row.metric: row for row in compare_results(first, second, draws=1000)}
    assert rows["stoi"].difference == pytest.approx(rows["stoi"].second - rows["stoi"].first)
    assert rows["stoi"].low < rows["stoi"].difference < rows["stoi"].high
    assert rows["stoi"].p_holm >= rows["stoi"].p
    other = next(run([cell(Dataset("few", corpus.utterances[:3]), tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    with pytest.raises(UserError, match="different data"):
        compare_results(first, other, draws=500)


def test_a_damaged_unit_is_made_again_with_the_same_result(
    corpus: Dataset, tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = next(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    for path in Store(tmp_path / "store").files():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    second = next(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    assert second.estimates == first.estimates
    assert second.tables == first.tables
    assert "will be made again" in caplog.text


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tokbench.registry import set_extra_paths
set_extra_paths((Path({content!r}),))
sys.argv = ["tokbench", "--path", {content!r}, "run", "--tokenizer", "toy", "--task", "reconstruction",
            "--data", "folder:" + {corpus!r}, "--judge", "praat-ac", "--store", {store!r}, "--output", {out!r},
            "--no-track", "--workers", "1", "--shard-size", "2", "--draws", "200", "--device", "cpu"]
from tokbench.cli import main
main()
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_next_run_completes_with_the_same_result(
    corpus: Dataset, tmp_path: Path, toy: Path
) -> None:
    """Twenty kills; no finished unit is made twice, and the result is that of a run that was left alone."""
    places = {
        "tests": str(Path(__file__).parent),
        "content": str(toy),
        "corpus": str(corpus.utterances[0].path.parent),
    }
    calm = SCRIPT.format(**places, store=str(tmp_path / "calm"), out=str(tmp_path / "calm-out"))
    stormy = SCRIPT.format(**places, store=str(tmp_path / "storm"), out=str(tmp_path / "storm-out"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", calm], check=True, env=environment, capture_output=True)
    whole = time.monotonic() - start
    draw = random.Random(20)
    store = Store(tmp_path / "storm")
    seen: dict[Path, int] = {}
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", stormy], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=draw.uniform(0.3, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for path in store.files():
            written = path.stat().st_mtime_ns
            assert seen.setdefault(path, written) == written, "a finished unit was made again"
    done = subprocess.run([sys.executable, "-c", stormy], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.verify()[1] == []
    (left,) = (tmp_path / "calm-out").rglob("result.json")
    (right,) = (tmp_path / "storm-out").rglob("result.json")
    a, b = Result.read(left), Result.read(right)
    assert a.estimates == b.estimates
    assert a.tables == b.tables


def test_a_full_disk_stops_with_one_line_and_loses_nothing(
    corpus: Dataset, tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = next(run([cell(corpus, tmp_path)], options(tmp_path / "calm", toy), LocalEngine(1)))
    real, left = os.fsync, [5]

    def fills_up(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(StoreError, match="the disk is full"):
        list(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    kept = sorted(Store(tmp_path / "store").files())
    assert len(kept) == 5
    monkeypatch.setattr(os, "fsync", real)
    written = {path: path.stat().st_mtime_ns for path in kept}
    after = next(run([cell(corpus, tmp_path)], options(tmp_path, toy), LocalEngine(1)))
    assert after.estimates == calm.estimates
    assert {path: path.stat().st_mtime_ns for path in kept} == written


def test_a_suite_goes_on_without_a_tokenizer_whose_weights_are_missing(
    corpus: Dataset, tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = [cell(corpus, tmp_path, "nanocodec-0.6k"), cell(corpus, tmp_path)]
    (result,) = run(cells, options(tmp_path, toy), LocalEngine(1), skip_unavailable=True)
    assert result.tokenizer.name == "toy"
    assert "nanocodec-0.6k is left out" in caplog.text
    with pytest.raises(TokenizerUnavailable):
        list(run(cells, options(tmp_path, toy), LocalEngine(1)))


def test_a_worker_that_dies_costs_its_shard_and_nothing_else(corpus: Dataset, tmp_path: Path, toy: Path) -> None:
    (toy / "tokenizers" / "deadly.yaml").write_text(
        TOY_CARD.replace("name: toy", "name: deadly") + "params: {die_on_loudest: true}\n"
    )
    set_extra_paths((toy,))
    (result,) = run([cell(corpus, tmp_path, "deadly")], options(tmp_path, toy), LocalEngine(2))
    assert result.status == "partial"
    assert result.coverage is not None
    assert result.coverage.scored == 8
    assert {failure.stage for failure in result.coverage.failed} == {"worker"}
