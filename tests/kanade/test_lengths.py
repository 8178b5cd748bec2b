"""Length arithmetic against the reference's tables, and its rounding quirks at every length up to 400,000."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig, MelConfig
from tokbench.kanade.lengths import audio_length, mel_frames, padding, ssl_frames, token_count

CENTER = MelConfig()
SAME = MelConfig(padding="same", n_fft=1920, hop=480)


@pytest.fixture(scope="module")
def tables(shared: Path) -> dict[str, dict[str, int]]:
    return json.loads((shared / "parity" / "kanade" / "full_25hz" / "lengths.json").read_text())  # type: ignore[no-any-return]


def test_tables(tables: dict[str, dict[str, int]]) -> None:
    assert set(tables) == {"padding", "padding_ensure_recon", "mel_length", "audio_length_from_tokens"}
    for n, expected in tables["padding"].items():
        assert padding(int(n)) == expected, n
    for n, expected in tables["padding_ensure_recon"].items():
        assert padding(int(n), multiple_of=2) == expected, n
    for n, expected in tables["mel_length"].items():
        assert mel_frames(int(n), CENTER) == expected, n
    for n, expected in tables["audio_length_from_tokens"].items():
        assert audio_length(int(n), downsample=2) == expected, n


def test_rounding_quirks_at_every_length() -> None:
    frames_differ, padding_differ = [], []
    for n in range(1, 400_000):
        frames = -(-n // 480)
        if ssl_frames(n) != frames:
            frames_differ.append(n)
        if padding(n) != -(-(480 * ssl_frames(n) + 120 - n) // 2):
            padding_differ.append(n)
    assert frames_differ == [193440, 195360, 386400, 386880, 390240, 390720]
    assert padding_differ[0] == 1442
    # The published count compares with exact frames, too: at six lengths both are one too many.
    exact = [n for n in range(1, 400_000) if padding(n) != -(-(480 * -(-n // 480) + 120 - n) // 2)]
    assert len(exact) == 11526


def test_default_lengths_round_up_where_the_reference_does() -> None:
    longer = [t for t in range(1, 120) if audio_length(t, downsample=2) != 960 * t + 120]
    assert longer[:5] == [2, 31, 58, 59, 112]


@pytest.mark.parametrize(
    ("config", "tokens", "samples", "default_frames", "frames"),
    [
        (KANADE_12HZ, 12, 23160, 91, 94),
        (KANADE_25HZ, 25, 24120, 95, 94),
        (KANADE_25HZ_CLEAN, 25, 24120, 50, 50),
    ],
)
def test_one_second(config: KanadeConfig, tokens: int, samples: int, default_frames: int, frames: int) -> None:
    assert token_count(24000, downsample=config.downsample) == tokens
    assert audio_length(tokens, downsample=config.downsample) == samples
    assert mel_frames(samples, config.mel) == default_frames
    assert mel_frames(24000, config.mel) == frames


@pytest.mark.parametrize(("config", "shortest"), [(KANADE_12HZ, 1441), (KANADE_25HZ, 481), (KANADE_25HZ_CLEAN, 481)])
def test_shortest_input_makes_one_token(config: KanadeConfig, shortest: int) -> None:
    assert config.min_samples == shortest
    assert token_count(shortest, downsample=config.downsample) == 1
    assert token_count(shortest - 1, downsample=config.downsample) == 0
