"""Fixtures shared by all tests: no network, the development data beside the repository, small waves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_socket

from tokbench.types import Wave

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("TOKBENCH_SHARED", REPOSITORY.parent / "shared"))

# Two cores, several workers: one thread each, before numpy or torch start their pools.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _no_network() -> None:
    """Refuse every connection that leaves this machine; loopback serves MLflow, download and browser tests."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "localhost", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _no_lazy_modules() -> Iterator[None]:
    """SpeechBrain leaves modules that raise when looked at, and hypothesis looks at every module."""
    yield
    if "speechbrain" in sys.modules:
        kinds = {name: [base.__name__ for base in type(module).__mro__] for name, module in sys.modules.items()}
        for name in [name for name, bases in kinds.items() if "LazyModule" in bases]:
            del sys.modules[name]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data and parity fixtures beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"development data is not at {SHARED} (set TOKBENCH_SHARED)")
    return SHARED


@pytest.fixture
def tone() -> Wave:
    """One second of a 220 Hz tone with harmonics at 16 kHz."""
    t = np.arange(16000) / 16000
    return (0.3 * sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 6))).astype(np.float32)
