"""Downloads against a server on this machine that cuts the line, ignores ranges, or sends the wrong bytes."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from tokbench.config import Archive, DatasetCard
from tokbench.data import fetch
from tokbench.data.fetch import FetchProgress, download, fetch_dataset
from tokbench.data.load import COMPLETE, load_dataset
from tokbench.errors import DatasetError


class Server(ThreadingHTTPServer):
    """Serves `content`; its behaviour is set by the tests."""

    content: bytes = b""
    cut_after: list[int | None]
    """Bytes after which each next answer breaks off; None or an empty list: not."""
    ranges = True
    etag: str | None = '"one"'
    status: list[int]
    requests: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.status:
            self.send_error(server.status.pop(0))
            return
        content, start = server.content, 0
        wish = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, server.etag)
        if wish and server.ranges and same:
            start = int(wish[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.cut_after.pop(0) if server.cut_after else None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server(("127.0.0.1", 0), Handler)
    server.cut_after, server.status, server.requests = [], [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Corpus(NamedTuple):
    content: bytes
    sha256: str


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """A small LibriSpeech split as tar.gz, about 300 kB."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 32000))
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        lines = ""
        for number, wave in enumerate(noise):
            audio = io.BytesIO()
            soundfile.write(audio, wave, 16000, format="FLAC")
            add(tar, f"LibriSpeech/dev-clean/84/1/84-1-{number:04d}.flac", audio.getvalue())
            lines += f"84-1-{number:04d} WORDS\n"
        add(tar, "LibriSpeech/dev-clean/84/1/84-1.trans.txt", lines.encode())
    content = buffer.getvalue()
    return Corpus(content, hashlib.sha256(content).hexdigest())


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def archive(server: Server, corpus: Corpus) -> Archive:
    server.content = corpus.content
    return Archive(
        url=f"{server.url}/dev-clean.tar.gz", sha256=corpus.sha256, size=len(corpus.content), split="dev-clean"
    )


def card_of(*archives: Archive) -> DatasetCard:
    return DatasetCard(
        name="librispeech", summary="s", reader="librispeech", archives=archives, licence="CC BY 4.0",
        splits=tuple(a.split for a in archives),
    )  # fmt: skip


# Downloads


def test_download(archive: Archive, tmp_path: Path, corpus: Corpus) -> None:
    seen: list[FetchProgress] = []
    path = download(archive, tmp_path, progress=seen.append)
    assert path.read_bytes() == corpus.content
    assert {p.stage for p in seen} == {"download", "check"}
    assert (seen[-1].done, seen[-1].total) == (len(corpus.content), len(corpus.content))
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == ["dev-clean.tar.gz"]


def test_broken_line_goes_on_where_it_stopped(archive: Archive, server: Server, tmp_path: Path, corpus: Corpus) -> None:
    server.cut_after = [100_000, 50_000, 1, None]
    path = download(archive, tmp_path, pause=0.001)
    assert path.read_bytes() == corpus.content
    assert [r.get("Range") for r in server.requests] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_next_run_goes_on_too(archive: Archive, server: Server, tmp_path: Path, corpus: Corpus) -> None:
    server.cut_after = [100_000, 0, 0]
    with pytest.raises(DatasetError, match=r"the connection broke.*100000 bytes are kept"):
        download(archive, tmp_path, attempts=2, pause=0.001)
    assert (tmp_path / "dev-clean.tar.gz.part").stat().st_size == 100_000
    assert not (tmp_path / "dev-clean.tar.gz").exists()
    server.cut_after, server.requests = [], []
    assert download(archive, tmp_path).read_bytes() == corpus.content
    assert [r["Range"] for r in server.requests] == ["bytes=100000-"]


def test_server_that_ignores_ranges(archive: Archive, server: Server, tmp_path: Path, corpus: Corpus) -> None:
    server.ranges = False
    server.cut_after = [100_000, 50_000]
    assert download(archive, tmp_path, pause=0.001).read_bytes() == corpus.content
    assert len(server.requests) == 3


def test_file_that_changed_between_two_parts_is_fetched_from_the_beginning(
    archive: Archive, server: Server, tmp_path: Path, corpus: Corpus
) -> None:
    server.content, server.etag, server.cut_after = b"x" * len(corpus.content), '"old"', [1000, 0]
    with pytest.raises(DatasetError):
        download(archive, tmp_path, attempts=1, pause=0.001)
    server.content, server.etag, server.cut_after = corpus.content, '"new"', []
    assert download(archive, tmp_path).read_bytes() == corpus.content


@pytest.mark.parametrize("known_size", [True, False])
def test_complete_part_is_not_asked_for_again(
    archive: Archive, server: Server, tmp_path: Path, corpus: Corpus, known_size: bool
) -> None:
    (tmp_path / "dev-clean.tar.gz.part").write_bytes(corpus.content)
    wanted = archive if known_size else archive.model_copy(update={"size": None})
    assert download(wanted, tmp_path).read_bytes() == corpus.content
    assert len(server.requests) == (0 if known_size else 1)


