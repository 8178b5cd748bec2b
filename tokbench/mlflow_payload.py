"""What MLflow is told about a result: names, values and tags within its limits. Pure functions, no MLflow import."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tokbench.results import RESULT_FILE, Result

__all__ = ["Payload", "artifact_files", "batches", "card_hash", "curve_points", "metric_key", "payload", "result_hash"]

MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 5000
MAX_KEY = 250
"""Limits of the tracking server (mlflow.utils.validation; tag values: of the REST documentation)."""

MAX_CLIPS = 6
MAX_FILE_BYTES = 20_000_000
_FIGURES = (".svg", ".png", ".pdf")
_VOLATILE = ("started", "argv")


@dataclass(frozen=True)
class Payload:
    """One child run.

    Attributes:
        name: run name: task, dataset and seeds.
        params: of the tokenizer and the task, flattened.
        metrics: value, interval ends and counts.
        tags: provenance; `metric.KEY` holds the original name where MLflow forbids it.
        started: milliseconds since 1970, None where the manifest has no readable time.
    """

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    started: int | None


def result_hash(result: Result) -> str:
    """Sha256 of a result without what differs between two runs that found the same: times and the command line."""
    record = result.model_dump(mode="json", exclude={"timings"})
    for field in _VOLATILE:
        record["manifest"].pop(field, None)
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def card_hash(result: Result) -> str:
    """Sha256 of the tokenizer's card: another card under the same name gets its own parent run."""
    return hashlib.sha256(result.tokenizer.model_dump_json().encode()).hexdigest()


def metric_key(name: str) -> str:
    """A name that MLflow accepts: `wer[whisper-tiny.en]` becomes `wer/whisper-tiny.en`, which its pages group by `wer`.

    Allowed are letters, digits, `_`, `-`, `.`, space, `/` and `:`.
    """
    key = re.sub(r"\[([^\]]*)\]", r"/\1", name)
    key = re.sub(r"[^\w\-. /:]", "_", key, flags=re.ASCII).strip("/. ")
    key = re.sub(r"/{2,}|/\.+/", "/", key) or "metric"
    return key if len(key) <= MAX_KEY - 10 else f"{key[: MAX_KEY - 20]}-{_short(name)}"


def payload(result: Result) -> Payload:
    """Everything but artifacts and the dataset."""
    manifest = result.manifest
    seeds = ",".join(str(seed) for seed in manifest.seeds)
    params = dict(_params(result))
    tags = {
        "tokbench.kind": "result",
        "tokbench.result": result_hash(result),
        "tokbench.version": manifest.tokbench,
        "tokenizer": result.tokenizer.name,
        "family": result.tokenizer.family,
        "task": result.task.name,
        "task_version": str(result.task.version),
        "seeds": seeds,
        "status": result.status,
        "git_commit": manifest.git_commit or "unknown",
        "git_dirty": "unknown" if manifest.git_dirty is None else str(manifest.git_dirty).lower(),
        "device": manifest.device,
        "mlflow.source.name": "tokbench",
        "mlflow.source.type": "LOCAL",
    }
    if manifest.git_commit:
        tags["mlflow.source.git.commit"] = manifest.git_commit
    if result.reason:
        tags["reason"] = result.reason
    if result.dataset is not None:
        tags |= {
            "dataset": result.dataset.name,
            "dataset_fingerprint": result.dataset.fingerprint,
            "dataset_synthetic": str(result.dataset.synthetic).lower(),
        }
    for judge, identity in manifest.judge_identities.items():
        tags[f"judge.{metric_key(judge)}"] = json.dumps(identity, sort_keys=True)
    metrics, names = _metrics(result)
    tags |= {f"metric.{key}": name for key, name in names.items() if key != name}
    where = f" on {result.dataset.name}" if result.dataset is not None else ""
    return Payload(
        name=f"{result.task.name}{where}, seed {seeds}" if seeds else f"{result.task.name}{where}",
        params=params,
        metrics=metrics,
        tags={_key(key): _cut(value, MAX_TAG_VALUE) for key, value in tags.items()},
        started=_milliseconds(manifest.started),
    )


