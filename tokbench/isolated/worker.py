"""A worker that outlives its processes: requests go to a child, which is started again where it died.

An utterance on which it dies twice is given up, and remembered; a worker that dies on several utterances in a row, or
cannot be started, is given up as a whole.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.errors import DependencyError, ItemError, MissingWeights
from tokbench.isolated.child.wire import PROTOCOL, WireError, read_arrays, write_arrays
from tokbench.isolated.process import ChildProcess, WorkerDied

__all__ = ["BadWorker", "Limits", "Reply", "Start", "Worker"]

log = logging.getLogger("tokbench.isolated")

_TRIES = 2
_LOST_IN_A_ROW = 4
_NO_ARRAYS: Mapping[str, npt.NDArray[np.generic]] = {}


class BadWorker(DependencyError):
    """The environment, the backend or the weights of an isolated tokenizer do not work."""


@dataclass(frozen=True)
class Limits:
    """How long a child may take, in seconds.

    Attributes:
        start_s: to import its libraries and load the model.
        item_s: for one utterance.
        silence_s: without a heartbeat, of which there are eight in that time.
    """

    start_s: float = 900.0
    item_s: float = 600.0
    silence_s: float = 120.0


@dataclass(frozen=True)
class Start:
    """What a child is started with.

    Attributes:
        python: interpreter of the environment.
        backend: file of the backend's module.
        packages: name -> version that the environment is known to have; a change is refused.
        facts: what the loaded model must be, compared with what the backend says.
        options: the rest of `child.contract.Options`.
        remedy: what to type when the environment is at fault.
    """

    python: Path
    backend: Path
    packages: dict[str, str]
    facts: dict[str, Any]
    options: dict[str, Any]
    remedy: str


@dataclass(frozen=True)
class Reply:
    """Arrays by name, and a JSON-able record."""

    arrays: dict[str, npt.NDArray[np.generic]]
    record: dict[str, Any] = field(default_factory=dict)


class Worker:
    """Requests to one backend, in one environment.

    Args:
        name: the tokenizer's, for messages.
        start: how to start a child.
        limits: how long it may take.

    Raises:
        BadWorker: it cannot be started, or is not what the card declares.
        MissingWeights: the checkpoint is absent or unusable.
    """

    def __init__(self, name: str, start: Start, limits: Limits) -> None:
        self.name, self._start, self._limits = name, start, limits
        self._child: ChildProcess | None = None
        self._request = 0
        self._given_up: dict[str, str] = {}
        self._lost = 0
        self.restarts = -1
        self._running()

    def ask(self, op: str, arrays: Mapping[str, npt.NDArray[np.generic]] = _NO_ARRAYS, **fields: Any) -> Reply:
        """Send one request and wait for its reply.

        Args:
            op: a method of the backend, see `child.contract`.
            arrays: what it works on.
            fields: JSON-able facts of the request.

        Raises:
            ItemError: this utterance cannot be processed, or two children died on it.
            BadWorker: the worker does not work at all.
            MissingWeights: of loading, after a restart.
        """
        key = _digest(op, arrays, fields)
        if key in self._given_up:
            raise ItemError(self._given_up[key])
        for left in reversed(range(_TRIES)):
            child = self._running()
            try:
                reply = self._exchange(child, op, arrays, fields)
            except WorkerDied as error:
                self.close()
                if left:
                    log.warning("%s; it is started again", error)
                    continue
                self._given_up[key] = f"{error}; it died {_TRIES} times on this utterance"
                self._lost += 1
                if self._lost >= _LOST_IN_A_ROW:
                    raise BadWorker(
                        f"{error}; so ended {self._lost} utterances in a row", hint=self._start.remedy
                    ) from None
                raise ItemError(self._given_up[key]) from None
            self._lost = 0
            return reply
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """End the child; the next request starts another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _exchange(
        self, child: ChildProcess, op: str, arrays: Mapping[str, npt.NDArray[np.generic]], fields: dict[str, Any]
    ) -> Reply:
        self._request += 1
        names = write_arrays(str(child.folder), f"q{self._request}", dict(arrays))
        child.send({"id": self._request, "op": op, "arrays": names, **fields})
        message = self._answer(child, limit_s=self._limits.item_s, doing=f"when asked to {op}")
        try:
            return Reply(read_arrays(str(child.folder), message.get("arrays", {})), dict(message.get("record", {})))
        except WireError as error:
            raise WorkerDied(f"{self.name}: its worker lost the thread: {error}") from None

    def _running(self) -> ChildProcess:
        if self._child is None:
            try:
                self._child = self._started()
            except WorkerDied as error:
                raise BadWorker(str(error), hint=self._start.remedy) from None
            self.restarts += 1
        return self._child

    def _started(self) -> ChildProcess:
        start, limits = self._start, self._limits
        child = ChildProcess(start.python, name=self.name)
        try:
            self._request += 1
            child.send(
                {"id": self._request, "op": "load", "protocol": PROTOCOL, "beat_s": limits.silence_s / 8,
                 "backend": str(start.backend), "name": self.name, **start.options}
            )  # fmt: skip
            message = self._answer(child, limit_s=limits.start_s, doing="while it loaded")
            self._check(message)
        except BaseException:
            child.close()
            raise
        return child

    def _answer(self, child: ChildProcess, *, limit_s: float, doing: str) -> dict[str, Any]:
        """The reply to the last request; what the child refused becomes an error of ours."""
        message = child.receive(limit_s=limit_s, silence_s=self._limits.silence_s, doing=doing)
        if message.get("id") != self._request:
            raise WorkerDied(
                f"{self.name}: its worker lost the thread: it answered request {message.get('id')}, not {self._request}"
            )
        error = message.get("error")
        if error is None:
            return message
        what, where = str(error["what"]), error["where"] or self.name
        if error["kind"] == "weights":
            raise MissingWeights(what, where=where, hint=error["hint"])
        if error["kind"] == "library" or self._child is None:
            raise BadWorker(what, where=where, hint=error["hint"] or self._start.remedy)
        raise ItemError(what, hint=error["hint"])

    def _check(self, message: dict[str, Any]) -> None:
        """The child speaks our protocol, has the packages it was made with, and loaded what the card declares."""
        if message.get("protocol") != PROTOCOL:
            raise BadWorker(f"{self.name}: its worker speaks protocol {message.get('protocol')}, not {PROTOCOL}")
        installed = message.get("packages", {})
        for package, version in self._start.packages.items():
            if installed.get(package) != version:
                raise BadWorker(
                    f"{self.name}: its environment has {package} {installed.get(package, 'no more')}, "
                    f"it was made with {version}",
                    hint=self._start.remedy,
                )
        facts = message.get("facts", {})
        for key, value in self._start.facts.items():
            if key in facts and facts[key] != value:
                raise MissingWeights(
                    f"the loaded model has {key} {facts[key]}, the card of {self.name} declares {value}",
                    hint="Give the weights of the variant that the card names",
                )


def _digest(op: str, arrays: Mapping[str, npt.NDArray[np.generic]], fields: dict[str, Any]) -> str:
    digest = hashlib.sha256(f"{op} {sorted(fields.items())}".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
