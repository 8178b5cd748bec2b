"""The workbench of one worker: runs the stages of a task, each behind the store.

A protocol asks for tokens, waves and evidence; the workbench finds them in the store or computes them, batch first
and one by one where the batch fails, so that one bad utterance costs one row. What it computed is timed; what it
read is not.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from tokbench.attempts import attempt, attempt_batch, both, merge
from tokbench.audio import RESAMPLER
from tokbench.bench_units import (
    pack_clips,
    pack_evidence,
    pack_features,
    pack_posteriors,
    pack_tokens,
    unpack_clips,
    unpack_evidence,
    unpack_features,
    unpack_posteriors,
    unpack_tokens,
)
from tokbench.clip import Clip, finite
from tokbench.config import JudgeCard
from tokbench.data.dataset import Utterance
from tokbench.errors import ItemError, NotApplicable
from tokbench.handle import TokenizerHandle, judge_identity
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.load import load_judge
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey
from tokbench.tokenizers.base import ExposesCodebook, ExposesFeatures, ExposesPosterior
from tokbench.tokenizers.replay import Replay
from tokbench.training.stage import TrainingStage
from tokbench.types import Encoded

__all__ = ["BENCH_MODULES", "Bench"]

BENCH_MODULES = (
    "tokbench.attempts",
    "tokbench.bench",
    "tokbench.clip",
    "tokbench.handle",
    "tokbench.bench_units",
    "tokbench.training.stage",
)
"""For `code_modules` of protocols: what stands between a tokenizer or judge and a protocol."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_WAVES_KEPT = 64


