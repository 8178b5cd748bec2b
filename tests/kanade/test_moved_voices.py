"""The moved voices that kanade-mini's content encoder hears in training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokbench.kanade.whisper import whisper_log_mel

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def moved_mel(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import kanade_mini_data

    yield kanade_mini_data.moved_mel
    sys.modules.pop("kanade_mini_data")


def sweep(start: float, end: float, n: int = 32000) -> Tensor:
    """A gliding tone, `[1, n]` at 16 kHz."""
    hz = torch.linspace(start, end, n, dtype=torch.float64)
    return (0.5 * torch.sin(2 * torch.pi * torch.cumsum(hz, 0) / 16000)).float()[None]


def test_factor_one_changes_nothing(moved_mel) -> None:  # type: ignore[no-untyped-def]
    wave = sweep(300, 900)
    assert torch.equal(moved_mel(wave, 1, 1), whisper_log_mel(wave))


@pytest.mark.parametrize(("up", "down"), [(5, 7), (4, 5), (5, 4), (7, 5)])
def test_a_glide_is_moved_in_frequency_and_stays_in_time(moved_mel, up: int, down: int) -> None:  # type: ignore[no-untyped-def]
    made = moved_mel(sweep(600, 2400), up, down)
    wanted = whisper_log_mel(sweep(600 * up / down, 2400 * up / down))
    assert made.shape == wanted.shape == (1, 80, 200)
    inside = slice(5, 195)
    distance = (made.argmax(dim=1) - wanted.argmax(dim=1)).abs()[:, inside]
    assert distance.max() <= 1


def test_the_empty_top_is_filled(moved_mel) -> None:  # type: ignore[no-untyped-def]
    noise = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0)) * 0.1
    made = moved_mel(noise, 5, 7).mean(dim=(0, 2))
    plain = whisper_log_mel(noise).mean(dim=(0, 2))
    assert (made[-10:] - plain[-10:]).abs().max() < 0.3
