"""Two sites built once from invented results.

`site`: nine tokenizers on one task, one not applicable, one partial, one continuous. `task_site`: seven tokenizers on
all tasks, one of them with training curves, and an ablation.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from leaderboard.fake_tasks import TASKS, add_table, curves, write_task
from leaderboard.fakes import CROWD, Fake, write_result
from test_reproduction import record

from tokbench.leaderboard import build
from tokbench.reproduction import Ablation
from tokbench.results import Result

CHOSEN = ("identity", "codec2-1200", "kmeans-logmel-500", "kmeans-whisper-tiny-500", "kanade-25hz", "mimi-8",
          "losatok-25hz", "hubert-units")  # fmt: skip
SEVERAL = ("identity", "codec2-1200", "kmeans-logmel-500", "kanade-25hz", "kanade-12hz", "mimi-8", "losatok-25hz")
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


@pytest.fixture(scope="session")
def task_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    for fake in CROWD:
        if fake.name in SEVERAL:
            write_result(root, fake, clips=0, draws=100)
            for task in TASKS:
                folder = write_task(root, fake, task, clips=1, draws=100)
                if task == "pnmi" and fake.name == "kanade-25hz":
                    result = Result.read(folder)
                    add_table(folder, result, "curves", curves(("content", "ctc"), seeds=2))
                    (folder / "result.json").write_text(result.model_dump_json(indent=1))
    Ablation.model_validate(record()).write(root / "ablation")
    return root


@pytest.fixture(scope="session")
def task_site(task_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([task_results], tmp_path_factory.mktemp("tasks") / "site").parent
