"""The workbench of one worker: runs the stages of a task, each behind the store.

A protocol asks for tokens, waves and evidence; the workbench finds them in the store or computes them, batch first
and one by one where the batch fails, so that one bad utterance costs one row. What it computed is timed; what it
read is not.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from tokbench.audio import RESAMPLER, pcm_sha256, resample
from tokbench.config import JudgeCard, TokenizerCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import (
    DatasetError,
    DependencyError,
    ItemError,
    NotApplicable,
    StoreError,
    TokenizerUnavailable,
    UndefinedMetric,
)
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.load import judge_class, load_judge
from tokbench.store.code import class_hash, modules_hash
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey
from tokbench.tokenizers.base import ExposesCodebook, ExposesFeatures, ExposesPosterior, Tokenizer
from tokbench.tokenizers.load import load_tokenizer, tokenizer_class
from tokbench.tokenizers.replay import Replay, load_replay
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.loop import Log
from tokbench.types import Encoded, Wave

__all__ = ["Bench", "Clip", "TokenizerHandle", "judge_identity"]

log = logging.getLogger("tokbench.bench")

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_WAVES_KEPT = 64
_TRAIN_UNIT = 8
_TRAIN_MODULES = ("tokbench.training.loop", "tokbench.training.order", "tokbench.training.recipe")

# What a card says for readers only, and what cannot change a token.
_DESCRIPTIVE = {
    "summary", "notes", "url", "citation", "proven", "licence", "trained_on", "languages", "family", "anchor",
    "decoder", "parameters", "capabilities", "requires", "environment",
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """Audio with an identity: float32 `[n]`, rate in Hz, sha256 of both."""

    wave: Wave
    rate: int

    @cached_property
    def sha256(self) -> str:
        """Identity of the samples and the rate."""
        return pcm_sha256(self.wave, self.rate)

    def at(self, rate: int) -> Clip:
        """The clip at another rate (soxr HQ)."""
        return self if rate == self.rate else Clip(resample(self.wave, self.rate, rate), rate)


@dataclass(frozen=True)
class TokenizerHandle:
    """How a tokenizer was asked for; loaded on first use, once a process.

    Attributes:
        spec: a card's name, or `replay:FOLDER`.
        device: "cpu" or "cuda".
        weights: folder that replaces the card's weights.
        allow_pickle: whether the user allowed pickled weights.
    """

    spec: str
    device: str = "cpu"
    weights: Path | None = None
    allow_pickle: bool = False

    @cached_property
    def replay(self) -> Replay | None:
        """The replay, where the spec names one."""
        return load_replay(self.spec) if self.spec.startswith("replay:") else None

    @cached_property
    def card(self) -> TokenizerCard:
        """The card, without loading the model."""
        from tokbench.registry import find_card

        return self.replay.card if self.replay else find_card(TokenizerCard, self.spec)

    @cached_property
    def weights_identity(self) -> dict[str, str]:
        """Name -> sha256 or version of everything outside the card that decides the tokens."""
        if self.replay:
            return {"replay": self.replay.content_hash()}
        return tokenizer_class(self.card).weights_identity(self.card, self.weights)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything about the tokenizer that decides tokens and audio, for store keys."""
        try:
            code = "replay" if self.replay else class_hash(tokenizer_class(self.card))
            weights = self.weights_identity
        except DependencyError as error:
            raise TokenizerUnavailable(error.what, where=error.where, hint=error.hint) from error
        return {
            "card": self.card.model_dump(mode="json", exclude=_DESCRIPTIVE),
            "weights": weights,
            "code": code,
            "device": self.device,
        }

    @cached_property
    def live(self) -> Tokenizer:
        """The loaded tokenizer.

        Raises:
            TokenizerUnavailable: a library or the weights are missing; with what to type.
        """
        try:
            return self._load()
        except DependencyError as error:
            raise TokenizerUnavailable(error.what, where=error.where, hint=error.hint) from error

    def _load(self) -> Tokenizer:
        return load_tokenizer(self.spec, device=self.device, weights=self.weights, allow_pickle=self.allow_pickle)

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the loaded model."""
        return {key: value for key, value in self.__dict__.items() if key not in ("live", "replay")}


def judge_identity(card: JudgeCard, weights: Path | None = None) -> dict[str, Any]:
    """Everything that decides a judge's evidence, for store keys and the manifest."""
    cls = judge_class(card)
    dump = card.model_dump(mode="json", include={"name", "kind", "adapter", "input_rate", "params"})
    return {"card": dump, "weights": cls.identity(card, weights), "code": class_hash(cls)}


