"""The Kanade adapter on full-size random weights in the released layout: conformance, swapping, strictness, files."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokbench.config import TokenizerCard
from tokbench.errors import CardError, MissingWeights, NotApplicable
from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig
from tokbench.kanade.hift import HiFT
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.released import released_yaml
from tokbench.kanade.vocos import Vocos
from tokbench.kanade.wavlm import WavLM
from tokbench.kanade.weights import IncompatibleWeights
from tokbench.registry import find_card
from tokbench.tokenizers.base import ExposesCodebook, ExposesFeatures
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.kanade import Kanade
from tokbench.tokenizers.load import load_tokenizer
from tokbench.types import Encoded

RELEASES = {"kanade-12.5hz": KANADE_12HZ, "kanade-25hz": KANADE_25HZ, "kanade-25hz-clean": KANADE_25HZ_CLEAN}


def random_state(net: type[torch.nn.Module], *arguments: object, **options: object) -> dict[str, Tensor]:
    """Weights of a net's size: normal, scaled by the fan-in; norms near one, biases small."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in net(*arguments, **options).state_dict().items()}
    found = {}
    for key, shape in shapes.items():
        draw = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(key.encode())))
        near_one = key.endswith(("original0", "gamma")) or (len(shape) == 1 and key.endswith((".weight", "alpha")))
        if key.endswith("istft.window"):
            found[key] = torch.hann_window(shape[0])
        elif near_one:
            found[key] = 1 + 0.1 * draw
        else:
            found[key] = draw * (0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:])))
    return found


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WavLM and both vocoders, as their publishers lay them out."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "wavlm-base-plus").mkdir()
    (folder / "vocos-mel-24khz").mkdir()
    wavlm = {key.removeprefix("net."): value for key, value in random_state(WavLM, blocks=10).items()}
    save_file(wavlm | {"masked_spec_embed": torch.zeros(768)}, folder / "wavlm-base-plus" / "model.safetensors")
    window = {"feature_extractor.mel_spec.spectrogram.window": torch.hann_window(1024)}
    torch.save(random_state(Vocos) | window, folder / "vocos-mel-24khz" / "pytorch_model.bin")
    torch.save(random_state(HiFT), folder / "hift.pt")
    return folder


def release(parts: Path, folder: Path, config: KanadeConfig) -> Path:
    """A weights folder in the released layout and size; the other parts are linked."""
    save_file(random_state(KanadeModel, config), folder / "model.safetensors")
    (folder / "config.yaml").write_text(released_yaml(config), encoding="utf-8")
    for part in parts.iterdir():
        (folder / part.name).symlink_to(part)
    return folder


