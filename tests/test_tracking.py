"""MLflow as a sink, against a SQLite file and a real server on this machine; and a server that is not there."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench import mlflow_payload as mp
from tokbench.config import StreamDecl, TaskCard, TokenizerCard
from tokbench.results import Coverage, DatasetRecord, Estimate, Manifest, Result, SampleClip, TableFile
from tokbench.tracking import Tracker

pytest.importorskip("mlflow.version", reason="MLflow is not installed")

TOKENIZER = {
    "name": "units-50", "summary": "Fifty units.", "adapter": "tokbench.tokenizers.kmeans:KMeans",
    "family": "k-means units", "capabilities": ("discrete",), "input_rate": 16000, "licence": "MIT",
    "streams": (StreamDecl(name="units", rate_hz=50, vocab=50),), "params": {"layer": 6, "deep": {"seed": 1}},
}  # fmt: skip
TASK = TaskCard(
    name="reconstruction", summary="s", title="Reconstruction", protocol="a.b:C", data=("mini-en",), version=2
)


def make(folder: Path | None = None, *, wer: float = 0.12, tokenizer: str = "units-50", **changes: Any) -> Result:
    manifest: dict[str, Any] = {
        "tokbench": "0.1.0", "git_commit": "c0ffee", "git_dirty": True, "python": "3.11", "platform": "linux",
        "packages": {}, "device": "cpu", "seeds": [0], "draws": 10_000, "argv": ["run"], "resampler": "soxr-hq",
        "started": "2026-01-02T03:04:05+00:00", "judge_identities": {"whisper-tiny.en": {"model.bin": "ab12"}},
    }  # fmt: skip
    manifest |= changes.pop("manifest", {})
    fields: dict[str, Any] = {
        "status": "complete",
        "tokenizer": TokenizerCard(**(TOKENIZER | {"name": tokenizer})),
        "task": TASK,
        "dataset": DatasetRecord(
            name="mini-en", fingerprint="f" * 64, utterances=40, speakers=8, seconds=100.0, licence="CC0",
            language="en", synthetic=True,
        ),
        "estimates": [
            Estimate(metric="wer[whisper-tiny.en]", value=wer, unit="%", direction="lower", ci95=(0.1, 0.2),
                     method="cluster bootstrap", n=40),
            Estimate(metric="stoi", value=None, unit="", direction="higher", method="mean", n=0),
        ],
        "coverage": Coverage(expected=40, scored=40),
        "manifest": Manifest.model_validate(manifest),
        "timings": {"encode": 1.5},
    }  # fmt: skip
    result = Result(**(fields | changes))
    if folder is not None:
        (folder / "clips").mkdir(parents=True)
        (folder / "items.parquet").write_bytes(b"rows")
        (folder / "wer.svg").write_text("<svg/>")
        for number in range(4):
            (folder / "clips" / f"{number}.flac").write_bytes(b"clip")
        result.tables = {"items": TableFile(path="items.parquet", sha256="0", rows=40)}
        result.samples = [SampleClip(item=f"i{n}", kind="decoded", path=f"clips/{n}.flac") for n in range(4)]
        result.folder = folder
        (folder / "result.json").write_text(result.model_dump_json())
    return result


def runs_of(uri: str, suite: str = "mini") -> tuple[list[Any], list[Any]]:
    """Parent runs and child runs of an experiment."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(suite)
    assert experiment is not None
    found = list(client.search_runs([experiment.experiment_id]))
    kind = "tokbench.kind"
    return [r for r in found if r.data.tags[kind] == "tokenizer"], [r for r in found if r.data.tags[kind] == "result"]


