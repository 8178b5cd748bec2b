"""The order of the data: which items a step sees, as a function of the step and the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Order"]

_POOL = 16  # batches that are sorted by length together: little padding, and still a shuffle


class Order:
    """Step -> indices of its items; seekable, so that a resumed training replays nothing.

    An epoch sees every item once, in an order drawn from (seed, epoch). Where lengths are given, items of similar
    length share a batch (within pools of 16 batches) and the batches are shuffled.

    Args:
        count: number of items, at least 1.
        size: items a step; the last batch of an epoch may hold fewer.
        seed: of the draws.
        lengths: one a item, any unit.
    """

    def __init__(self, count: int, size: int, *, seed: int, lengths: Sequence[int] | None = None) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"an order of {count} items in batches of {size} does not exist")
        self.count = count
        self.size = size
        self.seed = seed
        self.lengths = None if lengths is None else np.asarray(lengths, np.int64)
        self.steps_an_epoch = -(-count // size)
        self._epoch = -1
        self._batches: list[npt.NDArray[np.int64]] = []

    def __call__(self, step: int) -> npt.NDArray[np.int64]:
        """Indices int64 `[<= size]` of the step, counted from 0."""
        epoch, place = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = self._draw(epoch), epoch
        return self._batches[place]

    def _draw(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.count)
        if self.lengths is None:
            return [order[start : start + self.size] for start in range(0, self.count, self.size)]
        batches = []
        for start in range(0, self.count, self.size * _POOL):
            pool = order[start : start + self.size * _POOL]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[k : k + self.size] for k in range(0, len(pool), self.size)]
        return [batches[k] for k in rng.permutation(len(batches))]
