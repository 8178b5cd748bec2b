"""How a probe is trained: everything a task card may set, and the learning rate it makes of it."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, ValidationError

from tokbench.config import Strict
from tokbench.errors import UserError

__all__ = ["Recipe"]

# How often something is written or shown changes no weight.
_SILENT = {"checkpoint_every_s", "log_every"}


class Recipe(Strict):
    """Budget and optimiser of one training; AdamW with a warm-up and a decay.

    Matrices decay, vectors (biases, norms, gains) do not. The seed decides initial weights (`seeded`), the order of the
    data (`Order`) and dropout.
    """

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    """Utterances, or packed sequences, a step."""
    lr: float = Field(gt=0)
    warmup: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    floor: float = Field(default=0.0, ge=0, le=1)
    """Share of `lr` that is left at the last step."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on the CPU."""
    compiled: bool = True
    """torch.compile on CUDA; never on the CPU, where probes are too small to earn the time."""
    threads: int = Field(default=1, gt=0)
    """CPU threads of a training on the CPU; sums, and so the last bits of the weights, depend on it."""
    checkpoint_every_s: float = Field(default=5.0, ge=0)
    """Seconds between checkpoints, at most what a kill costs; longer where writing one would take more than 5 % of the
    time. 0: every step."""
    log_every: int = Field(default=10, gt=0)
    """Steps between the points of a curve."""

    @classmethod
    def of(cls, params: Any, *, where: str, **over: Any) -> Recipe:
        """The recipe in a task's parameters, with `over` over them.

        Raises:
            UserError: a field is unknown or out of range; names it.
        """
        if not isinstance(params, dict):
            raise UserError("must be a mapping of the recipe's fields", where=where)
        try:
            return cls.model_validate({**params, **over})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            hint = f"Fields: {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else None
            raise UserError(str(first["msg"]), where=f"{where}.{name}", hint=hint) from None

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        return self.model_dump(mode="json", exclude=_SILENT)

    def lr_at(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        falling = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.lr * (self.floor + (1 - self.floor) * falling)
