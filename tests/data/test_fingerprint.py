"""Hashes of decoded audio: right, cached, safe for several writers, and no stop at a bad file."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.audio import pcm_sha256, read_audio
from tokbench.data import fingerprint as fp
from tokbench.data.dataset import Dataset, Utterance
from tokbench.data.load import load_dataset
from tokbench.errors import AudioError, StoreError
from tokbench.types import Wave


def dataset_of(folder: Path) -> Dataset:
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return Dataset("t", tuple(Utterance(p.stem, p, "s" + p.stem[-1]) for p in files))


@pytest.fixture
def corpus(tmp_path: Path, tone: Wave) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(5):
        soundfile.write(folder / f"u{index}.wav", tone * (index + 1) / 6, 16000)
    return folder


def test_hash_is_the_one_that_reading_gives(corpus: Path, tmp_path: Path) -> None:
    dataset = dataset_of(corpus)
    hashes = fp.dataset_hashes(dataset, tmp_path / "cache")
    assert hashes == [pcm_sha256(*read_audio(u.path)) for u in dataset.utterances]
    assert len(set(map(str, hashes))) == 5


def test_unusual_formats_are_read(tmp_path: Path, tone: Wave) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    soundfile.write(folder / "a8bit.wav", tone, 16000, subtype="PCM_U8")
    soundfile.write(folder / "b96k.wav", np.tile(tone, 6), 96000, subtype="PCM_24")
    soundfile.write(folder / "cstereo.wav", np.stack([tone, -0.5 * tone], axis=1), 44100, subtype="FLOAT")
    soundfile.write(folder / "done.wav", tone[:1], 16000)
    facts = fp.dataset_facts(dataset_of(folder), tmp_path / "cache")
    assert [(f.rate, f.samples) for f in facts if isinstance(f, fp.AudioFacts)] == [
        (16000, 16000),
        (96000, 96000),
        (44100, 16000),
        (16000, 1),
    ]


def test_bad_files_become_errors_in_their_place(corpus: Path, tmp_path: Path, tone: Wave) -> None:
    (corpus / "v0-text.wav").write_bytes(b"this is no audio")
    (corpus / "v1-zero.wav").write_bytes(b"")
    soundfile.write(corpus / "v2-none.wav", tone[:0], 16000)
    soundfile.write(corpus / "v3-nan.wav", np.full(100, np.nan, np.float32), 16000, subtype="FLOAT")
    whole = tmp_path / "whole.flac"
    soundfile.write(whole, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    (corpus / "v4-cut.flac").write_bytes(whole.read_bytes()[:4000])
    dataset = dataset_of(corpus)
    gone = Dataset("t", (*dataset.utterances, Utterance("w", corpus / "gone.wav", "s")))
    hashes = fp.dataset_hashes(gone, tmp_path / "cache")
    assert [isinstance(h, AudioError) for h in hashes] == [False] * 5 + [True] * 6
    for utterance, error in zip(gone.utterances[5:], hashes[5:], strict=True):
        assert utterance.path.name in str(error)
    # The errors are not remembered: the file may be put right.
    soundfile.write(corpus / "v0-text.wav", tone, 16000)
    assert isinstance(fp.dataset_hashes(dataset, tmp_path / "cache")[5], str)
    statistics = fp.dataset_statistics(gone, fp.dataset_facts(gone, tmp_path / "cache"))
    assert (statistics.utterances, statistics.unreadable) == (11, 5)


def test_second_time_reads_no_audio(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(corpus)
    first = fp.dataset_hashes(dataset, tmp_path / "cache")
    monkeypatch.setattr(fp, "_decode", lambda utterance: pytest.fail(f"{utterance.id} was decoded again"))
    assert fp.dataset_hashes(dataset, tmp_path / "cache") == first


def test_changed_file_is_hashed_again(corpus: Path, tmp_path: Path, tone: Wave) -> None:
    dataset = dataset_of(corpus)
    first = fp.dataset_hashes(dataset, tmp_path / "cache")
    path = dataset.utterances[2].path
    soundfile.write(path, tone * 0.9, 16000)
    os.utime(path, ns=(1, 1))
    second = fp.dataset_hashes(dataset, tmp_path / "cache")
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False, True, True]


def test_known_hash_needs_no_reading(corpus: Path, tmp_path: Path) -> None:
    dataset = dataset_of(corpus)
    promised = Dataset("t", tuple(replace(u, pcm_sha256=f"{i:064x}") for i, u in enumerate(dataset.utterances)))
    assert fp.dataset_hashes(promised, tmp_path / "cache") == [f"{i:064x}" for i in range(5)]
    assert not (tmp_path / "cache").exists()
    facts = fp.dataset_facts(promised, tmp_path / "cache")
    assert all(isinstance(f, fp.AudioFacts) and f.seconds == 1.0 for f in facts)


def test_fingerprint_follows_ids_texts_and_audio(corpus: Path, tmp_path: Path) -> None:
    dataset = dataset_of(corpus)
    hashes = fp.dataset_hashes(dataset, tmp_path / "cache")
    base = fp.dataset_fingerprint(dataset, hashes)
    assert base == fp.dataset_fingerprint(dataset_of(corpus), hashes)
    told = replace(dataset, utterances=(replace(dataset.utterances[0], text="X"), *dataset.utterances[1:]))
    others = [
        fp.dataset_fingerprint(told, hashes),
        fp.dataset_fingerprint(dataset, [hashes[1], *hashes[1:]]),
        fp.dataset_fingerprint(dataset, [AudioError("broken"), *hashes[1:]]),
    ]
    assert len({base, *others}) == 4


def _hash_half(arguments: tuple[Path, Path, int]) -> list[str]:
    corpus, cache, half = arguments
    dataset = dataset_of(corpus)
    part = replace(dataset, utterances=dataset.utterances[half::2])
    return [str(h) for _ in range(3) for h in fp.dataset_hashes(part, cache, workers=2)]


def test_several_writers_lose_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        list(pool.map(_hash_half, [(corpus, cache, 0), (corpus, cache, 1)]))
    monkeypatch.setattr(fp, "_decode", lambda utterance: pytest.fail(f"{utterance.id} was decoded again"))
    assert len(fp.dataset_hashes(dataset_of(corpus), cache)) == 5


def test_many_index_files_are_merged(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp, "_MERGE_ABOVE", 2)
    dataset = dataset_of(corpus)
    for utterance in dataset.utterances:
        fp.dataset_hashes(replace(dataset, utterances=(utterance,)), tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "fingerprints").iterdir())) <= 3
    monkeypatch.setattr(fp, "_decode", lambda utterance: pytest.fail(f"{utterance.id} was decoded again"))
    fp.dataset_hashes(dataset, tmp_path / "cache")


def test_flipped_byte_in_the_index_is_named_and_made_again(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = dataset_of(corpus)
    first = fp.dataset_hashes(dataset, tmp_path / "cache")
    (path,) = (tmp_path / "cache" / "fingerprints").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert fp.dataset_hashes(dataset, tmp_path / "cache") == first
    assert path.name in caplog.text
    assert "damaged" in caplog.text
    caplog.clear()
    assert fp.dataset_hashes(dataset, tmp_path / "cache") == first
    assert not caplog.records


def test_unwritable_cache_is_said(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot keep the hashes"):
        fp.dataset_hashes(dataset_of(corpus), tmp_path / "cache")


def test_statistics_of_known_audio(corpus: Path, tmp_path: Path, tone: Wave) -> None:
    soundfile.write(corpus / "u9.wav", np.tile(tone, 3), 24000)
    dataset = dataset_of(corpus)
    utterances = [replace(u, text="two words") for u in dataset.utterances[:4]] + list(dataset.utterances[4:])
    utterances[0] = replace(utterances[0], gender="f")
    dataset = replace(dataset, utterances=tuple(utterances))
    statistics = fp.dataset_statistics(dataset, fp.dataset_facts(dataset, tmp_path / "cache"))
    assert statistics.hours == pytest.approx(7 / 3600)
    assert statistics.seconds["min"] == 1.0
    assert statistics.seconds["median"] == 1.0
    assert statistics.seconds["max"] == 2.0
    assert (statistics.words, statistics.with_text) == (8, 4)
    assert statistics.sampling_rates == {16000: 5, 24000: 1}
    assert statistics.genders == {"f": 1, "unknown": 5}
    assert statistics.speakers == 6


def test_real_sample_is_fast_the_second_time(shared: Path, tmp_path: Path) -> None:
    dataset = load_dataset(f"librispeech:{shared / 'data' / 'librispeech-sample' / 'test-other'}")
    start = time.perf_counter()
    first = fp.dataset_facts(dataset, tmp_path)
    middle = time.perf_counter()
    assert fp.dataset_facts(dataset, tmp_path) == first
    assert time.perf_counter() - middle < middle - start
    statistics = fp.dataset_statistics(dataset, first)
    assert (statistics.utterances, statistics.speakers, statistics.unreadable) == (60, 6, 0)
    assert statistics.sampling_rates == {16000: 60}
