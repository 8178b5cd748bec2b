"""Pitch trackers on tones of known frequency, silence, scraps, and real speech."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tokbench.config import JudgeCard
from tokbench.errors import AudioError, CardError
from tokbench.judges.base import Judge
from tokbench.judges.load import judge_class, load_judge
from tokbench.registry import find_card
from tokbench.types import Wave

if TYPE_CHECKING:
    from tests.judges.conftest import Spoken

# torchcrepe's Viterbi search is compiled by numba on first use, which takes many seconds.
NAMES = ["praat-ac", "world-harvest", "world-dio", pytest.param("crepe-tiny", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=NAMES)
def tracker(request: pytest.FixtureRequest) -> Judge:
    if request.param == "world-dio":
        card = find_card(JudgeCard, "world-harvest")
        return judge_class(card)(card.model_copy(update={"params": {"method": "dio"}}))
    if request.param == "crepe-tiny":
        card = find_card(JudgeCard, "crepe")
        assert card.weights is not None
        tiny = {"assets/tiny.pth": "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432"}
        weights = card.weights.model_copy(update={"files": tiny})
        card = card.model_copy(update={"weights": weights, "params": {"model": "tiny"}})
        return judge_class(card)(card)
    return load_judge(request.param)


def f0(judge: Judge, wave: Wave) -> np.ndarray:
    evidence = judge([wave])[0]
    assert evidence["step"] == 0.01
    track = evidence["f0"]
    assert isinstance(track, np.ndarray)
    assert track.dtype == np.float64
    assert track.ndim == 1
    assert np.isfinite(track).all()
    return track


def test_tone(tracker: Judge, tone: Wave) -> None:
    track = f0(tracker, tone)
    inner = track[5:-5]
    assert abs(len(track) - 100) <= 6
    assert (inner > 0).mean() > 0.9
    assert np.median(inner[inner > 0]) == pytest.approx(220, rel=0.01)


def test_silence_is_unvoiced(tracker: Judge) -> None:
    track = f0(tracker, np.zeros(16000, np.float32))
    assert len(track) >= 90
    assert not track.any()


def test_speech_is_within_range_and_repeatable(tracker: Judge, speech: list[Spoken]) -> None:
    wave = speech[0].wave[:32000]
    first, second = f0(tracker, wave), f0(tracker, wave)
    assert np.array_equal(first, second)
    voiced = first[first > 0]
    assert 0.15 < len(voiced) / len(first) < 0.95
    assert voiced.min() >= 45
    assert voiced.max() <= 560


@pytest.mark.parametrize("samples", [1, 100, 500, 959, 961, 1200])
def test_scraps_give_no_invented_frames(samples: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    for name, needed in (("praat-ac", 961), ("world-harvest", 640)):
        track = f0(load_judge(name), wave)
        assert (len(track) == 0) == (samples < needed)


def test_bad_waves(tracker: Judge) -> None:
    for wave in (np.zeros(0, np.float32), np.full(1600, np.nan, np.float32), np.zeros((2, 1600), np.float32)):
        with pytest.raises(AudioError, match="wave 0"):
            tracker([wave])


def test_range_is_checked() -> None:
    card = find_card(JudgeCard, "praat-ac").model_copy(update={"params": {"floor_hz": 600}})
    with pytest.raises(CardError, match="floor_hz < ceiling_hz"):
        judge_class(card)(card)
