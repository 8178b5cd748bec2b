"""`tokbench data get`: official archives, downloaded with resume, checked, and unpacked split by split.

A split lies in `<data folder>/<card>/<split>/` with a marker file inside. The folder gets this name when it is
complete, so what is half done is never taken for data. An interrupted download goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from tokbench.config import Archive, DatasetCard
from tokbench.data.http import HostNotFound, Response, request
from tokbench.data.load import COMPLETE, fetched_splits
from tokbench.data.places import data_folder
from tokbench.data.unpack import unpack
from tokbench.errors import DatasetError

__all__ = ["FetchProgress", "download", "fetch_dataset", "verify"]

_BLOCK = 1 << 18
_UNPACKED_FACTOR = 2.0
"""Room for the unpacked files, in sizes of the archive: FLAC hardly shrinks in gzip, wave files by less than half."""


@dataclass(frozen=True)
class FetchProgress:
    """How far one archive is.

    Attributes:
        split: of the archive.
        stage: "download", "check" or "unpack".
        done: bytes.
        total: bytes, None where unknown.
    """

    split: str
    stage: str
    done: int
    total: int | None


Callback = Callable[[FetchProgress], None]


def fetch_dataset(
    card: DatasetCard,
    *,
    splits: Iterable[str] | None = None,
    folder: Path | None = None,
    progress: Callback | None = None,
    keep_archives: bool = False,
    attempts: int = 8,
    timeout: float = 60.0,
) -> dict[str, Path]:
    """Download, check and unpack splits of a corpus; those that are complete are left alone.

    Args:
        card: lists the archives.
        splits: which ones; None for all.
        folder: the data folder; `tokbench.data.places.data_folder()` by default.
        progress: called during downloads, checks and unpacking.
        keep_archives: keep the archive after it is unpacked.
        attempts: tries in a row that bring no byte before the download is given up.
        timeout: seconds without an answer before the connection counts as broken.

    Returns:
        Split -> its folder.

    Raises:
        DatasetError: no such split, no checksum on the card, no room, an address that does not answer, another content
            than the checksum promises (the file is set aside), or an unsafe archive.
    """
    by_split = {archive.split: archive for archive in card.archives}
    wanted = list(by_split) if splits is None else list(dict.fromkeys(splits))
    if not by_split:
        raise DatasetError(f"{card.name} has nothing to download", hint="Name your own copy as READER:FOLDER")
    for split in wanted:
        if split not in by_split:
            raise DatasetError(f"{card.name} has no split '{split}'", hint=f"There are {', '.join(by_split)}")
        if not (by_split[split].sha256 or by_split[split].md5):
            raise DatasetError(
                f"the archive of '{split}' has no checksum on the card, and is not downloaded",
                where=f"dataset {card.name}",
                hint=f"Fetch {by_split[split].url} yourself and name the folder",
            )
    base = (folder or data_folder()) / card.name
    there = fetched_splits(card.name, folder=folder)
    for split in wanted:
        if split in there:
            continue
        archive = by_split[split]
        if (base / split).exists():
            raise DatasetError(
                "is in the way: it was not made by `tokbench data get`",
                where=str(base / split),
                hint=f"Move it away, or use it as {card.name}:{base / split}",
            )
        downloads = _made(base / ".downloads")
        with _lock(downloads / f"{split}.lock"):
            for left_over in base.glob(f".unpacking-{split}-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            path = download(archive, downloads, progress=progress, attempts=attempts, timeout=timeout)
            marker = {"archive": archive.model_dump(), "fetched": datetime.now(UTC).isoformat(timespec="seconds")}
            report = _reporter(progress, split)("unpack")
            unpack(path, base / split, marker=(COMPLETE, json.dumps(marker, indent=1)), progress=report)
            if not keep_archives:
                path.unlink()
    there = fetched_splits(card.name, folder=folder)
    return {split: there[split] for split in wanted}


def download(
    archive: Archive,
    folder: Path,
    *,
    progress: Callback | None = None,
    attempts: int = 8,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Download one archive into `folder`, or go on with what is there, and check it.

    The bytes go to `NAME.part`; the file is called `NAME` when its checksum is right. A file with the wrong checksum is
    called `NAME.wrong` and never used.

    Args:
        archive: address, checksum, size.
        folder: is made.
        progress: called for every block.
        attempts: tries in a row that bring no byte before it is given up.
        timeout: seconds.
        pause: seconds before the second try; doubled for each further one, at most 30.

    Raises:
        DatasetError: see `fetch_dataset`.
    """
    name = unquote(urlsplit(archive.url).path.rpartition("/")[2])
    if urlsplit(archive.url).scheme not in ("http", "https") or name in ("", ".", "..") or "/" in name:
        raise DatasetError("is not the address of a file", where=archive.url)
    target, part = folder / name, folder / f"{name}.part"
    report = _reporter(progress, archive.split)
    _made(folder)
    try:
        with _lock(folder / f"{name}.lock"):
            if not target.is_file():
                _check_room(archive, folder, part)
                _transfer(archive, part, report("download"), attempts, timeout, pause)
                verify(part, archive, progress=report("check"))
                part.replace(target)
                _tag_file(part).unlink(missing_ok=True)
            else:
                verify(target, archive, progress=report("check"))
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror or error})",
            where=str(folder),
            hint="Free some space, or set TOKBENCH_DATA to another disk; the download goes on where it stopped",
        ) from error
    return target


