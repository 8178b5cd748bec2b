"""What a training run shows: curves in MLflow, mel pictures and audio beside the checkpoints and in MLflow."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tokbench.audio import write_audio
from tokbench.kanade.training.module import KanadeTraining
from tokbench.kanade.training.recipe import Recipe
from tokbench.tracking import DEFAULT_URI, artifact_place

__all__ = ["Pictures", "make_callbacks", "make_loggers"]

_log = logging.getLogger("tokbench.training")

EXPERIMENT = "kanade-training"
_RUN = "mlflow-run"
SAMPLES = "samples"
_SHOWN = 4


def make_loggers(recipe: Recipe, folder: Path, uri: str | None) -> list[Any]:
    """MLflow's logger, which goes on in the same run when a training is resumed; none where MLflow does not answer.

    MLflow is a sink: `losses.csv` is the record, and a tracking server that is down costs no training.
    """
    try:
        from lightning.pytorch.loggers import MLFlowLogger

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        known = folder / _RUN
        run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else None
        place = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        logger = MLFlowLogger(
            experiment_name=EXPERIMENT,
            run_name=recipe.name,
            tracking_uri=place,
            artifact_location=artifact_place(place, EXPERIMENT),
            run_id=run_id,
        )
        folder.mkdir(parents=True, exist_ok=True)
        known.write_text(str(logger.run_id), encoding="utf-8")
        logger.log_hyperparams(recipe.model_dump(mode="json", exclude={"summary", "notes"}))
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the training goes on
        _log.warning("MLflow is left out (%s)", " ".join(str(error).split())[:200])
        return []
    return [logger]


def make_callbacks(folder: Path) -> list[Callback]:
    """Pictures and audio after each validation."""
    return [Pictures(folder)]


class Pictures(Callback):
    """Mel spectrograms (target above, made below) and vocoded audio of the first validation crops.

    They are written to `samples/BATCH/` and attached to the MLflow run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: dict[str, Tensor],
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Make them from the first batch."""
        if batch_idx or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, KanadeTraining)
        first = {name: value[:_SHOWN] for name, value in batch.items()}
        inputs = pl_module.prepare(first)
        made = pl_module.generate(inputs).mel.float()
        place = self.folder / SAMPLES / f"{pl_module.batches_done:07d}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            for index in range(len(made)):
                _picture(place / f"{index}.png", inputs.mel[index].cpu().numpy(), made[index].cpu().numpy())
            self._listen(place, pl_module, inputs.mel, made)
            loggers: list[Any] = trainer.loggers
            for logger in loggers:
                logger.experiment.log_artifacts(logger.run_id, str(place), f"{SAMPLES}/{place.name}")
        except Exception as error:  # noqa: BLE001 - a picture is not worth a training run
            _log.warning("no pictures of batch %d (%s)", pl_module.batches_done, " ".join(str(error).split())[:200])

    def _listen(self, place: Path, module: KanadeTraining, target: Tensor, made: Tensor) -> None:
        rate = module.parts.config.mel.sample_rate
        for name, mel in (("target", target), ("made", made)):
            waves = module.parts.vocode(mel)
            if waves is None:
                return
            for index, wave in enumerate(waves.float().cpu().numpy()):
                write_audio(place / f"{index}-{name}.flac", wave / max(1.0, float(np.abs(wave).max())), rate)


def _picture(path: Path, target: np.ndarray[Any, Any], made: np.ndarray[Any, Any]) -> None:
    """A PNG of two spectrograms, low bands at the bottom, one pixel a bin."""
    from PIL import Image

    low, high = float(target.min()), float(target.max())
    gap = np.full((4, target.shape[1]), high, np.float32)
    both = np.concatenate([target[::-1], gap, made[::-1]])
    pixels = (255 * np.clip((both - low) / max(1e-6, high - low), 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
