"""Readers for LibriSpeech (openslr 12), LibriTTS (openslr 60) and LibriTTS-R (openslr 141) as they are unpacked.

All lie as `SPLIT/SPEAKER/CHAPTER/file`. The folder given may be a split, the corpus, or a folder above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tokbench.data.dataset import Utterance
from tokbench.data.scan import (
    LIBRISPEECH,
    LIBRITTS,
    audio_folders,
    nothing_found,
    ordered,
    read_text,
    require_folder,
    some,
)
from tokbench.errors import DatasetError

__all__ = ["read_librispeech", "read_libritts", "read_speakers"]


@dataclass(frozen=True)
class _Chapter:
    """One chapter folder: its split, the audio by utterance id, and all file names."""

    folder: Path
    split: str
    audio: dict[str, Path]
    names: set[str]

    @property
    def speaker(self) -> str:
        return self.folder.absolute().parent.name

    @property
    def id(self) -> str:
        return self.folder.name or self.folder.absolute().name


_Transcripts = Callable[[_Chapter], dict[str, str] | None]
"""Texts of a chapter by utterance id; None where the chapter has no transcript file at all."""


def read_librispeech(root: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Read LibriSpeech: `SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac` and `SPEAKER-CHAPTER.trans.txt`.

    Args:
        root: a split, `LibriSpeech/`, or a folder that holds it.
        split: keep this split alone, for instance "test-clean".

    Returns:
        Utterances sorted by id; gender from `SPEAKERS.TXT` where it is found. A split without any transcript is read
        without texts.

    Raises:
        DatasetError: another layout, no audio, no such split, or transcripts and audio that do not match.
    """
    return _read(root, split, "librispeech", LIBRISPEECH.fullmatch, _librispeech_texts)


def read_libritts(root: Path, *, split: str | None = None) -> tuple[Utterance, ...]:
    """Read LibriTTS or LibriTTS-R: `SPLIT/SPEAKER/CHAPTER/NAME.wav` with `NAME.normalized.txt`, which is the text.

    Args:
        root: a split, `LibriTTS/`, `LibriTTS_R/`, or a folder that holds it.
        split: keep this split alone, for instance "test-clean".

    Returns:
        Utterances sorted by id; gender from `SPEAKERS.txt` or `speakers.tsv` where it is found.

    Raises:
        DatasetError: another layout, no audio, no such split, or transcripts and audio that do not match.
    """
    return _read(root, split, "libritts", LIBRITTS.fullmatch, _libritts_texts)


def _librispeech_texts(chapter: _Chapter) -> dict[str, str] | None:
    name = f"{chapter.speaker}-{chapter.id}.trans.txt"
    if name not in chapter.names:
        return None
    texts: dict[str, str] = {}
    path = chapter.folder / name
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        utterance, _, text = line.strip().partition(" ")
        if not utterance:
            continue
        if utterance in texts:
            raise DatasetError(f"'{utterance}' is transcribed twice", where=f"{path}:{number}")
        texts[utterance] = text.strip()
    return texts


def _libritts_texts(chapter: _Chapter) -> dict[str, str] | None:
    suffix = ".normalized.txt"
    names = sorted(name for name in chapter.names if name.endswith(suffix))
    return {name.removesuffix(suffix): read_text(chapter.folder / name) for name in names} or None


