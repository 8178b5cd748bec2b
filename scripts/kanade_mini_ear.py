"""A net that tells voices apart, trained on kanade-mini's own speech; phase 2 makes the decoder please it.

Two crops of one utterance are the same voice, all other utterances in the batch are others (SimCLR's loss, Chen et al.
2020, over utterances). Speed-perturbed copies and mixtures count as other voices, which they are. The net never sees
what evaluates kanade-mini: neither its judge's weights nor the voices it is tested with.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from kanade_mini_data import Speech
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.config import GlobalEncoderConfig
from tokbench.kanade.global_encoder import GlobalEncoder

TEMPERATURE = 0.1


def make_ear(n_mels: int) -> GlobalEncoder:
    """Four times as wide as kanade-mini's own global encoder; 1.3 million parameters."""
    return GlobalEncoder(
        GlobalEncoderConfig(
            input_channels=n_mels,
            output_channels=192,
            num_layers=4,
            dim=256,
            intermediate_dim=512,
            attention_channels=128,
        )
    )


def two_crops(speech: Speech, *, crop: int, batch: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that draws `batch` different utterances and two log-mel crops `[B, crop, n_mels]` of each."""
    long = torch.nonzero(speech.count >= crop)[:, 0]
    span = torch.arange(crop, device=long.device)

    def draw() -> tuple[Tensor, Tensor]:
        owner = long[torch.randperm(len(long), device=long.device)[:batch]]
        room = speech.count[owner] - crop + 1
        pair = []
        for _ in range(2):
            start = speech.first[owner] + (torch.rand(len(owner), device=long.device) * room).long()
            pair.append(speech.mel[start[:, None] + span].float())
        return pair[0], pair[1]

    return draw


def train_ear(speech: Speech, *, seconds: float, crop: int, batch: int, autocast: torch.autocast) -> GlobalEncoder:
    """Train for so many seconds; the net comes back frozen."""
    peak = 1e-3
    ear = make_ear(speech.mel.shape[1]).to(speech.mel.device)
    optimizer = torch.optim.AdamW(ear.parameters(), lr=peak, weight_decay=1e-2)
    draw = two_crops(speech, crop=crop, batch=batch)
    began, step, right = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, 20 * elapsed / seconds, 1.02 - elapsed / seconds)
        one, other = draw()
        with autocast:
            a, b = (functional.normalize(ear(x).float(), dim=-1) for x in (one, other))
        scores = a @ b.T / TEMPERATURE
        target = torch.arange(len(a), device=a.device)
        loss = (functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        right = float((scores.argmax(1) == target).float().mean()) if step % 50 == 0 else right
    print(f"ear: {step} steps, {right:.2f} of the last voices found among {batch}", flush=True)
    return ear.eval().requires_grad_(requires_grad=False)
