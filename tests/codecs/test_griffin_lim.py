"""The weight-free vocoder: known answers, determinism, and quality on real speech."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.audio import read_audio
from tokbench.codecs.griffin_lim import griffin_lim, mel_to_magnitude, vocode
from tokbench.codecs.mel import VOCODER_MEL, MelSpec, frames, log_mel, magnitude, mel_filterbank
from tokbench.types import Wave


def test_filterbank_equals_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    for n_fft, n_mels in ((640, 80), (400, 80), (1024, 128)):
        ours = mel_filterbank(16000, n_fft, n_mels)
        theirs = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=n_mels)
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@given(n=st.integers(1, 5000), spec=st.sampled_from([MelSpec(), MelSpec(window=1280, hop=320), MelSpec(hop=320)]))
@settings(max_examples=40, deadline=None)
def test_frames_are_centred_in_their_hop_and_cover_the_wave(n: int, spec: MelSpec) -> None:
    wave = np.arange(1, n + 1, dtype=np.float32)
    cut = frames(wave, window=spec.window, hop=spec.hop)
    assert cut.shape == (spec.n_frames(n), spec.window)
    left = (spec.window - spec.hop) // 2
    middle = cut[:, left : left + spec.hop].reshape(-1)
    np.testing.assert_array_equal(middle[:n], wave)
    assert not middle[n:].any()


def test_a_tone_peaks_at_its_frequency() -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    assert set(magnitude(wave)[5:-5].argmax(axis=1)) == {40}  # 1000 Hz / 25 Hz a bin


def test_magnitudes_reproduce_their_mels(tone: Wave) -> None:
    mels = log_mel(tone)
    bank = mel_filterbank(16000, 640, 80)
    again = mel_to_magnitude(mels) @ bank.T
    assert mel_to_magnitude(mels).min() >= 0
    assert np.abs(again - np.exp(mels)).sum() / np.exp(mels).sum() < 0.02


def test_updates_never_raise_the_error(tone: Wave) -> None:
    mels = log_mel(tone)[20:30]
    bank = mel_filterbank(16000, 640, 80)
    errors = [
        float(((mel_to_magnitude(mels, iterations=i).astype(float) @ bank.T - np.exp(mels)) ** 2).sum())
        for i in (0, 1, 5, 30)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_phase_recovery_converges_to_the_given_magnitudes(tone: Wave) -> None:
    wanted = magnitude(tone)

    def distance(iterations: int) -> float:
        got = magnitude(griffin_lim(wanted, len(tone), iterations=iterations))
        return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))

    assert distance(32) < 0.1 < distance(0)


@pytest.mark.parametrize("n", [1, 159, 160, 161, 16001])
def test_length_is_exact_and_samples_are_finite(n: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, n).astype(np.float32)
    made = vocode(log_mel(wave), n)
    assert made.shape == (n,)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()


def test_silence_stays_silent() -> None:
    made = vocode(log_mel(np.zeros(8000, np.float32)), 8000)
    assert float(np.abs(made).max()) < 1e-3


def test_asking_for_too_many_samples_or_an_odd_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 320 samples"):
        griffin_lim(np.ones((2, 321), np.float32), 321)
    with pytest.raises(ValueError, match="multiple of the hop"):
        griffin_lim(np.ones((2, 321), np.float32), 100, hop=150)


def test_two_processes_give_the_same_samples() -> None:
    code = (
        "import numpy as np, hashlib; from tokbench.codecs.griffin_lim import vocode;"
        "m = np.random.default_rng(3).normal(-4, 1, (80, 80)).astype(np.float32);"
        "print(hashlib.sha256(vocode(m, 12345).tobytes()).hexdigest())"
    )
    one, two = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab")
    mels = np.random.default_rng(3).normal(-4, 1, (80, 80)).astype(np.float32)
    here = hashlib.sha256(vocode(mels, 12345).tobytes()).hexdigest()
    assert one.stdout.strip() == two.stdout.strip() == here


def test_real_speech_survives_the_mel_round_trip(shared: Path) -> None:
    from pesq import pesq

    scores = []
    for path in sorted((shared / "data/librispeech-sample/test-other").rglob("*.flac"))[:3]:
        wave, rate = read_audio(path)
        assert rate == VOCODER_MEL.rate
        scores.append(pesq(rate, wave, vocode(log_mel(wave), len(wave)), "wb"))
    assert np.mean(scores) > 3.0, scores
    assert min(scores) > 2.8, scores
