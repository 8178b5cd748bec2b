"""A backend for tests: 3-bit samples at 8 kHz; its parameters make it crash, hang, chatter or lie."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tokbench_worker.contract import BadItem, BadWeights


class Backend:
    def __init__(self, options: Any) -> None:
        self.params = options.params
        vocab = self.params.get("says_vocab", 8)
        self.facts = {"input_rate": 8000, "output_rate": 8000, "streams": {"q0": vocab}, "globals": {}}

    def encode(self, wave: np.ndarray) -> dict[str, Any]:
        loud = float(np.abs(wave).max()) > 0.7
        if "chatter" in self.params:
            for _ in range(self.params["chatter"]):
                sys.stdout.write("{}" * 40 + "\n")
            sys.stdout.write("no end of line")
            os.write(1, b'\n{"id": 1}\n')
        if loud and self.params.get("on_loud") == "die":
            sys.stderr.write("about to die of noise\n")
            os._exit(9)
        if loud and self.params.get("on_loud") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if loud and self.params.get("on_loud") == "sleep":
            time.sleep(60)
        if loud and self.params.get("on_loud") == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if loud and self.params.get("on_loud") == "raise":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nin many lines")
        if loud and self.params.get("on_loud") == "refuse":
            raise BadItem("is too loud", hint="Turn it down")
        if loud and self.params.get("on_loud") == "once":
            flag = Path(self.params["flag"])
            if not flag.exists():
                flag.touch()
                os._exit(3)
        codes = np.clip(np.round((np.clip(wave, -1, 1) + 1) * 3.5), 0, 7).astype(np.int32)
        return {"streams": {"q0": codes}, "globals": {}, "n_samples_coded": len(wave)}

    def decode(self, streams: dict[str, Any], _globals: dict[str, Any], _n: int) -> np.ndarray:
        return (streams["q0"] / 3.5 - 1).astype(np.float32)

    def features(self, wave: np.ndarray, _which: str) -> np.ndarray:
        return np.stack([wave, -wave], axis=1).astype(np.float32)

    def codebook(self, _stream: str) -> np.ndarray:
        return (np.arange(8, dtype=np.float32)[:, None]) / 3.5 - 1


def load(options: Any) -> Backend:
    how = options.params.get("on_load")
    if how == "die":
        sys.stderr.write("no room for the model\n")
        os._exit(7)
    if how == "weights":
        raise BadWeights("lacks encoder.weight", where=options.weights, hint="Give another file")
    if how == "import":
        import a_package_that_nobody_has  # noqa: F401
    return Backend(options)
