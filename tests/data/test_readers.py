"""Readers of official layouts, folders and tables: what they find, in which order, and what they refuse."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokbench.data.folder import read_folder
from tokbench.data.libri import read_librispeech, read_libritts
from tokbench.data.manifest import read_manifest
from tokbench.data.readers import READERS
from tokbench.data.vctk import read_vctk
from tokbench.errors import AudioError, DatasetError

SECOND = np.zeros(160, np.float32)


def audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, SECOND, 16000)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    for split, speaker, chapter in (("dev-clean", "84", "121123"), ("dev-clean", "84", "121550"), ("test", "9", "7")):
        folder = root / split / speaker / chapter
        for number in range(3):
            audio(folder / f"{speaker}-{chapter}-{number:04d}.flac")
        lines = [f"{speaker}-{chapter}-{n:04d} TEXT {n}" for n in range(3)]
        text(folder / f"{speaker}-{chapter}.trans.txt", "\n".join(lines) + "\n")
    text(
        root / "SPEAKERS.TXT",
        "; a comment | F | with bars\n84   | F | dev-clean | 8.02 | A name\n9 | M | test | 8 | B\n",
    )
    text(root / "README.TXT", "a readme")
    return root


@pytest.fixture
def libritts(tmp_path: Path) -> Path:
    root = tmp_path / "LibriTTS_R"
    for speaker, chapter in (("84", "121123"), ("100", "7")):
        for number in range(2):
            stem = root / "dev-clean" / speaker / chapter / f"{speaker}_{chapter}_{number:06d}_000000"
            audio(stem.with_suffix(".wav"))
            text(Path(f"{stem}.normalized.txt"), f"Text {number}.\n")
            text(Path(f"{stem}.original.txt"), f"TEXT {number}!\n")
        text(stem.parent / f"{speaker}_{chapter}.trans.tsv", "a table\n")
    text(root / "speakers.tsv", "READER\tGENDER\tSUBSET\tNAME\n84\tF\tdev-clean\tA\n100\tM\tdev-clean\tB\n")
    return root


@pytest.fixture
def vctk(tmp_path: Path) -> Path:
    root = tmp_path / "VCTK-Corpus-0.92"
    for speaker in ("p225", "p280", "p315", "s5"):
        for number in (1, 2):
            for mic in ("mic1", "mic2"):
                if (speaker, mic) != ("p280", "mic2"):
                    audio(root / "wav48_silence_trimmed" / speaker / f"{speaker}_{number:03d}_{mic}.flac")
            if speaker != "p315":
                text(root / "txt" / speaker / f"{speaker}_{number:03d}.txt", f"Please call Stella {number}.\n")
    text(root / "txt" / "p225" / "p225_003.txt", "Published without audio.")
    text(
        root / "speaker-info.txt",
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS \n"
        "p225  23  F    English    Southern  England\n"
        "p280  25  F  Unknown  France (mic2 files unavailable)\n"
        "s5 20 M British\n",
    )
    return root


def ids(utterances: tuple[object, ...]) -> list[str]:
    return [u.id for u in utterances]  # type: ignore[attr-defined]


# LibriSpeech


def test_librispeech(librispeech: Path) -> None:
    found = read_librispeech(librispeech)
    assert ids(found) == sorted(ids(found))
    assert len(found) == 9
    first = found[0]
    assert (first.id, first.speaker, first.chapter, first.text) == ("84-121123-0000", "84", "121123", "TEXT 0")
    assert first.extra == {"split": "dev-clean"}
    assert {u.speaker: u.gender for u in found} == {"84": "f", "9": "m"}


@pytest.mark.parametrize("below", ["..", ".", "dev-clean", "dev-clean/84", "dev-clean/84/121123"])
def test_librispeech_from_any_level(librispeech: Path, below: str) -> None:
    found = read_librispeech(librispeech / below, split="dev-clean")
    assert found[0].id == "84-121123-0000"
    assert found[0].gender == "f"


def test_librispeech_unknown_split(librispeech: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'dev-klean'.*dev-clean, test"):
        read_librispeech(librispeech, split="dev-klean")


def test_librispeech_transcript_without_audio(librispeech: Path) -> None:
    (librispeech / "test/9/7/9-7-0001.flac").unlink()
    with pytest.raises(DatasetError, match=r"test/9/7: 1 transcripts have no audio file \(9-7-0001\)"):
        read_librispeech(librispeech)


def test_librispeech_audio_without_transcript(librispeech: Path) -> None:
    audio(librispeech / "test/9/7/9-7-0003.flac")
    with pytest.raises(DatasetError, match=r"1 audio files have no transcript \(9-7-0003\)"):
        read_librispeech(librispeech)


def test_librispeech_chapter_without_transcripts(librispeech: Path) -> None:
    (librispeech / "dev-clean/84/121550/84-121550.trans.txt").unlink()
    with pytest.raises(DatasetError, match="121550: 3 audio files have no transcript, while other chapters"):
        read_librispeech(librispeech)


def test_librispeech_chapter_without_audio(librispeech: Path) -> None:
    for path in (librispeech / "dev-clean/84/121550").glob("*.flac"):
        path.unlink()
    with pytest.raises(DatasetError, match="3 transcripts have no audio"):
        read_librispeech(librispeech)


def test_librispeech_split_without_any_transcript(librispeech: Path) -> None:
    (librispeech / "test/9/7/9-7.trans.txt").unlink()
    assert [u.text for u in read_librispeech(librispeech) if u.speaker == "9"] == [None] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [("9-7-0001 AGAIN", "9-7.trans.txt:4: '9-7-0001' is transcribed twice"), ("9-7-0009", "1 transcripts have no")],
)
def test_librispeech_bad_transcript_line(librispeech: Path, line: str, message: str) -> None:
    path = librispeech / "test/9/7/9-7.trans.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DatasetError, match=message):
        read_librispeech(librispeech)


def test_librispeech_empty_and_binary_transcripts(librispeech: Path) -> None:
    path = librispeech / "test/9/7/9-7.trans.txt"
    path.write_text("9-7-0000 A\n9-7-0001\n9-7-0002 C\n")
    with pytest.raises(DatasetError, match=r"1 transcripts are empty \(9-7-0001\)"):
        read_librispeech(librispeech)
    path.write_bytes(b"9-7-0000 \xff\xfe\n")
    with pytest.raises(DatasetError, match="is not UTF-8"):
        read_librispeech(librispeech)


def test_librispeech_strange_file_and_repeated_id(librispeech: Path) -> None:
    odd = audio(librispeech / "test/9/7/copy.flac")
    with pytest.raises(DatasetError, match="do not carry the name of speaker 9 and chapter 7"):
        read_librispeech(librispeech)
    odd.unlink()
    twin = audio(librispeech / "test/9/7/9-7-0001.wav")
    with pytest.raises(DatasetError, match="'9-7-0001' is there twice"):
        read_librispeech(librispeech)
    twin.unlink()
    (librispeech / "copy").symlink_to(librispeech / "test")
    with pytest.raises(DatasetError, match="two files have the id '9-7-0000'"):
        read_librispeech(librispeech)


def test_folder_that_links_to_its_parent_is_not_walked_for_ever(librispeech: Path) -> None:
    (librispeech / "test" / "loop").symlink_to(librispeech)
    assert len(read_librispeech(librispeech)) == 9


def test_real_librispeech(shared: Path) -> None:
    root = shared / "data" / "librispeech-sample"
    found = read_librispeech(root, split="test-other")
    assert (len(found), len({u.speaker for u in found})) == (60, 6)
    assert all(u.text for u in found)
    train = read_librispeech(root / "train-clean-100")
    assert (len(train), len({u.speaker for u in train})) == (188, 188)
    assert all(u.text is None for u in train)
    assert len(read_librispeech(root)) == 248
    wave, rate = found[0].read()
    assert rate == 16000
    assert len(wave) > 16000


# LibriTTS


def test_libritts(libritts: Path) -> None:
    found = read_libritts(libritts)
    assert ids(found) == sorted(ids(found))
    assert [u.text for u in found] == ["Text 0.", "Text 1."] * 2
    assert [(u.speaker, u.gender, u.chapter) for u in found[1:3]] == [("100", "m", "7"), ("84", "f", "121123")]


def test_libritts_mismatch(libritts: Path) -> None:
    stem = libritts / "dev-clean/100/7/100_7_000001_000000"
    Path(f"{stem}.normalized.txt").unlink()
    with pytest.raises(DatasetError, match=r"no transcript \(100_7_000001_000000\)"):
        read_libritts(libritts)
    text(Path(f"{stem}.normalized.txt"), "x")
    stem.with_suffix(".wav").unlink()
    with pytest.raises(DatasetError, match=r"no audio file \(100_7_000001_000000\)"):
        read_libritts(libritts)


# VCTK


def test_vctk(vctk: Path) -> None:
    found = read_vctk(vctk)
    assert ids(found) == ["p225_001", "p225_002", "p280_001", "p280_002", "s5_001", "s5_002"]
    assert found[0].path.name == "p225_001_mic1.flac"
    assert (found[0].gender, found[0].extra["accent"], found[0].text) == ("f", "English", "Please call Stella 1.")
    assert found[-1].gender == "m"
    assert ids(read_vctk(vctk, mic="mic2")) == ["p225_001", "p225_002", "s5_001", "s5_002"]
    assert ids(read_vctk(vctk.parent)) == ids(found)
    assert ids(read_vctk(vctk / "wav48_silence_trimmed")) == ids(found)


def test_vctk_refuses(vctk: Path) -> None:
    with pytest.raises(DatasetError, match="no microphone 'mic3'"):
        read_vctk(vctk, mic="mic3")
    with pytest.raises(DatasetError, match="no split 'test'"):
        read_vctk(vctk, split="test")
    (vctk / "txt/p225/p225_002.txt").unlink()
    with pytest.raises(DatasetError, match=r"1 audio files have no transcript \(p225_002\)"):
        read_vctk(vctk)
    (vctk / "wav48_silence_trimmed").rename(vctk / "wav48")
    with pytest.raises(DatasetError, match="older VCTK"):
        read_vctk(vctk)


# Wrong layouts


@pytest.mark.parametrize("asked", ["librispeech", "libritts", "vctk", "folder"])
@pytest.mark.parametrize("present", ["librispeech", "libritts", "vctk"])
def test_other_layout_is_named(asked: str, present: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(present)
    if asked == present:
        assert READERS[asked](root)
    else:
        with pytest.raises(DatasetError, match=rf"looks like .*{present}:{root}"):
            READERS[asked](root)


@pytest.mark.parametrize("reader", ["librispeech", "libritts", "vctk", "folder"])
def test_no_audio(reader: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no audio"):
        READERS[reader](tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        READERS[reader](tmp_path / "gone")
    with pytest.raises(DatasetError, match="is a file"):
        READERS[reader](text(tmp_path / "file.csv", ""))


def test_audio_of_no_layout_points_to_the_folder_reader(tmp_path: Path) -> None:
    audio(tmp_path / "a" / "b.wav")
    with pytest.raises(DatasetError, match=f"folder:{tmp_path}"):
        read_librispeech(tmp_path)


# Folders


def test_folder_with_texts(tmp_path: Path) -> None:
    for name in ("ann/1", "ann/2", "bob/1"):
        audio(tmp_path / f"{name}.wav")
        text(tmp_path / f"{name}.{'lab' if name == 'bob/1' else 'txt'}", f"text of {name}\n")
    text(tmp_path / "README.txt", "not a transcript")
    audio(tmp_path / ".hidden" / "x.wav")
    found = read_folder(tmp_path)
    assert [(u.id, u.speaker, u.text) for u in found] == [
        ("ann/1", "ann", "text of ann/1"),
        ("ann/2", "ann", "text of ann/2"),
        ("bob/1", "bob", "text of bob/1"),
    ]
    assert ids(read_folder(tmp_path, split="ann")) == ["ann/1", "ann/2"]


def test_folder_speaker_pattern(tmp_path: Path) -> None:
    for name in ("f01_a.wav", "m02_a.FLAC"):
        audio(tmp_path / "all" / name)
    assert [u.speaker for u in read_folder(tmp_path, speaker=r"([fm]\d+)_")] == ["f01", "m02"]
    with pytest.raises(DatasetError, match=r"finds no speaker in 'all/m02_a\.FLAC'"):
        read_folder(tmp_path, speaker=r"(f\d+)_")
    with pytest.raises(DatasetError, match="not a regular expression"):
        read_folder(tmp_path, speaker="(")
    with pytest.raises(DatasetError, match="has no group"):
        read_folder(tmp_path, speaker="f")


def test_folder_mismatches(tmp_path: Path) -> None:
    for name in ("a", "b"):
        audio(tmp_path / f"{name}.wav")
        text(tmp_path / f"{name}.txt", "words")
    extra = text(tmp_path / "c.txt", "words")
    with pytest.raises(DatasetError, match=r"1 transcripts have no audio file \(c.txt\)"):
        read_folder(tmp_path)
    extra.unlink()
    text(tmp_path / "b.txt", " \n")
    with pytest.raises(DatasetError, match=r"1 transcripts are empty \(b\)"):
        read_folder(tmp_path)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 audio files have no transcript \(b\)"):
        read_folder(tmp_path)
    audio(tmp_path / "a.flac")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DatasetError, match="two files have the id 'a'"):
        read_folder(tmp_path)


def test_bad_audio_is_read_as_an_utterance_and_fails_alone(tmp_path: Path) -> None:
    audio(tmp_path / "s" / "good.wav")
    (tmp_path / "s" / "bad.wav").write_bytes(b"RIFF no audio")
    bad, good = read_folder(tmp_path)
    assert good.read()[1] == 16000
    with pytest.raises(AudioError, match="utterance s/bad"):
        bad.read()


# Manifests


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


HEADER = ["id", "path", "speaker", "text", "gender", "chapter", "duration", "split", "accent"]
ROWS = [
    ["b", "wav/b.wav", "bob", 'He said, "no".', "male", "2", "0.01", "test", "Scottish"],
    ["a", "wav/a.wav", "ann", "", "F", "", "", "train", ""],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    audio(tmp_path / "wav/a.wav")
    audio(tmp_path / "wav/b.wav")
    return tmp_path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_manifest(folder: Path, suffix: str) -> None:
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        columns = {name: [row[i] or None for row in ROWS] for i, name in enumerate(HEADER)}
        columns["duration"] = [0.01, float("nan")]  # type: ignore[list-item]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        write_csv(path, [HEADER, *ROWS])
    a, b = read_manifest(path)
    assert (a.id, a.speaker, a.text, a.gender, a.chapter, a.duration) == ("a", "ann", None, "f", None, None)
    assert (b.text, b.gender, b.chapter, b.duration) == ('He said, "no".', "m", "2", 0.01)
    assert b.extra == {"split": "test", "accent": "Scottish"}
    assert a.read()[1] == 16000
    assert ids(read_manifest(path, split="test")) == ["b"]
    with pytest.raises(DatasetError, match=r"no split 'dev'\. There is test, train"):
        read_manifest(path, split="dev")


def test_manifest_checks_the_promised_hash(folder: Path) -> None:
    path = write_csv(folder / "t.csv", [["id", "path", "speaker", "pcm_sha256"], ["a", "wav/a.wav", "x", "0" * 64]])
    with pytest.raises(AudioError, match="sha256 differs"):
        read_manifest(path)[0].read()


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("id", 1, "", r"row 2: id: the id is empty"),
        ("id", 2, "b", r"row 3: id: the id 'b' is also in row 2"),
        ("path", 2, "wav/c.wav", r"row 3: path: there is no file .*wav/c.wav"),
        ("speaker", 1, " ", r"row 2: speaker: the speaker is empty"),
        ("gender", 2, "x", r"row 3: gender: 'x' is neither f nor m"),
        ("duration", 1, "long", r"row 2: duration: 'long' is not a length"),
        ("duration", 1, "-1", r"row 2: duration: '-1' is not a length"),
        ("duration", 1, "inf", r"row 2: duration"),
        ("accent", 0, "text", r"row 1: text: the column 'text' is there twice"),
        ("speaker", 0, "voice", r"row 1: speaker: the column 'speaker' is missing"),
    ],
)
def test_manifest_mistakes_name_row_and_column(folder: Path, column: str, row: int, value: str, message: str) -> None:
    rows = [list(HEADER), *(list(r) for r in ROWS)]
    rows[row][HEADER.index(column)] = value
    path = write_csv(folder / "t.csv", rows)
    with pytest.raises(DatasetError, match=message):
        read_manifest(path)


def test_manifest_of_wrong_shape(folder: Path) -> None:
    with pytest.raises(DatasetError, match="row 3: has 2 cells, the header has 3"):
        read_manifest(write_csv(folder / "t.csv", [HEADER[:3], ROWS[0][:3], ["a", "wav/a.wav"]]))
    with pytest.raises(DatasetError, match="has no rows"):
        read_manifest(write_csv(folder / "t.csv", [HEADER]))
    with pytest.raises(DatasetError, match="column 'id' is missing"):
        read_manifest(text(folder / "empty.csv", ""))
    with pytest.raises(DatasetError, match="not a readable Parquet"):
        read_manifest(text(folder / "t.parquet", "no"))
    (folder / "l.csv").write_bytes(b"id,path,speaker\n\xff,a,b\n")
    with pytest.raises(DatasetError, match="not a readable table"):
        read_manifest(folder / "l.csv")
    with pytest.raises(DatasetError, match=r"'.xlsx' is not a table"):
        read_manifest(text(folder / "t.xlsx", ""))


# Order

NAMES = st.lists(
    st.tuples(st.sampled_from(["ann", "Bob", "bo", "é"]), st.text("aAbZ019_-", min_size=1, max_size=6)),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(names=NAMES, seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_does_not_depend_on_the_file_system(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]], seed: int
) -> None:
    root = tmp_path_factory.mktemp("order")
    for folder_name, stem in names:
        path = root / folder_name / f"{stem}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    straight = read_folder(root, speaker="([^/]+)/")
    assert ids(straight) == sorted(f"{a}/{b}" for a, b in names)
    random = np.random.default_rng(seed)
    walk = os.walk

    def shuffled(top: Path, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for current, folders, files in walk(top, **options):
            random.shuffle(folders)
            random.shuffle(files)
            yield current, folders, files

    with patch.object(os, "walk", shuffled):
        assert read_folder(root, speaker="([^/]+)/") == straight
