"""Reader for any folder of audio: the speaker is the parent folder, the text a file of the same name."""

from __future__ import annotations

import re
from pathlib import Path

from tokbench.data.dataset import Utterance
from tokbench.data.scan import audio_folders, guess_layout, nothing_found, ordered, read_text, require_folder, some
from tokbench.errors import DatasetError

__all__ = ["read_folder"]

_TEXTS = (".txt", ".lab")
_NOT_TRANSCRIPTS = re.compile(r"(read_?me|licen[cs]e|copying|notes?|changes|changelog|speakers?|speaker-info|index).*")


def read_folder(root: Path, *, split: str | None = None, speaker: str | None = None) -> tuple[Utterance, ...]:
    """Read every audio file below `root`.

    Args:
        root: the folder; subfolders are searched.
        split: keep what lies in this subfolder of `root`.
        speaker: regular expression searched in the path relative to `root` (with `/`); its first group is the speaker.
            None: the speaker is the name of the folder that holds the file.

    Returns:
        Utterances sorted by id, which is the path relative to `root` without its suffix. The text is read from a
        `.txt` or `.lab` file of the same name; either all files have one, or none.

    Raises:
        DatasetError: no audio; an official layout, whose own reader knows the speakers; a pattern that does not match;
            some files with and some without text, or a text without audio.
    """
    require_folder(root)
    base = root if split is None else require_folder(root / split)
    pattern = _compile(speaker)
    if pattern is None:
        layout = guess_layout(base)
        if layout is not None:
            raise DatasetError(
                f"looks like {layout}: as a plain folder it would have wrong speakers",
                where=str(base),
                hint=f"Type {layout}:{base}, or give a pattern: folder:{base}?speaker=REGEX",
            )
    found: list[Utterance] = []
    orphans: list[Path] = []
    for folder, names, everything in audio_folders(base):
        stems = {name.rpartition(".")[0] for name in names}
        orphans += [
            folder / name
            for name in sorted(everything)
            if name.lower().endswith(_TEXTS)
            and name.rpartition(".")[0] not in stems
            and not _NOT_TRANSCRIPTS.fullmatch(name.lower())
        ]
        for name in names:
            path = folder / name
            relative = path.relative_to(root).as_posix()
            stem = name.rpartition(".")[0]
            text = next((read_text(folder / (stem + end)) for end in _TEXTS if stem + end in everything), None)
            who = folder.absolute().name if pattern is None else _speaker(pattern, relative, path)
            found.append(Utterance(relative.rpartition(".")[0], path, who, text=text))
    if not found:
        raise nothing_found(base, "folder")
    _check_texts(found, orphans, base)
    return ordered(found, where=base)


def _compile(speaker: str | None) -> re.Pattern[str] | None:
    if speaker is None:
        return None
    try:
        pattern = re.compile(speaker)
    except re.error as error:
        raise DatasetError(f"the speaker pattern '{speaker}' is not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise DatasetError(
            f"the speaker pattern '{speaker}' has no group", hint="Put brackets round the speaker: '([^/_]+)_'"
        )
    return pattern


def _speaker(pattern: re.Pattern[str], relative: str, path: Path) -> str:
    match = pattern.search(relative)
    if match is None or not match[1]:
        raise DatasetError(f"the speaker pattern '{pattern.pattern}' finds no speaker in '{relative}'", where=str(path))
    return match[1]


def _check_texts(found: list[Utterance], orphans: list[Path], root: Path) -> None:
    with_text = sum(utterance.text is not None for utterance in found)
    if not with_text:
        return
    untold = [utterance.id for utterance in found if utterance.text is None]
    if untold:
        raise DatasetError(
            f"{len(untold)} of {len(found)} audio files have no transcript ({some(untold)})",
            where=str(root),
            hint="Add NAME.txt beside each, or remove all transcripts",
        )
    if orphans:
        raise DatasetError(
            f"{len(orphans)} transcripts have no audio file ({some(path.relative_to(root) for path in orphans)})",
            where=str(root),
            hint="Restore the audio, or remove these files",
        )
    empty = [utterance.id for utterance in found if utterance.text == ""]
    if empty:
        raise DatasetError(f"{len(empty)} transcripts are empty ({some(empty)})", where=str(root))
