"""Where a tokenizer's published checkpoint is: a file or folder that the user gives, or the hub. No torch import."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tokbench.config import TokenizerCard, Weights
from tokbench.errors import MissingWeights
from tokbench.tokenizers.features import file_sha256

_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

__all__ = ["checkpoint_identity", "find_checkpoint"]


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
        named = [weights / name for name in published.files if (weights / name).is_file()]
        if not published.files and weights.is_dir():
            named = sorted(path for path in weights.iterdir() if path.suffix in _SUFFIXES)
        if named and (published.files or len(named) == 1):
            return named[0]
        what = "is a folder without the weights" if weights.is_dir() else "is neither a file nor a folder"
        raise MissingWeights(f"{what} of {card.name}", where=str(weights), hint=_hint(published))
    if published.source != "hub":
        raise MissingWeights(f"the weights of {card.name} are not here", hint=_hint(published))
    return _cached(published) or _download(card, published)


def checkpoint_identity(card: TokenizerCard, weights: Path | None) -> dict[str, str]:
    """What decides the tokens beside card and code: the file's sha256, or the hub repository's commit.

    The hash is remembered while the file's size and time of change stay the same.

    Raises:
        MissingWeights: of `find_checkpoint`, where the user gave a path.
    """
    published = _published(card)
    if weights is not None:
        path = find_checkpoint(card, weights)
        return {"weights": f"sha256:{file_sha256(path)}"}
    declared = next(iter(published.files.values()), "")
    if declared:
        return {"weights": f"sha256:{declared}"}
    cached = _cached(published) if published.source == "hub" else None
    commit = cached.parent.name if cached is not None else None
    return {published.location: published.revision or commit or "main"}


def _published(card: TokenizerCard) -> Weights:
    if card.weights is None:
        raise MissingWeights("its card names no weights", where=f"tokenizer '{card.name}'", hint="Add a weights block")
    return card.weights


def _hint(published: Weights) -> str:
    origin = f"{published.location} on the hub" if published.source == "hub" else published.location
    return f"Get {' or '.join(published.files) or 'the checkpoint'} from {origin} and type --weights PATH"


def _cached(published: Weights) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    for name in published.files:
        found = try_to_load_from_cache(published.location, name, revision=published.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(card: TokenizerCard, published: Weights) -> Path:
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ModuleNotFoundError:
        raise MissingWeights(f"the weights of {card.name} are not here", hint=_hint(published)) from None
    try:
        # Without this question the hub's client retries for half a minute, and says so each time.
        if not constants.HF_HUB_OFFLINE and not getproxies():
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        for name in published.files:
            try:
                return Path(hf_hub_download(published.location, name, revision=published.revision))
            except EntryNotFoundError:
                if name == [*published.files][-1]:
                    raise
    except Exception as error:  # noqa: BLE001 - the hub raises a dozen kinds: offline, absent, refused
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise MissingWeights(
            f"the weights of {card.name} cannot be had from the hub ({reason})", hint=_hint(published)
        ) from None
    raise AssertionError("the loop returns or raises")
