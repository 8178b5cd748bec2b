"""The stage that trains probes, behind the store as the others are, and resumed from checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import DatasetError, ItemError, StoreError
from tokbench.store.code import modules_hash
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.loop import LOOP_MODULES, Log
from tokbench.types import Encoded

__all__ = ["TrainingStage"]

_UNIT = 8


@dataclass
class TrainingStage:
    """Training of probes for one workbench.

    Attributes:
        store: where weights and checkpoints are kept; None cannot train.
        device: "cpu" or "cuda".
        encode: the workbench's tokens of utterances.
        seconds: the workbench's time by stage; training adds to "train".
        data: what the task's probes are trained on; None where it has none.
        report: label of a training -> where its progress is told; None tells nobody.
    """

    store: Store | None
    device: str
    encode: Callable[[Sequence[Utterance]], list[Encoded | ItemError]]
    seconds: dict[str, float]
    data: Dataset | None = None
    report: Callable[[str], Log] | None = None

    def tokens(self, *, seed: int = 0) -> list[Encoded | ItemError]:
        """Tokens of the training data, in its order.

        They are encoded in units of eight utterances, the same for every task and probe. The seed shuffles the order in
        which missing units are made, so that workers training different seeds at the same time share the encoding.

        Raises:
            DatasetError: the task names no training data.
        """
        if self.data is None:
            raise DatasetError("the task names no data to train its probe on", hint="Give it with --set train=DATA")
        utterances = self.data.utterances
        starts = range(0, len(utterances), _UNIT)
        made: dict[int, list[Encoded | ItemError]] = {}
        for k in np.random.default_rng(seed).permutation(len(starts)):
            start = starts[int(k)]
            made[start] = self.encode(utterances[start : start + _UNIT])
        return [tokens for start in starts for tokens in made[start]]

    def fit(self, parts: Mapping[str, Any], label: str, run: Callable[[Checkpoint, Log | None], Payload]) -> Payload:
        """A trained probe: found in the store, or trained from its last checkpoint.

        Args:
            parts: every fact that decides the weights: tokens, texts and units as hashes, the recipe's identity, code.
            label: for progress bars and `tokbench cache ls`: tokenizer, task, seed.
            run: trains with `fit(..., checkpoint=, log=)`, gives `Fitted.payload()` and what else is to be kept.

        Raises:
            TrainingError: of `run`; nothing is kept but the checkpoint.
        """
        facts = {**parts, "device": self.device, "loop": modules_hash(LOOP_MODULES)}
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
