"""The readers by name: `READERS["librispeech"](folder, split=...)` gives the utterances in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from tokbench.data.dataset import Utterance
from tokbench.data.folder import read_folder
from tokbench.data.libri import read_librispeech, read_libritts
from tokbench.data.manifest import read_manifest
from tokbench.data.pairs import read_sblimp, read_storycloze, read_swuggy
from tokbench.data.vctk import read_vctk

__all__ = ["OPTIONS", "READERS", "Reader"]

Reader = Callable[..., tuple[Utterance, ...]]
"""`(path, *, split=None, **options) -> utterances`, sorted by id; raises `DatasetError`."""

READERS: dict[str, Reader] = {
    "librispeech": read_librispeech,
    "libritts": read_libritts,
    "vctk": read_vctk,
    "folder": read_folder,
    "manifest": read_manifest,
    "swuggy": read_swuggy,
    "sblimp": read_sblimp,
    "storycloze": read_storycloze,
}

OPTIONS: dict[str, frozenset[str]] = {"vctk": frozenset({"mic"}), "folder": frozenset({"speaker"})}
"""Options that a reader takes besides the split."""
