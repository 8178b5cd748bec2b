"""Files of the model hub, from its local cache or downloaded; and the sha256 by which files are told apart.

Everything that finds weights asks here, and says itself what to put where when the hub does not help. No torch import.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ["HUB_TIMEOUT", "HubUnavailable", "cached_commit", "cached_file", "hub_file", "sha256_file"]

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's or a server's first answer, so that a machine without network is told quickly."""


class HubUnavailable(Exception):
    """No file could be had; the text is the reason in a few words."""


def cached_file(repository: str, names: Sequence[str], revision: str | None = None) -> Path | None:
    """The first of some files that is in the hub's local cache; None also where `huggingface_hub` is not installed."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def cached_commit(repository: str, names: Sequence[str] = ("config.json",), revision: str | None = None) -> str | None:
    """The commit of the cached file that `cached_file` finds."""
    found = cached_file(repository, names, revision)
    if found is None:
        return None
    # .../snapshots/COMMIT/folders/name
    return found.parts[len(found.parts) - found.parts[::-1].index("snapshots")]


def hub_file(repository: str, names: Sequence[str], revision: str | None = None) -> Path:
    """The first of some files that the hub's local cache, or else the hub, has.

    Args:
        repository: "owner/name".
        names: in order of preference; the hub's folders stand in front of a name.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        HubUnavailable: neither has one of them, with the reason.
    """
    found = cached_file(repository, names, revision)
    if found is not None:
        return found
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise HubUnavailable("huggingface_hub is not installed") from None
    if not _answers():
        raise HubUnavailable("no connection")
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision, etag_timeout=HUB_TIMEOUT))
        except LocalEntryNotFoundError:
            raise HubUnavailable("no connection") from None
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise HubUnavailable(type(error).__name__) from None
    raise HubUnavailable("it has none of the files")


@lru_cache(maxsize=1)
def _answers() -> bool:
    """Whether the hub can be reached at all; without this question its client retries aloud for half a minute."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except HTTPError:
        return True  # it answered, if only to refuse
    except OSError:
        return False
    return True


def sha256_file(path: Path) -> str:
    """Sha256 of a file as hex; remembered while size and modification time stay.

    The hub's cache names large files by their sha256, which is taken from there.
    """
    name = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name):
        return name
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - they are the key of the cache
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
