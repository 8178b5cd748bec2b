"""Crops of utterances: which there are, what one holds, and the order in which a run sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from tokbench.audio import check_wave, resample
from tokbench.data.dataset import Utterance
from tokbench.errors import AudioError, DatasetError

__all__ = ["Crop", "CropBatches", "WaveCrops", "crop_starts", "list_crops", "peak_normalize", "utterance_samples"]


@dataclass(frozen=True)
class Crop:
    """A piece of an utterance: its index, first sample and number of samples, at the model's rate."""

    utterance: int
    start: int
    length: int


def crop_starts(n_samples: int, size: int, hop: int) -> list[int]:
    """First samples of the crops of an utterance: 0, hop, 2 hop ... while they fit, and one aligned with the end.

    An utterance that is not longer than a crop is one crop.
    """
    if n_samples <= size:
        return [0]
    starts = list(range(0, n_samples - size + 1, hop))
    if starts[-1] + size < n_samples:
        starts.append(n_samples - size)
    return starts


def list_crops(lengths: Sequence[int], *, size: int, hop: int, name: str) -> list[Crop]:
    """Every crop of a corpus, utterance by utterance.

    Raises:
        DatasetError: no utterance fills a crop, so that every item of every batch would be padded.
    """
    if not lengths or max(lengths) < size:
        longest = max(lengths, default=0) / max(1, size)
        raise DatasetError(
            f"no utterance is as long as a crop (the longest has {100 * longest:.0f} % of it)",
            where=name,
            hint="Use longer recordings, or a shorter crop: --set data.crop_seconds=SECONDS",
        )
    return [Crop(index, start, min(size, n)) for index, n in enumerate(lengths) for start in crop_starts(n, size, hop)]


def utterance_samples(utterance: Utterance, rate: int) -> int:
    """Samples of an utterance after resampling to `rate`, from the file's header.

    Raises:
        AudioError: it cannot be read.
    """
    import soundfile

    try:
        info = soundfile.info(str(utterance.path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(f"not readable as audio ({error})", where=str(utterance.path)) from error
    if info.frames == 0:
        raise AudioError("has no samples", where=str(utterance.path))
    return math.ceil(int(info.frames) * rate / int(info.samplerate))


def peak_normalize(wave: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scale float32 `[n]` to a peak of 1."""
    scaled: np.ndarray[Any, np.dtype[np.float32]] = wave / (np.abs(wave).max() + np.float32(1e-8))
    return scaled.astype(np.float32, copy=False)


class WaveCrops(TorchDataset[dict[str, Tensor]]):
    """Crops read from files: mono, resampled, scaled to a peak of 1 crop by crop, zeros after the end.

    The part of the file is read that a crop needs. Resampling is the core's (soxr HQ); the published code uses
    torchaudio's, and only LibriTTS's own 24 kHz needs none.

    Args:
        utterances: of the corpus.
        crops: items.
        size: samples an item.
        rate: the model's sampling rate in Hz.
        random: draw the place of each crop anew in every epoch.
        seed: of the draws.
    """

    def __init__(
        self, utterances: Sequence[Utterance], crops: Sequence[Crop], *, size: int, rate: int, random: bool, seed: int
    ) -> None:
        self.utterances, self.crops = utterances, crops
        self.size, self.rate, self.random, self.seed = size, rate, random, seed
        self.lengths = {}
        if random:
            self.lengths = {c.utterance: utterance_samples(utterances[c.utterance], rate) for c in crops}

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """`wave` float32 `[size]` and `n_samples` int64; `index` is the item, or the item and the epoch."""
        item, epoch = index if isinstance(index, tuple) else (index, 0)
        crop = self.crops[item]
        start = crop.start
        if self.random:
            start = random_start(self.lengths[crop.utterance], self.size, seed=self.seed, epoch=epoch, item=item)
        wave = _read_part(self.utterances[crop.utterance], start, self.size, self.rate)
        out = torch.zeros(self.size)
        out[: len(wave)] = torch.from_numpy(peak_normalize(wave))
        return {"wave": out, "n_samples": torch.tensor(len(wave))}


def random_start(n_samples: int, size: int, *, seed: int, epoch: int, item: int, grid: int = 1) -> int:
    """Place of a random crop, a multiple of `grid`; decided by seed, epoch and item."""
    room = max(0, n_samples - size) // grid
    return int(np.random.default_rng((seed, epoch, item)).integers(0, room + 1)) * grid


def _read_part(utterance: Utterance, start: int, size: int, rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    import soundfile

    try:
        with soundfile.SoundFile(str(utterance.path)) as file:
            source = int(file.samplerate)
            first = start * source // rate
            file.seek(min(first, max(0, file.frames - 1)))
            samples = file.read(-(-size * source // rate), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(f"not readable as audio ({error})", where=str(utterance.path)) from error
    wave = samples.mean(axis=1, dtype=np.float32)
    return resample(check_wave(wave, name=str(utterance.path)), source, rate)[:size]


class CropBatches(Sampler[list[tuple[int, int]]]):
    """Batches of `(item, epoch)` without end; which items batch k holds is decided by seed and k alone.

    Each epoch is a permutation drawn from (seed, epoch), cut into batches for all processes; what does not fill a
    batch is left out. A run that is resumed after k batches starts here at batch k.

    Args:
        items: size of the dataset.
        batch_size: a process.
        seed: of the permutations.
        start: first batch.
        rank, world: this process, and how many there are.
    """

    def __init__(
        self, items: int, *, batch_size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.items, self.batch_size, self.seed, self.start = items, batch_size, seed, start
        self.rank, self.world = rank, world
        self.per_epoch = items // (batch_size * world)
        if self.per_epoch == 0:
            raise DatasetError(
                f"the corpus has {items} crops, one batch takes {batch_size * world}",
                hint=f"Use more speech, or smaller batches: --set data.batch_size={max(1, items // world)}",
            )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, position = divmod(self.start, self.per_epoch)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.items)
            for batch in range(position, self.per_epoch):
                first = batch * self.batch_size * self.world + self.rank * self.batch_size
                yield [(int(item), epoch) for item in order[first : first + self.batch_size]]
            epoch, position = epoch + 1, 0