@dataclass
class Bench:
    """Stages behind the store.

    Attributes:
        store: where units are kept; None computes everything (speed measurements).
        tokenizer: what is measured.
        judges: cards by name.
        judge_weights: local folders by judge name.
        train_data: what the task's probes are trained on; None where it has none.
        report: label of a training -> where its progress is told; None tells nobody.
        seconds: time spent computing, by stage.
    """

    store: Store | None
    tokenizer: TokenizerHandle
    judges: dict[str, JudgeCard]
    device: str = "cpu"
    judge_weights: dict[str, Path] = field(default_factory=dict)
    train_data: Dataset | None = None
    report: Callable[[str], Log] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _loaded: dict[str, Judge] = field(default_factory=dict)
    _identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    _clips: OrderedDict[tuple[str, int | None], Clip] = field(default_factory=OrderedDict)

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
        return [_attempt(partial(self.clip, u, rate), "read") for u in utterances]

    # -- tokens ------------------------------------------------------------------------------------------------

    def encode(self, utterances: Sequence[Utterance]) -> list[Encoded | ItemError]:
        """Tokens of each utterance, checked against the card."""
        card = self.tokenizer.card
        replay = self.tokenizer.replay
        if replay is not None:
            return [_attempt(partial(replay.encoded, u.id), "encode") for u in utterances]
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
        made = self._stage(key, good, run, _pack_tokens, _unpack_tokens, ready=lambda: self.tokenizer.live)
        return _merge(clips, made)

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
        made = self._stage(key, good, run, _pack_features, _unpack_features, ready=lambda: self.tokenizer.live)
        return _merge(clips, made)

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
        made = self._stage(key, good, run, _pack_posteriors, _unpack_posteriors, ready=lambda: self.tokenizer.live)
        return _merge(clips, made)

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
        pairs = [_both(item, ref) for item, ref in zip(items, references, strict=True)]
        good = [pair for pair in pairs if not isinstance(pair, ItemError)]

        def run(batch: Sequence[tuple[Encoded, Encoded | None]]) -> list[Clip]:
            content = [item for item, _ in batch]
            voices = [ref for _, ref in batch if ref is not None] if globals_from is not None else None
            waves = self.tokenizer.live.decode(content, globals_from=voices)
            return [Clip(_finite(wave), rate) for wave in waves]

        key = UnitKey(
            "decode",
            {
                "tokenizer": self.tokenizer.identity,
                "tokens": [[_tokens_sha256(part) for part in pair] for pair in good],
            },
            f"{card.name}: audio of {len(good)} utterances",
        )
        made = self._stage(key, good, run, _pack_clips, _unpack_clips, ready=lambda: self.tokenizer.live)
        return _merge(pairs, made)

    def reconstruct(
        self, utterances: Sequence[Utterance]
    ) -> tuple[list[Encoded | ItemError] | None, list[Clip | ItemError] | None]:
        """Tokens and decoded audio of each utterance; None for what the tokenizer does not give."""
        replay = self.tokenizer.replay
        if replay is not None:
            encoded = self.encode(utterances) if self.tokenizer.card.streams else None
            if "decode" not in self.tokenizer.card.capabilities:
                return encoded, None
            return encoded, [_attempt(partial(_replayed, replay, u.id), "decode") for u in utterances]
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
        return [_attempt(partial(_replayed, replay, name), "decode") for name in names]

    # -- probes ------------------------------------------------------------------------------------------------

    def train_tokens(self, *, seed: int = 0) -> list[Encoded | ItemError]:
        """Tokens of the training data, in its order.

        They are encoded in units of eight utterances, the same for every task and probe. The seed shuffles the order in
        which missing units are made, so that workers training different seeds at the same time share the encoding.

        Raises:
            DatasetError: the task names no training data.
        """
        if self.train_data is None:
            raise DatasetError("the task names no data to train its probe on", hint="Give it with --set train=DATA")
        utterances = self.train_data.utterances
        starts = range(0, len(utterances), _TRAIN_UNIT)
        made: dict[int, list[Encoded | ItemError]] = {}
        for k in np.random.default_rng(seed).permutation(len(starts)):
            start = starts[int(k)]
            made[start] = self.encode(utterances[start : start + _TRAIN_UNIT])
        return [tokens for start in starts for tokens in made[start]]

    def train(self, parts: Mapping[str, Any], label: str, run: Callable[[Checkpoint, Log | None], Payload]) -> Payload:
        """A trained probe: found in the store, or trained from its last checkpoint.

        Args:
            parts: every fact that decides the weights: tokens, texts and units as hashes, the recipe's identity, code.
            label: for progress bars and `tokbench cache ls`: tokenizer, task, seed.
            run: trains with `fit(..., checkpoint=, log=)`, gives `Fitted.payload()` and what else is to be kept.

        Raises:
            TrainingError: of `run`; nothing is kept but the checkpoint.
        """
        facts = {**parts, "device": self.device, "loop": modules_hash(_TRAIN_MODULES)}
        key = UnitKey("train", facts, label)
        found = self.store.get(key) if self.store is not None else None
        if found is not None:
            return found
        if self.store is None:
            raise StoreError("training needs a store for its checkpoints", where=label)
        checkpoint = Checkpoint(self.store, UnitKey("checkpoint", facts, label))
        start = time.perf_counter()
        payload = run(checkpoint, self.report(label) if self.report is not None else None)
        self.seconds["train"] += time.perf_counter() - start
        self.store.put(key, payload)
        checkpoint.clear()
        return payload

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

        made = self._stage(key, good, run, _pack_evidence, _unpack_evidence, ready=lambda: self._judge(name), part=name)
        return _merge(clips, made)

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
        made = _attempt_batch(run, batch, key.stage)
        self.seconds[f"{key.stage}:{part}" if part else key.stage] += time.perf_counter() - start
        good = [one for one in made if not isinstance(one, ItemError)]
        if self.store is not None and len(good) == len(made):
            self.store.put(key, pack(good))
        return made