@dataclass
class Bench:
    """Stages behind the store.

    Attributes:
        store: where units are kept; None computes everything (speed measurements).
        tokenizer: what is measured.
        judges: cards by name.
        judge_weights: local folders by judge name.
        seconds: time spent computing, by stage.
        training: the stage that trains probes.
    """

    store: Store | None
    tokenizer: TokenizerHandle
    judges: dict[str, JudgeCard]
    device: str = "cpu"
    judge_weights: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    training: TrainingStage = field(init=False)
    _loaded: dict[str, Judge] = field(default_factory=dict)
    _identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    _clips: OrderedDict[tuple[str, int | None], Clip] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.training = TrainingStage(self.store, self.device, self.encode, self.seconds)

    # -- audio -------------------------------------------------------------------------------------------------

    def clip(self, utterance: Utterance, rate: int | None = None) -> Clip:
        """The utterance's audio at `rate` Hz, or at its own; the last few are kept in memory.

        Raises:
            AudioError: unusable audio.
        """
        key = (f"{utterance.path}\0{utterance.id}", rate)
        if key not in self._clips:
            if rate is None:
                self._clips[key] = Clip(*utterance.read())
            else:
                self._clips[key] = self.clip(utterance).at(rate)
            while len(self._clips) > _WAVES_KEPT:
                self._clips.popitem(last=False)
        return self._clips[key]

    def clips(self, utterances: Sequence[Utterance], rate: int | None = None) -> list[Clip | ItemError]:
        """`clip` for each, with errors in place."""
        return [attempt(partial(self.clip, u, rate), "read") for u in utterances]

    # -- tokens ------------------------------------------------------------------------------------------------

    def encode(self, utterances: Sequence[Utterance]) -> list[Encoded | ItemError]:
        """Tokens of each utterance, checked against the card."""
        card = self.tokenizer.card
        replay = self.tokenizer.replay
        if replay is not None:
            return [attempt(partial(replay.encoded, u.id), "encode") for u in utterances]
        clips = self.clips(utterances, card.input_rate)
        good = [clip for clip in clips if isinstance(clip, Clip)]

        def run(batch: Sequence[Clip]) -> list[Encoded]:
            made = self.tokenizer.live.encode([clip.wave for clip in batch])
            for one in made:
                one.check(card.stream_specs, card.global_specs)
            return made

        key = UnitKey(
            "encode",
            {"tokenizer": self.tokenizer.identity, "resampler": RESAMPLER, "audio": [clip.sha256 for clip in good]},
            f"{card.name}: tokens of {len(good)} utterances",
        )
        made = self._stage(key, good, run, pack_tokens, unpack_tokens, ready=lambda: self.tokenizer.live)
        return merge(clips, made)

    def features(
        self, utterances: Sequence[Utterance], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32] | ItemError]:
        """Continuous frames `[T, D]` of each utterance before or after quantisation.

        Raises:
            NotApplicable: the tokenizer does not show them.
        """
        card = self.tokenizer.card
        if self.tokenizer.replay is not None or "features" not in card.capabilities:
            raise NotApplicable(f"{card.name} does not show its features")
        clips = self.clips(utterances, card.input_rate)
        good = [clip for clip in clips if isinstance(clip, Clip)]

        def run(batch: Sequence[Clip]) -> list[npt.NDArray[np.float32]]:
            live = self.tokenizer.live
            if not isinstance(live, ExposesFeatures):
                raise NotApplicable(f"{card.name} declares features, but its adapter has none")
            return [np.asarray(one, np.float32) for one in live.features([clip.wave for clip in batch], which)]

        key = UnitKey(
            "features",
            {
                "tokenizer": self.tokenizer.identity,
                "which": which,
                "resampler": RESAMPLER,
                "audio": [clip.sha256 for clip in good],
            },
            f"{card.name}: {which} features of {len(good)} utterances",
        )
        made = self._stage(key, good, run, pack_features, unpack_features, ready=lambda: self.tokenizer.live)
        return merge(clips, made)

    def posteriors(
        self, utterances: Sequence[Utterance]
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | ItemError]:
        """Mean and natural-log variance of the latent, each `[T, D]`, of each utterance.

        Raises:
            NotApplicable: the tokenizer is not variational, or a replay.
        """
        card = self.tokenizer.card
        if self.tokenizer.replay is not None or "posterior" not in card.capabilities:
            raise NotApplicable(f"{card.name} does not show its posterior")
        clips = self.clips(utterances, card.input_rate)
        good = [clip for clip in clips if isinstance(clip, Clip)]

        def run(batch: Sequence[Clip]) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
            live = self.tokenizer.live
            if not isinstance(live, ExposesPosterior):
                raise NotApplicable(f"{card.name} declares a posterior, but its adapter has none")
            return live.posterior([clip.wave for clip in batch])

        key = UnitKey(
            "posterior",
            {"tokenizer": self.tokenizer.identity, "resampler": RESAMPLER, "audio": [clip.sha256 for clip in good]},
            f"{card.name}: posterior of {len(good)} utterances",
        )
        made = self._stage(key, good, run, pack_posteriors, unpack_posteriors, ready=lambda: self.tokenizer.live)
        return merge(clips, made)

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Vectors `[vocab, D]` of a stream's codes.

        Raises:
            NotApplicable: the tokenizer does not show them.
        """
        if self.tokenizer.replay is None and isinstance(self.tokenizer.live, ExposesCodebook):
            return np.asarray(self.tokenizer.live.codebook(stream), np.float32)
        raise NotApplicable(f"{self.tokenizer.card.name} does not show its codebook")

    def decode(
        self, items: Sequence[Encoded | ItemError], *, globals_from: Sequence[Encoded | ItemError] | None = None
    ) -> list[Clip | ItemError]:
        """Audio synthesised from tokens alone, as long as the utterance it describes.

        Raises:
            NotApplicable: the tokenizer cannot decode, or cannot swap globals.
        """
        card = self.tokenizer.card
        rate = card.output_rate
        if rate is None:
            raise NotApplicable(f"{card.name} turns speech into tokens only; it has no decoder")
        references: Sequence[Encoded | ItemError | None]
        references = globals_from if globals_from is not None else [None] * len(items)
        pairs = [both(item, ref) for item, ref in zip(items, references, strict=True)]
        good = [pair for pair in pairs if not isinstance(pair, ItemError)]

        def run(batch: Sequence[tuple[Encoded, Encoded | None]]) -> list[Clip]:
            content = [item for item, _ in batch]
            voices = [ref for _, ref in batch if ref is not None] if globals_from is not None else None
            waves = self.tokenizer.live.decode(content, globals_from=voices)
            return [Clip(finite(wave), rate) for wave in waves]

        key = UnitKey(
            "decode",
            {
                "tokenizer": self.tokenizer.identity,
                "tokens": [[_tokens_sha256(part) for part in pair] for pair in good],
            },
            f"{card.name}: audio of {len(good)} utterances",
        )
        made = self._stage(key, good, run, pack_clips, unpack_clips, ready=lambda: self.tokenizer.live)
        return merge(pairs, made)

    def reconstruct(
        self, utterances: Sequence[Utterance]
    ) -> tuple[list[Encoded | ItemError] | None, list[Clip | ItemError] | None]:
        """Tokens and decoded audio of each utterance; None for what the tokenizer does not give."""
        replay = self.tokenizer.replay
        if replay is not None:
            encoded = self.encode(utterances) if self.tokenizer.card.streams else None
            if "decode" not in self.tokenizer.card.capabilities:
                return encoded, None
            return encoded, [attempt(partial(_replayed, replay, u.id), "decode") for u in utterances]
        tokens = self.encode(utterances)
        return tokens, self.decode(tokens) if "decode" in self.tokenizer.card.capabilities else None

    def replayed(self, names: Sequence[str]) -> list[Clip | ItemError]:
        """Audio that the replay holds under these names.

        Raises:
            NotApplicable: the tokenizer is no replay.
        """
        replay = self.tokenizer.replay
        if replay is None:
            raise NotApplicable(f"{self.tokenizer.card.name} is no replay of audio")
        return [attempt(partial(_replayed, replay, name), "decode") for name in names]

    # -- evidence ----------------------------------------------------------------------------------------------

    def judge(self, name: str, clips: Sequence[Clip | ItemError]) -> list[Evidence | ItemError]:
        """What the judge says of each clip; clips are resampled to the judge's rate."""
        card = self.judges[name]
        good = [clip for clip in clips if isinstance(clip, Clip)]
        if name not in self._identities:
            self._identities[name] = judge_identity(card, self.judge_weights.get(name))
        key = UnitKey(
            "judge",
            {"judge": self._identities[name], "resampler": RESAMPLER, "audio": [clip.sha256 for clip in good],
             "device": self.device},
            f"{name}: {len(good)} clips",
        )  # fmt: skip

        def run(batch: Sequence[Clip]) -> list[Evidence]:
            return self._judge(name)([clip.at(card.input_rate).wave for clip in batch])

        made = self._stage(key, good, run, pack_evidence, unpack_evidence, ready=lambda: self._judge(name), part=name)
        return merge(clips, made)

    def _judge(self, name: str) -> Judge:
        if name not in self._loaded:
            self._loaded[name] = load_judge(name, device=self.device, weights=self.judge_weights.get(name))
        return self._loaded[name]

    # -- the mechanism -----------------------------------------------------------------------------------------

    def _stage(
        self,
        key: UnitKey,
        batch: Sequence[_In],
        run: Callable[[Sequence[_In]], list[_Out]],
        pack: Callable[[list[_Out]], Payload],
        unpack: Callable[[Payload], list[_Out]],
        *,
        ready: Callable[[], object],
        part: str | None = None,
    ) -> list[_Out | ItemError]:
        if not batch:
            return []
        if self.store is not None:
            payload = self.store.get(key)
            if payload is not None:
                return list(unpack(payload))
        ready()  # loading is not part of the time, and its errors are the user's to mend
        start = time.perf_counter()
        made = attempt_batch(run, batch, key.stage)
        self.seconds[f"{key.stage}:{part}" if part else key.stage] += time.perf_counter() - start
        good = [one for one in made if not isinstance(one, ItemError)]
        if self.store is not None and len(good) == len(made):
            self.store.put(key, pack(good))
        return made


def _replayed(replay: Replay, utterance_id: str) -> Clip:
    wave, rate = replay.audio(utterance_id)
    return Clip(finite(wave), rate)


def _tokens_sha256(encoded: Encoded | None) -> str | None:
    if encoded is None:
        return None
    digest = hashlib.sha256()
    for name, array in sorted(encoded.to_arrays().items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
