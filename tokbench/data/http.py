"""One HTTP download request that may begin in the middle of the file, on the standard library alone."""

from __future__ import annotations

import http.client
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from tokbench.errors import DatasetError

__all__ = ["HostNotFound", "Response", "request"]

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class HostNotFound(ConnectionError):
    """The host name has no address: it is wrong, or this machine is offline."""


@dataclass
class Response:
    """The answer to a request for bytes from some position on.

    Attributes:
        start: position of the first byte of the body; 0 where the server ignored the wish.
        total: length of the whole file in bytes, None where the server does not say.
        tag: the server's name for this version of the file (a strong ETag, or its date), None where it has none.
        complete: True where there is nothing after the position.
    """

    start: int
    total: int | None
    tag: str | None
    complete: bool = False
    body: IO[bytes] | None = None

    def blocks(self, size: int) -> Iterator[bytes]:
        """The body in blocks.

        Raises:
            ConnectionError: the line broke; what was yielded before is good.
        """
        if self.body is None:
            return
        while True:
            try:
                block = self.body.read(size)
            except (http.client.HTTPException, OSError) as error:
                raise ConnectionError(f"the connection broke: {error}") from error
            if not block:
                return
            yield block


@contextmanager
def request(url: str, *, start: int, tag: str | None, timeout: float) -> Iterator[Response]:
    """Ask for `url` from byte `start` on.

    Args:
        url: http or https.
        start: bytes that are there already.
        tag: of the version that they belong to; the server then sends everything if the file has changed.
        timeout: seconds without an answer.

    Raises:
        ConnectionError: worth another try.
        HostNotFound: a ConnectionError; this machine may be offline.
        DatasetError: not worth another try (not found, forbidden).
    """
    headers = {"User-Agent": "tokbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag:
            headers["If-Range"] = tag
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                total = _total(error.headers.get("Content-Range"))
                # Beyond the end: complete where the length is the same, otherwise from the beginning.
                if total == start:
                    yield Response(start, total, tag, complete=True)
                    return
                with request(url, start=0, tag=None, timeout=timeout) as again:
                    yield again
                return
            if error.code in _TRY_AGAIN:
                raise ConnectionError(f"the server answers {error.code} {error.reason}") from error
            raise DatasetError(
                f"the server answers {error.code} {error.reason}", where=url, hint="Check the address on the card"
            ) from error
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        kind = HostNotFound if isinstance(reason, socket.gaierror) else ConnectionError
        raise kind(f"no connection: {reason}") from error
    with answer:
        yield _response(answer, start)


def _response(answer: http.client.HTTPResponse, wanted: int) -> Response:
    etag = answer.headers.get("ETag")
    tag = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
    if answer.status == 206:
        match = re.match(r"bytes (\d+)-\d+/", answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) > wanted:
            raise ConnectionError("the server sent another part of the file than was asked for")
        start, total = int(match[1]), _total(answer.headers.get("Content-Range"))
    else:
        start, total = 0, None
    length = answer.headers.get("Content-Length")
    if total is None and length and length.isdecimal():
        total = start + int(length)
    return Response(start, total, tag, body=answer)


def _total(content_range: str | None) -> int | None:
    digits = (content_range or "").rpartition("/")[2]
    return int(digits) if digits.isdecimal() else None
