"""A training run from recipe and data to checkpoints and an exported model."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tokbench.data.dataset import Dataset
from tokbench.errors import UserError
from tokbench.kanade.training.checkpoints import (
    LAST,
    LOSSES,
    AtomicCheckpoints,
    LossTable,
    SaveCheckpoints,
    read_checkpoint,
    read_losses,
)
from tokbench.kanade.training.data import CropData
from tokbench.kanade.training.initial import load_initial
from tokbench.kanade.training.module import KanadeTraining
from tokbench.kanade.training.parts import Parts
from tokbench.kanade.training.recipe import Recipe, refuse_another
from tokbench.kanade.training.stored import StoredCrops
from tokbench.kanade.training.summary import SUMMARY, Summary
from tokbench.registry import import_object

__all__ = ["EXPORT", "RECIPE", "Trained", "load_parts", "train"]

EXPORT, RECIPE = "export", "recipe.json"

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Trained:
    """What a run has left.

    Attributes:
        folder: of the run.
        batches: generator updates in all.
        seconds: of this call, without those of calls before it.
        complete: False where the time was up before the recipe's batches.
        leader: whether this is the first of several processes, which alone has written anything.
    """

    folder: Path
    batches: int
    seconds: float
    complete: bool
    leader: bool = True


def load_parts(recipe: Recipe, *, device: str) -> Parts:
    """The parts that the recipe names."""
    kind = import_object(recipe.parts, Parts, needed_by=f"recipe '{recipe.name}'", extra="train")  # type: ignore[type-abstract]
    return kind(recipe.model.config, device=device, **recipe.params)


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    output: Path,
    validation: Dataset | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    minutes: float | None = None,
    store: Path | None = None,
    loggers: Callable[[], list[Any]] | None = None,
    callbacks: list[Callback] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train, and export at the end.

    Args:
        recipe: what to do.
        dataset: to train on.
        output: folder of the run: `last.ckpt`, `best.ckpt`, `losses.csv`, `recipe.json`, `export/`.
        validation: other data to validate on; None holds speakers of `dataset` out.
        resume: go on from `last.ckpt`, where there is one.
        device: "auto", "cpu" or "cuda".
        devices: processes, one a GPU (on a CPU: as they are).
        minutes: stop after so long, whatever the recipe's number of batches.
        store: folder for stored features.
        loggers: makes Lightning's; called when nothing is left to refuse.
        callbacks: further ones.
        progress: told batch, batches and losses now and then.

    Raises:
        UserError: the folder holds another run, or a run and `resume` is not given; bad data; a loss that is not
            finite; a GPU that is not there.
        StoreError: the disk is full.
    """
    kind = _accelerator(device, devices)
    last = output / LAST
    if last.exists() and not resume:
        raise UserError(
            "holds a training run", where=str(output), hint="Add --resume to go on, or name another --output"
        )
    compiles = _compiles(recipe, kind)
    saved = read_checkpoint(last)["tokbench"] if last.exists() else None
    if saved:
        refuse_another(saved["recipe"], recipe)
    began = time.perf_counter()
    parts = load_parts(recipe, device="cpu" if devices > 1 else kind)
    data = CropData(recipe, parts, dataset, validation=validation, store=store)
    module = KanadeTraining(recipe, parts)
    for part in ("train", "validation"):
        if data.has(part):
            data.items(part)  # bad data is told before anything is trained
    if not saved:
        load_initial(module.model, recipe)
        if recipe.mel_bias == "mean":
            _start_at_mean(module, data)
    if compiles:
        module.compile_nets()
    torch.set_float32_matmul_precision("high")
    output.mkdir(parents=True, exist_ok=True)
    (output / RECIPE).write_text(json.dumps(recipe.model_dump(mode="json"), indent=1), encoding="utf-8")
    with quiet_lightning():
        trainer = Trainer(
            accelerator="gpu" if kind == "cuda" else "cpu",
            devices=devices,
            strategy=_strategy(devices, recipe),
            precision="bf16-mixed" if uses_bf16(recipe.precision, kind) else "32-true",
            max_epochs=-1,
            val_check_interval=recipe.validate_every if data.has("validation") else None,
            check_val_every_n_epoch=None if data.has("validation") else 1,
            limit_val_batches=None if data.has("validation") else 0,
            num_sanity_val_steps=0,
            logger=(loggers() if loggers else None) or False,
            callbacks=[
                LossTable(output, every=min(recipe.log_every, recipe.batches)),
                SaveCheckpoints(output, every=recipe.save_every),
                _End(recipe.batches, minutes, began, progress),
                *(callbacks or []),
            ],
            plugins=[AtomicCheckpoints()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=output,
        )
        if not (saved and saved["batches"] >= recipe.batches):
            try:
                trainer.fit(module, datamodule=data, ckpt_path=last if saved else None)
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
        else:
            state = read_checkpoint(last)
            module.on_load_checkpoint(state)
            module.load_state_dict(state["state_dict"])
    if trainer.is_global_zero:
        parts.export(module.model, output / EXPORT)
        _summarise(output, recipe, module, dataset, kind, time.perf_counter() - began)
    done = module.batches_done
    return Trained(
        output, done, time.perf_counter() - began, done >= recipe.batches, leader=bool(trainer.is_global_zero)
    )


def _summarise(
    output: Path, recipe: Recipe, module: KanadeTraining, dataset: Dataset, device: str, seconds: float
) -> None:
    from tokbench import __version__
    from tokbench.manifest import git_state

    rows = read_losses(output / LOSSES) if (output / LOSSES).is_file() else []
    settled = [float(row["seconds"]) / recipe.log_every for row in rows[1:]]
    commit, dirty = git_state()
    summary = Summary(
        recipe=recipe.name,
        batches=module.batches_done,
        complete=module.batches_done >= recipe.batches,
        parameters=sum(p.numel() for p in module.model.parameters() if p.requires_grad),
        seed=recipe.seed,
        data=dataset.name,
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        precision="bf16" if uses_bf16(recipe.precision, device) else "fp32",
        seconds=seconds,
        seconds_per_batch=sum(settled) / len(settled) if settled else None,
        tokbench=__version__,
        git_commit=commit,
        git_dirty=dirty,
    )
    (output / SUMMARY).write_text(summary.model_dump_json(indent=1), encoding="utf-8")


def _start_at_mean(module: KanadeTraining, data: CropData) -> None:
    items, last = data.items("train"), module.model.mel_decoder.output_proj
    if not isinstance(items, StoredCrops) or last is None:
        raise UserError("mel_bias: mean needs data.features: stored", where=f"recipe '{module.recipe.name}'")
    with torch.no_grad():
        last.bias.copy_(items.mean_mel())


class _End(Callback):
    """Ends the run after its batches or minutes."""

    def __init__(self, batches: int, minutes: float | None, began: float, progress: Progress | None) -> None:
        self.batches, self.progress = batches, progress
        self.deadline = began + 60 * minutes if minutes is not None else None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, KanadeTraining)
        done = pl_module.batches_done
        late = self.deadline is not None and time.perf_counter() > self.deadline
        late = trainer.strategy.reduce_boolean_decision(late, all=False) if trainer.world_size > 1 else late
        if done >= self.batches or late:
            trainer.should_stop = True
        if self.progress is not None and (done % 10 == 0 or done >= self.batches) and trainer.is_global_zero:
            self.progress(done, self.batches, {k: float(v) for k, v in pl_module.last.items()})