def _attempt(call: Callable[[], _Out], stage: str) -> _Out | ItemError:
    """Run for one item; whatever goes wrong with it becomes its error, except what the user must mend first."""
    try:
        return call()
    except ItemError as error:
        return _staged(error, stage)
    except (DependencyError, StoreError, NotApplicable, UndefinedMetric, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # third-party models raise anything; it becomes a typed, reported row
        log.debug("%s failed", stage, exc_info=True)
        return _staged(ItemError(f"{type(error).__name__}: {error}"), stage)


def _attempt_batch(
    run: Callable[[Sequence[_In]], list[_Out]], batch: Sequence[_In], stage: str
) -> list[_Out | ItemError]:
    whole = _attempt(lambda: run(batch), stage)
    if not isinstance(whole, ItemError):
        if len(whole) != len(batch):
            raise ItemError(f"{stage} gave {len(whole)} results for {len(batch)} items")
        return list(whole)
    if len(batch) == 1:
        return [whole]
    return [_attempt(partial(_first, run, item), stage) for item in batch]


def _staged(error: ItemError, stage: str) -> ItemError:
    error.stage = error.stage or stage
    return error


def _first(run: Callable[[Sequence[_In]], list[_Out]], item: _In) -> _Out:
    return run([item])[0]


def _replayed(replay: Replay, utterance_id: str) -> Clip:
    wave, rate = replay.audio(utterance_id)
    return Clip(_finite(wave), rate)


def _merge(slots: Sequence[object], made: Sequence[_Out | ItemError]) -> list[_Out | ItemError]:
    """Put results back where the inputs were usable; inputs that were errors stay errors."""
    results = iter(made)
    return [slot if isinstance(slot, ItemError) else next(results) for slot in slots]


def _both(
    item: Encoded | ItemError, reference: Encoded | ItemError | None
) -> tuple[Encoded, Encoded | None] | ItemError:
    if isinstance(item, ItemError):
        return item
    return reference if isinstance(reference, ItemError) else (item, reference)


def _finite(wave: Wave) -> Wave:
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise ItemError(f"the decoder gave {'NaN or infinite samples' if wave.ndim == 1 else f'shape {wave.shape}'}")
    return wave


def _tokens_sha256(encoded: Encoded | None) -> str | None:
    if encoded is None:
        return None
    digest = hashlib.sha256()
    for name, array in sorted(encoded.to_arrays().items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _pack_tokens(items: list[Encoded]) -> Payload:
    arrays = {name: array for i, item in enumerate(items) for name, array in item.to_arrays(f"{i}/").items()}
    return Payload(arrays, {"items": len(items)})


def _unpack_tokens(payload: Payload) -> list[Encoded]:
    grouped: list[dict[str, Any]] = [{} for _ in range(int(payload.record["items"]))]
    for name, array in payload.arrays.items():
        index, _, rest = name.partition("/")
        grouped[int(index)][rest] = array
    return [Encoded.from_arrays(arrays) for arrays in grouped]


def _pack_features(items: list[npt.NDArray[np.float32]]) -> Payload:
    return Payload({str(i): frames for i, frames in enumerate(items)}, {"items": len(items)})


def _unpack_features(payload: Payload) -> list[npt.NDArray[np.float32]]:
    return [np.asarray(payload.arrays[str(i)], np.float32) for i in range(int(payload.record["items"]))]


def _pack_clips(clips: list[Clip]) -> Payload:
    return Payload({str(i): clip.wave for i, clip in enumerate(clips)}, {"rates": [clip.rate for clip in clips]})


def _unpack_clips(payload: Payload) -> list[Clip]:
    return [
        Clip(np.asarray(payload.arrays[str(i)], np.float32), rate) for i, rate in enumerate(payload.record["rates"])
    ]


def _pack_posteriors(items: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]) -> Payload:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for i, (mean, log_variance) in enumerate(items):
        arrays |= {f"{i}/mean": mean, f"{i}/log_variance": log_variance}
    return Payload(arrays, {"items": len(items)})


def _unpack_posteriors(payload: Payload) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    found = payload.arrays
    return [
        (np.asarray(found[f"{i}/mean"], np.float32), np.asarray(found[f"{i}/log_variance"], np.float32))
        for i in range(int(payload.record["items"]))
    ]


def _pack_evidence(items: list[Evidence]) -> Payload:
    arrays = {f"{i}/{k}": v for i, item in enumerate(items) for k, v in item.items() if isinstance(v, np.ndarray)}
    plain = [{k: v for k, v in item.items() if not isinstance(v, np.ndarray)} for item in items]
    return Payload(arrays, {"items": plain})


def _unpack_evidence(payload: Payload) -> list[Evidence]:
    items: list[Evidence] = [dict(plain) for plain in payload.record["items"]]
    for name, array in payload.arrays.items():
        index, _, key = name.partition("/")
        items[int(index)][key] = array
    return items
