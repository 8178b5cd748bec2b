"""A worker in another process: it crashes, hangs, chatters and lies, and nothing but its utterance is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokbench.config import EnvironmentDecl, TokenizerCard
from tokbench.errors import CardError, ItemError, MissingWeights
from tokbench.isolated.child.wire import WireError, read_arrays, unpack_message, write_arrays
from tokbench.isolated.environments import MARKER, MissingEnvironment, find_environment, place_of
from tokbench.isolated.making import make_environment
from tokbench.isolated.process import ChildProcess, WorkerDied
from tokbench.isolated.worker import BadWorker
from tokbench.tokenizers.conformance import conformance
from tokbench.tokenizers.isolated import IsolatedTokenizer
from tokbench.types import Wave

QUIET = np.linspace(-0.5, 0.5, 800, dtype=np.float32)
LOUD = np.linspace(-0.9, 0.9, 800, dtype=np.float32)
SPEC: dict[str, Any] = {
    "name": "isolated-toy",
    "summary": "Three-bit samples in another process.",
    "adapter": "tokbench.tokenizers.isolated:IsolatedTokenizer",
    "family": "toys",
    "capabilities": ["discrete", "decode", "features", "codebook"],
    "streams": [{"name": "q0", "rate_hz": 8000, "vocab": 8}],
    "input_rate": 8000,
    "output_rate": 8000,
    "licence": "MIT",
    "environment": {"name": "here", "python": "3.11", "imports": ["numpy"]},
    "params": {"backend": "worker_toy"},
}


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this interpreter as the environment of the toy."""
    folder = tmp_path_factory.mktemp("envs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKBENCH_ENVS", str(folder))
        said: list[str] = []
        make_environment(card().environment, say=said.append, existing=Path(sys.executable))
    assert said == ["importing numpy"]
    return folder


@pytest.fixture(autouse=True)
def _environments(environments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_ENVS", str(environments))


def card(*, limits: dict[str, float] | None = None, **params: Any) -> TokenizerCard:
    environment = SPEC["environment"] | (limits or {})
    return TokenizerCard.model_validate(SPEC | {"environment": environment, "params": SPEC["params"] | params})


def expected(wave: Wave) -> np.ndarray:
    return np.clip(np.round((np.clip(wave, -1, 1) + 1) * 3.5), 0, 7).astype(np.int64)


def test_a_tokenizer_in_another_process_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # the suite decodes in a process of its own
    tokenizer = IsolatedTokenizer(card())
    checks = conformance(tokenizer, long_seconds=())
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    assert tokenizer.worker.restarts == 0
    assert np.array_equal(tokenizer.features([QUIET], "pre_quant")[0], np.stack([QUIET, -QUIET], axis=1))
    assert tokenizer.codebook("q0").shape == (8, 1)


def test_large_arrays_arrive_whole() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 2_000_000).astype(np.float32)
    tokenizer = IsolatedTokenizer(card())
    encoded = tokenizer.encode([wave])[0]
    assert encoded.streams["q0"].dtype == np.int64
    assert np.array_equal(encoded.streams["q0"], expected(wave))
    assert tokenizer.worker._child is not None
    assert list(tokenizer.worker._child.folder.iterdir()) == []


def test_chatter_disturbs_nothing() -> None:
    """Ten megabytes on standard output, which would fill any pipe, and lines that look like messages."""
    tokenizer = IsolatedTokenizer(card(chatter=120_000))
    assert np.array_equal(tokenizer.encode([QUIET])[0].streams["q0"], expected(QUIET))
    assert tokenizer.worker.restarts == 0


@pytest.mark.parametrize(("how", "cause"), [("die", "exit code 9"), ("kill", "SIGKILL, often out of memory")])
def test_a_crash_costs_one_utterance(how: str, cause: str) -> None:
    tokenizer = IsolatedTokenizer(card(on_loud=how))
    with pytest.raises(ItemError) as caught:
        tokenizer.encode([LOUD])
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"isolated-toy: its worker died ({cause})")
    assert line.endswith("it died 2 times on this utterance")
    if how == "die":
        assert "it last said: about to die of noise" in line
    restarts = tokenizer.worker.restarts
    assert restarts == 1
    with pytest.raises(ItemError, match="died 2 times"):  # remembered, and not tried a third time
        tokenizer.encode([LOUD])
    assert tokenizer.worker.restarts == restarts
    assert np.array_equal(tokenizer.encode([QUIET])[0].streams["q0"], expected(QUIET))


def test_a_crash_that_does_not_come_back_costs_nothing(tmp_path: Path) -> None:
    tokenizer = IsolatedTokenizer(card(on_loud="once", flag=str(tmp_path / "flag")))
    assert np.array_equal(tokenizer.encode([LOUD])[0].streams["q0"], expected(LOUD))
    assert tokenizer.worker.restarts == 1


def test_one_that_takes_too_long_is_stopped() -> None:
    tokenizer = IsolatedTokenizer(card(on_loud="sleep", limits={"item_limit_s": 0.5}))
    start = time.monotonic()
    with pytest.raises(ItemError, match=r"took more than 0\.5 s when asked to encode"):
        tokenizer.encode([LOUD])
    assert time.monotonic() - start < 10
    assert np.array_equal(tokenizer.encode([QUIET])[0].streams["q0"], expected(QUIET))


