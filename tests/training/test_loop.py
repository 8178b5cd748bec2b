"""The training loop: the same weights after a kill, nothing kept after a bad loss, and curves that tell the truth."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tokbench.errors import StoreError, TrainingError, UserError
from tokbench.store.store import Store
from tokbench.store.units import UnitKey
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.loop import Batch, Fitted, Point, fit, load_weights, seeded
from tokbench.training.order import Order
from tokbench.training.recipe import Recipe
from tokbench.training.state import make_moments


class Line(nn.Module):
    """Learns y = 2 x + 1 through a dropped-out layer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inner = nn.Linear(1, width)
        self.drop = nn.Dropout(0.1)
        self.outer = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        error = self.outer(self.drop(torch.tanh(self.inner(x)))) - y
        return {"loss": (error**2).mean(), "bias": error.mean()}


X = torch.linspace(-1, 1, 37)[:, None]
RECIPE = Recipe(steps=60, batch=5, lr=0.02, warmup=5, seed=3, checkpoint_every_s=0, log_every=7)


def batches(recipe: Recipe, bad_step: int | None = None, delay: float = 0.0):
    order = Order(len(X), recipe.batch, seed=recipe.seed)

    def batch(step: int) -> Batch:
        time.sleep(delay)
        x = X[order(step)]
        y = 2 * x + 1
        if step == bad_step:
            y = y * float("nan")
        return Batch({"x": x, "y": y}, len(x))

    return batch


def model(recipe: Recipe = RECIPE, width: int = 8) -> Line:
    with seeded(recipe.seed):
        return Line(width)


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(Store(folder), UnitKey("checkpoint", {"name": "line"}, "a line"))


def same(a: Fitted, b: Fitted) -> None:
    ours, theirs = a.payload(), b.payload()
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name])
    assert a.curves == b.curves


def test_it_learns_and_draws_its_curve() -> None:
    points: list[Point] = []
    recipe = replace(RECIPE, steps=400)
    fitted = fit(model(), batches(recipe), recipe, log=points.append)
    losses = [p["value"] for p in fitted.curves if p["name"] == "loss"]
    assert losses[-1] < 0.1 * losses[0]
    assert {p["name"] for p in fitted.curves} == {"loss", "bias", "lr", "grad_norm"}
    assert points[-1].step == points[-1].steps == 400
    assert points[-1].seconds_left == 0
    assert points[-1].values["loss"] == losses[-1]
    assert fitted.facts["tokens"] == sum(len(Order(37, 5, seed=3)(k)) for k in range(400))
    assert not fitted.model.training


def test_the_seed_decides_everything_and_nothing_outside_notices() -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = fit(model(), batches(RECIPE), RECIPE)
    assert torch.equal(torch.rand(1), expected)
    same(first, fit(model(), batches(RECIPE), RECIPE))
    other = replace(RECIPE, seed=4)
    assert fit(model(other), batches(other), other).curves != first.curves


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 20, 35, 59])
def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path: Path, at: int) -> None:
    whole = fit(model(), batches(RECIPE), RECIPE)

    def cut(step: int) -> Batch:
        if step == at:
            raise Stop
        return batches(RECIPE)(step)

    kept = checkpoint(tmp_path)
    with pytest.raises(Stop):
        fit(model(), cut, RECIPE, checkpoint=kept)
    seen = []

    def counted(step: int) -> Batch:
        seen.append(step)
        return batches(RECIPE)(step)

    resumed = fit(model(), counted, RECIPE, checkpoint=kept)
    assert seen[0] == at  # nothing is replayed
    assert resumed.facts["resumed_at"] == [at]
    same(resumed, whole)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_loop import RECIPE, batches, checkpoint, fit, model
