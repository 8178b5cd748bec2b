"""Invented results of the tasks beyond reconstruction: invented rows, and the real protocols' estimates of them."""

from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from leaderboard.fakes import ASR, SENTENCES, SPEAKER, SPEAKERS, Fake, dataset, judges, manifest, tokenizer_card

from tokbench.audio import to_flac
from tokbench.card_files import load_card
from tokbench.config import TaskCard, TokenizerCard
from tokbench.data.alignment import PHONES, SILENCE
from tokbench.errors import NotApplicable
from tokbench.jobs import protocol_of
from tokbench.metrics.abx import condition_components
from tokbench.metrics.base import under
from tokbench.metrics.wer import word_errors
from tokbench.registry import package_folder
from tokbench.results import Coverage, Result, SampleClip, TableFile

TASKS = ("vc", "speaker", "abx", "pnmi")


def card_of(fake: Fake) -> TokenizerCard:
    """The fake's card with everything that these tasks ask for."""
    card = tokenizer_card(fake)
    swaps = bool(card.globals) and fake.decodes
    extra = [*(["codebook"] if fake.vocab and fake.anchor is None else []), *(["swap_global"] if swaps else [])]
    streams = [{**s.model_dump(), "role": "waveform" if float(s.rate_hz) > 500 else s.role} for s in card.streams]
    changed = card.model_dump() | {"capabilities": [*card.capabilities, *extra], "streams": streams}
    return TokenizerCard.model_validate(changed)


def write_task(root: Path, fake: Fake, name: str, *, draws: int = 200, clips: int = 0, **changes: Any) -> Path:
    """Write one result of a task, as the runner does, and return its folder."""
    task = load_card(package_folder("tasks") / f"{name}.yaml", TaskCard)
    card = card_of(fake)
    params = task.params | {"min_cells": 3} if name == "abx" else dict(task.params)
    used = {judge: found for judge, found in judges().items() if judge in (*task.judges, ASR)} if task.judges else {}
    protocol = protocol_of(task)(task, used, params, 0)
    folder = root / fake.name / f"{task.name}-mini-en"
    folder.mkdir(parents=True)
    record = manifest(judges=used, params=params, **changes)
    try:
        protocol.check(card)
    except NotApplicable as reason:
        result = Result(status="not_applicable", reason=reason.what, tokenizer=card, task=task, dataset=dataset(),
                        estimates=[], coverage=None, manifest=record)  # fmt: skip
        (folder / "result.json").write_text(result.model_dump_json(indent=1))
        return folder
    tables = {name: pd.DataFrame(rows) for name, rows in _ROWS[task.name](fake, card, protocol).items()}
    derived = protocol.derived(tables, card)
    estimates = protocol.estimates(tables | derived, card, draws=draws)
    count = len(tables["items"])
    result = Result(status="complete", tokenizer=card, task=task, dataset=dataset(), estimates=estimates,
                    coverage=Coverage(expected=count, scored=count), manifest=record)  # fmt: skip
    for table, frame in (tables | derived).items():
        add_table(folder, result, table, frame)
    if clips and task.name == "vc":
        _clips(fake, folder, result, clips)
    (folder / "result.json").write_text(result.model_dump_json(indent=1))
    return folder


