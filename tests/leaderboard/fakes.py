"""Result folders made from invented measurements, with real rows, real statistics and real audio."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tokbench.audio import to_flac
from tokbench.config import JudgeCard, TaskCard, TokenizerCard
from tokbench.metrics.catalogue import metric
from tokbench.metrics.tokens import token_estimates, token_rows
from tokbench.results import Coverage, DatasetRecord, Failure, Manifest, Result, SampleClip, TableFile
from tokbench.stats import estimate
from tokbench.types import Encoded

ASR, SPEAKER = "whisper-tiny.en", "resemblyzer"
HEADLINE = (
    "wer", "speaker_similarity", "f0_corr", "estoi", "pesq_wb", "dnsmos_ovrl", "bps_effective", "tokens_per_second",
)  # fmt: skip
SENTENCES = (
    "The boat drifted past the old harbour wall",
    "She counted seven lamps along the empty street",
    "Nobody expected the river to rise that night",
    "A thin layer of frost covered the window",
    "They carried the heavy table up the stairs",
    "Please write your name at the top of the page",
    "The train to the coast was late again",
    "His brother kept bees behind the garden shed",
)
METRICS = (
    f"wer[{ASR}]", f"cer[{ASR}]", f"speaker_similarity[{SPEAKER}]", "stoi", "estoi", "pesq_wb", "f0_corr[praat-ac]",
    "dnsmos_ovrl[dnsmos]",
)  # fmt: skip
SPEAKERS = tuple(f"voice{i:02d}" for i in range(8))


@dataclass(frozen=True)
class Fake:
    """An invented tokenizer: how many words it spoils, how much of the voice it keeps, and its tokens."""

    name: str
    family: str
    wer: float
    voice: float
    rate: str = "50"
    vocab: int | None = 512
    streams: int = 1
    anchor: str | None = None
    decodes: bool = True
    failed: int = 0
    skipped: str | None = None


CROWD = (
    Fake("identity", "anchor", 0.03, 1.0, rate="16000", vocab=65536, anchor="ceiling"),
    Fake("resample-8000", "anchor", 0.04, 0.97, rate="8000", vocab=65536, anchor="ceiling"),
    Fake("codec2-1200", "Codec2", 0.42, 0.66, rate="300", vocab=16, anchor="floor"),
    Fake("codec2-3200", "Codec2", 0.21, 0.75, rate="800", vocab=16, anchor="floor"),
    Fake("opus-6k", "Opus", 0.11, 0.82, rate="750", vocab=256, anchor="floor"),
    Fake("kmeans-mfcc-100", "k-means units", 0.55, 0.58, vocab=100),
    Fake("kmeans-logmel-500", "k-means units", 0.44, 0.61, vocab=500),
    Fake("kmeans-whisper-tiny-500", "k-means units", 0.16, 0.60, vocab=500),
    Fake("kmeans-whisper-tiny-2000", "k-means units", 0.14, 0.62, vocab=2000),
    Fake("kanade-25hz", "Kanade", 0.09, 0.87, rate="25", vocab=12800),
    Fake("kanade-12hz", "Kanade", 0.12, 0.85, rate="25/2", vocab=12800),
    Fake("mimi-8", "RVQ codec", 0.10, 0.83, rate="25/2", vocab=2048, streams=8),
    Fake("nanocodec-12hz", "FSQ codec", 0.13, 0.80, rate="25/2", vocab=4032, streams=4),
    Fake("losatok-25hz", "Continuous latent", 0.06, 0.90, rate="25", vocab=None),
    Fake("hubert-units", "k-means units", 0.0, 0.0, vocab=500, decodes=False),
)

_DATA = DatasetRecord(
    name="mini-en", fingerprint="5e" * 32, utterances=64, speakers=8, seconds=166.4, licence="CC0-1.0", language="en",
    synthetic=True,
)  # fmt: skip


def dataset() -> DatasetRecord:
    """The invented corpus."""
    return _DATA


def task_card(**changes: Any) -> TaskCard:
    """The invented task."""
    fields: dict[str, Any] = {
        "name": "reconstruction",
        "title": "Reconstruction and bit rate",
        "summary": "Encode, decode, compare with the original: words, voice, pitch and signal kept, and the bits.",
        "protocol": "tokbench.protocols.reconstruction:Reconstruction",
        "data": ("mini-en",),
        "judges": (ASR, SPEAKER, "praat-ac", "dnsmos"),
        "headline": HEADLINE,
        "notes": ("Intrusive metrics punish decoders that synthesise anew.",),
    }
    return TaskCard(**(fields | changes))


def judges() -> dict[str, JudgeCard]:
    """The invented judges' cards."""
    common = {"adapter": "x:Y", "input_rate": 16000, "licence": "MIT"}
    return {
        ASR: JudgeCard(name=ASR, summary="A small English recogniser.", kind="asr", **common),
        SPEAKER: JudgeCard(name=SPEAKER, summary="A speaker encoder trained with GE2E.", kind="speaker", **common),
        "praat-ac": JudgeCard(name="praat-ac", summary="Praat's autocorrelation pitch.", kind="pitch", **common),
        "dnsmos": JudgeCard(name="dnsmos", summary="Opinion scores without a reference.", kind="mos", **common),
    }


