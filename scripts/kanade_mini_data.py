"""The training speech of kanade-mini in memory: decoded, speed-perturbed, and as features on the training device."""

from __future__ import annotations

import csv
import io
import tarfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional

from tokbench.codecs.mel import mel_filterbank
from tokbench.kanade.config import KanadeConfig
from tokbench.kanade.mel import log_mel
from tokbench.kanade.model import mix_layers, normalize_features
from tokbench.kanade.resample import resample
from tokbench.kanade.whisper import WhisperEncoder, whisper_log_mel

RATIOS = ((5, 6), (7, 8), (12, 13), (14, 13), (9, 8), (6, 5))
"""Speeds of the perturbed copies: pitch, formants and tempo move together, which makes another speaker."""
MOVES = ((5, 7), (4, 5), (9, 10), (10, 9), (5, 4), (7, 5))
"""Factors that `--moves` draws from for the content branch: pitch and formants move, the tempo stays."""
GRID = 3200
"""Utterances are cut to a multiple of this many samples, so that many share a forward pass without padding."""


@dataclass(frozen=True)
class Speech:
    """Frames of many utterances, one after the other.

    Attributes:
        content: normalised content features, float16 `[V, F, D]`; all versions but the first are of the same speech
            with its voice moved (`moved_mel`).
        mel: log-mel spectrogram on the same grid, float16 `[F, n_mels]`.
        first: first frame of each utterance, int64 `[U]`.
        count: frames of each utterance, int64 `[U]`.
    """

    content: Tensor
    mel: Tensor
    first: Tensor
    count: Tensor

    def starts(self, crop: int) -> tuple[Tensor, Tensor]:
        """All frames at which a crop of `crop` frames fits into its utterance, and the utterance of each."""
        room = (self.count - crop + 1).clamp(min=0)
        owner = torch.repeat_interleave(torch.arange(len(room), device=room.device), room)
        before = torch.cumsum(room, 0) - room
        offset = torch.arange(len(owner), device=room.device) - before[owner]
        return self.first[owner] + offset, owner


def read_archive(archive: Path, *, threads: int = 16) -> list[tuple[dict[str, str], np.ndarray]]:
    """Rows and waves (float32 at 16 kHz, peak 1) of a tar that `make_kanade_mini_corpus.py --pack` wrote."""
    with tarfile.open(archive) as tar:
        coded = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    rows = list(csv.DictReader(io.StringIO(coded.pop("manifest.csv").decode())))

    def decode(row: dict[str, str]) -> np.ndarray:
        wave, rate = soundfile.read(io.BytesIO(coded[row["path"]]), dtype="float32")
        assert rate == 16000, f"{row['path']} is at {rate} Hz"
        return wave / (np.abs(wave).max() + 1e-8)

    with ThreadPoolExecutor(threads) as pool:
        return list(zip(rows, pool.map(decode, rows), strict=True))


def perturbed(waves: list[np.ndarray], *, copies: list[int], seed: int, device: torch.device) -> list[Tensor]:
    """Each wave and, of each, so many copies at other speeds, on the device."""
    generator = np.random.default_rng(seed)
    out = []
    for wave, number in zip(waves, copies, strict=True):
        x = torch.from_numpy(wave).to(device)[None]
        out.append(x[0])
        out += [resample(x, *RATIOS[index])[0] for index in generator.choice(len(RATIOS), number, replace=False)]
    return out


def moved_mel(waves: Tensor, up: int, down: int) -> Tensor:
    """Whisper's spectrogram `[B, 80, n / 160]` of audio `[B, n]` with pitch and formants times `up / down`.

    The resampled audio's spectrogram is stretched back to the old tempo, which needs no phases. Where the factor is
    below 1, the empty bands at the top repeat the last full one: they would tell the nets how far the voice was moved.
    """
    count = waves.shape[1] // 160
    faster = resample(waves, up, down)
    faster = functional.pad(faster, (0, -faster.shape[1] % 320))
    mel = whisper_log_mel(faster)
    if up < down:
        centres = torch.from_numpy(mel_filterbank(16000, 400, 80)).argmax(dim=1) * 40.0
        last = int((centres < 7600 * up / down).sum()) - 1
        mel = torch.cat([mel[:, :last], mel[:, last : last + 1].expand(-1, 80 - last, -1)], dim=1)
    place = torch.arange(count, device=waves.device) * (down / up)
    left = place.floor().long().clamp(max=mel.shape[2] - 1)
    right = (left + 1).clamp(max=mel.shape[2] - 1)
    return torch.lerp(mel[..., left], mel[..., right], (place - left).clamp(0, 1).to(mel))