def add_table(folder: Path, result: Result, name: str, frame: pd.DataFrame) -> None:
    """Write rows beside a result and name them in it."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    (folder / f"{name}.parquet").write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    result.tables[name] = TableFile(path=f"{name}.parquet", sha256=digest, rows=len(frame))


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def _voice(speaker: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return _rng("voice", speaker).normal(size=16)


def _vc(fake: Fake, card: TokenizerCard, protocol: Any) -> dict[str, list[dict[str, Any]]]:
    items, vectors = [], []
    for place in range(40):
        rng = _rng("vc", fake.name, place)
        source, target = place % 8, (place * 3 + 1 + (place % 8 == (place * 3 + 1) % 8)) % 8
        name = f"{SPEAKERS[source]}-{place:03d}__{SPEAKERS[target]}-{place:03d}"
        said = SENTENCES[place % len(SENTENCES)]
        heard = " ".join(w if rng.random() > fake.wer else "tree" for w in said.split())
        original = " ".join(w if _rng("said", place, i).random() > 0.03 else "tree" for i, w in enumerate(said.split()))
        keep = float(np.clip(fake.voice + rng.normal(0, 0.25), 0, 1))
        voices = {
            "converted": keep * _voice(target) + (1 - keep) * _voice(source) + rng.normal(0, 0.8, 16),
            "reference": _voice(target) + _rng("ref", place).normal(0, 0.5, 16),
            "real": _voice(target) + _rng("real", place).normal(0, 0.9, 16),
            "source": _voice(source) + _rng("src", place).normal(0, 0.5, 16),
        }

        def cosine(a: str, b: str, v: dict[str, Any] = voices) -> float:
            return float(v[a] @ v[b] / np.linalg.norm(v[a]) / np.linalg.norm(v[b]))

        items.append(
            {"id": name, "speaker": SPEAKERS[source], "target_speaker": SPEAKERS[target], "text": said, "error": None,
             "stage": None, f"transcript[{ASR}]": heard, f"transcript_original[{ASR}]": original,
             f"similarity_target[{SPEAKER}]": cosine("converted", "reference"),
             f"similarity_source[{SPEAKER}]": cosine("converted", "source"),
             f"similarity_real_target[{SPEAKER}]": cosine("real", "reference"),
             f"similarity_real_source[{SPEAKER}]": cosine("real", "source")}
            | under(word_errors(said, heard, normaliser="whisper-english", name="wer"), ASR)
        )  # fmt: skip
        vectors += [
            {"id": name, "judge": SPEAKER, "role": role, "speaker": SPEAKERS[target], "utterance": f"{role}-{name}",
             "values": voices[role].tolist()}
            for role in ("converted", "reference", "real")
        ]  # fmt: skip
    return {"items": items, "vectors": vectors}


def _speaker(fake: Fake, card: TokenizerCard, protocol: Any) -> dict[str, list[dict[str, Any]]]:
    items, vectors = [], []
    for s, speaker in enumerate(SPEAKERS):
        for u in range(5):
            rng = _rng("speaker", fake.name, s, u)
            item = f"{speaker}-{u:03d}"
            items.append({"id": item, "speaker": speaker, "gender": "fm"[s % 2], "chapter": None, "text": f"text {u}",
                          "error": None, "stage": None})  # fmt: skip
            left = 0.2 + fake.wer
            made = [(f"{g.name}:global", "global", 2 * _voice(s) + rng.normal(size=16)) for g in card.globals]
            made.append((f"{card.streams[0].name}:pooled", "pooled", left * _voice(s) + rng.normal(size=16)))
            vectors += [{"id": item, "vector_of": n, "kind": k, "values": v.tolist()} for n, k, v in made]
    return {"items": items, "vectors": vectors}


def _abx(fake: Fake, card: TokenizerCard, protocol: Any) -> dict[str, list[dict[str, Any]]]:
    items, conditions = [], []
    pairs = [(a, b) for a in PHONES[:6] for b in PHONES[:6] if a != b]
    for speaker in SPEAKERS:
        for number, (a, b) in enumerate(pairs):
            row: dict[str, Any] = {"id": f"{speaker}/{a}/{b}", "speaker": speaker, "phone": a, "other": b,
                                   "error": None, "stage": None}  # fmt: skip
            for place, kind in enumerate(protocol.representations(card)):
                for c, condition in enumerate(protocol.conditions):
                    rng = _rng("abx", fake.name, speaker, a, b, kind.name, condition)
                    error = float(np.clip(0.08 + fake.wer * 0.6 + 0.05 * c - 0.02 * place + rng.normal(0, 0.06), 0, 1))
                    row |= under(condition_components(condition, error, number, 1.0), kind.name)
            items.append(row)
    for kind in protocol.representations(card):
        conditions += [
            {"metric": f"{condition}[{kind.name}]", "items": 400, "compared": 400, "empty": 0, "cells": 240,
             "triplets": 9000, "distance": kind.distance, "error": 0.2}
            for condition in protocol.conditions if condition != "abx_within"
        ] + [{"metric": f"abx_within[{kind.name}]", "items": 400, "compared": 400, "empty": 0, "cells": 1,
              "triplets": 2, "distance": kind.distance, "error": 0.2}]  # fmt: skip
    return {"items": items, "conditions": conditions}


def _pnmi(fake: Fake, card: TokenizerCard, protocol: Any) -> dict[str, list[dict[str, Any]]]:
    labels = (SILENCE, *PHONES)
    stream, vocab = card.streams[0].name, card.streams[0].vocab or 1
    items, joint = [], []
    for speaker in SPEAKERS:
        rng = _rng("pnmi", fake.name, speaker)
        phones = rng.choice(len(labels), 2000, p=_prior(len(labels)))
        home = (phones * 37 + rng.integers(0, max(1, vocab // 60), 2000) * 11) % vocab
        units = np.where(rng.random(2000) < 0.3 + fake.wer, rng.integers(0, vocab, 2000), home)
        items.append({"id": speaker, "speaker": speaker, "frames": 2000.0, "error": None, "stage": None})
        for shuffled, values in ((False, units), (True, rng.permutation(units))):
            pairs, counts = np.unique(np.stack([phones, values]), axis=1, return_counts=True)
            joint += [
                {"stream": stream, "shuffled": shuffled, "speaker": speaker, "phone": float(p), "label": labels[p],
                 "unit": float(z), "frames": float(n), "samples": float(n)}
                for (p, z), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)
            ]  # fmt: skip
    return {"items": items, "joint": joint}


def _prior(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = np.append(6.0, 1.0 / np.arange(2, count + 1) ** 0.6)
    return weights / weights.sum()


_ROWS = {"vc": _vc, "speaker": _speaker, "abx": _abx, "pnmi": _pnmi}


def curves(runs: tuple[str, ...] = ("content",), seeds: int = 3, steps: int = 400) -> pd.DataFrame:
    """A table "curves" of a trained probe: a falling loss, and a word error rate that is measured now and then."""
    rows = []
    for run in runs:
        for seed in range(seeds):
            rng = _rng("curve", run, seed)
            for step in range(1, steps + 1):
                loss = 5 * np.exp(-step / 90) + 0.1 + 0.05 * rng.normal()
                rows.append({"run": run, "seed": seed, "step": step, "name": "loss", "value": float(loss)})
                if step % 100 == 0:
                    wer = 0.3 + 0.7 * np.exp(-step / 150) + 0.01 * rng.normal()
                    rows.append({"run": run, "seed": seed, "step": step, "name": "wer", "value": float(wer)})
    return pd.DataFrame(rows)


def _clips(fake: Fake, folder: Path, result: Result, count: int) -> None:
    (folder / "samples").mkdir()
    frame = pd.read_parquet(folder / "items.parquet")
    for item, said, heard in frame[["id", "text", f"transcript[{ASR}]"]].head(count).itertuples(index=False):
        for kind, text in (("converted", said), ("reference", "Another sentence"), ("source", said)):
            wave = 0.1 * _rng("wave", fake.name if kind == "converted" else "", item, kind).normal(size=16000)
            path = folder / "samples" / f"{item}-{kind}.flac"
            path.write_bytes(to_flac(wave.astype(np.float32), 16000))
            transcript = heard if kind == "converted" else None
            clip = SampleClip(item=item, kind=kind, path=f"samples/{path.name}", text=text, transcript=transcript)
            result.samples.append(clip)
