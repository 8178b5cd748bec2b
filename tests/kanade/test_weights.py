"""Loaders: strict by name, damaged files named, and where files are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kanade.recipe import deviation, fill, noise, tensors
from safetensors.torch import save_file
from torch import Tensor

from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.kanade.codec import KanadeCodec
from tokbench.kanade.config import KANADE_25HZ
from tokbench.kanade.files import find_files, sha256_file
from tokbench.kanade.hift import HiFT
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.released import released_yaml
from tokbench.kanade.vocos import Vocos
from tokbench.kanade.weights import IncompatibleWeights, load_hift, load_strictly, load_vocos, read_tensors
from tokbench.registry import find_card


def test_vocos_loads_and_ignores_its_features(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    net = Vocos()
    torch.save(net.state_dict() | {"feature_extractor.mel_spec.mel_scale.fb": torch.zeros(1)}, path)
    mel = noise("mel", (1, 100, 5), 1.0)
    with torch.inference_mode():
        assert torch.equal(load_vocos(path)(mel), net.eval()(mel))
    torch.save(net.state_dict() | {"backbone.extra": torch.zeros(1)}, path)
    with pytest.raises(IncompatibleWeights, match=r"unexpected: backbone\.extra"):
        load_vocos(path)


def test_hift_loads_with_and_without_its_prefix(tmp_path: Path) -> None:
    net, mel = HiFT().eval(), noise("mel", (1, 80, 4), 1.0)
    for prefix in ("", "generator."):
        torch.save({prefix + key: value for key, value in net.state_dict().items()}, tmp_path / "hift.pt")
        with torch.inference_mode():
            loaded = load_hift(tmp_path / "hift.pt")
            torch.testing.assert_close(loaded(mel), net(mel), atol=1e-5, rtol=1e-4)
    assert not any("parametrizations" in key for key in loaded.state_dict())


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    load_strictly(layer, {"weight": torch.ones(2, 3).half(), "bias": torch.zeros(2).half()}, where=tmp_path)
    assert layer.weight.dtype == torch.float32


@pytest.mark.slow
@torch.inference_mode()
def test_files_in_the_released_layout_make_the_reference_tokens(
    parity: Path, full_25hz: KanadeModel, torchaudio_wavlm: dict[str, Tensor], tmp_path: Path
) -> None:
    """From files by the recipe, in the layout and size of the releases, to tokens, WavLM's layers and HiFT's wave."""
    card = find_card(TokenizerCard, "kanade-25hz")
    save_file(full_25hz.state_dict(), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size == pytest.approx(470_907_692, abs=4096)
    (tmp_path / "config.yaml").write_text(released_yaml(KANADE_25HZ), encoding="utf-8")
    torch.save(torchaudio_wavlm, tmp_path / "wavlm_base_plus.pth")
    (tmp_path / "vocos-mel-24khz").mkdir()
    torch.save(fill(Vocos(), "vocos.").state_dict(), tmp_path / "vocos-mel-24khz" / "pytorch_model.bin")
    codec = KanadeCodec.load(find_files(card, tmp_path, vocoder="vocos"))
    io = tensors(parity / "full_25hz" / "io.safetensors")
    assert torch.equal(codec.model.encode_content(io["in.local_ssl"]).tokens, io["tokens"])
    layers = tensors(parity / "wavlm_recipe.safetensors")
    hidden = codec.wavlm(layers["resampled16k"].reshape(1, -1), (9,))[9]
    assert deviation(hidden, layers["layer9"]) < 5e-3
    torch.save(fill(HiFT(), "hift.").state_dict(), tmp_path / "hift.pt")
    made = tensors(parity / "hift_recipe.safetensors")
    wave = load_hift(find_files(card, tmp_path, vocoder="hift").vocoder)(made["mel"], source=made["source"])
    assert deviation(wave, made["wav"]) < 1e-3


def test_long_lists_of_keys_are_cut(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleWeights, match=r"missing: .* and \d+ more") as caught:
        load_strictly(Vocos(), {}, where=tmp_path / "x.bin")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not weights")
    with pytest.raises(IncompatibleWeights, match="cannot be read") as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weight": Trap()}, tmp_path / "trap.bin")
    with pytest.raises(IncompatibleWeights):
        read_tensors(tmp_path / "trap.bin")
    assert not (tmp_path / "sprung").exists()


def test_a_folder_is_searched_for_every_part(tmp_path: Path) -> None:
    card = find_card(TokenizerCard, "kanade-25hz-clean")
    (tmp_path / "config.yaml").write_text("a: 1")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "wavlm_base_plus.pth").write_bytes(b"1")
    with pytest.raises(MissingWeights, match=r"FunAudioLLM/CosyVoice2-0\.5B cannot be had"):
        find_files(card, tmp_path, vocoder="hift")
    (tmp_path / "hift.pt").write_bytes(b"2")
    files = find_files(card, tmp_path, vocoder="hift")
    assert files.wavlm.name == "wavlm_base_plus.pth"
    assert files.vocoder == tmp_path / "hift.pt"
    before = files.identity()
    (tmp_path / "hift.pt").write_bytes(b"33")
    assert {name for name, value in files.identity().items() if before[name] != value} == {"vocoder"}


def test_the_hub_cache_knows_the_hash(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"content")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert sha256_file(link) == "ab" * 32