def test_one_that_freezes_is_found_by_its_silence() -> None:
    tokenizer = IsolatedTokenizer(card(on_loud="freeze", limits={"silence_limit_s": 2.0}))
    with pytest.raises(ItemError, match=r"hung when asked to encode, 2 s without a sign of life"):
        tokenizer.encode([LOUD])


def test_an_error_of_the_library_is_the_utterances() -> None:
    tokenizer = IsolatedTokenizer(card(on_loud="raise"))
    with pytest.raises(ItemError, match=r"RuntimeError: mat1 and mat2 shapes cannot be multiplied$"):
        tokenizer.encode([LOUD])
    assert tokenizer.worker.restarts == 0
    with pytest.raises(ItemError, match=r"is too loud\. Turn it down"):
        IsolatedTokenizer(card(on_loud="refuse")).encode([LOUD])


def test_a_worker_that_dies_on_everything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = IsolatedTokenizer(card(on_loud="die"))
    monkeypatch.setattr("tokbench.isolated.worker._LOST_IN_A_ROW", 2)
    with pytest.raises(ItemError):
        tokenizer.encode([LOUD])
    with pytest.raises(BadWorker, match=r"2 utterances in a row. Type: tokbench env make here --again"):
        tokenizer.encode([LOUD[1:]])


@pytest.mark.parametrize(
    ("params", "error", "line"),
    [
        ({"on_load": "die"}, BadWorker, r"died \(exit code 7\); it last said: no room for the model. Type: tokbench"),
        ({"on_load": "weights"}, MissingWeights, "isolated-toy: lacks encoder.weight. Give another file"),
        ({"on_load": "import"}, BadWorker, "needs the package 'a_package_that_nobody_has', which is not in its env"),
        ({"says_vocab": 16}, MissingWeights, r"has streams \{'q0': 16\}, the card of isolated-toy declares"),
        ({"backend": "no_such_backend"}, CardError, "there is no module 'no_such_backend'"),
    ],
)
def test_what_cannot_start_says_why(params: dict[str, Any], error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line) as caught:
        IsolatedTokenizer(card(**params))
    assert "\n" not in str(caught.value)


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.isolated.worker.PROTOCOL", 2)
    with pytest.raises(BadWorker, match="speaks protocol 1, the parent 2"):
        IsolatedTokenizer(card())


def test_an_environment_that_changed_is_refused(environments: Path) -> None:
    marker = place_of(card().environment) / MARKER
    before = marker.read_text()
    record = json.loads(before)
    identity = IsolatedTokenizer.weights_identity(card())
    record["packages"]["numpy"] = "1.0"
    marker.write_text(json.dumps(record))
    try:
        assert IsolatedTokenizer.weights_identity(card())["packages"] != identity["packages"]
        with pytest.raises(BadWorker, match=r"has numpy [\d.]+, it was made with 1.0. Type: tokbench env make here"):
            IsolatedTokenizer(card())
    finally:
        marker.write_text(before)
    assert IsolatedTokenizer.weights_identity(card()) == identity


def test_a_missing_environment_says_what_to_type() -> None:
    other = EnvironmentDecl(name="elsewhere", python="3.11")
    with pytest.raises(MissingEnvironment, match=r"not made yet. Type: tokbench env make elsewhere"):
        find_environment(card().model_copy(update={"environment": other}))
    changed = EnvironmentDecl(name="here", python="3.11", requirements=("numpy==1.0",))
    with pytest.raises(MissingEnvironment, match="another card than today's"):
        find_environment(card().model_copy(update={"environment": changed}))


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed, the parent cannot say goodbye; the child sees its pipe close."""
    code = (
        "import sys, os; sys.path[:0] = sys.argv[1].split(os.pathsep)\n"
        "from test_worker import card, IsolatedTokenizer\n"
        "one = IsolatedTokenizer(card())\n"
        "print(one.worker._child._process.pid, one.worker._child.folder, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, os.pathsep.join([str(here), str(here.parent)])],
        capture_output=True,
        text=True,
        check=False,
    )
    pid, folder = done.stdout.split() or pytest.fail(done.stderr)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0]:
            break  # ended; whoever inherited it has not looked yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).exists()


def test_closing_leaves_nothing_behind() -> None:
    tokenizer = IsolatedTokenizer(card())
    child = tokenizer.worker._child
    assert child is not None
    folder, process = child.folder, child._process
    tokenizer.close()
    assert process.poll() is not None
    assert not folder.exists()
    assert np.array_equal(tokenizer.encode([QUIET])[0].streams["q0"], expected(QUIET))


def test_an_interpreter_that_is_none() -> None:
    with pytest.raises(WorkerDied, match="cannot be started"):
        ChildProcess(Path("/nowhere/bin/python"), name="x")


def test_messages_lead_nowhere_else(tmp_path: Path) -> None:
    names = write_arrays(str(tmp_path), "q1", {"a": np.arange(3)})
    assert np.array_equal(read_arrays(str(tmp_path), names)["a"], np.arange(3))
    np.save(tmp_path / "q2-0.npy", np.array([{}], dtype=object), allow_pickle=True)
    for bad in ({"a": "../q1-0.npy"}, {"a": "/etc/passwd"}, {"a": 3}, {"a": "q9-0.npy"}, {"a": "q2-0.npy"}, "x"):
        with pytest.raises(WireError):
            read_arrays(str(tmp_path), bad)
    for line in (b"hello", b"[1]", b"\xff"):
        with pytest.raises(WireError):
            unpack_message(line)