def tokenizer_card(fake: Fake) -> TokenizerCard:
    """The card of an invented tokenizer."""
    kind = "latent" if fake.vocab is None else "codes"
    size: dict[str, Any] = {"dim": 32} if fake.vocab is None else {"vocab": fake.vocab}
    names = ["content"] if fake.streams == 1 else [f"q{i}" for i in range(fake.streams)]
    return TokenizerCard.model_validate(
        {
            "name": fake.name,
            "summary": f"An invented tokenizer of the family {fake.family}, for trying the pages.",
            "adapter": "tokbench.tokenizers.anchors:PcmAnchor",
            "family": fake.family,
            "capabilities": ["discrete" if fake.vocab else "continuous", *(["decode"] if fake.decodes else [])],
            "streams": [{"name": n, "kind": kind, "rate_hz": fake.rate, "role": "mixed"} | size for n in names],
            "globals": [{"name": "speaker", "dim": 128}] if fake.family == "Kanade" else [],
            "input_rate": 16000,
            "output_rate": 16000 if fake.decodes else None,
            "anchor": fake.anchor,
            "licence": "MIT",
            "notes": ["Its numbers are invented."],
        }
    )


def manifest(**changes: Any) -> Manifest:
    """A plausible manifest."""
    fields: dict[str, Any] = {
        "tokbench": "0.1.0", "git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": False,
        "python": "3.11.9", "platform": "Linux", "packages": {"whisper-normalizer": "0.1.15"}, "device": "cpu",
        "seeds": [0], "draws": 10000, "argv": ["tokbench", "run", "--suite", "mini"], "started": "2026-11-20T10:00:00Z",
        "judges": judges(),
        "judge_identities": {ASR: {"model.bin": "ab" * 32}, SPEAKER: {"resemblyzer": "0.1.4"},
                             "praat-ac": {"praat-parselmouth": "0.4.5"},
                             "dnsmos": {"sig_bak_ovr.onnx": "cd" * 32}},
        "tokenizer_weights": {"centroids.safetensors": "ef" * 32}, "normaliser": "whisper-english",
        "resampler": "soxr-hq", "params": {"normaliser": "whisper-english"},
    }  # fmt: skip
    return Manifest(**(fields | changes))


def write_result(
    root: Path,
    fake: Fake,
    *,
    task: TaskCard | None = None,
    dataset: DatasetRecord = _DATA,
    clips: int = 3,
    draws: int = 500,
    **changes: Any,
) -> Path:
    """Write one result folder, as the runner does, and return it."""
    task, card = task or task_card(), tokenizer_card(fake)
    folder = root / fake.name / f"{task.name}-v{task.version}-{dataset.name}-{dataset.fingerprint[:4]}"
    folder.mkdir(parents=True)
    record = manifest(**changes)
    if fake.skipped:
        result = Result(status="not_applicable", reason=fake.skipped, tokenizer=card, task=task, dataset=dataset,
                        estimates=[], coverage=None, manifest=record)  # fmt: skip
        (folder / "result.json").write_text(result.model_dump_json(indent=1))
        return folder
    items = _items(fake)
    tables = {"items": items, "tokens": _tokens(fake, card)}
    estimates = []
    if fake.decodes:
        estimates = [estimate(metric(name), items, draws=draws) for name in METRICS]
    estimates += token_estimates(tables["tokens"], card, draws=draws, seed=0)
    failed = [Failure(id=f"item{i}", stage="decode", error="has no samples") for i in range(fake.failed)]
    result = Result(
        status="partial" if failed else "complete",
        tokenizer=card, task=task, dataset=dataset, estimates=estimates,
        coverage=Coverage(expected=len(items), scored=len(items) - len(failed), failed=failed), manifest=record,
    )  # fmt: skip
    for name, table in tables.items():
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        (folder / f"{name}.parquet").write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        result.tables[name] = TableFile(path=f"{name}.parquet", sha256=digest, rows=len(table))
    if fake.decodes:
        _clips(fake, folder, result, clips)
    (folder / "result.json").write_text(result.model_dump_json(indent=1))
    return folder


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "little"))


