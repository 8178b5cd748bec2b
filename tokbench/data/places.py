"""Where downloaded corpora and small indexes live on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder", "data_folder"]


def cache_folder() -> Path:
    """The user's cache folder for tokbench, by the customs of the platform; it need not exist."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tokbench"


def data_folder() -> Path:
    """Where `data get` puts corpora: `TOKBENCH_DATA`, or `data` in the cache folder."""
    return Path(os.environ.get("TOKBENCH_DATA") or cache_folder() / "data").expanduser()
