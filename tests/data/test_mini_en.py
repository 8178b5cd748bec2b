"""The shipped corpus is what its manifest, its README and its card say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tokbench.audio import pcm_sha256, read_audio
from tokbench.config import DatasetCard
from tokbench.data.alignment import PHONES, SILENCE, check_segments
from tokbench.data.dataset import Dataset
from tokbench.data.mini_en import FOLDER, load_mini_en
from tokbench.errors import DatasetError, UnknownName
from tokbench.registry import find_card


@pytest.fixture(scope="module")
def corpus() -> Dataset:
    return load_mini_en("all")


def test_every_file_is_what_the_manifest_promises(corpus: Dataset) -> None:
    for utterance in corpus.utterances:
        wave, rate = read_audio(utterance.path)
        assert rate == 16000
        assert pcm_sha256(wave, rate) == utterance.pcm_sha256, utterance.id
        assert utterance.duration == pytest.approx(len(wave) / rate, abs=1e-4)
        assert 1.2 < len(wave) / rate < 5.0
        assert 0.05 < np.abs(wave).max() < 1.0
    assert {u.path for u in corpus.utterances} == set(FOLDER.rglob("*.flac"))


def test_size_and_shape(corpus: Dataset) -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 12_000_000
    spoken = Counter(u.speaker for u in corpus.utterances)
    assert len(spoken) >= 11
    assert min(spoken.values()) >= 20
    assert len({u.id for u in corpus.utterances}) == len(corpus)
    shared = Counter(u.speaker for u in corpus.utterances if u.extra["sentence_id"].startswith("s"))
    assert all(abs(2 * shared[s] - n) <= 4 for s, n in spoken.items())
    genders = {u.speaker: u.gender for u in corpus.utterances}
    assert {"f", "m"} == set(genders.values())
    texts = {}
    for u in corpus.utterances:
        assert texts.setdefault(u.extra["sentence_id"], u.text) == u.text


def test_splits_are_apart() -> None:
    train, test, heldout = (load_mini_en(split).utterances for split in ("train", "test", "heldout"))
    assert len(train) + len(test) + len(heldout) == len(load_mini_en("all"))
    assert {u.id for u in load_mini_en("unseen").utterances} == {u.id for u in (*test, *heldout)}
    assert not {u.text for u in train} & {u.text for u in test}
    assert not {u.text for u in heldout} & {u.text for u in test}
    assert 44 <= len(test) <= 52
    assert len({u.speaker for u in test}) >= 10
    unseen = {u.speaker for u in test} - {u.speaker for u in train}
    assert {u.speaker for u in heldout} == unseen
    assert len(unseen) >= 3
    assert {u.gender for u in test if u.speaker in unseen} == {"f", "m"}
    assert all((u.extra["seen"] == "true") == (u.speaker not in unseen) for u in (*train, *test, *heldout))
    assert load_mini_en().utterances == test


def test_alignments_lie_within_the_audio(corpus: Dataset) -> None:
    for u in corpus.utterances:
        assert u.phones is not None
        assert u.words is not None
        check_segments(u.phones, where=u.id, duration=u.duration, tolerance=0.0)
        check_segments(u.words, where=u.id, duration=u.duration, tolerance=0.0)
        assert {p.label for p in u.phones} <= {*PHONES, SILENCE}
        assert " ".join(w.label for w in u.words) == "".join(c for c in str(u.text).lower() if c.isalpha() or c in " '")
    assert {p.label for u in corpus.utterances for p in u.phones or ()} == {*PHONES, SILENCE}


def test_readme_tells_of_every_voice(corpus: Dataset) -> None:
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    for speaker in corpus.speakers:
        assert any(row.startswith(f"| {speaker} |") for row in rows), speaker


def test_card() -> None:
    card = find_card(DatasetCard, "mini-en")
    assert card.synthetic
    assert set(card.splits) == {"test", "train", "heldout", "unseen", "all"}


def test_reading_needs_no_torch_and_no_pandas() -> None:
    code = (
        "import sys; from tokbench.data.mini_en import load_mini_en; load_mini_en();"
        "import tokbench.data.alignment; print({'torch', 'pandas', 'pocketsphinx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_damage_is_told_with_file_and_line(tmp_path: Path) -> None:
    for name in ("manifest.csv", "phones.csv", "words.csv"):
        shutil.copy(FOLDER / name, tmp_path / name)
    phones = (tmp_path / "phones.csv").read_text().splitlines()
    (tmp_path / "phones.csv").write_text("\n".join([*phones[:4], phones[4].rsplit(",", 1)[0] + ",x", *phones[5:]]))
    with pytest.raises(DatasetError, match=r"phones\.csv:5: 'x' is not a number"):
        load_mini_en("all", folder=tmp_path)
    (tmp_path / "phones.csv").write_text(phones[0])
    with pytest.raises(DatasetError, match="has no alignment"):
        load_mini_en("all", folder=tmp_path)
    (tmp_path / "phones.csv").unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        load_mini_en("all", folder=tmp_path)
    with pytest.raises(UnknownName, match="no split is called 'trian'"):
        load_mini_en("trian")
