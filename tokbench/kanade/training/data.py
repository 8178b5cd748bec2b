"""The Lightning data module: crops of a corpus to train on, crops of unseen speakers to validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from tokbench.data.dataset import Dataset, Utterance
from tokbench.errors import DatasetError
from tokbench.kanade.training.crops import CropBatches, WaveCrops, list_crops, utterance_samples
from tokbench.kanade.training.parts import Parts
from tokbench.kanade.training.recipe import Recipe
from tokbench.kanade.training.stored import StoredCrops, store_utterances

__all__ = ["CropData", "split_speakers"]


def split_speakers(dataset: Dataset, count: int, *, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to train on and utterances of `count` speakers, drawn by seed, that only validate."""
    if count == 0:
        return list(dataset.utterances), []
    speakers = dataset.speakers
    if count >= len(speakers):
        raise DatasetError(
            f"has {len(speakers)} speakers, and {count} are to be held out for validation",
            where=dataset.name,
            hint="Name other data with --validation, or --set data.held_out_speakers=0",
        )
    held = set(np.random.default_rng(seed).choice(np.array(speakers, object), count, replace=False).tolist())
    train = [u for u in dataset.utterances if u.speaker not in held]
    return train, [u for u in dataset.utterances if u.speaker in held]


class CropData(LightningDataModule):
    """Loaders over a corpus.

    Args:
        recipe: what a batch is.
        parts: front end, for stored features.
        dataset: to train on.
        validation: other data to validate on; None holds speakers out.
        store: folder for stored features; None keeps them in memory alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        dataset: Dataset,
        *,
        validation: Dataset | None = None,
        store: Path | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.parts, self.store = recipe, parts, store
        self.corpus = dataset.name
        if validation is None:
            train, held = split_speakers(dataset, recipe.data.held_out_speakers, seed=recipe.seed)
        else:
            train, held = list(dataset.utterances), list(validation.utterances)
        self._utterances = {"train": train, "validation": held}
        self._sets: dict[str, TorchDataset[dict[str, Tensor]]] = {}

    @property
    def crop_samples(self) -> int:
        """Samples of a crop at the model's rate."""
        return round(self.recipe.data.crop_seconds * self.parts.config.mel.sample_rate)

    def has(self, part: str) -> bool:
        """Whether there is anything in "train" or "validation"."""
        return bool(self._utterances[part]) and (part == "train" or self.recipe.data.validation_items > 0)

    def items(self, part: str) -> TorchDataset[dict[str, Tensor]]:
        """Crops of "train" or "validation"; made on first use.

        Raises:
            DatasetError: nothing is as long as a crop.
        """
        if part not in self._sets:
            self._sets[part] = self._make(part)
        return self._sets[part]

    def _make(self, part: str) -> TorchDataset[dict[str, Tensor]]:
        data, rate = self.recipe.data, self.parts.config.mel.sample_rate
        utterances = self._utterances[part]
        size, train = self.crop_samples, part == "train"
        hop = round(data.hop_seconds * rate) if train else size
        common: dict[str, Any] = {"random": data.random_crops and train, "seed": self.recipe.seed}
        lengths = [utterance_samples(u, rate) for u in utterances]
        crops = list_crops(lengths, size=size, hop=hop, name=self.corpus)
        if data.features == "stored":
            stored = store_utterances(
                utterances, self.parts, normalize=data.normalize_over == "utterance", store=self.store
            )
            made: TorchDataset[dict[str, Tensor]] = StoredCrops(stored, self.parts, size=size, hop=hop, **common)
        else:
            made = WaveCrops(utterances, crops, size=size, rate=rate, **common)
        if not train:
            count = len(made)  # type: ignore[arg-type]
            kept = np.linspace(0, count - 1, min(count, data.validation_items)).round().astype(int)
            made = Subset(made, kept.tolist())
        return made

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches without end, from the run's position on."""
        trainer: Any = self.trainer
        items = self.items("train")
        batches = CropBatches(
            len(items),  # type: ignore[arg-type]
            batch_size=self.recipe.data.batch_size,
            seed=self.recipe.seed,
            start=trainer.lightning_module.batches_done,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return self._loader(items, batch_sampler=batches)

    def val_dataloader(self) -> list[DataLoader[dict[str, Tensor]]]:
        """The validation crops in order; nothing where none are held out."""
        if not self.has("validation"):
            return []
        return [self._loader(self.items("validation"), batch_size=min(16, self.recipe.data.batch_size))]

    def _loader(self, items: TorchDataset[dict[str, Tensor]], **options: Any) -> DataLoader[dict[str, Tensor]]:
        # Stored features lie in memory: copying them to other processes would cost more than cutting them here.
        workers = 0 if self.recipe.data.features == "stored" else self.recipe.data.workers
        return DataLoader(
            items,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.parts.device.type == "cuda",
            **options,
        )
