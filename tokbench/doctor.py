"""What works on this machine, and what to type for the rest."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from tokbench.config import JudgeCard, TokenizerCard
from tokbench.errors import TokbenchError
from tokbench.manifest import resolve_device
from tokbench.registry import find_card, import_object, names

__all__ = ["Check", "diagnose"]

_LOW_DISK_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    mark: Literal["✓", "✗", "-"]
    what: str
    fatal: bool = False


def diagnose(store: Path, device: str) -> list[Check]:
    """Look at Python, torch, the device, the disk, and which tokenizers and judges have what they need here."""
    found = [_python(), _torch(device), _disk(store)]
    found += [_package(name, why) for name, why in _OPTIONAL]
    found += _cards(TokenizerCard) + _cards(JudgeCard)
    return found


_OPTIONAL = (
    ("faster-whisper", "embedded ASR judge; tokbench[mini]"),
    ("mlflow", "run tracking; tokbench[mini]"),
    ("transformers", "hub judges and SSL features; tokbench[judges]"),
    ("ray", "--engine ray; tokbench[ray]"),
    ("flash-attn", "faster attention on CUDA; tokbench[flash]"),
)


def _python() -> Check:
    current = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    return Check("✓" if fine else "✗", f"Python {current}" + ("" if fine else ": 3.11 or newer is needed"), not fine)


def _torch(device: str) -> Check:
    try:
        torch_version, audio = version("torch"), _version("torchaudio")
    except PackageNotFoundError:
        return Check("-", 'torch is not installed: python -m pip install "tokbench[mini]"')
    if audio is not None and torch_version.split("+")[0].rsplit(".", 1)[0] != audio.split("+")[0].rsplit(".", 1)[0]:
        return Check(
            "✗",
            f"torchaudio {audio} does not match torch {torch_version}: "
            "python -m pip install torch==2.11.0 torchaudio==2.11.0",
        )
    try:
        resolved = resolve_device(device)
    except OSError as error:
        return Check("✗", f"torch {torch_version} does not load ({error})", fatal=True)
    return Check("✓", f"torch {torch_version}, torchaudio {audio or 'not installed'}, device {resolved}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _disk(store: Path) -> Check:
    place = next(folder for folder in (store, *store.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    low = free < _LOW_DISK_BYTES
    return Check("✗" if low else "✓", f"{free / 1e9:.1f} GB free for the store at {store}")


def _package(name: str, why: str) -> Check:
    found = _version(name)
    return Check("✓", f"{name} {found}") if found else Check("-", f"{name} is not installed ({why})")


def _isolated(card: TokenizerCard) -> Check:
    """Whether the environment of an isolated tokenizer is made; nothing is started."""
    from tokbench.isolated.environments import find_environment

    try:
        environment = find_environment(card)
    except TokbenchError as error:
        return Check("-", f"tokenizer {card.name}: {error}")
    return Check("✓", f"tokenizer {card.name}: environment '{environment.name}', Python {environment.version}")


def _cards(kind: type[TokenizerCard] | type[JudgeCard]) -> list[Check]:
    """Whether each card's adapter imports and its weights are here; nothing is downloaded or loaded."""
    from tokbench.judges.base import Judge
    from tokbench.tokenizers.base import Tokenizer

    found: list[Check] = []
    word = "tokenizer" if kind is TokenizerCard else "judge"
    for name in names(kind):
        if "{" in name:
            continue
        card = find_card(kind, name)
        base: type[object] = Tokenizer if kind is TokenizerCard else Judge
        try:
            import_object(card.adapter, base, needed_by=f"{word} {name}", extra=card.requires)
        except TokbenchError as error:
            found.append(Check("-", f"{word} {name}: {error}"))
            continue
        if isinstance(card, TokenizerCard) and card.environment is not None:
            found.append(_isolated(card))
            continue
        weights = card.weights
        package_absent = weights is not None and weights.source == "package" and _version(weights.location) is None
        if weights is not None and (weights.source in ("hub", "file") or package_absent):
            place = weights.fallback if package_absent and weights.fallback else weights.location
            found.append(Check("-", f"{word} {name}: weights from {place}, or a local folder"))
        else:
            found.append(Check("✓", f"{word} {name}"))
    return found