def _read(
    root: Path,
    split: str | None,
    layout: str,
    parse: Callable[[str], object],
    transcripts: _Transcripts,
) -> tuple[Utterance, ...]:
    require_folder(root)
    chapters = list(_chapters(root, layout, parse))
    if not any(chapter.audio for chapter in chapters):
        raise nothing_found(root, layout)
    splits = sorted({chapter.split for chapter in chapters})
    if split is not None:
        chapters = [chapter for chapter in chapters if chapter.split == split]
        if not chapters:
            raise DatasetError(f"has no split '{split}'", where=str(root), hint=f"There are {', '.join(splits)}")
    texts = {chapter.folder: transcripts(chapter) for chapter in chapters}
    transcribed = {chapter.split for chapter in chapters if texts[chapter.folder] is not None}
    genders: dict[str, dict[str, str]] = {}
    found: list[Utterance] = []
    for chapter in chapters:
        of_chapter = texts[chapter.folder]
        if chapter.split in transcribed:
            _check_match(chapter, of_chapter)
        if chapter.split not in genders:
            genders[chapter.split] = read_speakers(chapter.folder.absolute().parents[1], root)
        plain = Utterance(
            id="",
            path=chapter.folder,
            speaker=chapter.speaker,
            gender=genders[chapter.split].get(chapter.speaker),
            chapter=chapter.id,
            extra={"split": chapter.split},
        )
        found += [
            replace(plain, id=name, path=path, text=of_chapter[name] if of_chapter else None)
            for name, path in chapter.audio.items()
        ]
    return ordered(found, where=root)


def _chapters(root: Path, layout: str, parse: Callable[[str], object]) -> Iterator[_Chapter]:
    for folder, names, everything in audio_folders(root):
        speaker, chapter = folder.absolute().parts[-2:] if len(folder.absolute().parts) > 2 else ("", "")
        if not (speaker.isdecimal() and chapter.isdecimal()):
            continue
        audio: dict[str, Path] = {}
        for name in names:
            stem = name.rpartition(".")[0]
            joint = "-" if layout == "librispeech" else "_"
            if not parse(stem) or stem.split(joint)[:2] != [speaker, chapter]:
                continue
            if stem in audio:
                raise DatasetError(f"'{stem}' is there twice, as {audio[stem].name} and {name}", where=str(folder))
            audio[stem] = folder / name
        strange = len(names) - len(audio)
        if audio and strange:
            odd = [name for name in names if name.rpartition(".")[0] not in audio]
            raise DatasetError(
                f"{strange} audio files do not carry the name of speaker {speaker} and chapter {chapter} ({some(odd)})",
                where=str(folder),
                hint="Move them elsewhere",
            )
        has_text = any(name.endswith((".trans.txt", ".normalized.txt")) for name in everything)
        if audio or has_text:
            yield _Chapter(folder, folder.absolute().parents[1].name, audio, everything)


def _check_match(chapter: _Chapter, texts: dict[str, str] | None) -> None:
    if texts is None:
        raise DatasetError(
            f"{len(chapter.audio)} audio files have no transcript, while other chapters of '{chapter.split}' have",
            where=str(chapter.folder),
            hint="Unpack the split again",
        )
    silent = sorted(set(texts) - set(chapter.audio))
    untold = sorted(set(chapter.audio) - set(texts))
    if silent:
        raise DatasetError(
            f"{len(silent)} transcripts have no audio file ({some(silent)})",
            where=str(chapter.folder),
            hint="Unpack the split again, or remove these transcripts",
        )
    if untold:
        raise DatasetError(
            f"{len(untold)} audio files have no transcript ({some(untold)})",
            where=str(chapter.folder),
            hint="Unpack the split again, or remove these files",
        )
    empty = sorted(name for name, text in texts.items() if not text)
    if empty:
        raise DatasetError(f"{len(empty)} transcripts are empty ({some(empty)})", where=str(chapter.folder))


def read_speakers(split_folder: Path, root: Path) -> dict[str, str]:
    """Speaker id -> "f" or "m", from the corpus's speaker list beside or above a split; {} where there is none.

    Looks for `SPEAKERS.TXT` (fields between bars, `;` begins a comment) and `speakers.tsv` in the split's folder, its
    parents up to two levels, and `root`.
    """
    for folder in (split_folder.parent, split_folder, split_folder.parent.parent, root):
        for name in ("SPEAKERS.TXT", "SPEAKERS.txt", "speakers.txt", "speakers.tsv"):
            path = folder / name
            if path.is_file():
                separator = "\t" if name.endswith(".tsv") else "|"
                return dict(_genders(read_text(path), separator))
    return {}


def _genders(text: str, separator: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) > 1 and fields[0].isdecimal() and fields[1].lower() in ("f", "m"):
            yield fields[0], fields[1].lower()
