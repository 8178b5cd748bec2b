"""The hub's files: the local cache first, reasons in few words, and no question where the user is offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokbench import hub
from tokbench.hub import HubUnavailable, cached_commit, cached_file, hub_file, sha256_file

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one snapshot of me/model, as the client lays it out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    snapshot = tmp_path / "models--me--model" / "snapshots" / commit
    (snapshot / "sub").mkdir(parents=True)
    (tmp_path / "models--me--model" / "refs").mkdir()
    (tmp_path / "models--me--model" / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "sub" / "weights.bin").write_bytes(b"weights")
    return snapshot


def test_the_cache_is_asked_first(cache: Path) -> None:
    assert hub_file("me/model", ["absent.safetensors", "sub/weights.bin"]) == cache / "sub" / "weights.bin"
    assert cached_file("me/model", ["absent"]) is None
    assert cached_commit("me/model") == cached_commit("me/model", ["sub/weights.bin"]) == "a" * 40
    assert cached_commit("me/other") is None


def test_offline_is_said_at_once(cache: Path) -> None:
    with pytest.raises(HubUnavailable, match="no connection"):
        hub_file("me/model", ["absent"])


@pytest.mark.parametrize(("error", "reason"), [("entry", "it has none of the files"), ("os", "PermissionError")])
def test_what_the_hub_says(error: str, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        if error == "os":
            raise PermissionError("no room")
        raise errors.EntryNotFoundError("404")

    monkeypatch.setattr(hub, "_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(HubUnavailable, match=reason):
        hub_file("me/model", ["absent", "too"])


def test_sha256_follows_the_file_and_the_caches_names(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = sha256_file(file)
    file.write_bytes(b"other")
    assert sha256_file(file) != first
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"large")
    (tmp_path / "link").symlink_to(blob)
    assert sha256_file(tmp_path / "link") == "ab" * 32
