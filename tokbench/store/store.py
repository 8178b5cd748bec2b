"""The artefact store: one file a unit, named by its key, written whole or not at all.

No lock and no database: a unit is written to a temporary name, fsynced and renamed, so that many workers, also on
NFS, may write the same unit at once and none can leave half of one. Every read compares a checksum; a damaged file is
moved aside, reported by name, and made again by the caller.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokbench.errors import StoreError
from tokbench.store.units import Payload, UnitKey, verified_body

__all__ = ["Entry", "Store", "default_store"]

log = logging.getLogger("tokbench.store")

_TOUCH_AFTER_S = 86_400.0


def default_store() -> Path:
    """`TOKBENCH_STORE`, or `tokbench/store` under the user's cache folder."""
    named = os.environ.get("TOKBENCH_STORE")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tokbench" / "store"


@dataclass(frozen=True)
class Entry:
    """One file of the store, for `tokbench cache ls`."""

    path: Path
    stage: str
    label: str
    size: int
    used: float
    """Last use, seconds since the epoch (to the day)."""


class Store:
    """Units on disk.

    Args:
        root: folder; made on first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: UnitKey) -> Path:
        """Where the unit of this key lies."""
        return self.root / key.stage / key.digest[:2] / f"{key.digest}.unit"

    def get(self, key: UnitKey) -> Payload | None:
        """The unit, or None where it is absent or was damaged (then it has been moved aside and reported)."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot be read ({error.strerror})", where=str(path)) from error
        try:
            payload, _ = Payload.from_bytes(data)
        except StoreError as error:
            self._set_aside(path, error.what)
            return None
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _TOUCH_AFTER_S:
                os.utime(path)
        return payload

    def put(self, key: UnitKey, payload: Payload) -> Path:
        """Write the unit whole; returns its path.

        Raises:
            StoreError: the disk is full or the folder cannot be written; nothing half-written is left.
        """
        path = self.path(key)
        data = payload.to_bytes(key)
        temporary = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StoreError(
                "the disk is full" if full else f"the store cannot be written ({error.strerror})",
                where=str(self.root),
                hint="Everything finished so far is kept: free some space (`tokbench cache gc`) "
                "or name another folder with --store, then run the same command again",
            ) from error
        return path

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = self.root / "damaged" / path.name
        log.warning("%s %s; it was moved to %s and will be made again", path, reason, aside)
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except FileNotFoundError:
            pass  # another worker moved it first
        except OSError as error:
            raise StoreError(f"is damaged and cannot be moved aside ({error.strerror})", where=str(path)) from error

    def files(self) -> Iterator[Path]:
        """Every unit's path, sorted."""
        yield from sorted(self.root.glob("*/??/*.unit"))

    def entries(self) -> Iterator[Entry]:
        """What is in the store; reads only each file's head, and compares no checksum."""
        for path in self.files():
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                yield Entry(path, path.parent.parent.name, _label(path), stat.st_size, stat.st_mtime)

    def verify(self) -> tuple[int, list[Path]]:
        """Compare every checksum; damaged units are moved aside. Returns (units read, damaged paths)."""
        damaged: list[Path] = []
        read = 0
        for path in self.files():
            read += 1
            try:
                verified_body(path.read_bytes())
            except FileNotFoundError:
                read -= 1  # removed by another worker meanwhile
            except StoreError as error:
                self._set_aside(path, error.what)
                damaged.append(path)
        return read, damaged

    def gc(self, *, older_than_s: float | None = None, max_bytes: int | None = None, stage: str | None = None) -> int:
        """Remove leftovers of killed writers, damaged files, and units by age, total size or stage.

        Args:
            older_than_s: remove units not used for so long.
            max_bytes: then remove the least recently used until the rest fits.
            stage: only units of this stage.

        Returns:
            Bytes freed.
        """
        freed = 0
        now = time.time()
        leftovers = [p for p in self.root.glob("tmp/*") if now - p.stat().st_mtime > _TOUCH_AFTER_S]
        for path in [*leftovers, *self.root.glob("damaged/*")]:
            freed += _remove(path)
        stats = sorted(
            ((p.stat().st_mtime, p.stat().st_size, p) for p in self.files() if stage in (None, p.parent.parent.name)),
            key=lambda entry: entry[0],
        )
        if older_than_s is None and max_bytes is None and stage is None:
            return freed
        total = sum(size for _, size, _ in stats)
        for used, size, path in stats:
            old = older_than_s is not None and now - used > older_than_s
            over = max_bytes is not None and total > max_bytes
            if old or over or (older_than_s is None and max_bytes is None):
                freed += _remove(path)
                total -= size
        return freed


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _label(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:  # a zip may have a prefix; only its directory is read
            return str(json.loads(archive.read("unit.json"))["label"])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile):
        return "(damaged)"
