"""Archives that are unsafe, damaged or too large leave nothing behind."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tokbench.data.unpack import unpack as unpack_archive
from tokbench.errors import DatasetError


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "a/noise.bin", os.urandom(50_000))
    return path


def tar_with(path: Path, name: str, content: bytes = b"x", **fields: object) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "fine.txt", b"fine")
        add(tar, name, content, **fields)
    return path


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("/etc/evil", {}),
        ("../evil", {}),
        ("a/../../evil", {}),
        ("C:/evil", {}),
        ("a\\..\\evil", {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "../outside"}),
        ("a/link", {"type": tarfile.SYMTYPE, "linkname": "../../outside"}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "../outside"}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_unsafe_tar(tmp_path: Path, name: str, fields: dict[str, object]) -> None:
    content = b"" if "type" in fields else b"x"
    path = tar_with(tmp_path / "bad.tar.gz", name, content, **fields)
    with pytest.raises(DatasetError, match="unsafe entry"):
        unpack_archive(path, tmp_path / "out" / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar.gz", "out"]
    assert not list((tmp_path / "out").iterdir())


def test_chain_of_links_that_leaves_only_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "d", type=tarfile.SYMTYPE, linkname=".")
        add(tar, "e", type=tarfile.SYMTYPE, linkname="d/d/../..")
        add(tar, "e/evil", b"x")
    with pytest.raises(DatasetError, match="unsafe entry"):
        unpack_archive(path, tmp_path / "out" / "target")
    assert not (tmp_path / "out" / "evil").exists()


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "a.tar.gz", "a/link", b"", type=tarfile.SYMTYPE, linkname="../fine.txt")
    assert unpack_archive(path, tmp_path / "target") == 2
    assert (tmp_path / "target" / "a" / "link").read_text() == "fine"


@pytest.mark.parametrize(
    ("name", "mode"),
    [("../evil", 0), ("/evil", 0), ("a\\..\\evil", 0), ("link", stat.S_IFLNK | 0o777), ("pipe", stat.S_IFIFO)],
)
def test_unsafe_zip(tmp_path: Path, name: str, mode: int) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("fine.txt", "fine")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="unsafe entry"):
        unpack_archive(path, tmp_path / "out" / "target")
    assert not list((tmp_path / "out").iterdir())


def test_good_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("txt/p225/", "")
        packed.writestr("txt/p225/p225_001.txt", "Stella")
    seen: list[tuple[int, int | None]] = []
    assert unpack_archive(path, tmp_path / "t", marker=("m", "{}"), progress=lambda *a: seen.append(a)) == 1
    assert (tmp_path / "t" / "txt" / "p225" / "p225_001.txt").read_text() == "Stella"
    assert seen == [(6, 6)]
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o755
    with pytest.raises(DatasetError, match="is there already"):
        unpack_archive(path, tmp_path / "t")


def test_damaged_archives(tmp_path: Path, good: Path) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(good.read_bytes()[:25_000])
    flipped = tmp_path / "flipped.zip"
    with zipfile.ZipFile(flipped, "w") as packed:
        packed.writestr("a.txt", "a" * 1000)
    content = bytearray(flipped.read_bytes())
    content[500] ^= 1
    flipped.write_bytes(content)
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"<html>not found</html>")
    for path, message in ((cut, "is damaged"), (flipped, "is damaged"), (other, "neither a tar nor a zip")):
        with pytest.raises(DatasetError, match=message):
            unpack_archive(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".unpacking*"))


def test_full_disk_while_unpacking(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(DatasetError, match="No space left"):
        unpack_archive(good, tmp_path / "out")
    assert not list(tmp_path.glob(".unpacking*"))
