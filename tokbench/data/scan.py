"""Walking corpus folders: audio files in a fixed order, text files, and which official layout a folder resembles."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokbench.audio import SUFFIXES
from tokbench.data.dataset import Utterance
from tokbench.errors import DatasetError

__all__ = ["audio_folders", "guess_layout", "nothing_found", "ordered", "read_text", "require_folder", "some"]

LIBRISPEECH = re.compile(r"(\d+)-(\d+)-(\d+)")
"""Stem of a LibriSpeech file: speaker, chapter, utterance."""
LIBRITTS = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)")
"""Stem of a LibriTTS file: speaker, chapter, paragraph, sentence."""
VCTK = re.compile(r"([ps]\d+)_(\d+)_(mic[12])")
"""Stem of a VCTK 0.92 file: speaker, sentence, microphone."""

_TITLES = {"librispeech": "LibriSpeech", "libritts": "LibriTTS", "vctk": "VCTK 0.92"}


def require_folder(root: Path) -> Path:
    """Return `root`; raise `DatasetError` where it is not a folder."""
    if not root.exists():
        raise DatasetError("no such folder", where=str(root), hint="Check the path after the colon")
    if not root.is_dir():
        raise DatasetError(
            "is a file, not a folder", where=str(root), hint="A CSV or Parquet table is read by manifest:FILE"
        )
    return root


def audio_folders(root: Path) -> Iterator[tuple[Path, list[str], set[str]]]:
    """Yield `(folder, audio file names, names of all files)`, folders and names sorted; hidden entries are left out.

    Every folder is visited, also those without audio, so that text files without audio can be found.
    """
    for current, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not _leads_back(Path(current), n))
        visible = sorted(name for name in names if not name.startswith("."))
        yield Path(current), [name for name in visible if name.lower().endswith(SUFFIXES)], set(visible)


def _leads_back(folder: Path, name: str) -> bool:
    """Whether an entry is a link to a folder that contains it, which would be walked for ever."""
    path = folder / name
    return path.is_symlink() and folder.resolve().is_relative_to(path.resolve())


def read_text(path: Path) -> str:
    """UTF-8 text of a transcript file, without the white space around it.

    Raises:
        DatasetError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DatasetError(f"is not UTF-8 (byte {error.start})", where=str(path), hint="Convert it to UTF-8") from None
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=str(path)) from None


def ordered(utterances: Iterable[Utterance], *, where: Path) -> tuple[Utterance, ...]:
    """Sort by id and refuse a repeated one, so that the order depends on the corpus and not on the file system."""
    found = sorted(utterances, key=lambda u: u.id)
    for first, second in itertools.pairwise(found):
        if first.id == second.id:
            raise DatasetError(
                f"two files have the id '{first.id}': {first.path} and {second.path}",
                where=str(where),
                hint="Keep one of them, or name a deeper folder",
            )
    return tuple(found)


def some(names: Iterable[object], *, show: int = 3) -> str:
    """The first few names, and how many more there are."""
    words = [str(name) for name in names]
    rest = len(words) - show
    return ", ".join(words[:show]) + (f" and {rest} more" if rest > 0 else "")


def guess_layout(root: Path, *, look_at: int = 2000) -> str | None:
    """The reader whose official layout `root` resembles, or None; looks at the first `look_at` audio files."""
    seen = 0
    for folder, audio, _ in audio_folders(root):
        for name in audio:
            stem = name.rpartition(".")[0]
            if VCTK.fullmatch(stem):
                return "vctk"
            for layout, pattern in (("libritts", LIBRITTS), ("librispeech", LIBRISPEECH)):
                match = pattern.fullmatch(stem)
                if match and folder.absolute().parts[-2:] == match.groups()[:2]:
                    return layout
            seen += 1
            if seen >= look_at:
                return None
    return None


def nothing_found(root: Path, wanted: str) -> DatasetError:
    """The error for a folder that holds nothing of the layout that was asked for; names the one it resembles."""
    guess = guess_layout(root)
    if guess is not None and guess != wanted:
        return DatasetError(
            f"is not {_TITLES.get(wanted, wanted)}: it looks like {_TITLES[guess]}",
            where=str(root),
            hint=f"Type: {guess}:{root}",
        )
    if any(audio for _, audio, _ in audio_folders(root)):
        return DatasetError(
            f"holds audio, but not in the layout of {_TITLES.get(wanted, wanted)}",
            where=str(root),
            hint=f"Type: folder:{root}",
        )
    return DatasetError(
        "holds no audio", where=str(root), hint=f"Audio files end in {', '.join(SUFFIXES)}; check the path"
    )
