"""What a dataset is, measured: the hash of every utterance's decoded audio, its fingerprint and its statistics.

Decoding a corpus takes minutes, so hashes are kept in an index of immutable JSON files. A writer adds a file under a
temporary name and renames it; nobody changes a file, so any number of processes may write at once, without a lock.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from tokbench.audio import pcm_sha256, read_audio
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import AudioError, StoreError

__all__ = [
    "UNREADABLE",
    "AudioFacts",
    "DatasetStatistics",
    "dataset_facts",
    "dataset_fingerprint",
    "dataset_hashes",
    "dataset_statistics",
]

UNREADABLE = "unreadable"
"""Stands for the hash of an utterance that cannot be read, in the dataset's fingerprint."""

_log = logging.getLogger(__name__)

_FORMAT = 1
_MERGE_ABOVE = 16
"""Index files above which they are rewritten as one."""
_SAVE_EVERY = 2000
"""Utterances after which new hashes are written down, so that an interruption costs little."""


@dataclass(frozen=True)
class AudioFacts:
    """Decoded audio of one file.

    Attributes:
        sha256: as `tokbench.audio.pcm_sha256`.
        rate: Hz.
        samples: after mixing to mono.
    """

    sha256: str
    rate: int
    samples: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate


class DatasetStatistics(BaseModel):
    """What `tokbench data list` and the pages say about a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    utterances: int
    unreadable: int
    """Utterances whose audio cannot be used; lengths and rates leave them out."""
    speakers: int
    hours: float
    seconds: dict[str, float]
    """Quantiles of the length: min, 5%, 25%, median, 75%, 95%, max; empty where no utterance can be read."""
    words: int
    """Words between white space in all texts."""
    with_text: int
    sampling_rates: dict[int, int]
    """Hz -> utterances."""
    genders: dict[str, int]
    """ "f", "m" or "unknown" -> speakers."""


_Key = tuple[str, int, int]
"""Absolute path, size in bytes, modification time in nanoseconds."""


def dataset_hashes(dataset: Dataset, cache_dir: Path, *, workers: int | None = None) -> list[str | AudioError]:
    """Sha256 of the decoded audio of every utterance, in their order; the error where one cannot be read.

    Utterances whose manifest states `pcm_sha256` are not read: `Utterance.read` compares it on first use.

    Args:
        dataset: what to identify.
        cache_dir: the index lies in its subfolder `fingerprints`.
        workers: threads that decode; the number of cores by default, at most 8.
    """
    unknown = [u for u in dataset.utterances if u.pcm_sha256 is None]
    found = iter(_facts(unknown, cache_dir, workers))
    hashes: list[str | AudioError] = []
    for utterance in dataset.utterances:
        fact = utterance.pcm_sha256 or next(found)
        hashes.append(fact.sha256 if isinstance(fact, AudioFacts) else fact)
    return hashes


def dataset_facts(dataset: Dataset, cache_dir: Path, *, workers: int | None = None) -> list[AudioFacts | AudioError]:
    """Hash, rate and length of every utterance, in their order; the error where one cannot be read.

    An utterance whose manifest states `pcm_sha256` keeps that hash; its length is read from the file's header.
    """
    known = {u.id: _header(u) for u in dataset.utterances if u.pcm_sha256 is not None}
    found = iter(_facts([u for u in dataset.utterances if u.pcm_sha256 is None], cache_dir, workers))
    return [known[u.id] if u.id in known else next(found) for u in dataset.utterances]


def dataset_fingerprint(dataset: Dataset, hashes: Sequence[str | AudioError]) -> str:
    """`Dataset.fingerprint` over the hashes; an unreadable utterance counts as `UNREADABLE`."""
    return dataset.fingerprint([h if isinstance(h, str) else UNREADABLE for h in hashes])


def dataset_statistics(dataset: Dataset, facts: Sequence[AudioFacts | AudioError]) -> DatasetStatistics:
    """Count speakers, hours, words, rates and genders; `facts` in the order of the utterances."""
    usable = [fact for _, fact in zip(dataset.utterances, facts, strict=True) if isinstance(fact, AudioFacts)]
    seconds = np.array([fact.seconds for fact in usable])
    quantiles: dict[str, float] = {}
    if usable:
        labels = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
        quantiles = {label: float(np.quantile(seconds, q)) for label, q in labels.items()}
    rates: dict[int, int] = {}
    for fact in usable:
        rates[fact.rate] = rates.get(fact.rate, 0) + 1
    gender_of: dict[str, str] = {}
    for utterance in dataset.utterances:
        if utterance.gender is not None or utterance.speaker not in gender_of:
            gender_of[utterance.speaker] = utterance.gender or "unknown"
    genders: dict[str, int] = {}
    for gender in gender_of.values():
        genders[gender] = genders.get(gender, 0) + 1
    texts = [u.text for u in dataset.utterances if u.text is not None]
    return DatasetStatistics(
        utterances=len(dataset),
        unreadable=len(dataset) - len(usable),
        speakers=len(dataset.speakers),
        hours=float(seconds.sum()) / 3600,
        seconds=quantiles,
        words=sum(len(text.split()) for text in texts),
        with_text=len(texts),
        sampling_rates=dict(sorted(rates.items())),
        genders=dict(sorted(genders.items())),
    )


def _header(utterance: Utterance) -> AudioFacts | AudioError:
    import soundfile

    label = f"utterance {utterance.id} ({utterance.path})"
    try:
        info = soundfile.info(str(utterance.path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        return AudioError(f"not readable as audio ({error})", where=label)
    if info.frames == 0:
        return AudioError("has no samples", where=label)
    return AudioFacts(str(utterance.pcm_sha256), int(info.samplerate), int(info.frames))


def _key(path: Path) -> _Key | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)  # noqa: PTH100 - Path.absolute keeps ".."


def _decode(utterance: Utterance) -> AudioFacts | AudioError:
    try:
        wave, rate = read_audio(utterance.path, name=f"utterance {utterance.id} ({utterance.path})")
    except AudioError as error:
        return error
    return AudioFacts(pcm_sha256(wave, rate), rate, len(wave))


def _facts(utterances: Sequence[Utterance], cache_dir: Path, workers: int | None) -> list[AudioFacts | AudioError]:
    if not utterances:
        return []
    folder = cache_dir / "fingerprints"
    index = _load(folder)
    found: list[AudioFacts | AudioError | None] = []
    missing: list[int] = []
    for position, utterance in enumerate(utterances):
        key = _key(utterance.path)
        found.append(index.get(key) if key is not None else None)
        if found[-1] is None:
            missing.append(position)
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(missing), _SAVE_EVERY):
            part = missing[start : start + _SAVE_EVERY]
            keys = [_key(utterances[position].path) for position in part]
            fresh: dict[_Key, AudioFacts] = {}
            decoded = pool.map(_decode, [utterances[position] for position in part])
            for position, key, fact in zip(part, keys, decoded, strict=True):
                found[position] = fact
                # A file that changed while it was read is hashed again next time.
                if isinstance(fact, AudioFacts) and key is not None and key == _key(utterances[position].path):
                    fresh[key] = fact
            _save(folder, fresh)
    _merge(folder)
    return [fact for fact in found if fact is not None]


def _segment_name(content: bytes) -> str:
    return f"pcm-{sha256(content).hexdigest()[:32]}.json"


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("pcm-*.json")) if folder.is_dir() else []


def _read_segment(path: Path) -> Iterator[tuple[_Key, AudioFacts]]:
    """Entries of one index file; a damaged one is named in a warning and removed, and its audio is decoded again."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return  # another process has merged it
    except OSError as error:
        _log.warning("%s: cannot be read (%s); the audio is decoded again", path, error.strerror)
        return
    if path.name != _segment_name(content):
        _log.warning("%s: is damaged (sha256 differs) and is removed; the audio is decoded again", path)
        with suppress(OSError):
            path.unlink()
        return
    for parent, files in json.loads(content)["folders"].items():
        for name, (size, mtime, digest, rate, samples) in files.items():
            yield (parent + os.sep + name, size, mtime), AudioFacts(digest, rate, samples)


