"""STOI, PESQ, spectral distances and delay, on waves made here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import UndefinedMetric
from tokbench.metrics.align import constant_delay, cut_to_shorter, remove_delay
from tokbench.metrics.intelligibility import estoi, stoi
from tokbench.metrics.pesq import pesq_nb, pesq_wb
from tokbench.metrics.spectral import mcd, mel_cepstrum, mel_distance, mel_filters, stft_distance
from tokbench.types import Wave

RATE = 16_000
Pair = Callable[[Wave, Wave], dict[str, float]]


@pytest.fixture(scope="module")
def speech() -> Wave:
    """Two seconds of noise in syllable-like bursts under a falling spectrum."""
    rng = np.random.default_rng(0)
    noise = np.convolve(rng.standard_normal(2 * RATE), 0.9 ** np.arange(40), mode="same")
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * np.arange(2 * RATE) / RATE), 0.003, None)
    return np.asarray(0.05 * noise * syllables, np.float32)


@pytest.fixture(scope="module")
def noisy(speech: Wave) -> Wave:
    return (speech + 0.01 * np.random.default_rng(1).standard_normal(len(speech))).astype(np.float32)


def test_intelligibility_is_pystois(speech: Wave, noisy: Wave) -> None:
    import pystoi

    assert stoi(speech, noisy)["stoi"] == pytest.approx(pystoi.stoi(speech, noisy, RATE), abs=1e-9)
    assert estoi(speech, noisy)["estoi"] == pytest.approx(pystoi.stoi(speech, noisy, RATE, extended=True), abs=1e-9)
    assert stoi(speech, np.append(noisy, np.float32(0.5)))["stoi"] == stoi(speech, noisy)["stoi"]
    assert stoi(speech, speech)["stoi"] == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=5, deadline=None)
@given(gain=st.floats(0.05, 10))
def test_stoi_ignores_gain(speech: Wave, noisy: Wave, gain: float) -> None:
    louder = (noisy.astype(np.float64) * gain).astype(np.float32)
    assert stoi(speech, louder)["stoi"] == pytest.approx(stoi(speech, noisy)["stoi"], abs=1e-5)


def test_estoi_gives_the_same_bits_and_leaves_the_global_generator(speech: Wave, noisy: Wave) -> None:
    partly = noisy.copy()
    partly[5000:15000] = 0
    np.random.seed(5)  # noqa: NPY002
    first = estoi(speech, partly)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert after == np.random.random()  # noqa: NPY002
    assert estoi(speech, partly) == first


@pytest.mark.parametrize("function", [stoi, estoi])
def test_intelligibility_undefined(function: Pair, speech: Wave) -> None:
    with pytest.raises(UndefinedMetric, match="silent"):
        function(np.zeros(RATE, np.float32), speech)
    with pytest.raises(UndefinedMetric, match="30 frames"):
        function(speech[:3000], speech[:3000])
    with pytest.raises(UndefinedMetric, match="one frame"):
        function(speech[:1], speech)


def test_pesq_is_the_packages(speech: Wave, noisy: Wave) -> None:
    import pesq
    import soxr

    assert pesq_wb(speech, noisy)["pesq_wb"] == pytest.approx(pesq.pesq(RATE, speech, noisy, "wb"), abs=1e-6)
    narrow = [soxr.resample(wave, RATE, 8000, quality="HQ") for wave in (speech, noisy)]
    assert pesq_nb(speech, noisy)["pesq_nb"] == pytest.approx(pesq.pesq(8000, *narrow, "nb"), abs=1e-6)
    assert pesq_wb(speech, speech)["pesq_wb"] == pytest.approx(4.644, abs=1e-3)


@pytest.mark.parametrize("function", [pesq_wb, pesq_nb])
def test_pesq_undefined(function: Pair, speech: Wave) -> None:
    silence = np.zeros_like(speech)
    with pytest.raises(UndefinedMetric, match="reference is silent"):
        function(silence, speech)
    with pytest.raises(UndefinedMetric, match="degraded signal is silent"):
        function(speech, silence)
    with pytest.raises(UndefinedMetric, match=r"0\.25 s"):
        function(speech[:3000], speech[:3000])
    with pytest.raises(UndefinedMetric, match="at most 60 s"):
        function(np.tile(speech, 31), np.tile(speech, 31))
    late = np.zeros_like(speech)
    late[-200:] = 0.1
    with pytest.raises(UndefinedMetric, match="no utterance"):
        function(late, speech)


def test_pesq_in_its_own_process(speech: Wave, noisy: Wave) -> None:
    import pesq

    long, degraded = np.tile(speech, 11), np.tile(noisy, 11)
    assert pesq_wb(long, degraded)["pesq_wb"] == pytest.approx(pesq.pesq(RATE, long, degraded, "wb"), abs=1e-6)
    rng = np.random.default_rng(0)
    pauses = (np.arange(60 * RATE) / RATE % 0.5 < 0.25) * rng.standard_normal(60 * RATE) * 0.1
    with pytest.raises(UndefinedMetric, match="50 utterances"):
        pesq_wb(pauses.astype(np.float32), pauses.astype(np.float32))


@pytest.mark.parametrize("function", [mel_distance, stft_distance, mcd])
def test_distances_are_zero_only_for_the_same_wave(function: Pair, speech: Wave, noisy: Wave) -> None:
    (same,) = function(speech, speech).values()
    (other,) = function(speech, noisy).values()
    (more,) = function(speech, (speech + 4 * (noisy - speech)).astype(np.float32)).values()
    assert same == 0.0
    assert 0 < other < more
    with pytest.raises(UndefinedMetric, match="samples"):
        function(speech[:300], noisy)


def test_mel_filters_are_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    for n_fft, bands in ((2048, 150), (512, 80)):
        expected = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=bands)
        np.testing.assert_allclose(mel_filters(RATE, n_fft, bands), expected, atol=1e-7)


def test_distances_by_librosa(speech: Wave, noisy: Wave) -> None:
    librosa = pytest.importorskip("librosa")
    mel_total = stft_total = 0.0
    for window, bands in ((2048, 150), (512, 80)):
        a, b = (
            np.abs(librosa.stft(w.astype(np.float64), n_fft=window, hop_length=window // 4, pad_mode="reflect"))
            for w in (speech, noisy)
        )
        filters = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=bands, dtype=np.float64)
        for x, y, is_mel in ((a, b, False), (filters @ a, filters @ b, True)):
            logs = [2 * np.log10(np.maximum(z, 1e-5)) for z in (x, y)]
            term = np.mean(np.abs(logs[0] - logs[1])) + np.mean(np.abs(x - y))
            mel_total, stft_total = mel_total + term * is_mel, stft_total + term * (not is_mel)
    assert mel_distance(speech, noisy)["mel_distance"] == pytest.approx(mel_total, rel=1e-6)
    assert stft_distance(speech, noisy)["stft_distance"] == pytest.approx(stft_total, rel=1e-6)


def test_mcd_leaves_out_level_and_pauses(speech: Wave) -> None:
    assert mcd(speech, (speech.astype(np.float64) * 0.5).astype(np.float32))["mcd"] < 0.5
    padded = np.concatenate([speech, np.zeros(RATE, np.float32)])
    hiss = padded.copy()
    hiss[-RATE + 1000 :] += np.random.default_rng(0).standard_normal(RATE - 1000).astype(np.float32) * 1e-4
    assert mcd(padded, hiss)["mcd"] < 0.05
    with pytest.raises(UndefinedMetric, match="silent"):
        mcd(np.zeros(RATE, np.float32), speech)


def test_mel_cepstrum_rebuilds_a_smooth_spectrum() -> None:
    """An all-pole resonance: log magnitude on the warped axis is the cosine series of the cepstrum."""
    impulse = np.zeros(400)
    impulse[200] = 1.0
    wave = np.zeros(400)
    for n in range(200, 400):
        wave[n] = impulse[n] + 1.2 * wave[n - 1] - 0.6 * wave[n - 2]
    from scipy.signal import get_window

    window = get_window("hann", 400)
    frequency = 2 * np.pi * np.arange(513) / 1024
    magnitude = np.log(np.abs(np.fft.rfft(wave * window / window.sum(), 1024)))
    cepstrum = mel_cepstrum(wave)[0]
    assert cepstrum.shape == (25,)
    warped = frequency + 2 * np.arctan(0.42 * np.sin(frequency) / (1 - 0.42 * np.cos(frequency)))
    rebuilt = np.cos(np.outer(warped, np.arange(25))) @ cepstrum
    assert np.max(np.abs(rebuilt - magnitude)) < 0.05


@settings(max_examples=25, deadline=None)
@given(delay=st.integers(-300, 300), inverted=st.booleans())
def test_a_constant_delay_is_found_and_taken_out(delay: int, inverted: bool) -> None:
    wave = np.random.default_rng(3).standard_normal(4000).astype(np.float32)
    late = np.concatenate([np.zeros(delay, np.float32), wave]) if delay >= 0 else wave[-delay:]
    late = np.asarray(-0.3 * late if inverted else late, np.float32)
    assert constant_delay(wave, late, rate=RATE) == delay
    a, b = remove_delay(wave, late, delay)
    assert len(a) == len(b)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(-1.0 if inverted else 1.0, abs=1e-6)


def test_delay_limits() -> None:
    wave = np.random.default_rng(3).standard_normal(4000).astype(np.float32)
    late = np.concatenate([np.zeros(300, np.float32), wave])
    assert abs(constant_delay(wave, late, rate=RATE, max_ms=10)) <= 160
    assert constant_delay(wave[:1], wave[:1], rate=RATE) == 0
    with pytest.raises(UndefinedMetric, match="silence"):
        constant_delay(wave, np.zeros(10, np.float32), rate=RATE)
    a, b = cut_to_shorter(wave, late)
    assert len(a) == len(b) == 4000
