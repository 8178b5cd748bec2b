"""Features of whole utterances, made once and kept: crops are then slices of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from tokbench.audio import pcm_sha256, resample
from tokbench.data.dataset import Utterance
from tokbench.errors import UserError
from tokbench.kanade.model import normalize_features
from tokbench.kanade.training.crops import Crop, crop_starts, peak_normalize, random_start
from tokbench.kanade.training.parts import Parts
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey

__all__ = ["StoredCrops", "StoredUtterance", "store_utterances"]


@dataclass(frozen=True)
class StoredUtterance:
    """Features of one utterance.

    Attributes:
        n_samples: at the model's rate.
        content: float16 `[N, D]`.
        speaker: float32 `[K, C]`.
        mel: float32 `[M, n_mels]` where the parts keep it, else None.
        wave: float32 `[n_samples]` where the mel is computed crop by crop, else None.
    """

    n_samples: int
    content: Tensor
    speaker: Tensor
    mel: Tensor | None
    wave: Tensor | None


def store_utterances(
    utterances: Sequence[Utterance],
    parts: Parts,
    *,
    normalize: bool,
    store: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[StoredUtterance]:
    """Run the front end once over each utterance, or read what an earlier run has put into the store.

    Args:
        utterances: of the corpus.
        parts: front end and mel spectrogram.
        normalize: give content features zero mean and unit variance over the utterance.
        store: folder of the artefact store; None keeps nothing on disk.
        progress: told after each utterance.

    Raises:
        AudioError: an utterance is unusable.
        StoreError: the store cannot be written.
    """
    shelf = Store(store) if store is not None else None
    rate = parts.config.mel.sample_rate
    made = []
    for number, utterance in enumerate(utterances, start=1):
        wave, source = utterance.read()
        key = UnitKey(
            "features",
            {"parts": parts.identity(), "pcm": pcm_sha256(wave, source), "rate": rate, "normalize": normalize},
            label=f"kanade training {utterance.id}",
        )
        samples = torch.from_numpy(peak_normalize(resample(wave, source, rate)))
        payload = shelf.get(key) if shelf is not None else None
        if payload is None:
            payload = _features(samples, parts, normalize=normalize)
            if shelf is not None:
                shelf.put(key, payload)
        arrays = {name: torch.from_numpy(np.asarray(array)) for name, array in payload.arrays.items()}
        made.append(
            StoredUtterance(
                len(samples),
                arrays["content"],
                arrays["speaker"],
                arrays.get("mel"),
                None if "mel" in arrays else samples,
            )
        )
        if progress is not None:
            progress(number, len(utterances))
    return made


@torch.inference_mode()
def _features(samples: Tensor, parts: Parts, *, normalize: bool) -> Payload:
    wave = samples[None].to(parts.device)
    found = parts.features(wave, torch.tensor([samples.numel()], device=parts.device))
    content = normalize_features(found.content.float()) if normalize else found.content
    arrays = {"content": content[0].half().cpu().numpy(), "speaker": found.speaker[0].float().cpu().numpy()}
    if parts.stores_mel:
        arrays["mel"] = parts.log_mel(wave)[0].T.float().cpu().numpy()
    return Payload(arrays)


class StoredCrops(TorchDataset[dict[str, Tensor]]):
    """Crops cut from stored features, on the grid of frames that all of them share.

    Args:
        utterances: what `store_utterances` made.
        parts: for the hops.
        size, hop: samples of a crop and between crops; both are brought onto the grid.
        random: draw the place of each crop anew in every epoch.
        seed: of the draws.
    """

    def __init__(
        self, utterances: Sequence[StoredUtterance], parts: Parts, *, size: int, hop: int, random: bool, seed: int
    ) -> None:
        hops = {"content": parts.content_hop, "speaker": parts.speaker_hop}
        if parts.stores_mel:
            hops["mel"] = parts.config.mel.hop
        self.hops = hops
        self.grid = math.lcm(*hops.values(), parts.content_hop * parts.config.downsample)
        self.size = size // self.grid * self.grid
        self.utterances, self.random, self.seed = utterances, random, seed
        hop = max(self.grid, hop // self.grid * self.grid)
        self.crops = [
            Crop(index, start, min(self.size, one.n_samples))
            for index, one in enumerate(utterances)
            for start in self._starts(one.n_samples, hop)
        ]

    def _starts(self, n_samples: int, hop: int) -> list[int]:
        """Places on the grid; the crop that is aligned with the end may fall on the one before it."""
        return list(dict.fromkeys(s // self.grid * self.grid for s in crop_starts(n_samples, self.size, hop)))

    def mean_mel(self) -> Tensor:
        """Mean spectrum of all stored frames, float32 `[n_mels]`.

        Raises:
            UserError: the parts keep no mel spectrograms.
        """
        mels = [one.mel for one in self.utterances if one.mel is not None]
        if not mels:
            raise UserError("mel_bias: mean needs parts that store mel spectrograms", hint="Use mel_bias: zero")
        return torch.cat([mel.sum(dim=0, keepdim=True) for mel in mels]).sum(dim=0) / sum(len(mel) for mel in mels)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """`content`, `speaker` and `mel` (or `wave`) of a crop, zeros after the end, and `n_samples` int64."""
        item, epoch = index if isinstance(index, tuple) else (index, 0)
        crop = self.crops[item]
        one = self.utterances[crop.utterance]
        start = crop.start
        if self.random:
            start = random_start(one.n_samples, self.size, seed=self.seed, epoch=epoch, item=item, grid=self.grid)
        out = {"n_samples": torch.tensor(min(self.size, one.n_samples - start))}
        for name, hop in self.hops.items():
            track: Tensor = getattr(one, name)
            out[name] = _cut(track, start // hop, self.size // hop).float()
        if one.wave is not None:
            out["wave"] = _cut(one.wave, start, self.size)
        return out


def _cut(track: Tensor, start: int, length: int) -> Tensor:
    part = track[start : start + length]
    if len(part) == length:
        return part
    padded = torch.zeros(length, *track.shape[1:], dtype=track.dtype)
    padded[: len(part)] = part
    return padded
