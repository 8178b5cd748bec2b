"""Writing with a `TokenModel`: one step at a time, from a cache, every id drawn among those of its slot.

Draws belong to the item: its name and the seed decide them, whatever shares its batch. There is no repetition penalty:
a code that repeats is a sound that lasts.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokbench.probes.decoder import Cache
from tokbench.probes.documents import Document
from tokbench.probes.layout import PAD
from tokbench.probes.token_model import TokenModel

__all__ = ["Sampling", "Written", "write"]

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How ids are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest.
        top_p: share of the probability, of the likeliest ids, that is kept.
        seed: of the draws, with the item's name.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """What was written after a prompt.

    Attributes:
        frames: the prompt's and the new ones, int64 `[F, slots]`.
        ended: whether the model ended it; False where it had to be stopped.
    """

    frames: Int
    ended: bool


@torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
def write(
    model: TokenModel,
    prompts: Sequence[Document],
    given: Sequence[Int],
    *,
    most: Sequence[int],
    sampling: Sampling,
    device: str = "cpu",
    cached: bool = True,
    endless: bool = False,
) -> list[Written]:
    """Go on from prompts, all in one batch.

    Args:
        model: in evaluation mode.
        prompts: what stands before the frames, without any frame; the name decides the draws.
        given: the first frames of each, int64 `[F, slots]`, `[0, slots]` for none.
        most: frames at which each is stopped, the given ones included.
        sampling: how.
        device: of the model.
        cached: False computes every step from the beginning (for tests).
        endless: never end before `most`.

    Returns:
        One for each prompt, with at least one frame.
    """
    return _Writer(model, prompts, given, most, sampling, device, cached=cached, endless=endless).run()


class _Writer:
    """The state of a batch that is being written."""

    def __init__(
        self,
        model: TokenModel,
        prompts: Sequence[Document],
        given: Sequence[Int],
        most: Sequence[int],
        sampling: Sampling,
        device: str,
        *,
        cached: bool,
        endless: bool,
    ) -> None:
        self.model, self.layout, self.sampling, self.device = model, model.layout, sampling, device
        self.prompts, self.endless = prompts, endless
        rows, slots = len(prompts), len(self.layout.slots)
        self.most = np.asarray(most, np.int64)
        self.given = np.array([len(frames) for frames in given], np.int64)
        room = int(max(self.most.max(initial=1), self.given.max(initial=0))) + 1
        self.frames = np.full((rows, room, slots), PAD, np.int64)
        for row, frames in enumerate(given):
            self.frames[row, : len(frames)] = frames
        # Frame before which a row is over; unknown until its end is drawn.
        self.over = np.where(self.given >= self.most, self.given, -1)
        self.ended = np.zeros(rows, np.bool_)
        self.draws = [np.random.default_rng([sampling.seed, zlib.crc32(p.name.encode())]) for p in prompts]
        self.cached = cached

    def run(self) -> list[Written]:
        """Write until every row is over."""
        hidden = self._begin()
        step = 0
        while not self._done(step):
            ids = self._choose(hidden, step)
            step += 1
            if self._done(step):
                break
            hidden = self._advance(ids)
        return [
            Written(self.frames[row, : int(self.over[row])].copy(), bool(self.ended[row]))
            for row in range(len(self.frames))
        ]

    def _done(self, step: int) -> bool:
        if (self.over < 0).any():
            return False
        if self.layout.pattern == "interleave":
            return True  # an end is drawn before a frame, so nothing of it is missing
        return bool((step >= np.maximum(self.over - self.given, 0) + len(self.layout.slots) - 1).all())

    # -- the network ---------------------------------------------------------------------------------------------

    def _begin(self) -> Tensor:
        """Read prompts and given frames, aligned at their last step; hidden states `[B, width]`."""
        laid = []
        for row, prompt in enumerate(self.prompts):
            count = int(self.given[row])
            steps, _ = self.layout.steps(self.frames[row, :count], end=False)
            # Of delayed columns, only the steps in which nothing is left to draw.
            steps = steps[:count] if self.layout.pattern == "delay" else steps
            laid.append(np.concatenate([prompt.ids, steps]))
        length = max(map(len, laid))
        ids = np.full((len(laid), length, self.layout.columns), PAD, np.int64)
        self.padding = np.array([length - len(one) for one in laid], np.int64)
        self.positions = np.zeros((len(laid), length), np.float32)
        for row, (prompt, one) in enumerate(zip(self.prompts, laid, strict=True)):
            ids[row, length - len(one) :] = one
            frames = len(one) - len(prompt)
            begun = np.arange(prompt.first, prompt.first + frames, dtype=np.float32)
            self.positions[row, length - len(one) :] = np.concatenate([prompt.positions, begun])
        self.next = np.array([p.first + len(one) - len(p) for p, one in zip(self.prompts, laid, strict=True)])
        self.ids = torch.from_numpy(ids).to(self.device)
        voices = [p.voice for p in self.prompts if p.voice is not None]
        self.voices = torch.from_numpy(np.stack(voices)).to(self.device) if voices else None
        at = [(row, int(self.padding[row]) + p.voice_step) for row, p in enumerate(self.prompts) if p.voice is not None]
        self.voice_at = torch.tensor(at, dtype=torch.int64, device=self.device).reshape(-1, 2)
        if self.cached:
            most = int((self.most - self.given).max(initial=0)) + 1
            extra = (most + 1) * len(self.layout.slots)
            self.cache = Cache(self.model.decoder.config, len(laid), length + extra, self.model.table)
        return self._read(self.ids, start=0)

    def _advance(self, ids: Int) -> Tensor:
        new = torch.from_numpy(ids).to(self.device)[:, None]
        self.positions = np.concatenate([self.positions, self.next[:, None].astype(np.float32)], axis=1)
        self.next = self.next + 1
        if self.cached:
            start = self.cache.used
            return self._read(new, start=start)
        self.ids = torch.cat([self.ids, new], dim=1)
        return self._read(self.ids, start=0)

    def _read(self, ids: Tensor, *, start: int) -> Tensor:
        steps = torch.arange(start, start + ids.shape[1], device=self.device)
        padding = torch.from_numpy(self.padding).to(self.device)[:, None]
        keys = torch.arange(start + ids.shape[1], device=self.device)
        causal = keys[None, None] <= steps[None, :, None]
        # Padding sees itself, because a softmax over nothing is not a number.
        visible = (keys[None, None] >= padding[..., None]) | (keys[None, None] == steps[None, :, None])
        x = self.model.embed(ids, self.voices, self.voice_at) if start == 0 else self.model.embed(ids)
        positions = torch.from_numpy(self.positions[:, start:]).to(self.device)
        cache = self.cache if self.cached else None
        hidden: Tensor = self.model.decoder(x, positions, (causal & visible)[:, None], cache)
        return hidden[:, -1]

    # -- the draws -----------------------------------------------------------------------------------------------

    def _choose(self, hidden: Tensor, step: int) -> Int:
        """Ids `[B, columns]` of a step, drawn where nothing is given; `step` counts from the first that is drawn."""
        slots = len(self.layout.slots)
        ids = np.full((len(self.frames), self.layout.columns), PAD, np.int64)
        for column in range(self.layout.columns):
            if self.layout.pattern == "interleave":
                slot = step % slots
                frame = self.given + step // slots
            else:
                slot = column
                frame = self.given + step - column
            live = np.flatnonzero((self.over < 0) | (frame < self.over))
            live = live[frame[live] >= 0]
            known = live[frame[live] < self.given[live]]
            ids[known, column] = self.frames[known, frame[known], slot]
            drawn = live[frame[live] >= self.given[live]]
            if not len(drawn):
                continue
            chosen = self._draw(hidden[torch.from_numpy(drawn).to(self.device)], slot, drawn, frame[drawn])
            for row, at, one in zip(drawn, frame[drawn], chosen, strict=True):
                ids[row, column] = one
                if one == self.layout.end:
                    self.over[row], self.ended[row] = at, True
                else:
                    self.frames[row, at, slot] = one
                    if slot == 0 and at + 1 >= self.most[row] and self.layout.pattern == "delay":
                        self.over[row] = at + 1
                    if slot == slots - 1 and at + 1 >= self.most[row] and self.layout.pattern == "interleave":
                        self.over[row] = at + 1
        return ids

    def _draw(self, hidden: Tensor, slot: int, rows: Int, frame: Int) -> Int:
        first, _ = self.layout.block(slot)
        logits = self.model.logits(hidden, slot).double().cpu()
        if slot == 0:
            # A first frame there must be, and a last one only where the caller allows an end.
            refused = torch.from_numpy((frame == 0) | self.endless)
            logits[refused, -1] = -torch.inf
        if self.sampling.temperature == 0:
            return logits.argmax(dim=1).numpy() + first
        probabilities, order = torch.softmax(logits / self.sampling.temperature, dim=1).sort(
            dim=1, descending=True, stable=True
        )
        before = probabilities.cumsum(dim=1) - probabilities
        probabilities = torch.where(before < self.sampling.top_p, probabilities, 0.0)
        ladder = probabilities.cumsum(dim=1)
        heights = torch.tensor([self.draws[row].random() for row in rows], dtype=torch.float64) * ladder[:, -1]
        place = torch.searchsorted(ladder, heights[:, None], right=True).clamp(max=logits.shape[1] - 1)
        return order.gather(1, place)[:, 0].numpy() + first
