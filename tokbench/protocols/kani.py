"""KaniTTS: how a published text-to-speech model speaks through NanoCodec's tokens.

A checkpoint of KaniTTS (LFM2, its LoRA merged or given beside it) writes the frames of NanoCodec at 0.6 kbit/s for each
text; nothing is trained. Its speech is judged like the probe's, beside the original and the original after the codec,
and the original's tokens are scored under their own text and another one.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.bench import BENCH_MODULES, Bench
from tokbench.config import TokenizerCard
from tokbench.data.dataset import Dataset
from tokbench.errors import CardError, ItemError, NotApplicable
from tokbench.metrics import text_to_speech
from tokbench.probes.kani import CODEBOOKS, CODES
from tokbench.probes.layout import Layout
from tokbench.probes.spans import Spans
from tokbench.protocols.base import Components, Item, Protocol, Row, Shard, failed_row
from tokbench.protocols.probing import encode_in_slices, evenly, other_texts, over_seeds, text_of, with_references
from tokbench.protocols.spoken import Speech, speech_metrics, speech_rows
from tokbench.types import Encoded

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.probes.kani import KaniWriter
    from tokbench.results import Estimate

__all__ = ["KaniSpeech"]

# Bits per second are left out: repeated frames are dropped and their durations charged to nobody.
_GAIN = tuple(m for m in text_to_speech.METRICS if m.name == "tts_information_gain")
_RATE = (25, 2)


class KaniSpeech(Protocol):
    """Write tokens with a published checkpoint, decode, judge."""

    optional_params: ClassVar[frozenset[str]] = frozenset({"adapter", "revision"})
    code_modules: ClassVar[tuple[str, ...]] = (
        *BENCH_MODULES, "tokbench.metrics.mos", "tokbench.metrics.speaker", "tokbench.metrics.text_to_speech",
        "tokbench.metrics.wer", "tokbench.probes.kani", "tokbench.probes.layout", "tokbench.probes.spans",
        "tokbench.protocols.base", "tokbench.protocols.probing", "tokbench.protocols.spoken",
    )  # fmt: skip
    estimate_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.bootstrap", "tokbench.metrics.base", "tokbench.metrics.mos", "tokbench.metrics.text_to_speech",
        "tokbench.protocols.probing", "tokbench.protocols.spoken", "tokbench.stats",
    )  # fmt: skip

    def check(self, card: TokenizerCard) -> None:
        """Raise `NotApplicable` for every tokenizer but NanoCodec at 0.6 kbit/s (four codebooks of 4032 at 12.5 Hz)."""
        super().check(card)
        shape = [(s.kind, s.vocab, s.rate_hz.as_integer_ratio()) for s in card.stream_specs]
        if shape != [("codes", CODES, _RATE)] * CODEBOOKS or "decode" not in card.capabilities:
            raise NotApplicable(
                f"{card.name} is not what KaniTTS writes: NanoCodec of {CODEBOOKS} codebooks at 12.5 Hz"
            )

    def items(self, dataset: Dataset) -> list[Item]:
        """Every utterance once a draw, with another one of its speaker."""
        draws = int(self.params.get("seeds", 1))
        if draws < 1:
            raise CardError("at least one seed is needed", where=f"task {self.task.name}: seeds")
        return with_references(dataset, range(self.seed, self.seed + draws))

    def outside(self) -> dict[str, str]:
        """The checkpoint, and the adapter where there is one."""
        named = {key: self.params.get(key) for key in ("checkpoint", "adapter") if self.params.get(key)}
        return {key: _identity(str(value), str(self.params.get("revision"))) for key, value in named.items()}

    def measure(self, bench: Bench, items: Sequence[Item], *, keep: frozenset[str]) -> Shard:  # noqa: ARG002
        """Rows of tables "items" (teacher forced), "generated" and "floors" (speech) of one draw a text."""
        writer = self._writer(bench.device)
        card = bench.tokenizer.card
        seed = items[0].seed or 0
        shard = Shard({"items": [], "generated": []})
        if seed == self.seed:  # the same for every draw
            shard.tables["floors"] = []
        encoded = encode_in_slices(bench, [item.utterances["utterance"] for item in items])
        names = [s.name for s in card.stream_specs]
        texts = other_texts([text_of(item) for item in items], seed=seed)
        for item, tokens, other in zip(items, encoded, texts, strict=True):
            if isinstance(tokens, ItemError):
                shard.tables["items"].append(failed_row(item, tokens))
            else:
                shard.tables["items"].append(_gain(writer, item, _stacked(tokens, names), other))
        able = [(i, t) for i, t in zip(items, encoded, strict=True) if isinstance(t, Encoded) and text_of(i)]
        chosen = [able[k] for k in evenly(int(self.params.get("utterances", 40)), len(able))]
        if chosen:
            layout = Layout.of(card.stream_specs)
            spans = Spans.of(layout, card.stream_specs, [t for _, t in able], card.input_rate)
            self._speak(bench, writer, spans, chosen, shard)
        return shard

    def estimates(self, tables: Mapping[str, pd.DataFrame], card: TokenizerCard, *, draws: int) -> list[Estimate]:  # noqa: ARG002
        """Metrics of the tokens and of the speech."""
        note = f"checkpoint {self.params.get('checkpoint')}"
        made = [
            over_seeds(m, tables["items"], draws=draws, seed=self.seed, note=note)
            for m in _GAIN
            if m.components[0] in tables["items"].columns
        ]
        for name in ("generated", "floors"):
            rows = tables.get(name)
            if rows is not None and len(rows):
                made += [
                    over_seeds(m, rows, draws=draws, seed=self.seed, table=name, note=note)
                    for m in speech_metrics(self.judges)
                    if all(component in rows.columns for component in m.components)
                ]
        for one in made:
            one.headline = one.metric.partition("[")[0] in self.task.headline
        return made

    def _writer(self, device: str) -> KaniWriter:
        from tokbench.probes.kani import KaniWriter

        adapter = self.params.get("adapter")
        revision = self.params.get("revision")
        return KaniWriter.load(
            str(self.params["checkpoint"]),
            revision=None if revision is None else str(revision),
            adapter=None if adapter is None else Path(str(adapter)),
            device=device,
        )

    def _speak(
        self, bench: Bench, writer: KaniWriter, spans: Spans, chosen: Sequence[tuple[Item, Encoded]], shard: Shard
    ) -> None:
        layout = spans.layout
        made: list[Encoded | ItemError] = []
        ended = []
        for item, tokens in chosen:
            most = 2 * len(layout.frames(tokens.streams))
            frames, over = writer.write(
                text_of(item) or "", most_frames=max(1, most),
                temperature=float(self.params.get("temperature", 0.6)), top_p=float(self.params.get("top_p", 0.95)),
                repetition_penalty=float(self.params.get("repetition_penalty", 1.1)),
                seed=zlib.crc32(item.id.encode()),
            )  # fmt: skip
            # Of the layout, only the offsets are used here: its own ids of these codes.
            laid = frames + np.array([slot.first for slot in layout.slots])
            made.append(spans.encoded(laid, {}) or ItemError("the speech is shorter than a packet"))
            ended.append(over)
        speech = Speech(
            generated=bench.decode(made),
            resynthesised=bench.decode([t for _, t in chosen]),
            originals=bench.clips([item.utterances["utterance"] for item, _ in chosen]),
            references=bench.clips([item.utterances["reference"] for item, _ in chosen]),
            ended=ended,
        )
        listened = math.ceil(self.task.samples / int(self.params.get("seeds", 1)))
        normaliser = str(self.params.get("normaliser", "whisper-english"))
        speech_rows(bench, self.judges, [item for item, _ in chosen], speech, shard, listened, normaliser)


def _gain(writer: KaniWriter, item: Item, frames: Any, other: str | None) -> Row:
    row = Components(
        {"id": item.id, "speaker": item.cluster, "seed": item.seed, "error": None, "stage": None, "other_text": other}
    )
    own = text_of(item)
    if own is None or other is None:
        row.missing(_GAIN, "the utterance has no text" if own is None else "there is no other text")
        return row.row

    def compute() -> dict[str, float]:
        true, shuffled = writer.bits(own, frames), writer.bits(other, frames)
        return {
            "tts_bits": true,
            "tts_bits_other_text": shuffled,
            "tts_gain_bits": shuffled - true,
            "tts_words": float(len(own.split())),
        }

    row.add(_GAIN, compute)
    return row.row


def _stacked(tokens: Encoded, names: Sequence[str]) -> Any:
    """Codes of all streams, int64 `[F, 4]`."""
    return np.stack([np.asarray(tokens.streams[name], np.int64) for name in names], axis=1)


def _identity(location: str, revision: str) -> str:
    folder = Path(location)
    if not folder.is_dir():
        return hashlib.sha256(f"{location}@{revision}".encode()).hexdigest()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _files_hash(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@lru_cache(maxsize=8)
def _files_hash(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        digest.update(Path(name).name.encode())
        with Path(name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
