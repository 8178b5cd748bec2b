"""Checkpoints that are whole or not there, and the loss table that goes with them."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tokbench.errors import StoreError, UserError
from tokbench.kanade.training.module import KanadeTraining

__all__ = ["BEST", "LAST", "LOSSES", "AtomicCheckpoints", "LossTable", "SaveCheckpoints", "read_checkpoint"]

LAST, BEST, LOSSES = "last.ckpt", "best.ckpt", "losses.csv"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of a training, its tensors mapped from the file; no pickled code is run.

    Returns:
        Among others `state_dict`, and `tokbench`: `recipe`, as JSON has it, and `batches`, the number done.

    Raises:
        UserError: the file is damaged, or something else.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if {"state_dict", "tokbench"} <= loaded.keys():
            return dict(loaded)
        fault = "lacks what a training saves"
    except (OSError, EOFError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        fault = type(error).__name__
    raise UserError(
        f"is no checkpoint of a training, or a damaged one ({fault})",
        where=str(path),
        hint=f"Where {BEST} is beside it, copy that over it; otherwise train anew into another --output",
    )


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes to a temporary name, fsyncs, renames: whatever happens, the checkpoint before stays readable."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Save.

        Raises:
            StoreError: the disk is full or cannot be written; says what is left.
        """
        target = Path(path)
        scratch = target.with_name(target.name + ".tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        except (OSError, RuntimeError) as error:
            # torch's zip writer turns the operating system's error into a RuntimeError; the first cause is kept.
            cause = error if isinstance(error, OSError) else _os_error(error)
            if cause is None:
                raise
            with contextlib.suppress(OSError):
                scratch.unlink()
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            left = "The checkpoint before it is whole" if target.is_file() else "There is no earlier one"
            raise StoreError(
                "the disk is full" if full else f"the checkpoint cannot be written ({cause.strerror})",
                where=str(target),
                hint=f"{left}: free some space, and go on with --resume",
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Load tensors and plain values; no pickled code is run."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded


def _os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


class SaveCheckpoints(Callback):
    """`last.ckpt` every some batches and at the end, `best.ckpt` whenever the validation mel loss is lowest.

    Args:
        folder: of the run.
        every: batches.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.folder, self.every = folder, every
        self.best: float | None = None
        self._saved = -1

    def state_dict(self) -> dict[str, Any]:
        """The lowest loss so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it."""
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save where it is time."""
        assert isinstance(pl_module, KanadeTraining)
        if pl_module.batches_done % self.every == 0:
            self._save(trainer, pl_module, LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best."""
        assert isinstance(pl_module, KanadeTraining)
        loss = trainer.callback_metrics.get("val/mel")
        if trainer.sanity_checking or loss is None:
            return
        if self.best is None or float(loss) < self.best:
            self.best = float(loss)
            self._save(trainer, pl_module, BEST)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        assert isinstance(pl_module, KanadeTraining)
        if pl_module.batches_done != self._saved:
            self._save(trainer, pl_module, LAST)

    def _save(self, trainer: Trainer, module: KanadeTraining, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
        if name == LAST:
            self._saved = module.batches_done


class LossTable(Callback):
    """`losses.csv`: a row every some batches; a resumed run drops the rows after its checkpoint.

    Args:
        folder: of the run.
        every: batches.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.path, self.every = folder / LOSSES, every
        self.columns: list[str] = []
        self._began = self._ended = time.perf_counter()
        self._waited = self._worked = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut the table back to where the run is."""
        assert isinstance(pl_module, KanadeTraining)
        self._ended = time.perf_counter()
        if not trainer.is_global_zero:
            return
        rows = read_losses(self.path) if self.path.is_file() and pl_module.batches_done else []
        self.columns = []
        self.path.unlink(missing_ok=True)
        for row in rows:
            if int(row["batch"]) <= pl_module.batches_done:
                self._write(row)

    def on_train_batch_start(self, *_: Any) -> None:
        """The wait for data is over."""
        self._began = time.perf_counter()
        self._waited += self._began - self._ended

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write a row where it is time."""
        assert isinstance(pl_module, KanadeTraining)
        self._worked += time.perf_counter() - self._began
        if pl_module.batches_done % self.every == 0:
            row: dict[str, Any] = {"batch": pl_module.batches_done}
            row |= {name: float(value) for name, value in pl_module.last.items()}
            row |= {"seconds": self._worked + self._waited, "wait_share": self._waited / (self._worked + self._waited)}
            self._waited = self._worked = 0.0
            if trainer.is_global_zero:
                self._write(row)
            numbers = {f"train/{k}": v for k, v in row.items() if k != "batch"}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=pl_module.batches_done)
        self._ended = time.perf_counter()

    def _write(self, row: dict[str, Any]) -> None:
        first = not self.columns
        if first:
            self.columns = list(row)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            if first:
                writer.writeheader()
            writer.writerow(row)


def read_losses(path: Path) -> list[dict[str, str]]:
    """The rows of a loss table, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
