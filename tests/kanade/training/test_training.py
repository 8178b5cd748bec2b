"""Whole runs of a tiny Kanade: they learn, they resume exactly, and they fail in one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kanade.training_support import TINY, corpus, recipe
from lightning.pytorch import Callback
from safetensors.torch import load_file

from tokbench.data.dataset import Dataset
from tokbench.errors import DatasetError, StoreError, UserError
from tokbench.kanade.config import KANADE_25HZ
from tokbench.kanade.training.checkpoints import LAST, LOSSES, AtomicCheckpoints, read_losses
from tokbench.kanade.training.module import Diverged, KanadeTraining
from tokbench.kanade.training.run import EXPORT, RECIPE, train
from tokbench.kanade.weights import IncompatibleWeights, load_kanade


@pytest.fixture(scope="module")
def glides(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return corpus(tmp_path_factory.mktemp("glides"), each=3)


GAN = {"adversarial": 1.0, "feature_matching": 10.0}
DROPOUT = {"base": "kanade.training_support:TINY", "overrides": {"local_encoder": {"dropout": 0.2}}}


class _Killed(Exception):
    pass


class _Kill(Callback):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
        if pl_module.batches_done == self.batch:
            raise _Killed


@pytest.mark.parametrize(
    "changes",
    [
        {"model": DROPOUT, "data": {"held_out_speakers": 1}},
        {"model": DROPOUT, "losses": GAN, "data": {"features": "stored", "random_crops": True}},
    ],
    ids=["phase 1", "phase 2"],
)
def test_a_killed_and_resumed_run_has_the_same_losses(glides: Dataset, tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = recipe(**changes, batches=7, save_every=2)
    train(plan, glides, output=tmp_path / "whole")
    with pytest.raises(_Killed):
        train(plan, glides, output=tmp_path / "parts", callbacks=[_Kill(5)])
    assert read_losses(tmp_path / "parts" / LOSSES)[-1]["batch"] == "5"  # one more than the checkpoint holds
    train(plan, glides, output=tmp_path / "parts", resume=True)
    whole, parts = (read_losses(tmp_path / name / LOSSES) for name in ("whole", "parts"))
    timings = {"seconds", "wait_share"}
    assert [{k: v for k, v in row.items() if k not in timings} for row in whole] == [
        {k: v for k, v in row.items() if k not in timings} for row in parts
    ]
    one, other = (load_file(tmp_path / name / EXPORT / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_four_utterances_are_learnt_by_heart(glides: Dataset, tmp_path: Path) -> None:
    four = Dataset("four", glides.utterances[:4])
    plan = recipe(
        batches=100,
        save_every=1000,
        log_every=10,
        optimizer={"lr": 1e-2},
        losses={"ssl": 3.0},
        data={"features": "stored", "crop_seconds": 1.6},
    )
    plan_first = recipe(
        batches=2, schedule={"warmup": 0.9}, data={"features": "stored", "crop_seconds": 1.6}, losses={"ssl": 3.0}
    )
    train(plan_first, four, output=tmp_path / "start")
    train(plan, four, output=tmp_path / "end")
    before = float(read_losses(tmp_path / "start" / LOSSES)[0]["mel"])
    after = float(read_losses(tmp_path / "end" / LOSSES)[-1]["mel"])
    assert after < before / 10


def test_the_export_is_read_by_the_inference_loader(glides: Dataset, tmp_path: Path) -> None:
    train(recipe(), glides, output=tmp_path / "run")
    folder = tmp_path / "run" / EXPORT
    from tokbench.kanade.released import read_config

    config = read_config(folder / "config.yaml")
    model = load_kanade(folder / "model.safetensors", config)
    assert config == TINY
    assert model.feature_decoder is None


def test_full_size_export_has_the_released_keys(parity: Path) -> None:
    from tokbench.kanade.model import KanadeModel
    from tokbench.kanade.training.export import exported

    with torch.device("meta"):
        state = KanadeModel(KANADE_25HZ, feature_decoder=True).state_dict()
    released = json.loads((parity / "full_25hz" / "export_keys.json").read_text())
    assert {key: list(value.shape) for key, value in exported(state).items()} == released


def test_switches_freeze_and_weights_do_not(glides: Dataset, tmp_path: Path) -> None:
    train(recipe(batches=2, schedule={"warmup": 0.9}), glides, output=tmp_path / "one")
    frozen = recipe(
        batches=3,
        schedule={"warmup": 0.9},
        losses={"ssl": 0.0},
        train={"content": False},
        start_from=str(tmp_path / "one" / LAST),
    )
    train(frozen, glides, output=tmp_path / "two")
    before, after = (load_file(tmp_path / name / EXPORT / "model.safetensors") for name in ("one", "two"))
    content = ("local_encoder", "conv_downsample", "local_quantizer")
    for key in before:
        # The adaptive norms' projections begin at zero, and their input's gradient with them.
        changed = not torch.equal(before[key], after[key])
        assert changed != key.startswith(content), key
    ablated = recipe(batches=3, schedule={"warmup": 0.9}, losses={"ssl": 0.0})
    train(ablated, glides, output=tmp_path / "three")
    assert "ssl" not in read_losses(tmp_path / "three" / LOSSES)[0]
    moved = load_file(tmp_path / "three" / EXPORT / "model.safetensors")
    assert not torch.equal(moved["local_encoder.norm.weight"], torch.ones_like(moved["local_encoder.norm.weight"]))


def test_pairs_begin_alike(glides: Dataset, tmp_path: Path) -> None:
    """Without the SSL loss the first batch, the weights and so the first mel loss are the same."""
    for name, weight in (("with", 30.0), ("without", 0.0)):
        plan = recipe(batches=2, schedule={"warmup": 0.9}, model=DROPOUT, losses={"ssl": weight})
        train(plan, glides, output=tmp_path / name)
    first = [read_losses(tmp_path / name / LOSSES)[0]["mel"] for name in ("with", "without")]
    assert first[0] == first[1]


def test_initial_weights_are_loaded_strictly(glides: Dataset, tmp_path: Path) -> None:
    train(recipe(batches=2, schedule={"warmup": 0.9}), glides, output=tmp_path / "one")
    wider = {"base": "kanade.training_support:TINY", "overrides": {"quantizer": {"levels": [8, 5, 5, 5]}}}
    start = str(tmp_path / "one" / EXPORT / "model.safetensors")
    with pytest.raises(IncompatibleWeights, match=r"has in another shape local_quantizer.proj_in.*'fresh'"):
        train(recipe(model=wider, start_from=start), glides, output=tmp_path / "two")
    train(recipe(model=wider, start_from=start, fresh=["local_quantizer"]), glides, output=tmp_path / "three")


def test_a_changed_recipe_is_refused_with_the_difference(glides: Dataset, tmp_path: Path) -> None:
    train(recipe(), glides, output=tmp_path / "run")
    record = (tmp_path / "run" / RECIPE).read_bytes()
    with pytest.raises(UserError, match=r"losses.ssl: 30.0 -> 0.0"):
        train(
            recipe(losses={"ssl": 0.0}, batches=6),
            glides,
            output=tmp_path / "run",
            resume=True,
            loggers=lambda: pytest.fail("a run was logged"),
        )
    assert (tmp_path / "run" / RECIPE).read_bytes() == record
    with pytest.raises(UserError, match=r"holds a training run.*--resume"):
        train(recipe(), glides, output=tmp_path / "run")


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_a_damaged_checkpoint_is_told_in_one_line(glides: Dataset, tmp_path: Path, content: bytes | None) -> None:
    last = tmp_path / "run" / LAST
    train(recipe(), glides, output=tmp_path / "run")
    last.write_bytes(last.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=r"last.ckpt: is no checkpoint.*or a damaged one.*another --output"):
        train(recipe(), glides, output=tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="or a damaged one"):
        train(recipe(start_from=str(last)), glides, output=tmp_path / "next")


class _Poison(Callback):
    def on_train_batch_start(self, trainer: Any, pl_module: KanadeTraining, *_: Any) -> None:  # noqa: ARG002
        if pl_module.batches_done == 3:
            with torch.no_grad():
                pl_module.model.mel_decoder.output_proj.bias.fill_(float("nan"))  # type: ignore[union-attr]


def test_a_loss_that_is_not_finite_stops_before_the_weights(glides: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"not finite at batch 4 \(mel nan.*optimizer.lr.*--resume"):
        train(recipe(), glides, output=tmp_path / "run", callbacks=[_Poison()])
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert state["tokbench"]["batches"] == 2
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def test_the_last_checkpoint_survives_a_full_disk(
    glides: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def full(checkpoint: Any, file: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(checkpoint, file)

    monkeypatch.setattr("tokbench.kanade.training.checkpoints.torch.save", full)
    with pytest.raises(StoreError, match=r"the disk is full.*before it is whole.*--resume"):
        train(recipe(), glides, output=tmp_path / "run")
    state = AtomicCheckpoints().load_checkpoint(tmp_path / "run" / LAST)
    assert state["tokbench"]["batches"] == 2
    assert not list((tmp_path / "run").glob("*.tmp"))
    monkeypatch.setattr("tokbench.kanade.training.checkpoints.torch.save", real)
    assert train(recipe(), glides, output=tmp_path / "run", resume=True).complete


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_device_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"the disk is full.*no earlier one"):
        AtomicCheckpoints().save_checkpoint({"weights": torch.zeros(100_000)}, tmp_path / "last.ckpt")


def test_bad_data_and_a_missing_gpu_are_told_before_training(glides: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no utterance is as long as a crop"):
        train(recipe(data={"crop_seconds": 60.0}), glides, output=tmp_path / "a")
    with pytest.raises(DatasetError, match="2 speakers, and 2 are to be held out"):
        train(recipe(data={"held_out_speakers": 2}), glides, output=tmp_path / "a")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="1 CUDA devices are asked for, 0 are there"):
            train(recipe(), glides, output=tmp_path / "a", device="cuda")


def test_time_that_is_up_leaves_a_run_to_resume(glides: Dataset, tmp_path: Path) -> None:
    first = train(recipe(), glides, output=tmp_path / "run", minutes=0.0)
    assert not first.complete
    assert first.batches == 1
    assert train(recipe(), glides, output=tmp_path / "run", resume=True).complete
    again = train(recipe(), glides, output=tmp_path / "run", resume=True)
    assert again.complete
    assert again.batches == 6
    assert len(read_losses(tmp_path / "run" / LOSSES)) == 6