@torch.inference_mode()
def encode(
    waves: list[Tensor],
    config: KanadeConfig,
    whisper: WhisperEncoder,
    *,
    moves: int = 0,
    seed: int = 0,
    batch_samples: int = 8_000_000,
) -> Speech:
    """Features of all waves; the order is by length.

    Args:
        waves: audio, on the device.
        config: geometry.
        whisper: SSL front end.
        moves: versions with a moved voice beside the plain one.
        seed: of their choice.
        batch_samples: audio in one forward pass.
    """
    generator = np.random.default_rng(seed)
    groups: dict[int, list[Tensor]] = defaultdict(list)
    for wave in waves:
        length = len(wave) // GRID * GRID
        if length:
            groups[length].append(wave[:length])
    content, mel, counts = [], [], []
    for length, members in sorted(groups.items()):
        size = max(1, batch_samples // length)
        for begin in range(0, len(members), size):
            batch = torch.stack(members[begin : begin + size])
            batch = batch / (batch.abs().amax(dim=1, keepdim=True) + 1e-8)
            factors = [MOVES[index] for index in generator.choice(len(MOVES), moves, replace=False)]
            hidden = [whisper(batch, config.local_layers)]
            hidden += [whisper.encode_mel(moved_mel(batch, *factor), config.local_layers) for factor in factors]
            versions = [normalize_features(mix_layers(layers, config.local_layers)) for layers in hidden]
            features = versions[0]
            content.append(torch.stack([version.half().flatten(0, 1) for version in versions]))
            mel.append(log_mel(batch, config.mel).transpose(1, 2).half().flatten(0, 1))
            counts += [features.shape[1]] * len(batch)
    device = content[0].device
    count = torch.tensor(counts, device=device)
    # Clones: tensors of inference mode cannot take part in training.
    with torch.inference_mode(mode=False):
        first = (torch.cumsum(count, 0) - count).clone()
        return Speech(torch.cat(content, dim=1).clone(), torch.cat(mel).clone(), first, count.clone())


def load_speech(
    archive: Path,
    config: KanadeConfig,
    whisper: WhisperEncoder,
    *,
    copies: dict[str, int],
    seed: int,
    device: torch.device,
    limit: int | None = None,
    held_out: int = 100,
    moves: int = 0,
) -> tuple[Speech, Speech]:
    """Training and validation speech; validation is a random part, unperturbed.

    Args:
        archive: tar of Opus files with `manifest.csv`.
        config: geometry.
        whisper: SSL front end, on the device.
        copies: perturbed copies of each training utterance, by engine; "" for the engines that are not named.
        seed: of their choice.
        device: where features are made and stay.
        limit: use this many utterances (a test).
        held_out: validation utterances.
        moves: versions of the training speech with a moved voice.
    """
    started = time.monotonic()
    items = read_archive(archive)
    order = np.random.default_rng(seed).permutation(len(items))[:limit]
    waves = [items[i][1] for i in order]
    numbers = [copies.get(items[i][0]["engine"], copies[""]) for i in order]
    held_out = min(held_out, len(waves) // 10)
    seconds = sum(map(len, waves)) / 16000
    print(f"{len(waves)} utterances, {seconds / 3600:.2f} h, read in {time.monotonic() - started:.1f} s", flush=True)
    made = perturbed(waves[held_out:], copies=numbers[held_out:], seed=seed, device=device)
    print(f"{len(made)} with copies after {time.monotonic() - started:.1f} s", flush=True)
    train = encode(made, config, whisper, moves=moves, seed=seed)
    test = encode([torch.from_numpy(wave).to(device) for wave in waves[:held_out]], config, whisper)
    hours = len(train.mel) / 50 / 3600
    print(f"features of {hours:.2f} h after {time.monotonic() - started:.1f} s", flush=True)
    return train, test
