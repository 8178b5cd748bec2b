"""Where a tokenizer's published checkpoint is: a file or folder that the user gives, or the hub. No torch import."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tokbench.config import TokenizerCard, Weights
from tokbench.errors import MissingWeights
from tokbench.hub import HubUnavailable, cached_commit, hub_file, sha256_file

CONFIG = "config.json"
_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

__all__ = ["checkpoint_identity", "find_checkpoint", "find_snapshot", "library_versions", "snapshot_identity"]


def find_checkpoint(card: TokenizerCard, weights: Path | None) -> Path:
    """The file that holds the weights of `card`.

    Args:
        card: its weights block lists the names under which the file is published, the first one first; none where
            they are not known.
        weights: the file itself, whatever its name, or a folder that holds one of those names (a single checkpoint
            where they are not known); None for the hub, where the card names a hub repository.

    Raises:
        MissingWeights: it is nowhere; says what to put where.
    """
    published = _published(card)
    if weights is not None:
        if weights.is_file():
            return weights
        found = _in_folder(weights, [*published.files])
        named = [found] if found is not None else []
        if not published.files and weights.is_dir():
            named = sorted(path for path in weights.iterdir() if path.suffix in _SUFFIXES)
        if named and (published.files or len(named) == 1):
            return named[0]
        what = "is a folder without the weights" if weights.is_dir() else "is neither a file nor a folder"
        raise MissingWeights(f"{what} of {card.name}", where=str(weights), hint=_hint(published))
    if published.source != "hub":
        raise MissingWeights(f"the weights of {card.name} are not here", hint=_hint(published))
    path = _from_hub(card, published, [*published.files], _hint(published))
    declared = next((digest for name, digest in published.files.items() if path.as_posix().endswith(name)), "")
    if declared and sha256_file(path) != declared:
        raise MissingWeights(
            f"its sha256 is {sha256_file(path)[:12]}..., the card of {card.name} declares {declared[:12]}...",
            where=str(path),
            hint="Delete it so that it is fetched again, or give your own file with --weights",
        )
    return path


def checkpoint_identity(card: TokenizerCard, weights: Path | None) -> dict[str, str]:
    """What decides the tokens beside card and code: the file's sha256, or the hub repository's commit.

    The hash is remembered while the file's size and time of change stay the same.

    Raises:
        MissingWeights: of `find_checkpoint`, where the user gave a path.
    """
    published = _published(card)
    if weights is not None:
        path = find_checkpoint(card, weights)
        return {"weights": f"sha256:{sha256_file(path)}"}
    declared = next(iter(published.files.values()), "")
    if declared:
        return {"weights": f"sha256:{declared}"}
    return {published.location: _revision(published)}


def find_snapshot(card: TokenizerCard, weights: Path | None) -> tuple[Path, Path]:
    """The config and the weights file of a model that is published as a folder.

    Args:
        card: its weights block lists `config.json` and the names under which the weights are published, the preferred
            one first; with the hub's folders in front of them where there are some.
        weights: a folder that holds both, under their names or without the folders in front; None for the hub.

    Raises:
        MissingWeights: one of the two is nowhere; says what to put where.
    """
    published = _published(card)
    configs, names = _parts(published)
    if weights is not None:
        if not weights.is_dir():
            raise MissingWeights(f"is not a folder with {card.name}", where=str(weights), hint=_folder_hint(published))
        config, model = (_in_folder(weights, some) for some in (configs, names))
        if config is None or model is None:
            absent = " or ".join(map(_base, configs if config is None else names))
            raise MissingWeights(
                f"there is no {absent} for {card.name}", where=str(weights), hint=_folder_hint(published)
            )
        return config, model
    config, model = (_from_hub(card, published, some, _folder_hint(published)) for some in (configs, names))
    return config, model


def snapshot_identity(card: TokenizerCard, weights: Path | None) -> dict[str, str]:
    """What decides the tokens beside card and code: sha256 of both files, or the hub repository's commit.

    Raises:
        MissingWeights: of `find_snapshot`, where the user gave a folder.
    """
    if weights is None:
        published = _published(card)
        return {published.location: _revision(published)}
    return {path.name: f"sha256:{sha256_file(path)}" for path in find_snapshot(card, weights)}


def library_versions(*packages: str) -> dict[str, str]:
    """Distribution name -> installed version, for tokens that a library's own code decides."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _parts(published: Weights) -> tuple[list[str], list[str]]:
    """Names of the config and of the weights."""
    configs = [name for name in published.files if _base(name) == CONFIG]
    return configs, [name for name in published.files if name not in configs]


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _in_folder(folder: Path, names: list[str]) -> Path | None:
    """The first of some published files that a folder holds, with or without the hub's folders in front."""
    places = (folder / form for name in names for form in (name, _base(name)))
    return next((place for place in places if place.is_file()), None)


def _folder_hint(published: Weights) -> str:
    configs, names = _parts(published)
    what = f"{' or '.join(configs)} and {' or '.join(names)} of {published.location}"
    return f"Put {what} into a folder and type --weights DIR"


def _published(card: TokenizerCard) -> Weights:
    if card.weights is None:
        raise MissingWeights("its card names no weights", where=f"tokenizer '{card.name}'", hint="Add a weights block")
    return card.weights


def _hint(published: Weights) -> str:
    origin = f"{published.location} on the hub" if published.source == "hub" else published.location
    return f"Get {' or '.join(published.files) or 'the checkpoint'} from {origin} and type --weights PATH"


def _revision(published: Weights) -> str:
    """What is declared, or the cached commit, or the main branch."""
    cached = cached_commit(published.location, [*published.files]) if published.source == "hub" else None
    return published.revision or cached or "main"


def _from_hub(card: TokenizerCard, published: Weights, names: list[str], hint: str) -> Path:
    try:
        return hub_file(published.location, names, published.revision)
    except HubUnavailable as error:
        raise MissingWeights(f"the weights of {card.name} cannot be had from the hub ({error})", hint=hint) from None
