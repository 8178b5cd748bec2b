"""MLflow as a sink: an experiment a suite, a parent run a tokenizer, a child run a result.

Results on disk are the truth. Whatever goes wrong here is said once, kept in the spool folder, sent by the next run,
and never raised into the run. MLflow is imported when the first new result is logged.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

from tokbench.errors import TrackingError
from tokbench.mlflow_payload import (
    Payload,
    artifact_files,
    batches,
    card_hash,
    curve_points,
    metric_key,
    payload,
    result_hash,
)
from tokbench.mlflow_scope import quiet_mlflow
from tokbench.results import Result

__all__ = ["DEFAULT_URI", "Tracker", "artifact_place"]

DEFAULT_URI = "sqlite:///mlflow.db"

_log = logging.getLogger(__name__)

_PAUSE = 60.0
"""Seconds after a failure in which results go straight to the spool."""
_STALE = 600.0
"""Seconds after which a spool file that a process has claimed is taken back."""
_PARAMS, _METRICS, _TAGS = 100, 1000, 100


class Tracker:
    """Sends results to MLflow.

    Args:
        uri: tracking server or database; None for `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`. The artifacts of
            a SQLite database lie in `mlartifacts/` beside it.
        spool: folder for results that could not be sent; made when needed.
        suite: name of the experiment.

    No method raises, except for a programming error in the arguments.
    """

    def __init__(self, uri: str | None, *, spool: Path, suite: str) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        self.spool = spool
        self.suite = suite
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._parents: dict[tuple[str, str], str] = {}
        self._down_until = 0.0
        self._warned: set[str] = set()
        self._spooled = 0

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log_result(self, result: Result) -> bool:
        """Send one result, or spool it; True where MLflow has it now.

        A result that is there already (same content, apart from times) is not sent again. Where it has a folder, its
        files are attached.
        """
        if self._in_database(result):
            return True
        if time.monotonic() < self._down_until:
            self._keep(result, "MLflow did not answer before")
            return False
        failure = self._try(result, self.suite)
        if failure is not None:
            self._keep(result, failure)
            return False
        return True

    def open_training(self, label: str) -> Callable[[int, int, Mapping[str, float]], None]:
        """A run for the curves of one training; what it returns sends (step, milliseconds, values).

        Empty values end the run. Errors are the caller's: it follows a training that must not care.
        """
        from mlflow.entities import Metric

        with quiet_mlflow():
            client = self._connect()
            run = client.create_run(
                self._experiment(client, self.suite),
                run_name=label,
                tags={"tokbench.kind": "training", "mlflow.source.name": "tokbench", "mlflow.source.type": "LOCAL"},
            )

        def send(step: int, now: int, values: Mapping[str, float]) -> None:
            with quiet_mlflow():
                if not values:
                    client.set_terminated(run.info.run_id, status="FINISHED")
                    return
                metrics = [Metric(metric_key(name), value, now, step) for name, value in values.items()]
                client.log_batch(run.info.run_id, metrics=metrics)

        return send

    def flush_spool(self) -> int:
        """Send what earlier runs could not; returns how many were sent. Stops at the first failure."""
        sent = 0
        for path in self._pending():
            claimed = path.with_name(f"{path.name}.{os.getpid()}.sending")
            try:
                path.rename(claimed)
                os.utime(claimed)
            except OSError:
                continue  # another process has taken it
            try:
                entry = json.loads(claimed.read_text(encoding="utf-8"))
                result = self._unspool(entry)
                suite = str(entry["suite"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._warn_once(str(path), f"cannot be sent and is set aside: {_one_line(error)}")
                claimed.replace(path.with_suffix(".unusable"))
                continue
            failure = None if self._in_database(result) else self._try(result, suite)
            if failure is not None:
                claimed.replace(path)
                break
            claimed.unlink(missing_ok=True)
            sent += 1
        return sent

    def close(self) -> None:
        """Try the spool once more, and say what is left in it."""
        if time.monotonic() >= self._down_until and self._pending():
            self.flush_spool()
        if self._spooled and (left := len(self._pending())):
            _log.warning("%d results wait in %s; the next run sends them to MLflow", left, self.spool)

    # Failure

    def _try(self, result: Result, suite: str) -> str | None:
        """Send; the reason in one line where it does not work."""
        try:
            with quiet_mlflow():
                self._send(result, suite)
        except ModuleNotFoundError as error:
            if error.name not in ("mlflow", "mlflow.tracking"):
                return self._failed(error)
            self._down_until = float("inf")
            reason = 'MLflow is not installed (python -m pip install "tokbench[mini]")'
            self._warn_once("missing", f"{reason}; results are kept, and sent when it is")
            return reason
        # MLflow raises its own, requests', SQLAlchemy's and the operating system's errors; none may cost a result.
        except Exception as error:  # noqa: BLE001
            return self._failed(error)
        return None

    def _failed(self, error: Exception) -> str:
        self._client = None
        self._experiments.clear()
        self._parents.clear()
        self._down_until = time.monotonic() + _PAUSE
        failure = TrackingError(
            f"results could not be sent ({_one_line(error)})",
            where=f"MLflow at {_without_password(self.uri)}",
            hint=f"They are kept in {self.spool}, and the next run sends them",
        )
        self._warn_once("failed", str(failure))
        return str(failure)

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s", message)

    # Spool

    def _pending(self) -> list[Path]:
        if not self.spool.is_dir():
            return []
        for claimed in self.spool.glob("*.sending"):
            try:
                if time.time() - claimed.stat().st_mtime > _STALE:
                    claimed.rename(claimed.with_name(claimed.name.split(".json")[0] + ".json"))
            except FileNotFoundError:
                continue  # its owner has finished
        return sorted(self.spool.glob("*.json"))

    def _keep(self, result: Result, reason: str) -> None:
        digest = result_hash(result)
        entry = {
            "format": 1,
            "suite": self.suite,
            "folder": str(result.folder.absolute()) if result.folder else None,
            "result": None if result.folder else result.model_dump(mode="json"),
            "reason": reason,
        }
        target = self.spool / f"{digest[:32]}.json"
        try:
            self.spool.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=self.spool)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            Path(temporary).replace(target)
        except OSError as error:
            self._warn_once("spool", f"{self.spool}: cannot be written ({error.strerror}); MLflow misses a result")
            return
        self._spooled += 1

    @staticmethod
    def _unspool(entry: dict[str, Any]) -> Result:
        return Result.read(Path(entry["folder"])) if entry["folder"] else Result.model_validate(entry["result"])

    # Sending

    def _in_database(self, result: Result) -> bool:
        """Whether a SQLite database has the result, asked without importing MLflow, which takes seconds."""
        path = _sqlite_path(self.uri)
        if path is None or not path.is_file():
            return False
        query = (
            "SELECT 1 FROM tags JOIN runs USING (run_uuid) WHERE tags.key = 'tokbench.result' AND tags.value = ? "
            "AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active' LIMIT 1"
        )
        try:
            address = f"file:{quote(str(path))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=2.0)) as database:
                return database.execute(query, (result_hash(result),)).fetchone() is not None
        except sqlite3.Error:
            return False  # another schema or a busy file: the client is asked instead

    def _send(self, result: Result, suite: str) -> None:
        client = self._connect()
        experiment = self._experiment(client, suite)
        data = payload(result)
        found = client.search_runs(
            [experiment], filter_string=f"tags.`tokbench.result` = '{data.tags['tokbench.result']}'", max_results=1
        )
        if found and found[0].info.status == "FINISHED":
            return
        # A run that was cut off is filled up: the same params are accepted again.
        run_id = found[0].info.run_id if found else self._create_child(client, experiment, result, data)
        self._log(client, run_id, result, data)
        client.set_terminated(run_id, status="FINISHED")

    def _connect(self) -> Any:
        if self._client is None:
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def _experiment(self, client: Any, suite: str) -> str:
        if suite not in self._experiments:
            found = client.get_experiment_by_name(suite)
            if found is None:
                place = artifact_place(self.uri, suite)
                self._experiments[suite] = client.create_experiment(
                    suite, artifact_location=place, tags={"tokbench.suite": suite}
                )
            else:
                self._experiments[suite] = found.experiment_id
        return self._experiments[suite]

    def _parent(self, client: Any, experiment: str, result: Result) -> str:
        digest = card_hash(result)
        key = (experiment, digest)
        if key not in self._parents:
            found = client.search_runs([experiment], filter_string=f"tags.`tokbench.card` = '{digest}'", max_results=1)
            if found:
                self._parents[key] = found[0].info.run_id
            else:
                card = result.tokenizer
                tags = {
                    "tokbench.kind": "tokenizer",
                    "tokbench.card": digest,
                    "tokenizer": card.name,
                    "family": card.family,
                    "licence": card.licence,
                    "mlflow.source.name": "tokbench",
                    "mlflow.source.type": "LOCAL",
                    "mlflow.note.content": card.summary,
                }
                run = client.create_run(experiment, tags=tags, run_name=card.name)
                client.set_terminated(run.info.run_id, status="FINISHED")
                self._parents[key] = run.info.run_id
        return self._parents[key]

    def _create_child(self, client: Any, experiment: str, result: Result, data: Payload) -> str:
        parent = self._parent(client, experiment, result)
        first = next(batches(data.tags, _TAGS - 2))
        run = client.create_run(
            experiment, start_time=data.started, tags=first | {"mlflow.parentRunId": parent}, run_name=data.name
        )
        return str(run.info.run_id)

    def _log(self, client: Any, run_id: str, result: Result, data: Payload) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        metrics = list(batches(data.metrics, _METRICS - _PARAMS - _TAGS))  # 1000 entries of all kinds in a request
        params = list(batches(data.params, _PARAMS))
        tags = list(batches(dict(list(data.tags.items())[_TAGS - 2 :]), _TAGS))
        for index in range(max(len(metrics), len(params), len(tags))):
            client.log_batch(
                run_id,
                metrics=[Metric(k, v, now, 0) for k, v in _part(metrics, index).items()],
                params=[Param(k, v) for k, v in _part(params, index).items()],
                tags=[RunTag(k, v) for k, v in _part(tags, index).items()],
            )
        for part in batches({str(k): point for k, point in enumerate(curve_points(result))}, _METRICS):
            points = [Metric(metric_key(name), value, now, step) for name, step, value in part.values()]
            client.log_batch(run_id, metrics=points)
        if result.dataset is not None:
            client.log_inputs(run_id, datasets=[_dataset_input(result)])
        with tempfile.TemporaryDirectory(prefix="tokbench-mlflow-") as name:
            folder = Path(name)
            for place, path in artifact_files(result).items():
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            if any(folder.iterdir()):
                client.log_artifacts(run_id, str(folder))


def _part(parts: list[dict[str, Any]], index: int) -> dict[str, Any]:
    return parts[index] if index < len(parts) else {}


def _dataset_input(result: Result) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    record = result.dataset
    assert record is not None
    dataset = Dataset(
        name=record.name[:500],
        digest=record.fingerprint[:36],  # MLflow's limit; the whole is in the tag dataset_fingerprint
        source_type="tokbench",
        source=json.dumps({"name": record.name, "licence": record.licence})[:65000],
        profile=json.dumps(record.model_dump(include={"utterances", "speakers", "seconds", "language", "synthetic"})),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", "evaluation")])


def _sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address; `sqlite:///a.db` is relative, `sqlite:////a.db` absolute."""
    prefix = "sqlite:///"
    name = unquote(uri.removeprefix(prefix).partition("?")[0])
    return Path(name) if uri.startswith(prefix) and name and name != ":memory:" else None


def artifact_place(uri: str, experiment: str) -> str | None:
    """Where an experiment's artifacts lie: `mlartifacts/` beside a SQLite database, else as the server says (None)."""
    path = _sqlite_path(uri)
    return None if path is None else (path.parent / "mlartifacts" / quote(experiment, safe="")).absolute().as_uri()


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else uri


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