def _load(folder: Path) -> dict[_Key, AudioFacts]:
    return {key: fact for path in _segments(folder) for key, fact in _read_segment(path)}


def _save(folder: Path, facts: dict[_Key, AudioFacts]) -> Path | None:
    """Write one index file, named by the hash of its content; None where there is nothing to write.

    Raises:
        StoreError: the folder cannot be written.
    """
    if not facts:
        return None
    folders: dict[str, dict[str, list[int | str]]] = {}
    for (path, size, mtime), fact in sorted(facts.items()):
        parent, _, name = path.rpartition(os.sep)
        folders.setdefault(parent, {})[name] = [size, mtime, fact.sha256, fact.rate, fact.samples]
    content = json.dumps({"format": _FORMAT, "folders": folders}, separators=(",", ":")).encode()
    target = folder / _segment_name(content)
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".new-", suffix=".json", dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
        raise StoreError(
            f"cannot keep the hashes of the audio ({error.strerror})",
            where=str(folder),
            hint="Free some space, or name another cache folder",
        ) from error
    return target


def _merge(folder: Path) -> None:
    """Rewrite many index files as one; those that went into it are removed after it is in place."""
    paths = _segments(folder)
    if len(paths) <= _MERGE_ABOVE:
        return
    everything = {key: fact for path in paths for key, fact in _read_segment(path)}
    newest = {key[0]: key for key in sorted(everything, key=lambda k: k[2])}
    merged = _save(folder, {key: everything[key] for key in newest.values()})
    for path in paths:
        if path != merged:
            path.unlink(missing_ok=True)