fit(model(), batches(RECIPE, delay=0.05), RECIPE, checkpoint=checkpoint(Path(sys.argv[1])))
"""


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)])
    kept = checkpoint(tmp_path)
    deadline = time.monotonic() + 60
    while (found := kept.load()) is None or found.record["step"] < 5:
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = fit(model(), batches(RECIPE), RECIPE, checkpoint=kept)
    assert resumed.facts["resumed_at"][0] >= 5
    same(resumed, fit(model(), batches(RECIPE), RECIPE))


def test_a_bad_loss_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    slow = replace(RECIPE, checkpoint_every_s=1e9)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 31 of 60.*last good state is in the checkpoint"):
        fit(model(), batches(slow, bad_step=30), slow, checkpoint=kept)
    state = kept.load()
    assert state is not None
    assert state.record["step"] == 30
    assert all(np.isfinite(a).all() for n, a in state.arrays.items() if n.startswith("model/"))
    # With the data mended the training goes on, and ends where it would have.
    same(fit(model(), batches(RECIPE), slow, checkpoint=kept), fit(model(), batches(RECIPE), slow))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoint(tmp_path)
    real = os.fsync
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        fit(model(), batches(RECIPE), RECIPE, checkpoint=kept)
    monkeypatch.setattr(os, "fsync", real)
    state = kept.load()
    assert state is not None
    assert state.record["step"] == 10
    same(fit(model(), batches(RECIPE), RECIPE, checkpoint=kept), fit(model(), batches(RECIPE), RECIPE))


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    with pytest.raises(Stop):
        fit(model(), _stopping(20), RECIPE, checkpoint=kept, identity={"units": 60})
    with pytest.raises(TrainingError, match="made with another units: 60 then, 80 now"):
        fit(model(), batches(RECIPE), RECIPE, checkpoint=kept, identity={"units": 80})
    with pytest.raises(TrainingError, match=r"inner.bias is \[8\], the model needs \[9\]"):
        fit(model(width=9), batches(RECIPE), RECIPE, checkpoint=kept, identity={"units": 60})
    other = replace(RECIPE, lr=0.5)
    with pytest.raises(TrainingError, match="another recipe"):
        fit(model(), batches(RECIPE), other, checkpoint=kept, identity={"units": 60})


def _stopping(at: int):
    def batch(step: int) -> Batch:
        if step == at:
            raise Stop
        return batches(RECIPE)(step)

    return batch


def test_weights_survive_the_store(tmp_path: Path) -> None:
    fitted = fit(model(), batches(RECIPE), RECIPE)
    store, key = Store(tmp_path), UnitKey("train", {"name": "line"})
    store.put(key, fitted.payload())
    found = store.get(key)
    assert found is not None
    again = Line()
    load_weights(again, found)
    again.eval()
    torch.testing.assert_close(again(X, X)["loss"], fitted.model(X, X)["loss"], rtol=0, atol=0)
    with pytest.raises(TrainingError, match="has changed since"):
        load_weights(Line(9), found)


def test_frozen_weights_stay_and_are_not_kept() -> None:
    line = model()
    line.inner.requires_grad_(requires_grad=False)
    line.inner.bfloat16()
    before = line.inner.weight.clone()
    line.forward = lambda x, y: ((line.outer(line.inner(x.bfloat16()).float()) - y) ** 2).mean()  # type: ignore[method-assign]
    fitted = fit(line, batches(RECIPE), RECIPE)
    assert torch.equal(before, line.inner.weight)
    assert set(fitted.payload().arrays) == {"model/outer.weight", "model/outer.bias"}


@pytest.mark.cuda
def test_on_cuda_a_bad_loss_is_told_with_its_step(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    kept = checkpoint(tmp_path)
    with pytest.raises(TrainingError, match="at step 31 of 60"):
        fit(model(), batches(RECIPE, bad_step=30), RECIPE, checkpoint=kept, device="cuda")
    state = kept.load()
    assert state is not None
    assert state.record["step"] <= 30


@pytest.mark.cuda
def test_on_cuda_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    whole = fit(model(), batches(RECIPE), RECIPE, device="cuda")
    assert whole.facts["precision"] == "bf16"
    kept = checkpoint(tmp_path)
    with pytest.raises(Stop):
        fit(model(), _stopping(35), RECIPE, checkpoint=kept, device="cuda")
    same(fit(model(), batches(RECIPE), RECIPE, checkpoint=kept, device="cuda"), whole)


def test_recipes_are_checked_and_named() -> None:
    read = Recipe.of({"steps": 3, "batch": 2, "lr": 1, "betas": [0.9, 0.99]}, where="asr_probe: recipe", seed=4)
    assert read == Recipe(steps=3, batch=2, lr=1.0, betas=(0.9, 0.99), seed=4)
    assert isinstance(read.lr, float)
    assert read.identity()["betas"] == [0.9, 0.99]
    assert "log_every" not in read.identity()
    with pytest.raises(UserError, match=r"asr_probe: recipe.lr"):
        Recipe.of({"steps": 3, "batch": 2, "lr": -1}, where="asr_probe: recipe")
    with pytest.raises(UserError, match=r"recipe.schedule"):
        Recipe.of({"steps": 3, "batch": 2, "lr": 1, "schedule": "steep"}, where="asr_probe: recipe")
    with pytest.raises(UserError, match=r"recipe.steps"):
        Recipe.of({"batch": 2, "lr": 1}, where="asr_probe: recipe")
    with pytest.raises(UserError, match="Fields: steps, batch, lr"):
        Recipe.of({"steps": 3, "batch": 2, "lr": 1, "epochs": 4}, where="asr_probe: recipe")


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, batch=1, lr=1.0, warmup=10, floor=0.1)
    rates = [recipe.lr_at(k) for k in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == max(rates) == 1.0
    assert rates[55] == pytest.approx(0.55, abs=0.01)  # the middle of the cosine
    assert 0.1 <= rates[-1] < 0.11
    linear = replace(recipe, schedule="linear", floor=0.0)
    assert linear.lr_at(55) == pytest.approx(0.5)


def test_moments_made_before_the_first_step_are_those_that_adamw_makes_itself() -> None:
    optimizers = []
    for early in (True, False):
        line = model()
        optimizer = torch.optim.AdamW(line.parameters(), lr=0.1, fused=True)
        if early:
            make_moments(optimizer)
        with seeded(5):  # dropout
            for step in range(3):
                line(**batches(RECIPE)(step).inputs)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
        optimizers.append((line, optimizer.state_dict()["state"]))
    (ours, made), (theirs, lazy) = optimizers
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    assert made.keys() == lazy.keys()
    for index, entry in lazy.items():
        assert made[index].keys() == entry.keys()
        for name, value in entry.items():
            assert made[index][name].dtype == value.dtype
            assert torch.equal(made[index][name], value)


def test_the_loop_and_its_recipe_need_no_pydantic() -> None:
    code = "import sys, tokbench.training.loop, tokbench.training.recipe; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("lengths", [None, [int(v) for v in np.random.default_rng(0).integers(1, 99, 103)]])
def test_an_epoch_sees_every_item_once_in_an_order_of_its_own(lengths: list[int] | None) -> None:
    order = Order(103, 4, seed=7, lengths=lengths)
    epochs = [np.concatenate([order(e * 26 + k) for k in range(26)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(103))
    assert list(epochs[0]) != list(epochs[1])
    np.testing.assert_array_equal(Order(103, 4, seed=7, lengths=lengths)(29), order(29))
    if lengths is not None:
        spread = [np.ptp(np.asarray(lengths)[order(k)]) for k in range(26)]
        assert np.mean(spread) < 20  # of 99; unsorted batches of four spread over about 60
