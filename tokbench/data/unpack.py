"""Unpacking archives that came from elsewhere: nothing may be written outside the folder, nothing half is left.

The archive is unpacked into a temporary folder beside the target, which gets its final name only when all is there.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tokbench.errors import DatasetError

__all__ = ["unpack"]

Progress = Callable[[int, int | None], None]
"""`(done, total)` in bytes of unpacked files; the total is None where the format does not tell it."""

_BLOCK = 1 << 20
_HAS_FILTER = hasattr(tarfile, "data_filter")


def unpack(
    archive: Path, target: Path, *, marker: tuple[str, str] | None = None, progress: Progress | None = None
) -> int:
    """Unpack a tar (plain, gz, bz2, xz) or zip file as the folder `target`.

    Args:
        archive: the file.
        target: folder that must not exist yet; it appears complete, or not at all.
        marker: name and content of a file that is written into it last.
        progress: called as files are written.

    Returns:
        Number of files.

    Raises:
        DatasetError: not an archive, damaged, an unsafe entry (absolute, `..`, a link that leaves the folder, a
            device), or a full disk. Nothing is left behind.
    """
    if target.exists():
        raise DatasetError("is there already", where=str(target), hint="Remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".unpacking-{target.name}-", dir=target.parent))
    temporary.chmod(0o755)
    try:
        if zipfile.is_zipfile(archive):
            files = _unzip(archive, temporary, progress)
        elif tarfile.is_tarfile(archive):
            files = _untar(archive, temporary, progress)
        else:
            raise DatasetError("is neither a tar nor a zip file", where=str(archive))
        if marker is not None:
            name, content = marker
            with (temporary / name).open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise DatasetError(f"is damaged ({error})", where=str(archive), hint="Remove it and fetch it again") from error
    except OSError as error:
        raise DatasetError(
            f"cannot be unpacked ({error.strerror or error})",
            where=str(archive),
            hint=f"Check the space and the rights of {target.parent}",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return files


def _refuse(archive: Path, name: str, why: str) -> DatasetError:
    return DatasetError(f"holds the unsafe entry '{name}' ({why})", where=str(archive), hint="Do not use this archive")


def _check_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not name or "\0" in name:
        raise _refuse(archive, name, "it has no proper name")
    if path.is_absolute() or "\\" in name or (len(name) > 1 and name[1] == ":"):
        raise _refuse(archive, name, "its path is not relative")
    if ".." in path.parts:
        raise _refuse(archive, name, "it leaves the folder")
    return path


def _stays_inside(start: PurePosixPath, link: str) -> bool:
    """Whether a link target, seen from the folder `start`, stays below the root at every step."""
    if PurePosixPath(link).is_absolute():
        return False
    depth = len(start.parts)
    for part in PurePosixPath(link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _check_tar(archive: Path, member: tarfile.TarInfo) -> None:
    path = _check_name(archive, member.name)
    if member.issym() and not _stays_inside(path.parent, member.linkname):
        raise _refuse(archive, member.name, f"it links to {member.linkname}")
    if member.islnk():
        _check_name(archive, member.linkname)
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise _refuse(archive, member.name, "it is a device or a pipe")


def _untar(archive: Path, folder: Path, progress: Progress | None) -> int:
    files, done = 0, 0
    with tarfile.open(archive, "r:*") as tar:
        if _HAS_FILTER:
            # The library's own filter follows links on the disk, which names alone cannot show.
            tar.extraction_filter = tarfile.data_filter
        for member in tar:
            _check_tar(archive, member)
            if not _HAS_FILTER and (member.issym() or member.islnk()):
                raise _refuse(archive, member.name, "links need Python 3.11.4 or newer")
            try:
                tar.extract(member, folder)
            except tarfile.FilterError as error:
                raise _refuse(archive, member.name, str(error)) from error
            files += not member.isdir()
            done += member.size
            if progress is not None:
                progress(done, None)
    return files


def _unzip(archive: Path, folder: Path, progress: Progress | None) -> int:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        total = sum(entry.file_size for entry in entries)
        free = shutil.disk_usage(folder).free
        if total > free:
            raise DatasetError(
                f"unpacks to {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                where=str(folder.parent),
                hint="Free some space, or set TOKBENCH_DATA to another disk",
            )
        for entry in entries:
            _check_name(archive, entry.orig_filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse(archive, entry.filename, "it is a link or a device")
            if entry.flag_bits & 1:
                raise DatasetError(f"'{entry.filename}' is encrypted", where=str(archive))
        files, done = 0, 0
        for entry in entries:
            path = folder / entry.filename
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, path.open("xb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            files += 1
            done += entry.file_size
            if progress is not None:
                progress(done, total)
    return files