def _items(fake: Fake) -> pd.DataFrame:
    rows: list[Mapping[str, Any]] = []
    for s, speaker in enumerate(SPEAKERS):
        hard = _rng("speaker", s).normal(0, 0.3)
        for u, sentence in enumerate(SENTENCES):
            rng, shared = _rng(fake.name, s, u), _rng("item", s, u).normal(0, 0.4)
            words = len(sentence.split())
            rate = float(np.clip(fake.wer * np.exp(hard + shared), 0, 0.95))
            errors = float(rng.binomial(words, rate))
            voice = float(np.clip(fake.voice + 0.03 * hard + rng.normal(0, 0.03), 0, 1))
            quality = float(np.clip(1 - fake.wer + rng.normal(0, 0.03), 0.05, 1))
            unvoiced = u == 3 and s == 2
            rows.append({
                "id": f"{speaker}-{u:03d}", "speaker": speaker, "error": None,
                f"wer_errors[{ASR}]": errors, f"wer_words[{ASR}]": float(words),
                f"cer_errors[{ASR}]": 3 * errors, f"cer_characters[{ASR}]": float(len(sentence)),
                f"speaker_similarity[{SPEAKER}]": voice, "stoi": quality, "estoi": quality - 0.08,
                "pesq_wb": 1 + 3.5 * quality**2, "f0_corr[praat-ac]": float("nan") if unvoiced else voice - 0.02,
                "why[f0_corr[praat-ac]]": "fewer than 3 frames are voiced in both" if unvoiced else None,
                "dnsmos_ovrl[dnsmos]": 3.3 + rng.normal(0, 0.1),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _tokens(fake: Fake, card: TokenizerCard) -> pd.DataFrame:
    ids, speakers, encoded = [], [], []
    for s, speaker in enumerate(SPEAKERS):
        for u in range(len(SENTENCES)):
            rng = _rng("tokens", fake.name, s, u)
            seconds = 1.0
            streams: dict[str, Any] = {}
            for spec in card.stream_specs:
                frames = min(round(float(spec.rate_hz) * seconds), 400)
                if spec.vocab:
                    streams[spec.name] = rng.zipf(1.3, frames).clip(1, spec.vocab).astype(np.int64) - 1
                else:
                    streams[spec.name] = rng.normal(size=(frames, spec.dim or 1)).astype(np.float32)
            ids.append(f"{speaker}-{u:03d}")
            speakers.append(speaker)
            encoded.append(Encoded(streams, 16000, {g.name: np.zeros(g.dim, np.float32) for g in card.global_specs}))
    return pd.DataFrame(token_rows(ids, speakers, encoded, 16000))


def _clips(fake: Fake, folder: Path, result: Result, count: int) -> None:
    (folder / "samples").mkdir()
    for index in range(count):
        sentence = SENTENCES[index]
        item = f"{SPEAKERS[2 * index % len(SPEAKERS)]}-{index:03d}"
        original = _babble(index)
        rng = _rng("clip", fake.name, index)
        decoded = 0.2 * (1 + index) * (original + fake.wer * rng.normal(0, 0.1, len(original)).astype(np.float32))
        words = sentence.split()
        heard = [w if rng.random() > fake.wer else ("tree", "", f"{w} on")[rng.integers(3)] for w in words]
        said = {"original": (original, sentence), "decoded": (decoded, " ".join(w for w in heard if w))}
        for kind, (wave, transcript) in said.items():
            path = folder / "samples" / f"{item}-{kind}.flac"
            path.write_bytes(to_flac(wave[: len(wave) - len(fake.name)], 16000))
            result.samples.append(
                SampleClip(item=item, kind=kind, path=f"samples/{path.name}", text=sentence, transcript=transcript)
            )


def _babble(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two seconds that sound a little like a voice: harmonics under a syllable envelope."""
    t = np.arange(32000) / 16000
    pitch = 120 + 20 * seed + 15 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.2 * voice * (0.5 + 0.5 * np.sin(2 * np.pi * 3.5 * t)) ** 2).astype(np.float32)