def artifacts_of(uri: str, run_id: str, path: str | None = None) -> set[str]:
    from mlflow.tracking import MlflowClient

    found: set[str] = set()
    for entry in MlflowClient(tracking_uri=uri).list_artifacts(run_id, path):
        found |= artifacts_of(uri, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def check_whole_run(uri: str, run: Any, parent: Any) -> None:
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.run_name == "reconstruction on mini-en, seed 0"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1767323045000
    assert run.data.metrics == {
        "wer/whisper-tiny.en": 0.12, "wer/whisper-tiny.en.ci_low": 0.1, "wer/whisper-tiny.en.ci_high": 0.2,
        "wer/whisper-tiny.en.n": 40.0, "stoi.n": 0.0, "coverage.expected": 40.0, "coverage.scored": 40.0,
        "seconds.encode": 1.5,
    }  # fmt: skip
    params = run.data.params
    assert (params["tokenizer.params.layer"], params["tokenizer.params.deep.seed"]) == ("6", "1")
    tags = run.data.tags
    assert tags["metric.wer/whisper-tiny.en"] == "wer[whisper-tiny.en]"
    assert (tags["git_commit"], tags["git_dirty"], tags["status"]) == ("c0ffee", "true", "complete")
    assert (tags["dataset_fingerprint"], tags["family"]) == ("f" * 64, "k-means units")
    assert json.loads(tags["judge.whisper-tiny.en"]) == {"model.bin": "ab12"}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("mini-en", "f" * 36)
    assert artifacts_of(uri, run.info.run_id) == {
        "result.json", "items.parquet", "wer.svg", "clips/0.flac", "clips/1.flac"
    }  # fmt: skip


# SQLite


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, made once: migrations take seconds."""
    folder = tmp_path_factory.mktemp("database")
    assert Tracker(f"sqlite:///{folder}/mlflow.db", spool=folder / "spool", suite="made").log_result(make())
    return folder / "mlflow.db"


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_sqlite(uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    with Tracker(uri, spool=tmp_path / "spool", suite="mini") as tracker:
        assert tracker.log_result(make(tmp_path / "a"))
        assert tracker.log_result(make(tmp_path / "b", wer=0.2))
        assert tracker.log_result(make(tmp_path / "c", tokenizer="units-100"))
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")
    parents, children = runs_of(uri)
    assert sorted(p.info.run_name for p in parents) == ["units-100", "units-50"]
    assert len(children) == 3
    run = next(r for r in children if r.data.tags["mlflow.runName"] and r.data.metrics["wer/whisper-tiny.en"] == 0.12)
    parent = next(p for p in parents if p.info.run_id == run.data.tags["mlflow.parentRunId"])
    check_whole_run(uri, run, parent)
    assert list((tmp_path / "mlartifacts" / "mini").iterdir())
    assert not (tmp_path / "spool").exists()


def test_same_result_is_logged_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (1.0, 2.0):
        again = make(timings={"encode": seconds}, manifest={"started": f"2026-01-0{seconds:.0f}T00:00:00+00:00"})
        assert Tracker(uri, spool=tmp_path / "spool", suite="mini").log_result(again)
    # Also where the database cannot be asked without MLflow.
    monkeypatch.setattr(Tracker, "_in_database", lambda *_: False)
    assert Tracker(uri, spool=tmp_path / "spool", suite="mini").log_result(make())
    assert len(runs_of(uri)[1]) == 1


def test_known_result_imports_no_mlflow(uri: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tokbench.results import Result; from tokbench.tracking import Tracker\n"
        "with Tracker(sys.argv[1], spool=Path(sys.argv[2]), suite='made') as tracker:\n"
        "    assert tracker.log_result(Result.model_validate_json(sys.argv[3]))\n"
        "assert 'mlflow' not in sys.modules"
    )
    command = [sys.executable, "-c", code, uri, str(tmp_path / "spool"), make().model_dump_json()]
    subprocess.run(command, check=True, timeout=60)


def test_run_that_was_cut_off_is_filled_up(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(uri, spool=tmp_path / "spool", suite="mini")

    def full(*args: object, **options: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.tracking.MlflowClient.log_inputs", full)
        assert not tracker.log_result(make(tmp_path / "a"))
    assert [r.info.status for r in runs_of(uri)[1]] == ["RUNNING"]
    assert Tracker(uri, spool=tmp_path / "spool", suite="mini").flush_spool() == 1
    parents, (child,) = runs_of(uri)
    check_whole_run(uri, child, parents[0])


def test_many_metrics_params_and_tags(uri: str, tmp_path: Path) -> None:
    estimates = [
        Estimate(metric=f"m{i}[judge {i % 7}]", value=float(i), unit="", direction="none", ci95=(0, 1), method="m", n=1)
        for i in range(600)
    ]
    params = {f"p{i}": "x" * (9000 if i == 0 else 3) for i in range(250)}
    result = make(estimates=estimates, manifest={"params": params})
    assert Tracker(uri, spool=tmp_path / "spool", suite="mini").log_result(result)
    _, (run,) = runs_of(uri)
    assert run.data.metrics["m599/judge 4"] == 599.0
    assert sum(key.startswith("m") and "." not in key for key in run.data.metrics) == 600
    assert run.data.tags["metric.m599/judge 4"] == "m599[judge 4]"
    assert run.data.params["run.params.p249"] == "xxx"
    long = run.data.params["run.params.p0"]
    assert len(long) == 6000
    assert "9000 characters, sha256 " in long


def test_not_applicable(uri: str, tmp_path: Path) -> None:
    result = make(status="not_applicable", reason="no decoder", dataset=None, estimates=[], coverage=None)
    assert Tracker(uri, spool=tmp_path / "spool", suite="mini").log_result(result)
    _, (run,) = runs_of(uri)
    assert (run.data.tags["status"], run.data.tags["reason"]) == ("not_applicable", "no decoder")


def test_environment_names_the_server(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert Tracker(None, spool=tmp_path, suite="s").uri == uri
    assert Tracker("sqlite:///b.db", spool=tmp_path, suite="s").uri == "sqlite:///b.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Tracker(None, spool=tmp_path, suite="s").uri == "sqlite:///mlflow.db"


# A server, there and not there


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "no_proxy": "127.0.0.1",
    }
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return server
        except (URLError, OSError):
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.1)
    stop_server(server)
    raise AssertionError((folder / "server.log").read_text())


def stop_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)


@pytest.fixture
def dead_then_alive(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """An address where nobody listens, and a function that starts the server there."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    port = free_port()
    servers: list[subprocess.Popen[bytes]] = []
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    yield f"http://127.0.0.1:{port}", lambda: servers.append(start_server(tmp_path, port))
    for server in servers:
        stop_server(server)


@pytest.mark.slow
def test_dead_port_spools_and_a_real_server_gets_it_later(
    dead_then_alive: tuple[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri, start = dead_then_alive
    spool = tmp_path / "spool"
    begin = time.perf_counter()
    with caplog.at_level(logging.WARNING), Tracker(uri, spool=spool, suite="mini") as tracker:
        assert not tracker.log_result(make(tmp_path / "a"))
        assert not tracker.log_result(make(wer=0.2))
        assert not tracker.log_result(make(wer=0.2))
    assert time.perf_counter() - begin < 20
    warnings = [r.getMessage() for r in caplog.records if r.name == "tokbench.tracking"]
    assert len(warnings) == 2
    assert f"MLflow at {uri}: results could not be sent" in warnings[0]
    assert warnings[1] == f"2 results wait in {spool}; the next run sends them to MLflow"
    entries = [json.loads(path.read_text()) for path in spool.glob("*.json")]
    assert {entry["folder"] for entry in entries} == {str(tmp_path / "a"), None}

    start()
    with Tracker(uri, spool=spool, suite="other") as later:  # what was spooled keeps its own suite
        assert later.log_result(make(wer=0.3))
    assert not list(spool.iterdir())
    parents, children = runs_of(uri)
    assert len(children) == 2
    check_whole_run(uri, next(r for r in children if r.data.metrics["wer/whisper-tiny.en"] == 0.12), parents[0])
    with Tracker(uri, spool=spool, suite="mini") as again:
        assert again.log_result(make(wer=0.2))
    assert len(runs_of(uri)[1]) == 2
    assert len(runs_of(uri, "other")[1]) == 1


# Spool


def test_disk_that_is_full_costs_nothing_but_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", spool=tmp_path / "file" / "spool", suite="mini")
    assert not tracker.log_result(make())
    assert not tracker.log_result(make(wer=0.3))
    tracker.close()
    assert [("MLflow at" in m, "cannot be written" in m) for m in caplog.messages] == [(True, False), (False, True)]


def test_unusable_spool_entries_are_set_aside(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "a.json").write_text("{")
    (spool / "b.json").write_text(json.dumps({"suite": "mini", "folder": str(tmp_path / "gone"), "result": None}))
    (spool / "c.json").write_text(
        json.dumps({"suite": "mini", "folder": None, "result": make().model_dump(mode="json")})
    )
    assert Tracker(uri, spool=spool, suite="mini").flush_spool() == 1
    assert sorted(p.name for p in spool.iterdir()) == ["a.unusable", "b.unusable"]
    assert len(caplog.messages) == 2


def test_claim_of_a_dead_process_is_taken_back(uri: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    content = json.dumps({"suite": "mini", "folder": None, "result": make().model_dump(mode="json")})
    (spool / "fresh.json.1.sending").write_text(content)
    (spool / "stale.json.1.sending").write_text(content)
    os.utime(spool / "stale.json.1.sending", (1, 1))
    assert Tracker(uri, spool=spool, suite="mini").flush_spool() == 1
    assert [p.name for p in spool.iterdir()] == ["fresh.json.1.sending"]


def test_mlflow_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "mlflow.tracking", raising=False)
    with Tracker("http://127.0.0.1:9", spool=tmp_path / "spool", suite="mini") as tracker:
        assert not tracker.log_result(make())
        assert not tracker.log_result(make(wer=0.4))
    assert "MLflow is not installed" in caplog.messages[0]
    assert len(caplog.messages) == 2
    assert len(list((tmp_path / "spool").iterdir())) == 2


def test_password_is_not_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tracker("http://user:secret@127.0.0.1:9", spool=tmp_path, suite="mini")._failed(OSError("no"))
    assert "secret" not in caplog.text
    assert "http://127.0.0.1:9" in caplog.text


def test_database_of_another_kind_is_asked_through_the_client(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE other (x)")
    assert not Tracker(f"sqlite:///{tmp_path}/mlflow.db", spool=tmp_path, suite="s")._in_database(make())


# Names


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("wer[whisper-tiny.en]", "wer/whisper-tiny.en"),
        ("stoi", "stoi"),
        ("bits/s", "bits/s"),
        ("f0 rmse (cents)", "f0 rmse _cents_"),
        ("[]", "metric"),
    ],
)
def test_metric_key(name: str, key: str) -> None:
    assert mp.metric_key(name) == key


@given(name=st.text(min_size=1, max_size=400))
def test_metric_keys_are_accepted_by_mlflow(name: str) -> None:
    from mlflow.utils import validation

    check: dict[str, Any] = vars(validation)
    key = mp.metric_key(name)
    check["_validate_metric_name"](key)
    check["_validate_param_name"](key)
    check["_validate_metric_name"](f"{key}.ci_high")


def test_metrics_whose_keys_meet_stay_apart() -> None:
    common: dict[str, Any] = {"unit": "", "direction": "none", "method": "m", "n": 1}
    estimates = [Estimate(metric="a[b]", value=1.0, **common), Estimate(metric="a/b", value=2.0, **common)]
    data = mp.payload(make(estimates=estimates))
    assert sorted(v for k, v in data.metrics.items() if k.startswith("a/b") and not k.endswith(".n")) == [1.0, 2.0]


def test_files_outside_the_result_folder_are_not_sent(tmp_path: Path) -> None:
    result = make(tmp_path / "r")
    (tmp_path / "secret").write_text("x")
    result.tables["items"] = TableFile(path="../secret", sha256="0", rows=1)
    assert "../secret" not in mp.artifact_files(result)
