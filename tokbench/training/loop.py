"""The one training loop of all probes: deterministic, resumable to the same result, and never past a bad loss.

A model's `forward(**batch.inputs)` returns the loss, or a mapping with "loss" and other scalars to draw. Batches are a
function of the step. The state (weights, optimiser, random numbers, curve) goes to the checkpoint every few seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokbench.errors import MissingBackend, TrainingError
from tokbench.store.units import Payload
from tokbench.training.checkpoint import Checkpoint, pack_tensors, unpack_tensors
from tokbench.training.feeding import ahead, moved
from tokbench.training.recipe import Recipe
from tokbench.training.state import check_same, make_moments, restore, trained_weights

if TYPE_CHECKING:
    import torch

__all__ = ["LOOP_MODULES", "Batch", "Fitted", "Log", "Point", "fit", "load_weights", "seeded"]

LOOP_MODULES = (
    "tokbench.training.feeding",
    "tokbench.training.loop",
    "tokbench.training.order",
    "tokbench.training.recipe",
    "tokbench.training.state",
)
"""What decides the outcome of a training beside the model and its data; for store keys."""

_WRITING = 0.05  # share of the time that checkpoints may take


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    Attributes:
        inputs: keyword arguments of the model's `forward`, on the CPU: tensors, lists of tensors, plain values.
        tokens: what the speed counts.
    """

    inputs: dict[str, Any]
    tokens: int


@dataclass(frozen=True)
class Point:
    """Where a training is.

    Attributes:
        step, steps: done, and in all.
        values: means over the steps since the last point ("loss" and whatever else the model gives), "lr", "grad_norm".
        tokens_per_second: since the training began or was resumed.
        seconds_left: at that speed.
    """

    step: int
    steps: int
    values: dict[str, float]
    tokens_per_second: float
    seconds_left: float


Log = Callable[[Point], None]


@dataclass
class Fitted:
    """A trained model.

    Attributes:
        model: in evaluation mode, on the device.
        curves: points {"step", "name", "value"}; the same for a resumed and an undisturbed training.
        facts: parameters, tokens, steps, seconds, tokens_per_second, precision, resumed_at, and peak memory on CUDA.
    """

    model: torch.nn.Module
    curves: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> Payload:
        """Trained weights and curves, for the store."""
        arrays, dtypes = pack_tensors(trained_weights(self.model), "model")
        return Payload(arrays, {"dtypes": dtypes, "curves": self.curves, "facts": self.facts})


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws of torch inside depend on the seed, and those outside do not notice."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def load_weights(model: torch.nn.Module, payload: Payload) -> None:
    """Put the weights of `Fitted.payload` into a model built the same way.

    Raises:
        TrainingError: names or shapes differ; says which.
    """
    restore(model, unpack_tensors(payload, "model"))


