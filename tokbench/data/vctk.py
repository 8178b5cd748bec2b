"""Reader for the CSTR VCTK corpus, version 0.92 (datashare.ed.ac.uk/handle/10283/3443).

`wav48_silence_trimmed/p225/p225_001_mic1.flac`, `txt/p225/p225_001.txt`, `speaker-info.txt`.
"""

from __future__ import annotations

from pathlib import Path

from tokbench.data.dataset import Utterance
from tokbench.data.scan import VCTK, audio_folders, nothing_found, ordered, read_text, require_folder, some
from tokbench.errors import DatasetError

__all__ = ["read_vctk"]

AUDIO, TEXT, SPEAKERS = "wav48_silence_trimmed", "txt", "speaker-info.txt"

WITHOUT_TEXT = frozenset({"p315"})
"""Speakers whose texts were lost by the publisher (speaker-info.txt says so)."""


def read_vctk(root: Path, *, split: str | None = None, mic: str = "mic1") -> tuple[Utterance, ...]:
    """Read one microphone of VCTK 0.92.

    Args:
        root: the folder that holds `wav48_silence_trimmed/`, or the one above it.
        split: VCTK has none; only None is accepted.
        mic: "mic1", which every speaker has, or "mic2", which p280 lacks.

    Returns:
        Utterances sorted by id (`p225_001`); gender and accent from `speaker-info.txt`. Speaker p315, published without
        texts, is left out. Texts without audio are part of the official release, and are left out too.

    Raises:
        DatasetError: another layout, no such microphone, or audio of another speaker than p315 without its text.
    """
    if split is not None:
        raise DatasetError(f"VCTK has no split '{split}'", where=str(root), hint="Leave the split out")
    if mic not in ("mic1", "mic2"):
        raise DatasetError(f"VCTK has no microphone '{mic}'", where=str(root), hint="Use mic1 or mic2")
    require_folder(root)
    base = _base(root)
    info = _speakers(base / SPEAKERS)
    found: list[Utterance] = []
    untold: list[str] = []
    for folder, names, _ in audio_folders(base / AUDIO):
        speaker = folder.name
        for name in names:
            match = VCTK.fullmatch(name.rpartition(".")[0])
            if match is None or match[1] != speaker:
                raise DatasetError(
                    f"'{name}' is not named {speaker}_SENTENCE_MIC", where=str(folder), hint="Move it elsewhere"
                )
            if match[3] != mic or speaker in WITHOUT_TEXT:
                continue
            label = f"{speaker}_{match[2]}"
            text = base / TEXT / speaker / f"{label}.txt"
            if not text.is_file():
                untold.append(label)
                continue
            gender, extra = info.get(speaker, (None, {}))
            found.append(
                Utterance(
                    label, folder / name, speaker, text=read_text(text), gender=gender, extra={"mic": mic} | extra
                )
            )
    if untold:
        raise DatasetError(
            f"{len(untold)} audio files have no transcript ({some(untold)})",
            where=str(base / TEXT),
            hint="Unpack VCTK-Corpus-0.92.zip again",
        )
    if not found:
        raise DatasetError(f"holds no audio of {mic}", where=str(base / AUDIO), hint="Try the other microphone")
    return ordered(found, where=root)


def _base(root: Path) -> Path:
    candidates = [root, root.parent if root.name == AUDIO else root, *sorted(p for p in root.iterdir() if p.is_dir())]
    for base in candidates:
        if (base / AUDIO).is_dir():
            return base
    if (root / "wav48").is_dir():
        raise DatasetError(
            "looks like an older VCTK: it has wav48/ but no wav48_silence_trimmed/",
            where=str(root),
            hint="The reader is for version 0.92",
        )
    raise nothing_found(root, "vctk")


def _speakers(path: Path) -> dict[str, tuple[str | None, dict[str, str]]]:
    """Speaker -> gender, and accent and region as extra columns."""
    if not path.is_file():
        return {}
    found: dict[str, tuple[str | None, dict[str, str]]] = {}
    for line in read_text(path).splitlines()[1:]:
        fields = line.split()
        if len(fields) < 3:
            continue
        speaker = fields[0] if fields[0][0].isalpha() else f"p{fields[0]}"
        gender = fields[2].lower()
        extra = {"accent": fields[3]} if len(fields) > 3 else {}
        found[speaker] = (gender if gender in ("f", "m") else None, extra)
    return found
