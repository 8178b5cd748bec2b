"""What may be typed after --data, and what is said when it cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tokbench.config import DatasetCard
from tokbench.data import places
from tokbench.data.dataset import Dataset, Utterance
from tokbench.data.load import COMPLETE, fetched_splits, limit_utterances, load_dataset
from tokbench.errors import DatasetError, UnknownName
from tokbench.registry import find_card


def chapter(root: Path, split: str, speaker: str, *, count: int = 3) -> None:
    folder = root / split / speaker / "1"
    folder.mkdir(parents=True)
    for number in range(count):
        soundfile.write(folder / f"{speaker}-1-{number:04d}.flac", np.zeros(160), 16000)
    lines = "".join(f"{speaker}-1-{number:04d} WORDS\n" for number in range(count))
    (folder / f"{speaker}-1.trans.txt").write_text(lines)


def test_card_gives_licence_and_language(tmp_path: Path) -> None:
    chapter(tmp_path, "test-clean", "7")
    dataset = load_dataset(f"librispeech:{tmp_path}")
    assert (dataset.name, dataset.licence, dataset.synthetic) == (f"librispeech:{tmp_path}", "CC BY 4.0", False)
    assert len(dataset) == 3


def test_a_dataset_can_be_given_a_name(tmp_path: Path) -> None:
    chapter(tmp_path, "test-clean", "7")
    assert load_dataset(f"librispeech:{tmp_path}?name=mine").name == "mine"
    assert load_dataset(f"librispeech:{tmp_path}?name=mine", limit=2).name == "mine (2 utterances)"


def test_split_and_limit(tmp_path: Path) -> None:
    for speaker in ("7", "8", "9"):
        chapter(tmp_path, "test-clean", speaker)
    chapter(tmp_path, "dev-clean", "10")
    dataset = load_dataset(f"librispeech:{tmp_path}", split="test-clean", limit=4)
    assert [u.id for u in dataset.utterances] == ["7-1-0000", "7-1-0001", "8-1-0000", "9-1-0000"]
    assert dataset.name.endswith(":test-clean (4 utterances)")
    with pytest.raises(DatasetError, match="limit of 0"):
        load_dataset(f"librispeech:{tmp_path}", limit=0)


@given(speakers=st.lists(st.sampled_from("abcd"), max_size=30), limit=st.integers(1, 40))
def test_limit_is_even_over_speakers_and_keeps_the_order(speakers: list[str], limit: int) -> None:
    utterances = [Utterance(f"{i:03d}", Path("x"), s) for i, s in enumerate(speakers)]
    kept = limit_utterances(utterances, limit)
    assert len(kept) == min(limit, len(utterances))
    assert [u.id for u in kept] == sorted(u.id for u in kept)
    counts = {s: sum(u.speaker == s for u in kept) for s in set(speakers)}
    for s, count in counts.items():
        assert count >= min(speakers.count(s), max(counts.values()) - 1)


def test_options(tmp_path: Path) -> None:
    base = tmp_path / "wav48_silence_trimmed" / "p225"
    base.mkdir(parents=True)
    (tmp_path / "txt" / "p225").mkdir(parents=True)
    (tmp_path / "txt" / "p225" / "p225_001.txt").write_text("Stella.")
    for mic in ("mic1", "mic2"):
        soundfile.write(base / f"p225_001_{mic}.flac", np.zeros(480), 48000)
    assert load_dataset(f"vctk:{tmp_path}").utterances[0].path.name == "p225_001_mic1.flac"
    assert load_dataset(f"vctk:{tmp_path}?mic=mic2").utterances[0].path.name == "p225_001_mic2.flac"
    speaker = load_dataset(f"folder:{tmp_path}/wav48_silence_trimmed?speaker=(p\\d+)_").speakers
    assert speaker == ("p225",)
    with pytest.raises(DatasetError, match=r"'mike' is not an option of vctk.*mic"):
        load_dataset(f"vctk:{tmp_path}?mike=mic2")
    with pytest.raises(DatasetError, match="'mic2' is not an option"):
        load_dataset(f"vctk:{tmp_path}?mic2")


def test_folder_with_a_question_mark_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "why?"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(160), 16000)
    dataset = load_dataset(f"folder:{folder}")
    assert (len(dataset), dataset.licence) == (1, "unknown")


def test_manifest_spec(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(160), 16000)
    (tmp_path / "t.csv").write_text("id,path,speaker\na,a.wav,s\n")
    assert load_dataset(f"manifest:{tmp_path / 't.csv'}").utterances[0].path == tmp_path / "a.wav"


@pytest.mark.parametrize(
    ("spec", "closest"), [("librispech:/x", "librispeech"), ("vctc:/x", "vctk"), ("minien", "mini-en")]
)
def test_unknown_name_lists_the_closest(spec: str, closest: str) -> None:
    with pytest.raises(UnknownName, match=closest):
        load_dataset(spec)


def test_incomplete_specs() -> None:
    with pytest.raises(DatasetError, match="nothing follows the colon"):
        load_dataset("librispeech:")
    with pytest.raises(DatasetError, match="folder:FOLDER"):
        load_dataset("folder")
    with pytest.raises(DatasetError, match="manifest:FILE"):
        load_dataset("manifest")


def test_fetched_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="Type: tokbench data get librispeech --split test-clean"):
        load_dataset("librispeech:test-clean")
    for split, speaker in (("test-clean", "7"), ("dev-clean", "8")):
        chapter(tmp_path / "librispeech" / split / "LibriSpeech", split, speaker)
    with pytest.raises(DatasetError, match="tokbench data get librispeech"):
        load_dataset("librispeech")  # without its marker a folder does not count
    for split in ("test-clean", "dev-clean"):
        (tmp_path / "librispeech" / split / COMPLETE).write_text("{}")
    assert sorted(fetched_splits("librispeech")) == ["dev-clean", "test-clean"]
    assert load_dataset("librispeech").speakers == ("7", "8")
    assert load_dataset("librispeech:test-clean").speakers == ("7",)
    assert load_dataset("librispeech", split="dev-clean").speakers == ("8",)
    assert load_dataset("librispeech:test-clean+dev-clean").speakers == ("7", "8")
    with pytest.raises(DatasetError, match=r"librispeech \(test-other\) is not in"):
        load_dataset("librispeech:test-clean+test-other")
    with pytest.raises(DatasetError, match="no split 'test-klean'"):
        load_dataset("librispeech", split="test-klean")
    with pytest.raises(DatasetError, match="asks for the split"):
        load_dataset("librispeech:test-clean", split="dev-clean")


def test_embedded_corpus_is_asked_for_by_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def load_mini_en(split: str | None) -> Dataset:
        asked.append(split)
        return Dataset("mini-en", (Utterance("a", Path("a.flac"), "s"), Utterance("b", Path("b.flac"), "s")))

    module = ModuleType("tokbench.data.mini_en")
    module.load_mini_en = load_mini_en  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokbench.data.mini_en", module)
    assert load_dataset("mini-en").name == "mini-en"
    assert load_dataset("mini-en:train").name == "mini-en:train"
    assert load_dataset("mini-en", split="test", limit=1).name == "mini-en:test (1 utterances)"
    assert asked == [None, "train", "test"]
    with pytest.raises(DatasetError, match="asks for the split"):
        load_dataset("mini-en:train", split="test")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/tokbench"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/tokbench"),
        ("darwin", {}, "Library/Caches/tokbench"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/tokbench"),
    ],
)
def test_folders_by_platform(
    platform: str, variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "TOKBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert places.cache_folder() == tmp_path / expected
    assert places.data_folder() == tmp_path / expected / "data"
    monkeypatch.setenv("TOKBENCH_DATA", "~/corpora")
    assert places.data_folder() == tmp_path / "corpora"


@pytest.mark.parametrize("name", ["librispeech", "libritts", "libritts-r", "vctk"])
def test_cards_list_every_split_once_with_a_checksum(name: str) -> None:
    card = find_card(DatasetCard, name)
    assert tuple(archive.split for archive in card.archives) == card.splits
    assert all(archive.sha256 or archive.md5 for archive in card.archives)
    assert card.licence == "CC BY 4.0"
