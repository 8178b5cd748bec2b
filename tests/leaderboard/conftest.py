"""A site built once from invented results: nine tokenizers, one not applicable, one partial, one continuous."""

from __future__ import annotations

from pathlib import Path

import pytest
from leaderboard.fakes import CROWD, Fake, write_result

from tokbench.leaderboard import build

CHOSEN = ("identity", "codec2-1200", "kmeans-logmel-500", "kmeans-whisper-tiny-500", "kanade-25hz", "mimi-8",
          "losatok-25hz", "hubert-units")  # fmt: skip
PARTIAL = Fake("broken-codec", "RVQ codec", 0.2, 0.7, failed=3)
SKIPPED = Fake("phone-labels", "Labels", 0.2, 0.7, decodes=False, skipped="phone-labels has no decoder")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for fake in CROWD:
        if fake.name in CHOSEN:
            write_result(root, fake, clips=2, draws=200)
    write_result(root, PARTIAL, draws=200)
    write_result(root, SKIPPED)
    return root


@pytest.fixture(scope="session")
def site(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "site"
    return build([results], out).parent