def test_part_longer_than_the_file_starts_again(archive: Archive, tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "dev-clean.tar.gz.part").write_bytes(corpus.content + b"more")
    assert download(archive, tmp_path).read_bytes() == corpus.content


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_wrong_bytes_are_set_aside(archive: Archive, server: Server, tmp_path: Path, corpus: Corpus, kind: str) -> None:
    wrong = bytearray(corpus.content)
    wrong[1000] ^= 1
    server.content = bytes(wrong)
    if kind == "md5":
        md5 = hashlib.md5(corpus.content).hexdigest()
        archive = archive.model_copy(update={"sha256": "", "md5": md5})
    with pytest.raises(DatasetError, match=f"the {kind} is .*set aside as .*dev-clean.tar.gz.wrong"):
        fetch_dataset(card_of(archive), folder=tmp_path)
    downloads = tmp_path / "librispeech" / ".downloads"
    assert (downloads / "dev-clean.tar.gz.wrong").read_bytes() == server.content
    assert not (downloads / "dev-clean.tar.gz").exists()
    assert not (tmp_path / "librispeech" / "dev-clean").exists()
    server.content = corpus.content
    assert fetch_dataset(card_of(archive), folder=tmp_path)["dev-clean"].is_dir()


def test_server_errors(archive: Archive, server: Server, tmp_path: Path, corpus: Corpus) -> None:
    server.status = [404]
    with pytest.raises(DatasetError, match="the server answers 404"):
        download(archive, tmp_path)
    assert len(server.requests) == 1
    server.status = [503, 429]
    assert download(archive, tmp_path, pause=0.001).read_bytes() == corpus.content


def test_other_length_than_the_card_says(archive: Archive, server: Server, tmp_path: Path) -> None:
    server.content += b"more"
    with pytest.raises(DatasetError, match=r"announces .* bytes, the card says"):
        download(archive, tmp_path)


def test_nobody_answers(archive: Archive, tmp_path: Path, server: Server) -> None:
    dead = archive.model_copy(update={"url": "http://127.0.0.1:9/dev-clean.tar.gz"})
    with pytest.raises(DatasetError, match=r"cannot be downloaded \(no connection"):
        download(dead, tmp_path, attempts=2, pause=0.001)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1/", "ftp://127.0.0.1/a.zip", "http://h/.."])
def test_strange_addresses(archive: Archive, tmp_path: Path, url: str) -> None:
    with pytest.raises(DatasetError, match="is not the address of a file"):
        download(archive.model_copy(update={"url": url}), tmp_path)


@pytest.mark.parametrize("known_size", [True, False])
def test_full_disk_is_said_before_the_download(
    archive: Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_size: bool
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    wanted = archive if known_size else archive.model_copy(update={"size": None})
    with pytest.raises(DatasetError, match=r"needs about .* GB to download and unpack.*TOKBENCH_DATA"):
        download(wanted, tmp_path)
    assert len(server.requests) == (0 if known_size else 1)
    assert not (tmp_path / "dev-clean.tar.gz.part").exists()


def test_two_at_once(archive: Archive, tmp_path: Path) -> None:
    with (
        fetch._lock(tmp_path / "dev-clean.tar.gz.lock"),
        pytest.raises(DatasetError, match="by another process"),
    ):
        download(archive, tmp_path)


def test_unwritable_folder(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="TOKBENCH_DATA"):
        download(archive, tmp_path / "file" / "below")


# Whole corpora


def test_fetch_and_load(archive: Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    seen: list[FetchProgress] = []
    found = fetch_dataset(card_of(archive), progress=seen.append)
    assert found == {"dev-clean": tmp_path / "librispeech" / "dev-clean"}
    assert [p.stage for p in seen][-1] == "unpack"
    marker = json.loads((found["dev-clean"] / COMPLETE).read_text())
    assert marker["archive"]["sha256"] == archive.sha256
    assert not list((tmp_path / "librispeech" / ".downloads").glob("*.tar.gz"))
    assert [u.id for u in load_dataset("librispeech:dev-clean").utterances] == [f"84-1-{n:04d}" for n in range(3)]
    server.requests.clear()
    assert fetch_dataset(card_of(archive)) == found
    assert not server.requests


def test_fetch_refuses(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'test'\. There are dev-clean"):
        fetch_dataset(card_of(archive), splits=["test"], folder=tmp_path)
    with pytest.raises(DatasetError, match="no checksum on the card"):
        fetch_dataset(card_of(archive.model_copy(update={"sha256": ""})), folder=tmp_path)
    with pytest.raises(DatasetError, match="nothing to download"):
        fetch_dataset(card_of(), folder=tmp_path)


def test_folder_in_the_way_is_said_before_the_download(archive: Archive, server: Server, tmp_path: Path) -> None:
    (tmp_path / "librispeech" / "dev-clean").mkdir(parents=True)
    with pytest.raises(DatasetError, match="dev-clean: is in the way"):
        fetch_dataset(card_of(archive), folder=tmp_path)
    assert not server.requests


def test_half_unpacked_is_never_taken_for_complete(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    card = card_of(archive)

    def dies(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_reporter", lambda *_: lambda stage: dies if stage == "unpack" else print)
    with pytest.raises(KeyboardInterrupt):
        fetch_dataset(card)
    assert not (tmp_path / "librispeech" / "dev-clean").exists()
    with pytest.raises(DatasetError, match="tokbench data get"):
        load_dataset("librispeech:dev-clean")
    # What a kill leaves behind is cleared away by the next run.
    left = tmp_path / "librispeech" / ".unpacking-dev-clean-abc"
    left.mkdir()
    monkeypatch.undo()
    assert fetch_dataset(card, folder=tmp_path)["dev-clean"].is_dir()
    assert not left.exists()
