"""Answer requests until the parent hangs up; a thread of heartbeats says that this process is alive meanwhile."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from tokbench_worker.contract import Options, Refusal
from tokbench_worker.wire import PROTOCOL, pack_message, read_arrays, unpack_message, write_arrays

__all__ = ["serve"]


class _Replies:
    """The pipe to the parent, shared by the main thread and the heartbeats."""

    def __init__(self, descriptor: int, folder: str) -> None:
        self._descriptor = descriptor
        self._folder = folder
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        line = pack_message(message)
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                # The parent is gone, and so is whoever wanted the answer or would have tidied up.
                shutil.rmtree(self._folder, ignore_errors=True)
                os._exit(0)


def serve(requests: int, replies: int, folder: str) -> None:
    """Serve one parent.

    Args:
        requests, replies: file descriptors.
        folder: where arrays are exchanged.
    """
    for descriptor in (requests, replies):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    out = _Replies(replies, folder)
    backend: Any = None
    for line in _lines(requests):
        message = unpack_message(line)
        request = message["id"]
        try:
            if message["op"] == "load":
                _beat(out, float(message["beat_s"]))
                _check_protocol(message)
                backend = _load(message)
                out.send({"id": request, "protocol": PROTOCOL, "facts": dict(backend.facts), **_versions()})
                continue
            arrays = read_arrays(folder, message.get("arrays", {}))
            made, record = _answer(backend, message, arrays)
            names = write_arrays(folder, f"r{request}", made)
            out.send({"id": request, "arrays": names, "record": record})
        except Refusal as error:
            refusal = {"kind": error.kind, "what": error.what, "where": error.where, "hint": error.hint}
            out.send({"id": request, "error": refusal})
        except ModuleNotFoundError as error:
            traceback.print_exc()
            what = f"needs the package '{error.name}', which is not in its environment"
            out.send({"id": request, "error": {"kind": "library", "what": what, "where": None, "hint": None}})
        except Exception as error:  # noqa: BLE001 - a library raises anything; the parent decides what it means
            traceback.print_exc()
            last = str(error).strip().splitlines() or [""]
            what = f"{type(error).__name__}: {last[0]}"
            out.send({"id": request, "error": {"kind": "failed", "what": what, "where": None, "hint": None}})

    shutil.rmtree(folder, ignore_errors=True)


def _lines(descriptor: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as pipe:
        yield from pipe


def _beat(out: _Replies, seconds: float) -> None:
    def run() -> None:
        while True:
            time.sleep(seconds)
            out.send({"beat": round(time.monotonic(), 3)})

    threading.Thread(target=run, daemon=True).start()


def _check_protocol(message: dict[str, Any]) -> None:
    if message["protocol"] != PROTOCOL:
        raise Refusal(f"speaks protocol {PROTOCOL}, the parent {message['protocol']}")


def _load(message: dict[str, Any]) -> Any:
    """The backend from its file, whatever package that lies in on the other side."""
    spec = importlib.util.spec_from_file_location("tokbench_backend", message["backend"])
    if spec is None or spec.loader is None:
        raise Refusal("there is no backend at {}".format(message["backend"]))
    module = importlib.util.module_from_spec(spec)
    sys.modules["tokbench_backend"] = module
    spec.loader.exec_module(module)
    return module.load(Options(message))


def _versions() -> dict[str, Any]:
    from importlib.metadata import distributions

    packages: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:
            # The first on the path is the one that is imported.
            packages.setdefault(name.lower().replace("_", "-"), distribution.version)
    return {"python": platform.python_version(), "packages": packages}


def _answer(backend: Any, message: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Arrays and a record of one request."""
    op = message["op"]
    if backend is None:
        raise Refusal(f"was asked to {op} before it had loaded anything")
    if not hasattr(backend, op):
        raise Refusal(f"does not know how to {op}")
    if op == "encode":
        made = backend.encode(arrays["wave"])
        found = {"stream/" + name: array for name, array in made["streams"].items()}
        found.update({"global/" + name: array for name, array in made.get("globals", {}).items()})
        record = {key: int(made[key]) for key in ("n_samples_coded", "side_info_bits") if made.get(key) is not None}
        return found, record
    if op == "decode":
        streams = {name[7:]: array for name, array in arrays.items() if name.startswith("stream/")}
        globals_ = {name[7:]: array for name, array in arrays.items() if name.startswith("global/")}
        return {"wave": backend.decode(streams, globals_, int(message["n_samples"]))}, {}
    if op == "features":
        return {"frames": backend.features(arrays["wave"], message["which"])}, {}
    return {"vectors": backend.codebook(message["stream"])}, {}