@pytest.fixture(scope="session")
def folder_25hz(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(parts, tmp_path_factory.mktemp("kanade-25hz"), KANADE_25HZ)


@pytest.fixture(scope="session")
def kanade(folder_25hz: Path) -> Kanade:
    loaded = load_tokenizer("kanade-25hz", weights=folder_25hz)
    assert isinstance(loaded, Kanade)
    return loaded


def test_the_file_has_the_released_size(folder_25hz: Path) -> None:
    """Real releases have been seen at exactly the size that this layout gives (470,907,692 bytes for this one)."""
    assert (folder_25hz / "model.safetensors").stat().st_size == pytest.approx(470_907_692, abs=4096)


def test_the_contract(kanade: Kanade) -> None:
    checks = conformance(kanade, long_seconds=(Fraction(7),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


def test_equal_lengths_share_a_forward_pass_and_keep_their_tokens(kanade: Kanade) -> None:
    waves = [speech_like(Fraction(3, 2), 24000, seed=i) for i in range(3)]
    waves.insert(1, speech_like(Fraction(1), 24000))
    alone = [kanade.encode([wave])[0] for wave in waves]
    for one, together in zip(alone, kanade.encode(waves), strict=True):
        assert np.array_equal(one.streams["content"], together.streams["content"])
        np.testing.assert_allclose(one.globals["speaker"], together.globals["speaker"], atol=1e-4)
    decoded = kanade.decode(alone)
    for item, wave in zip(alone, decoded, strict=True):
        np.testing.assert_allclose(kanade.decode([item])[0], wave, atol=1e-3)


def test_swapping_the_voice_is_deterministic_and_keeps_the_length(kanade: Kanade) -> None:
    source, reference = kanade.encode([speech_like(Fraction(n, 10), 24000, seed=n) for n in (13, 9)])
    converted = kanade.decode([source], globals_from=[reference])[0]
    assert converted.shape == (31200,)
    assert np.array_equal(kanade.decode([source], globals_from=[reference])[0], converted)
    assert not np.allclose(kanade.decode([source])[0], converted, atol=1e-4)
    again, name = Encoded.from_npz(source.to_npz(tokenizer="kanade-25hz"))
    assert name == "kanade-25hz"
    assert np.array_equal(kanade.decode([again], globals_from=[reference])[0], converted)
    with pytest.raises(NotApplicable, match="2 voices are given for 1"):
        kanade.decode([source], globals_from=[source, reference])


def test_level_does_not_change_the_tokens(kanade: Kanade) -> None:
    wave = speech_like(Fraction(1), 24000)
    loud, quiet = (kanade.encode([wave * np.float32(gain)])[0] for gain in (1.0, 0.25))
    assert np.array_equal(loud.streams["content"], quiet.streams["content"])


def test_features_and_codebook(kanade: Kanade) -> None:
    assert isinstance(kanade, ExposesFeatures)
    assert isinstance(kanade, ExposesCodebook)
    wave = speech_like(Fraction(1), 24000)
    tokens = kanade.encode([wave])[0].streams["content"]
    table = kanade.codebook("content")
    assert table.shape == (12800, 768)
    assert table.dtype == np.float32
    np.testing.assert_allclose(kanade.features([wave], "post_quant")[0], table[tokens], atol=1e-5)
    before = kanade.features([wave], "pre_quant")[0]
    assert before.shape == (25, 768)
    assert not np.allclose(before, table[tokens], atol=1e-2)
    with pytest.raises(NotApplicable, match="no codebook for a stream 'pitch'"):
        kanade.codebook("pitch")


def test_bf16_changes_some_tokens_and_little_else(kanade: Kanade, folder_25hz: Path) -> None:
    card = kanade.card.model_copy(update={"params": {"vocoder": "vocos", "precision": "bf16"}})
    wave = speech_like(Fraction(2), 24000)
    half = load_tokenizer(card, weights=folder_25hz).encode([wave])[0]
    full = kanade.encode([wave])[0]
    assert half.streams["content"].shape == full.streams["content"].shape
    np.testing.assert_allclose(half.globals["speaker"], full.globals["speaker"], atol=0.1)


@pytest.mark.parametrize("name", ["kanade-12.5hz", "kanade-25hz-clean"])
def test_the_other_releases_load_encode_and_decode(name: str, parts: Path, tmp_path: Path) -> None:
    config = RELEASES[name]
    tokenizer = load_tokenizer(name, weights=release(parts, tmp_path, config))
    wave = speech_like(Fraction(1), 24000)
    whole, shortest = tokenizer.encode([wave, wave[:1]])
    assert whole.streams["content"].shape == (50 // config.downsample,)
    assert shortest.streams["content"].shape == (1,)
    first, tiny = tokenizer.decode([whole, shortest])
    assert first.shape == (24000,)
    assert tiny.shape == (1,)
    assert np.isfinite(first).all()
    assert np.array_equal(tokenizer.decode([whole])[0], first)
    shutil.rmtree(tmp_path)


def test_neither_the_module_nor_the_identity_imports_torch(folder_25hz: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tokbench.config import TokenizerCard; "
        "from tokbench.registry import find_card; from tokbench.tokenizers.kanade import Kanade; "
        "Kanade.weights_identity(find_card(TokenizerCard, 'kanade-25hz'), Path(sys.argv[1])); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder_25hz)], check=True)


def test_identity_names_every_file_by_its_sha256(folder_25hz: Path) -> None:
    card = find_card(TokenizerCard, "kanade-25hz")
    identity = Kanade.weights_identity(card, folder_25hz)
    assert set(identity) == {"config.yaml", "model.safetensors", "wavlm", "vocoder", "torch", "transformers"}
    assert all(len(identity[name]) == 64 for name in ("config.yaml", "model.safetensors", "wavlm", "vocoder"))


def test_missing_weights_say_which_files_to_put_where(tmp_path: Path, folder_25hz: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        load_tokenizer("kanade-25hz")
    line = str(caught.value)
    assert "\n" not in line
    for part in ("frothywater/kanade-25hz", "config.yaml", "model.safetensors", "wavlm-base-plus/", "--weights"):
        assert part in line
    with pytest.raises(MissingWeights, match=r"there is no config\.yaml"):
        load_tokenizer("kanade-25hz", weights=tmp_path)
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).symlink_to(folder_25hz / name)
    with pytest.raises(MissingWeights, match="microsoft/wavlm-base-plus cannot be had from the hub"):
        load_tokenizer("kanade-25hz", weights=tmp_path)


def test_weights_of_another_model_are_refused(folder_25hz: Path) -> None:
    with pytest.raises(CardError, match=r"declares rate_hz 25/2, but the weights. config\.yaml says 25"):
        load_tokenizer("kanade-12.5hz", weights=folder_25hz)


def test_a_training_checkpoint_loads_and_a_strange_key_does_not(
    folder_25hz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(folder_25hz / "model.safetensors")
    for part in folder_25hz.iterdir():
        if part.name != "model.safetensors":
            (tmp_path / part.name).symlink_to(part.resolve())
    extra = {"feature_decoder.norm.weight": torch.ones(768), "conv_upsample.bias": torch.zeros(768)}
    state["mel_postnet.convolutions.3.0.bias"] = torch.zeros(99)
    del state["local_quantizer.proj_in.bias"]
    save_file(state | extra | {"strange.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(IncompatibleWeights) as caught:
        load_tokenizer("kanade-25hz", weights=tmp_path)
    line = str(caught.value)
    assert "missing: local_quantizer.proj_in.bias" in line
    assert "unexpected: strange.weight" in line
    assert "of another shape: mel_postnet.convolutions.3.0.bias" in line
    assert "feature_decoder" not in line


def test_a_param_that_does_not_exist_is_refused() -> None:
    card = find_card(TokenizerCard, "kanade-25hz").model_copy(update={"params": {"vocoder": "wavenet"}})
    with pytest.raises(CardError, match="'wavenet' is not one of vocos, hift"):
        Kanade.weights_identity(card)