def curve_points(result: Result) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of every point of the table `curves`; nothing where the task trains nothing."""
    table = result.tables.get("curves")
    if table is None or result.folder is None or not (result.folder / table.path).is_file():
        return
    import pandas as pd

    for row in pd.read_parquet(result.folder / table.path).itertuples(index=False):
        if math.isfinite(row.value):  # type: ignore[arg-type]
            yield f"curve/{row.run}/{row.name}/seed {row.seed}", int(row.step), float(row.value)  # type: ignore[arg-type]


def artifact_files(result: Result) -> dict[str, Path]:
    """Place in the run -> file: the result, its tables, a few clips, and figures; none above 20 MB."""
    folder = result.folder
    if folder is None:
        return {}
    named = [RESULT_FILE, *(table.path for table in result.tables.values())]
    items = list(dict.fromkeys(sample.item for sample in result.samples))
    first = [sample.path for sample in result.samples if items.index(sample.item) < 2]
    named += first[:MAX_CLIPS]
    files = {name: folder / name for name in named}
    files |= {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _FIGURES
    }
    inside = folder.resolve()
    return {
        name: path
        for name, path in files.items()
        if path.is_file() and path.resolve().is_relative_to(inside) and path.stat().st_size <= MAX_FILE_BYTES
    }


def batches(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Cut a mapping into parts of at most `size` entries."""
    items = list(values.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])


def _params(result: Result) -> Iterator[tuple[str, str]]:
    card = result.tokenizer
    flat: dict[str, Any] = {
        "tokenizer": card.name,
        "tokenizer.adapter": card.adapter,
        "tokenizer.streams": ", ".join(f"{s.name} {s.rate_hz} Hz {s.vocab or s.dim}" for s in card.streams),
        "tokenizer.input_rate": card.input_rate,
        "tokenizer.output_rate": card.output_rate,
        "tokenizer.decoder": card.decoder,
        "task": result.task.name,
        "task.version": result.task.version,
        "seeds": ",".join(str(seed) for seed in result.manifest.seeds),
        "normaliser": result.manifest.normaliser,
        "resampler": result.manifest.resampler,
        "attention": result.manifest.attention,
    }
    for prefix, mapping in (
        ("tokenizer.params", card.params),
        ("task.params", result.task.params),
        ("run.params", result.manifest.params),
        ("weights", result.manifest.tokenizer_weights),
    ):
        flat |= _flatten(mapping, prefix)
    for key, value in flat.items():
        if value is not None:
            yield _key(metric_key(key)), _cut(str(value), MAX_PARAM_VALUE)


def _flatten(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}.{key}"
        if isinstance(inner, Mapping):
            flat |= _flatten(inner, name)
        else:
            flat[name] = json.dumps(inner, default=str) if isinstance(inner, list | tuple) else inner
    return flat


def _metrics(result: Result) -> tuple[dict[str, float], dict[str, str]]:
    """Metric values by key, and key -> original name."""
    values: dict[str, float | None] = {}
    names: dict[str, str] = {}
    for estimate in result.estimates:
        key = metric_key(estimate.metric)
        if key in names and names[key] != estimate.metric:
            key = f"{key}-{_short(estimate.metric)}"
        names[key] = estimate.metric
        values[key] = estimate.value
        values[f"{key}.n"] = float(estimate.n)
        if estimate.ci95 is not None:
            values[f"{key}.ci_low"], values[f"{key}.ci_high"] = estimate.ci95
    if result.coverage is not None:
        values["coverage.expected"] = float(result.coverage.expected)
        values["coverage.scored"] = float(result.coverage.scored)
    for stage, seconds in result.timings.items():
        values[f"seconds.{metric_key(stage)}"] = seconds
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}, names


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _key(key: str) -> str:
    return key if len(key) <= MAX_KEY else f"{key[: MAX_KEY - 9]}-{_short(key)}"


def _cut(value: str, limit: int) -> str:
    """A value that is too long keeps its beginning, and the hash of the whole."""
    if len(value) <= limit:
        return value
    end = f"... [{len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()}]"
    return value[: limit - len(end)] + end


def _milliseconds(iso: str) -> int | None:
    try:
        return int(datetime.fromisoformat(iso).timestamp() * 1000)
    except ValueError:
        return None
