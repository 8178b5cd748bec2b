"""One child process: its pipes, its last words, and how long it may be silent."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from tokbench.errors import TokbenchError
from tokbench.isolated.child.wire import WireError, pack_message, unpack_message

__all__ = ["ChildProcess", "WorkerDied"]

log = logging.getLogger("tokbench.isolated")

_SCRIPT = Path(__file__).parent / "child" / "start.py"
_LAST_LINES = 3
_LINE_CHARACTERS = 160
_CLOSING_SECONDS = 5.0


class WorkerDied(TokbenchError):
    """The child ended, hung or lost the thread; says how, with its last lines on standard error."""


class ChildProcess:
    """A child that `child/start.py` runs in, with pipes for messages and a private folder for arrays.

    Its standard output and error are drained all the time, so that a chatty library can neither block nor confuse it;
    the last lines are kept for error messages.

    Args:
        python: interpreter of the other environment.
        name: how errors name the child.
    """

    def __init__(self, python: Path, *, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="tokbench-worker-"))
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        try:
            self._process = subprocess.Popen(
                [str(python), "-B", "-s", "-u", str(_SCRIPT), str(requests), str(replies), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(requests, replies),
                env=_environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in (requests, self._requests, self._replies, replies):
                os.close(descriptor)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise WorkerDied(f"cannot be started: {error.strerror}", where=str(python)) from None
        os.close(requests)
        os.close(replies)
        self._buffer = b""
        self._beats = False
        self._words: deque[str] = deque(maxlen=_LAST_LINES)
        assert self._process.stdout is not None, "it was asked for a pipe"
        self._drain = threading.Thread(target=_drain, args=(self._process.stdout, self._words, name), daemon=True)
        self._drain.start()
        self.close = weakref.finalize(
            self, _close, self._process, (self._requests, self._replies), self.folder, self._drain
        )

    def send(self, message: dict[str, Any]) -> None:
        """Write one request.

        Raises:
            WorkerDied: nobody reads any more.
        """
        line = pack_message(message)
        try:
            while line:
                line = line[os.write(self._requests, line) :]
        except OSError:
            raise self._died() from None

    def receive(self, *, limit_s: float, silence_s: float, doing: str) -> dict[str, Any]:
        """The next reply.

        Args:
            limit_s: how long the answer may take in all.
            silence_s: how long the child may give no sign of life after its first heartbeat or answer.
            doing: what it was asked, for messages: "to encode".

        Raises:
            WorkerDied: it ended, fell silent, took too long, or wrote something that is no message.
        """
        start = heard = time.monotonic()
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                try:
                    message = unpack_message(line)
                except WireError as error:
                    raise WorkerDied(f"{self.name}: its worker lost the thread: {error}{self._last()}") from None
                # The heart starts before the first answer: from then on, silence means something.
                self._beats = True
                if "beat" in message:
                    continue
                return message
            now = time.monotonic()
            if now - start > limit_s:
                raise WorkerDied(
                    f"{self.name}: its worker took more than {limit_s:g} s {doing} and was stopped{self._last()}"
                )
            # Starting an interpreter and importing numpy can take long where the disk is busy: no beat, no silence.
            if self._beats and now - heard > silence_s:
                raise WorkerDied(
                    f"{self.name}: its worker hung {doing}, {silence_s:g} s without a sign of life{self._last()}"
                )
            patience = min(start + limit_s, heard + silence_s if self._beats else start + limit_s) - now
            ready, _, _ = select.select([self._replies], [], [], max(patience, 0.01))
            if ready:
                data = os.read(self._replies, 1 << 16)
                if not data:
                    raise self._died()
                self._buffer += data
                heard = time.monotonic()

    def _died(self) -> WorkerDied:
        try:
            code = self._process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerDied(f"{self.name}: its worker closed its pipes and went on{self._last()}")
        return WorkerDied(f"{self.name}: its worker died ({_cause(code)}){self._last()}")

    def _last(self) -> str:
        """The end of standard error, when what was on its way has arrived."""
        if self._process.poll() is not None:
            self._drain.join(1.0)
        said = [line for line in self._words if line]
        return f"; it last said: {' | '.join(said)}" if said else ", without a word"


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, often out of memory" if name == "SIGKILL" else name


def _drain(pipe: Any, words: deque[str], name: str) -> None:
    """Keep the last lines; a line without an end is cut, so that no amount of output costs memory."""
    with pipe, contextlib.suppress(ValueError, OSError):
        while data := pipe.readline(1 << 14):
            text = data.decode("utf-8", "replace").strip()
            if text:
                log.debug("%s: %s", name, text)
                words.append(text[-_LINE_CHARACTERS:])


def _environment() -> dict[str, str]:
    """Ours, without what would make another interpreter see our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")
    return {key: value for key, value in os.environ.items() if key not in ours}


def _close(
    process: subprocess.Popen[bytes], descriptors: tuple[int, int], folder: Path, drain: threading.Thread
) -> None:
    """Hang up, and end the child and whatever it started."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_CLOSING_SECONDS)
    drain.join(1.0)
    shutil.rmtree(folder, ignore_errors=True)
