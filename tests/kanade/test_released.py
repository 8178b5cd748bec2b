"""The released `config.yaml`: reading, writing, and refusing what could change the tokens silently."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from tokbench.errors import CardError
from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig
from tokbench.kanade.released import read_config, released_yaml


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("config", [KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN])
def test_what_is_written_is_read_back(path: Path, config: KanadeConfig) -> None:
    path.write_text(released_yaml(config))
    assert read_config(path) == config


def test_a_training_config_is_read_too(path: Path) -> None:
    """There the nets are nested elsewhere, with `model_config` beside them, options left at their defaults."""
    nets = yaml.safe_load(released_yaml(KANADE_25HZ))["model"]["init_args"]
    settings = nets.pop("config")
    for key in ("mel_fmin", "mel_fmax", "bigvgan_style_mel", "vocoder_name"):
        del settings[key]
    pipeline = {"class_path": "x.Pipeline", "init_args": nets | {"model_config": settings, "discriminator": {"a": 1}}}
    path.write_text(yaml.safe_dump({"seed_everything": 42, "model": pipeline, "data": {"class_path": "y"}}))
    assert read_config(path) == KANADE_25HZ


def test_rates_and_widths_follow() -> None:
    assert (KANADE_12HZ.token_rate, KANADE_25HZ.token_rate) == (Fraction(25, 2), Fraction(25))
    assert (KANADE_25HZ.prenet_dim, KANADE_25HZ_CLEAN.prenet_dim) == (512, 768)
    assert (KANADE_25HZ.local_encoder.hidden_dim, KANADE_25HZ.mel_decoder.hidden_dim) == (2048, 1536)
    assert (KANADE_25HZ.local_encoder.radius, KANADE_25HZ.mel_prenet.radius, KANADE_12HZ.mel_prenet.radius) == (
        62,
        32,
        15,
    )
    assert KANADE_25HZ.deepest_layer == 9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window_size: 125", "window_size: 124", "window must be odd"),
        ("window_size: 125", "causal: true\n        window_size: 125", "local_encoder.causal = True is unknown"),
        ("window_size: 125", "causal: false\n        window_size: 125", None),
        ("use_rope: true", "use_rope: false", "use_rope = False is not supported"),
        ("model_name: wavlm_base_plus", "model_name: hubert", "only wavlm_base_plus and whisper_tiny_en"),
        ("downsample_factor: 2", "downsample_factor: 2\n      stereo: yes", "config.stereo = True is unknown"),
        ("local_encoder:", "other_encoder:", "describes no Kanade model"),
        ("n_layers: 6", "n_layers: many", r"local_encoder\.n_layers"),
        ("mel_postnet:", "postnet:", "there is no 'mel_postnet'"),
        ("model:", "model: [", "not readable as YAML"),
    ],
)
def test_what_could_change_the_tokens_is_refused(path: Path, old: str, new: str, message: str | None) -> None:
    text = released_yaml(KANADE_25HZ)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if message is None:
        assert read_config(path) == KANADE_25HZ
        return
    with pytest.raises(CardError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