def _accelerator(device: str, devices: int) -> Literal["cpu", "cuda"]:
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if there < devices:
            raise UserError(
                f"{devices} CUDA devices are asked for, {there} are there",
                where="--device",
                hint="Use --device cpu, or fewer --devices",
            )
        return "cuda"
    if kind != "cpu":
        raise UserError(f"'{device}' is not a device to train on", where="--device", hint="Use auto, cpu or cuda")
    return "cpu"


def _strategy(devices: int, recipe: Recipe) -> str:
    if devices == 1:
        return "auto"
    # Two losses reach different parts of the nets, and frozen parts none: DDP must look which.
    return "ddp_find_unused_parameters_true" if recipe.losses.uses_discriminator else "ddp"


def uses_bf16(precision: str, device: str) -> bool:
    """Whether to train under bfloat16 autocast; "auto" asks the hardware, since emulation is slower than float32."""
    if precision != "auto":
        return precision == "bf16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512")) and "avx512_bf16" in _cpu_flags()


def _compiles(recipe: Recipe, device: str) -> bool:
    """Whether the nets are compiled; "auto" does on CUDA.

    Raises:
        UserError: in bfloat16 on a CPU, where code that torch 2.11 makes of a backward pass overwrites memory.
    """
    if recipe.compile == "auto":
        return device == "cuda"
    if recipe.compile and device == "cpu" and uses_bf16(recipe.precision, device):
        raise UserError(
            "compiled nets in bfloat16 crash on a CPU with torch 2.11",
            where="compile: true",
            hint="Type: --set precision=fp32, or --set compile=false",
        )
    return recipe.compile


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0]
    except OSError:
        return ""


class quiet_lightning:  # noqa: N801 - used as a statement
    """Silence Lightning's advice while a run of ours is under way."""

    def __enter__(self) -> None:
        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        self._loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)
        os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")

    def __exit__(self, *exception: Any) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
        self._catch.__exit__(*exception)
