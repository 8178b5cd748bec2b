"""How a probe is trained: everything a task card may set, and the learning rate it makes of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from tokbench.errors import UserError

__all__ = ["Recipe"]

# How often something is written or shown changes no weight.
_SILENT = {"checkpoint_every_s", "log_every"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Budget and optimiser of one training; AdamW with a warm-up and a decay.

    Matrices decay, vectors (biases, norms, gains) do not. The seed decides initial weights (`seeded`), the order of the
    data (`Order`) and dropout. What a card gives is checked by `of`, with the ranges that stand here; the loop itself
    then needs no pydantic, whose 10 MB are more than the whole state of a small probe.
    """

    steps: Annotated[int, Gt(0)]
    batch: Annotated[int, Gt(0)]
    """Utterances, or packed sequences, a step."""
    lr: Annotated[float, Gt(0)]
    warmup: Annotated[int, Ge(0)] = 0
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    floor: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of `lr` that is left at the last step."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Annotated[float, Ge(0)] = 0.01
    clip: Annotated[float, Gt(0)] = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on the CPU."""
    compiled: bool = True
    """torch.compile on CUDA; never on the CPU, where probes are too small to earn the time."""
    threads: Annotated[int, Gt(0)] = 1
    """CPU threads of a training on the CPU; sums, and so the last bits of the weights, depend on it."""
    checkpoint_every_s: Annotated[float, Ge(0)] = 5.0
    """Seconds between checkpoints, at most what a kill costs; longer where writing one would take more than 5 % of the
    time. 0: every step."""
    log_every: Annotated[int, Gt(0)] = 10
    """Steps between the points of a curve."""

    @classmethod
    def of(cls, params: Any, *, where: str, **over: Any) -> Recipe:
        """The recipe in a task's parameters, with `over` over them.

        Raises:
            UserError: a field is unknown or out of range; names it.
        """
        if not isinstance(params, dict):
            raise UserError("must be a mapping of the recipe's fields", where=where)
        from pydantic import TypeAdapter, ValidationError

        given = {**params, **over}
        known = [one.name for one in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise UserError("is no field", where=f"{where}.{name}", hint=f"Fields: {', '.join(known)}")
        try:
            return TypeAdapter(cls).validate_python(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise UserError(str(first["msg"]), where=f"{where}.{name}") from None

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in _SILENT}
        return {**kept, "betas": list(self.betas)}

    def lr_at(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        falling = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.lr * (self.floor + (1 - self.floor) * falling)
