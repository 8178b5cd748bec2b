"""`tokbench env`, and a run in which an isolated tokenizer dies on one utterance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from tokbench.audio import write_audio
from tokbench.bench import Bench
from tokbench.cli import app
from tokbench.config import EnvironmentDecl, SourceDecl, TokenizerCard
from tokbench.data.dataset import Utterance
from tokbench.errors import CardError, ItemError, TokbenchError
from tokbench.handle import TokenizerHandle
from tokbench.isolated import environments, making
from tokbench.isolated.environments import MARKER, declared_environments, find_environment, place_of
from tokbench.registry import find_card, set_extra_paths
from tokbench.store.store import Store
from tokbench.types import Encoded

CARD = """\
name: isolated-toy
summary: Three-bit samples in another process.
adapter: tokbench.tokenizers.isolated:IsolatedTokenizer
family: toys
capabilities: [discrete, decode]
streams:
  - {name: q0, rate_hz: 8000, vocab: 8}
input_rate: 8000
output_rate: 8000
licence: MIT
environment: {name: toy, python: "3.11", imports: [numpy]}
params: {backend: worker_toy, on_loud: die}
"""


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content folder with the isolated toy, and an empty folder for environments."""
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    (folder / "tokenizers" / "isolated-toy.yaml").write_text(CARD)
    monkeypatch.setenv("TOKBENCH_ENVS", str(tmp_path / "envs"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    set_extra_paths((folder,))
    environments._every_card.cache_clear()
    yield folder
    set_extra_paths(())
    environments._every_card.cache_clear()


def test_make_list_and_remove(content: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    made = runner.invoke(app, ["env", "make", "isolated-toy", "--existing", sys.executable], catch_exceptions=False)
    assert made.stdout.startswith(f"toy: ready at {tmp_path / 'envs'}/toy-")
    rows = json.loads(runner.invoke(app, ["env", "list", "--json"], catch_exceptions=False).stdout)
    states = {row["name"]: row["state"] for row in rows}
    assert states["toy"] == "ready"
    assert states["fairseq2"] == "not made"
    assert [row["tokenizers"] for row in rows if row["name"] == "toy"] == [["isolated-toy"]]
    again = runner.invoke(app, ["env", "make", "toy"], catch_exceptions=False)
    assert again.stdout.startswith("toy: ready")
    gone = runner.invoke(app, ["env", "remove", "toy"], catch_exceptions=False)
    assert "removed" in gone.stdout
    assert list((tmp_path / "envs").iterdir()) == []
    with pytest.raises(TokbenchError, match="no environment 'toy' to remove"):
        runner.invoke(app, ["env", "remove", "toy"], catch_exceptions=False)
    with pytest.raises(TokbenchError, match=r"no environment is called 'fairseq'\. Did you mean fairseq2"):
        runner.invoke(app, ["env", "make", "fairseq"], catch_exceptions=False)


def test_every_isolated_card_says_what_to_type(content: Path) -> None:
    for name, (declared, users) in declared_environments().items():
        for user in users:
            card = find_card(TokenizerCard, user.replace("{layer}", "6"))
            with pytest.raises(TokbenchError, match=f"Type: tokbench env make {name}$"):
                find_environment(card)
        assert declared.requirements or name == "toy"


def test_a_failed_step_leaves_nothing_and_says_why(content: Path, tmp_path: Path) -> None:
    declared = EnvironmentDecl(name="broken", python="3.11", imports=("no_module_of_that_name",))
    with pytest.raises(making.BadEnvironment, match=r"cannot import what it was made for: .*no_module_of_that_name"):
        making.make_environment(declared, say=lambda _: None, existing=Path(sys.executable))
    assert list((tmp_path / "envs").iterdir()) == []
    with pytest.raises(making.BadEnvironment, match="is no interpreter"):
        making.make_environment(declared, say=lambda _: None, existing=tmp_path)


def test_an_environment_by_venv_and_pip(content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps without uv; the installing itself is a command that is recorded."""
    monkeypatch.setattr(making.shutil, "which", lambda _: None)
    commands: list[list[str]] = []
    run = subprocess.run

    def recorded(command: list[str], **options: object) -> object:
        commands.append(command)
        if "pip" in command:
            return SimpleNamespace(returncode=0, stdout="", stderr="")
        return run(command, **options)

    monkeypatch.setattr(making.subprocess, "run", recorded)
    declared = EnvironmentDecl(name="bare", python=f"3.{sys.version_info[1]}", requirements=("numpy==1.0",))
    made = making.make_environment(declared, say=lambda _: None)
    assert commands[0][1:3] == ["-m", "venv"]
    assert commands[1][-1] == "numpy==1.0"
    assert made.python == place_of(declared) / "venv" / "bin" / "python"
    assert made.python.exists()
    assert "numpy" not in made.packages


def test_a_checkout_is_copied_and_recognised(content: Path, tmp_path: Path) -> None:
    source = SourceDecl(url="https://example.org/x", revision="0" * 40, needs=("vq/net.py",))
    declared = EnvironmentDecl(name="cloned", python="3.11", source=source)
    clone = tmp_path / "clone"
    (clone / "vq").mkdir(parents=True)
    with pytest.raises(making.BadEnvironment, match=r"clone: lacks vq/net\.py\. Give a checkout of https"):
        making.make_environment(declared, say=lambda _: None, existing=Path(sys.executable), source=clone)
    (clone / "vq" / "net.py").write_text("x = 1\n")
    made = making.make_environment(declared, say=lambda _: None, existing=Path(sys.executable), source=clone)
    assert made.source is not None
    assert (made.source / "vq" / "net.py").read_text() == "x = 1\n"
    (clone / "vq" / "net.py").write_text("x = 2\n")
    other = making.make_environment(declared, say=lambda _: None, existing=Path(sys.executable), source=clone)
    assert other.identity()["source"] != made.identity()["source"]
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(clone), *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(making.BadEnvironment, match=r"the card declares 000000000000\. Type: git -C .* checkout 0000"):
        making.make_environment(declared, say=lambda _: None, existing=Path(sys.executable), source=clone)


def test_cards_that_disagree_on_an_environment(content: Path) -> None:
    (content / "tokenizers" / "isolated-other.yaml").write_text(
        CARD.replace("isolated-toy", "isolated-other").replace('"3.11"', '"3.12"')
    )
    set_extra_paths((content,))
    environments._every_card.cache_clear()
    with pytest.raises(CardError, match="declares another environment 'toy' than isolated-other"):
        declared_environments()


def test_a_death_costs_one_utterance_and_no_finished_unit(
    content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CliRunner().invoke(app, ["env", "make", "toy", "--existing", sys.executable], catch_exceptions=False)
    assert len(list((tmp_path / "envs").glob(f"toy-*/{MARKER}"))) == 1
    time = np.arange(16000) / 8000
    utterances = []
    for name, gain in (("a", 0.3), ("b", 0.95), ("c", 0.5)):
        write_audio(tmp_path / f"{name}.wav", (gain * np.sin(900 * time)).astype(np.float32), 8000)
        utterances.append(Utterance(name, tmp_path / f"{name}.wav", "x"))

    def encoded() -> list[object]:
        bench = Bench(Store(tmp_path / "store"), TokenizerHandle("isolated-toy"), {})
        return [bench.encode([utterance])[0] for utterance in utterances]

    first, died, last = encoded()
    assert isinstance(died, ItemError)
    assert died.stage == "encode"
    assert "its worker died (exit code 9); it last said: about to die of noise" in str(died)
    monkeypatch.setattr("tokbench.tokenizers.isolated.Worker.ask", lambda *_, **__: pytest.fail("was computed again"))
    bench = Bench(Store(tmp_path / "store"), TokenizerHandle("isolated-toy"), {})
    for utterance, made in ((utterances[0], first), (utterances[2], last)):
        (again,) = bench.encode([utterance])
        assert isinstance(made, Encoded)
        assert isinstance(again, Encoded)
        assert np.array_equal(again.streams["q0"], made.streams["q0"])