def verify(path: Path, archive: Archive, *, progress: Callable[[int, int | None], None] | None = None) -> None:
    """Compare a file with every checksum of the card; a wrong one is renamed to `NAME.wrong`.

    Raises:
        DatasetError: another content.
    """
    wanted = {"sha256": archive.sha256, "md5": archive.md5}
    digests = {k: hashlib.new(k, usedforsecurity=k != "md5") for k, value in wanted.items() if value}
    if not digests:
        raise DatasetError("has no checksum to compare with", where=archive.url)
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK * 16):
            for digest in digests.values():
                digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    for kind, digest in digests.items():
        if digest.hexdigest() != wanted[kind]:
            aside = path.with_name(path.name.removesuffix(".part") + ".wrong")
            path.replace(aside)
            _tag_file(path).unlink(missing_ok=True)
            raise DatasetError(
                f"the {kind} is {digest.hexdigest()}, the card says {wanted[kind]}; the file is set aside as {aside}",
                where=archive.url,
                hint="Try again; if it stays so, the publisher has changed the file",
            )


def _reporter(progress: Callback | None, split: str) -> Callable[[str], Callable[[int, int | None], None]]:
    def of(stage: str) -> Callable[[int, int | None], None]:
        def report(done: int, total: int | None) -> None:
            if progress is not None:
                progress(FetchProgress(split, stage, done, total))

        return report

    return of


def _check_room(archive: Archive, folder: Path, part: Path, size: int | None = None) -> None:
    size = size or archive.size
    if size is None:
        return
    have = part.stat().st_size if part.is_file() else 0
    need = max(0, size - have) + int(_UNPACKED_FACTOR * size)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DatasetError(
            f"needs about {need / 1e9:.1f} GB to download and unpack, {free / 1e9:.1f} GB are free",
            where=str(folder),
            hint="Free some space, or set TOKBENCH_DATA to another disk",
        )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"cannot be made ({error.strerror})", where=str(folder), hint="Set TOKBENCH_DATA to a folder of yours"
        ) from error
    return folder


def _tag_file(part: Path) -> Path:
    """Where the server's name for this version of the file (ETag or date) is kept."""
    return part.with_name(part.name + ".tag")


def _transfer(
    archive: Archive,
    part: Path,
    report: Callable[[int, int | None], None],
    attempts: int,
    timeout: float,
    pause: float,
) -> None:
    """Append to `part` until it is as long as the server says; every byte gained renews the attempts."""
    failures = 0
    gained = False
    reason = "it was never tried"
    while failures < attempts:
        if failures:
            time.sleep(min(30.0, pause * 2 ** (failures - 1)))
        before = part.stat().st_size if part.is_file() else 0
        if archive.size is not None and before == archive.size:
            return
        try:
            with request(archive.url, start=before, tag=_tag(part), timeout=timeout) as response:
                if response.complete:
                    return
                _check_announced(archive, response, part)
                _append(response, part, report)
                size = part.stat().st_size
                if response.total is None or size == response.total:
                    return
                reason = f"the connection broke after {size} of {response.total} bytes"
        except ConnectionError as error:
            reason = str(error)
            if isinstance(error, HostNotFound) and not gained:
                break  # offline: waiting would only hide it
        after = part.stat().st_size if part.is_file() else 0
        gained = gained or after > before
        failures = 1 if after > before else failures + 1
    have = part.stat().st_size if part.is_file() else 0
    raise DatasetError(
        f"cannot be downloaded ({reason})",
        where=archive.url,
        hint=f"Try again later: {have} bytes are kept, and the download goes on from there",
    )


def _tag(part: Path) -> str | None:
    path = _tag_file(part)
    return path.read_text(encoding="utf-8") or None if path.is_file() else None


def _check_announced(archive: Archive, response: Response, part: Path) -> None:
    if archive.size is not None and response.total is not None and response.total != archive.size:
        raise DatasetError(
            f"the server announces {response.total} bytes, the card says {archive.size}",
            where=archive.url,
            hint="The publisher has changed the file, or something stands between: open the address in a browser",
        )
    if archive.size is None:
        _check_room(archive, part.parent, part, response.total)


def _append(response: Response, part: Path, report: Callable[[int, int | None], None]) -> None:
    """Write the body behind the first `response.start` bytes of `part`; a broken connection keeps what came."""
    _tag_file(part).write_text(response.tag or "", encoding="utf-8")
    with part.open("r+b" if part.is_file() else "wb") as file:
        file.truncate(response.start)
        file.seek(response.start)
        done = response.start
        for block in response.blocks(_BLOCK):
            file.write(block)
            done += len(block)
            report(done, response.total)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep a second process from writing the same download; the lock ends with the process, however it ends."""
    with path.open("a") as handle:
        _claim(handle, path)
        yield


def _claim(handle: IO[str], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(
            "is being downloaded by another process", where=str(path.with_suffix("")), hint="Wait for it to end"
        ) from None