def fit(
    model: torch.nn.Module,
    batches: Callable[[int], Batch],
    recipe: Recipe,
    *,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    log: Log | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train a model, from its checkpoint where there is one.

    Args:
        model: built inside `seeded(recipe.seed)`; moved to the device.
        batches: step (from 0) -> batch; called from a thread of its own on CUDA, one step ahead.
        recipe: see `Recipe`.
        device: "cpu" or "cuda".
        checkpoint: where the state is kept; None trains without.
        log: called every `recipe.log_every` steps.
        identity: facts that must not change under a checkpoint (the vocabulary, the data), JSON-able.

    Raises:
        TrainingError: the loss or its gradient is not finite (says the step and where; the last good state is kept), or
            the checkpoint belongs to another model, vocabulary or recipe.
        StoreError: a checkpoint cannot be written; the one before it stays.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingBackend("torch", extra="mini", needed_by="training a probe") from None

    with _threads(torch, device, recipe.threads), seeded(recipe.seed):
        training = _Training(model.to(device), recipe, device, checkpoint, dict(identity or {}))
        training.resume()
        training.run(batches, log)
        return training.finish()


class _Training:
    """The state of one training, and a step."""

    def __init__(
        self,
        model: torch.nn.Module,
        recipe: Recipe,
        device: str,
        checkpoint: Checkpoint | None,
        identity: dict[str, Any],
    ) -> None:
        import torch

        self.model = model
        self.recipe = recipe
        self.device = device
        self.checkpoint = checkpoint
        self.identity = {**identity, "recipe": recipe.identity()}
        self.on_cuda = torch.device(device).type == "cuda"
        wants_bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and self.on_cuda)
        self.precision = "bf16" if wants_bf16 else "fp32"
        self.trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in self.trained if p.ndim >= 2]
        vectors = [p for p in self.trained if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=recipe.lr, betas=recipe.betas, fused=True
        )
        if not self.on_cuda:
            make_moments(self.optimizer)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.resumed_at: list[int] = []
        self.curves: list[dict[str, Any]] = []
        self.sums: dict[str, torch.Tensor] = {}
        self.summed = 0
        self._bad: torch.Tensor | None = None
        self._saved = time.monotonic()
        self._saving = 0.0
        self._since = time.monotonic()

    # -- a step --------------------------------------------------------------------------------------------------

    def run(self, batches: Callable[[int], Batch], log: Log | None) -> None:
        """All steps that are left."""
        import torch

        forward: Callable[..., Any] = self.model
        if self.on_cuda:
            torch.backends.cudnn.benchmark = False
            torch.cuda.reset_peak_memory_stats()
            if self.recipe.compiled:
                forward = torch.compile(self.model, dynamic=None)
        self.model.train()
        self._since = self._saved = time.monotonic()
        begun_step, begun_tokens = self.step, self.tokens
        for batch in ahead(batches, range(self.step, self.recipe.steps), wanted=self.on_cuda):
            self._step(forward, batch)
            if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
                self._check()
                values = self._point()
                if log is not None:
                    spent = max(time.monotonic() - self._since, 1e-9)
                    left = (self.recipe.steps - self.step) * spent / (self.step - begun_step)
                    log(Point(self.step, self.recipe.steps, values, (self.tokens - begun_tokens) / spent, left))
            now = time.monotonic()
            every = self.recipe.checkpoint_every_s
            wait = max(every, self._saving / _WRITING) if every else 0.0
            if self.checkpoint is not None and now - self._saved >= wait and self.step < self.recipe.steps:
                self._check()
                self.save()
        self.seconds += time.monotonic() - self._since

    def _step(self, forward: Callable[..., Any], batch: Batch) -> None:
        import torch

        drawn = torch.get_rng_state()
        inputs = {name: moved(value, self.device) for name, value in batch.inputs.items()}
        lr = self.recipe.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
            made = forward(**inputs)
        scalars: dict[str, torch.Tensor] = dict(made) if isinstance(made, Mapping) else {"loss": made}
        loss = scalars["loss"]
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip, foreach=True)
        good = torch.isfinite(loss.detach()) & torch.isfinite(norm)
        if self.on_cuda:
            # Without waiting for the device: the first bad step is told at the next check, before anything is kept.
            here = torch.where(good, -1, self.step)
            self._bad = here if self._bad is None else torch.where(self._bad >= 0, self._bad, here)
        elif not bool(good):
            torch.set_rng_state(drawn)  # the state before this step
            self._stop(self.step, self._where(float(loss.detach())))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        scalars |= {"grad_norm": norm}
        for name, value in scalars.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        self.summed += 1
        self.step += 1
        self.tokens += batch.tokens

    def _point(self) -> dict[str, float]:
        values = {name: float(total) / self.summed for name, total in self.sums.items()}
        values["lr"] = self.recipe.lr_at(self.step - 1)
        self.sums, self.summed = {}, 0
        self.curves += [{"step": self.step, "name": name, "value": value} for name, value in values.items()]
        return values

    # -- a bad loss ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """On CUDA: whether a step since the last check was bad. The CPU checks every step."""
        if self._bad is not None and int(self._bad) >= 0:
            self._stop(int(self._bad), "", keep=False)
        self._bad = None

    def _where(self, loss: float) -> str:
        import torch

        if not torch.isfinite(torch.tensor(loss)):
            broken = [n for n, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())]
            return f"the loss is {loss}" + (f", the weight {broken[0]} is not finite" if broken else "")
        broken = [
            n for n, p in self.model.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())
        ]
        return f"the loss is {loss:.4g}, the gradient of {broken[0] if broken else 'the whole'} is not finite"

    def _stop(self, step: int, what: str, *, keep: bool = True) -> None:
        kept = "nothing was kept, there is no checkpoint"
        if self.checkpoint is not None:
            if keep and self.step > 0:
                self.optimizer.zero_grad(set_to_none=True)
                self.save()
            kept = "the last good state is in the checkpoint"
        raise TrainingError(
            f"{what or 'the loss or its gradient is not finite'} at step {step + 1} of {self.recipe.steps}, and the "
            f"training stopped; {kept}",
            where="training",
            hint=f"Try a lower learning rate than {self.recipe.lr:g}, a longer warm-up, or look at this step's data",
        )

    # -- state ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state to the checkpoint."""
        import torch

        assert self.checkpoint is not None
        start = time.monotonic()
        arrays, dtypes = pack_tensors(trained_weights(self.model), "model")
        moments, more = pack_tensors(self._moments(), "optimizer")
        sums, _ = pack_tensors(self.sums, "sums")
        states = {"cpu": torch.get_rng_state()}
        if self.on_cuda:
            states["cuda"] = torch.cuda.get_rng_state()
        random, _ = pack_tensors(states, "random")
        record = {
            "dtypes": dtypes | more,
            "identity": self.identity,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds + start - self._since,
            "curves": self.curves,
            "summed": self.summed,
            "resumed_at": self.resumed_at,
        }
        self.checkpoint.save(Payload(arrays | moments | sums | random, record))
        self._saved = time.monotonic()
        self._saving = self._saved - start

    def _moments(self) -> dict[str, torch.Tensor]:
        state = self.optimizer.state_dict()["state"]
        return {f"{index}/{name}": value for index, entry in state.items() for name, value in entry.items()}

    def resume(self) -> None:
        """Take the state of the checkpoint, if there is one."""
        import torch

        payload = self.checkpoint.load() if self.checkpoint is not None else None
        if payload is None:
            return
        record = payload.record
        check_same(record["identity"], self.identity)
        restore(self.model, unpack_tensors(payload, "model"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in unpack_tensors(payload, "optimizer").items():
            index, _, entry = name.partition("/")
            state.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.sums = {name: value.to(self.device) for name, value in unpack_tensors(payload, "sums").items()}
        random = unpack_tensors(payload, "random")
        torch.set_rng_state(random["cpu"])
        if self.on_cuda and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"])
        self.step = record["step"]
        self.tokens = record["tokens"]
        self.seconds = record["seconds"]
        self.curves = record["curves"]
        self.summed = record["summed"]
        self.resumed_at = [*record["resumed_at"], self.step]

    def finish(self) -> Fitted:
        """The trained model and what is known about its training; the caller clears the checkpoint."""
        import torch

        self.model.eval()
        facts: dict[str, Any] = {
            "parameters": sum(p.numel() for p in self.trained),
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "precision": self.precision,
            "device": self.device,
            "resumed_at": self.resumed_at,
        }
        if self.on_cuda:
            facts["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        return Fitted(self.model, self.curves, facts)


@contextlib.contextmanager
def _threads(torch: Any, device: str, count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
