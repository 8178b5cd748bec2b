"""NanoCodec against NeMo's own outputs on random weights, and archives that must be refused."""

from __future__ import annotations

import json
import platform
import re
import tarfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from codecs_support import add_entry, by_recipe, largest, nanocodec_recipe, normal, shapes, write_nemo
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tokbench.codecs.checkpoint import BadCheckpoint, fill, fold_weight_norm
from tokbench.codecs.nanocodec.archive import load_nanocodec, read_config
from tokbench.codecs.nanocodec.config import parse_config
from tokbench.codecs.nanocodec.fsq import GroupFsq
from tokbench.codecs.nanocodec.model import NanoCodec
from tokbench.codecs.nanocodec.nets import Upsample
from tokbench.codecs.precision import exact_inference

TOLERANCE = 1e-4
TINY = ("tiny_a", "tiny_b", "tiny_knobs")


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "parity" / "nanocodec"


def build(folder: Path, state: dict[str, Tensor]) -> NanoCodec:
    model = NanoCodec(parse_config(yaml.safe_load((folder / "model_config.yaml").read_text()), where=folder.name))
    nets = {key: value for key, value in state.items() if not key.startswith("vector_quantizer.")}
    fill(model, fold_weight_norm(nets, where=folder.name), where=folder.name, what=folder.name)
    return model.eval()


def compare(model: NanoCodec, io: dict[str, Tensor], audio: Tensor) -> None:
    """Every output, by the nets as they are written and with time before channels."""
    for model.channels_last in (False, True):
        compare_once(model, io, audio)


def compare_once(model: NanoCodec, io: dict[str, Tensor], audio: Tensor) -> None:
    with exact_inference():
        tokens, frames = model.encode(audio, io["audio_len"])
        latent, _ = model.latent(audio, io["audio_len"])
        values = model.dequantize(io["tokens"].long(), io["encoded_len"])
        wave = model.decode(io["tokens"].long(), io["encoded_len"])
    assert torch.equal(frames, io["encoded_len"])
    assert torch.equal(tokens, io["tokens"].long())
    assert largest(latent, io["encoded"]) < TOLERANCE
    assert largest(values, io["dequantized"]) < 1e-7
    assert largest(wave, io["wave"]) < TOLERANCE
    for row, length in zip(wave, io["wave_len"], strict=True):
        assert not row[length:].any()


@pytest.mark.parametrize("geometry", TINY)
def test_every_small_fixture(fixtures: Path, geometry: str) -> None:
    model = build(fixtures / geometry, load_file(fixtures / geometry / "state.safetensors"))
    files = sorted((fixtures / geometry).glob("io_*.safetensors"))
    assert len(files) >= 3
    for file in files:
        io = load_file(file)
        compare(model, io, io["audio"])


@pytest.mark.parametrize("geometry", ["tiny_a", "tiny_b"])
@pytest.mark.parametrize("run", ["io_T1000", "io_batch2"])
def test_every_layer(fixtures: Path, geometry: str, run: str) -> None:
    model = build(fixtures / geometry, load_file(fixtures / geometry / "state.safetensors"))
    io = load_file(fixtures / geometry / f"{run}.safetensors")
    seen: dict[str, Tensor] = {}
    for side, net in (("enc", model.audio_encoder), ("dec", model.audio_decoder)):
        for name, module in net.named_modules():
            if f"tap.{side}.{name}" in io:
                # Residual layers write into their last branch's output, so a copy is kept.
                module.register_forward_hook(
                    lambda _m, _i, out, key=f"tap.{side}.{name}": seen.update({key: out.clone()})
                )
    compare(model, io, io["audio"])
    taps = {key for key in io if key.startswith("tap.")}
    assert taps == set(seen)
    for key in taps:
        assert largest(seen[key], io[key]) < TOLERANCE, key


@pytest.mark.parametrize("geometry", ["full_0k6", "full_1k89"])
def test_every_full_size_fixture(fixtures: Path, geometry: str) -> None:
    folder = fixtures / geometry
    keys = {key: shape for key, shape in shapes(folder / "keys.json").items() if "vector_quantizer" not in key}
    state = by_recipe(keys, nanocodec_recipe)
    info = json.loads((fixtures / "info.json").read_text())
    for key, values in info["recipe_check"][geometry].items():
        assert state[key].flatten()[:3].tolist() == pytest.approx(values, abs=1e-7)
    model = build(folder, state)
    everything = load_file(folder / "io.safetensors")
    for run in sorted({key.split(".")[0] for key in everything} - {"rand"}):
        io = {key.removeprefix(f"{run}."): value for key, value in everything.items() if key.startswith(f"{run}.")}
        lengths = io["audio_len"].tolist()
        audio = torch.zeros(len(lengths), max(lengths))
        for row, (name, n) in enumerate(zip(info["runs"][f"{geometry}/{run}"]["inputs"], lengths, strict=True)):
            audio[row, :n] = torch.from_numpy((0.5 * normal(f"input:{name}", (n,))).astype("float32"))
        compare(model, io, audio)
    with exact_inference():
        wave = model.decode(everything["rand.tokens"].long(), torch.tensor([everything["rand.tokens"].shape[2]]))
    assert largest(wave, everything["rand.wave"]) < TOLERANCE


@pytest.mark.parametrize(("name", "levels"), [("9887", (9, 8, 8, 7)), ("8766", (8, 7, 6, 6))])
def test_the_quantiser(fixtures: Path, name: str, levels: tuple[int, ...]) -> None:
    everything = load_file(fixtures / "fsq.safetensors")
    want = {key.removeprefix(f"{name}."): value for key, value in everything.items() if key.startswith(name)}
    pair = GroupFsq(2, levels)
    assert largest(pair.compress(want["x"])[:, 0], want["compressed0"]) < 1e-6
    for case in ("x", "edge.x"):  # the edges tell the tangent from the inverse hyperbolic one
        indices = want["indices" if case == "x" else "edge.indices"]
        assert torch.equal(pair.tokens(want[case]), indices.transpose(0, 1).long())
    assert largest(pair.values(want["indices"].transpose(0, 1).long()), want["dequantized"]) < 1e-7
    one = GroupFsq(1, levels)
    assert largest(one.values(torch.arange(one.vocab)[None, None])[0].T, want["codebook"]) < 1e-7
    assert torch.equal(one.base.flatten(), want["dim_base_index"].flatten().long())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_tokens_survive_their_values(levels: list[int], groups: int, seed: int) -> None:
    fsq = GroupFsq(groups, tuple(levels))
    tokens = torch.randint(fsq.vocab, (1, groups, 20), generator=torch.Generator().manual_seed(seed))
    half = (fsq.levels // 2).repeat(groups, 1)
    digits = fsq.values(tokens) * half
    inverse = torch.atanh((digits + fsq.offset.repeat(groups, 1)) / fsq.scale.repeat(groups, 1))
    inside = inverse.isfinite().all()
    if inside:
        assert torch.equal(fsq.tokens(inverse - fsq.shift.repeat(groups, 1)), tokens)


def test_lengths(fixtures: Path) -> None:
    config = parse_config(yaml.safe_load((fixtures / "full_0k6/model_config.yaml").read_text()), where="")
    table = json.loads((fixtures / "lengths.json").read_text())
    for hop in (1764, 1024):
        for n, _, _, frames, _ in table[str(hop)]:
            assert -(-n // hop) == frames
            if hop == config.hop:
                assert config.frames(n) == frames
    assert config.frames(16_777_405) == 9512  # float32 arithmetic would say 9511


@settings(deadline=None, max_examples=20)
@given(outputs=st.integers(1, 5), rate=st.integers(1, 7), frames=st.integers(1, 9))
def test_the_fast_transposed_convolution_is_torchs(outputs: int, rate: int, frames: int) -> None:
    up = Upsample(2 * outputs, rate, grouped=True)
    x = torch.randn(2, 2 * outputs, frames)
    with torch.no_grad():
        assert largest(up(x, None), up.conv(x)[..., : frames * rate]) < 1e-5


def test_an_archive_of_nemos(fixtures: Path) -> None:
    model = load_nanocodec(fixtures / "tiny_nemo/tiny.nemo")
    everything = load_file(fixtures / "tiny_nemo/expected.safetensors")
    for run in ("T1000", "batch2"):
        io = {key.removeprefix(f"{run}."): value for key, value in everything.items() if key.startswith(f"{run}.")}
        compare(model, io, io["audio"])


@pytest.fixture(scope="module")
def config(fixtures: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((fixtures / "tiny_a/model_config.yaml").read_text()))


@pytest.fixture(scope="module")
def state(fixtures: Path) -> dict[str, Tensor]:
    return load_file(fixtures / "tiny_a/state.safetensors")


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        load_nanocodec(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert caught.value.hint
    return line


@pytest.mark.parametrize("form", ["gzip", "old names", "model section", "no leading dot"])
def test_other_forms_of_the_archive(
    tmp_path: Path, fixtures: Path, config: dict[str, Any], state: dict[str, Tensor], form: str
) -> None:
    checkpoint, text, mode, prefix = state, yaml.safe_dump(config), "w", "./"
    if form == "gzip":
        mode = "w:gz"
    elif form == "old names":
        parts = ("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v")
        checkpoint = {key.replace(*parts[0]).replace(*parts[1]): value for key, value in state.items()}
    elif form == "model section":
        text = yaml.safe_dump({"model": config})
    else:
        prefix = ""
    model = load_nanocodec(write_nemo(tmp_path / "a.nemo", text, checkpoint, mode=mode, prefix=prefix))
    io = load_file(fixtures / "tiny_a/io_T1000.safetensors")
    compare(model, io, io["audio"])


CONFIG_FAULTS: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "encoder class": (("audio_encoder", "_target_"), "os.system", "unknown class 'os.system'"),
    "decoder class": (("audio_decoder", "_target_"), "nemo.x.HiFiGANDecoder", "unknown class 'nemo.x.HiFiGANDecoder'"),
    "quantiser class": (("vector_quantizer", "_target_"), None, "unknown class 'None'"),
    "model class": (("target",), "nemo.Other", "describes the class 'nemo.Other'"),
    "argument": (("vector_quantizer", "num_semantic_groups"), 1, "unknown argument 'num_semantic_groups'"),
    "encoder argument": (("audio_encoder", "norm"), "x", "audio_encoder has the unknown argument 'norm'"),
    "activation": (("audio_decoder", "activation"), "gelu", "is 'gelu'"),
    "second codec": (("semantic_codec_path",), "x.nemo", "sets 'semantic_codec_path'"),
    "output rate": (("output_sample_rate",), 44100, "output_sample_rate is 44100"),
    "hop": (("samples_per_frame",), 43, "down_sample_rates multiply to 42, samples_per_frame is 43"),
    "width": (("audio_encoder", "encoded_dim"), 9, "must be the quantiser's 8"),
    "levels": (("vector_quantizer", "num_levels_per_group"), [9, 8, 8, 6], "configuration makes it [9, 8, 8, 6]"),
    "type": (("sample_rate",), "fast", "sample_rate must be a positive integer"),
    "list": (("audio_encoder", "down_sample_rates"), [2, 3, "7"], "must be a list of positive integers"),
    "epsilon": (("vector_quantizer", "eps"), 0.1, "eps is 0.1"),
    "section": (("audio_decoder",), None, "lacks the section 'audio_decoder'"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_wrong_configuration(tmp_path: Path, config: dict[str, Any], state: dict[str, Tensor], fault: str) -> None:
    keys, value, message = CONFIG_FAULTS[fault]
    wrong = json.loads(json.dumps(config))
    place = wrong
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    assert message in refusal(write_nemo(tmp_path / "a.nemo", yaml.safe_dump(wrong), state))


def test_a_configuration_that_makes_objects(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write_nemo(tmp_path / "a.nemo", "!!python/object/apply:os.getcwd []", state)
    assert "is not plain YAML" in refusal(path)


@pytest.mark.parametrize("kind", ["encoder", "extra", "half a pair", "shape", "levels", "NaN", "another variant"])
def test_wrong_tensors(
    tmp_path: Path, fixtures: Path, config: dict[str, Any], state: dict[str, Tensor], kind: str
) -> None:
    wrong = dict(state)
    pre = "audio_encoder.pre_conv.conv"
    if kind == "encoder":
        del wrong[f"{pre}.bias"]
        message = (
            f"lacks 1 of the {len(NanoCodec(read_shape(config)).state_dict())} tensors of x, for instance {pre}.bias"
        )
    elif kind == "extra":
        wrong["audio_encoder.more.weight"] = torch.ones(3)
        message = "holds 1 tensors that x does not have, for instance audio_encoder.more.weight"
    elif kind == "half a pair":
        del wrong[f"{pre}.parametrizations.weight.original0"]
        message = f"lacks {pre}.parametrizations.weight.original0"
    elif kind == "shape":
        wrong[f"{pre}.bias"] = torch.ones(7)
        message = f"{pre}.bias is [7], x needs [4]"
    elif kind == "levels":
        del wrong["vector_quantizer.fsqs.1.num_levels"]
        message = "lacks vector_quantizer.fsqs.1.num_levels"
    elif kind == "NaN":
        wrong[f"{pre}.bias"] = torch.full((4,), torch.nan)
        message = f"{pre}.bias has NaN"
    else:
        wrong = load_file(fixtures / "tiny_b/state.safetensors")
        message = "The weights are another variant's"
    assert message in refusal(write_nemo(tmp_path / "a.nemo", yaml.safe_dump(config), wrong), what="x")


def read_shape(config: dict[str, Any]) -> Any:
    return parse_config(config, where="")


class Harmless:
    """Something that only a pickle can carry."""


def test_a_pickle_needs_the_flag(
    tmp_path: Path, config: dict[str, Any], state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_nemo(tmp_path / "a.nemo", yaml.safe_dump(config), OrderedDict(state) | {"slm_note": Fraction(1, 3)})
    line = refusal(path)
    assert "a pickle can run code" in line
    assert "--allow-pickle" in line
    assert "which is a Fraction and no tensor" in refusal(path, allow_pickle=True)
    assert str(path) in caplog.text


def test_damaged_archives(tmp_path: Path, fixtures: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    whole = (fixtures / "tiny_nemo/tiny.nemo").read_bytes()
    path = tmp_path / "a.nemo"
    for data in (b"", b"not an archive" * 100, whole[: len(whole) // 2], whole[:2000]):
        path.write_bytes(data)
        line = refusal(path)
        assert "is damaged" in line or "holds no model_" in line
    write_nemo(path, yaml.safe_dump(config), state)
    middle = bytearray(path.read_bytes())
    at = middle.index(b"PK\x03\x04")
    middle[at : at + 2000] = bytes(2000)
    path.write_bytes(bytes(middle))
    assert "is damaged" in refusal(path)
    with tarfile.open(path, "w"):
        pass
    assert "holds no model_config.yaml" in refusal(path)
    with pytest.raises(BadCheckpoint, match="is not there"):
        load_nanocodec(tmp_path / "absent.nemo")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_a_path_that_leads_outside(tmp_path: Path, config: dict[str, Any], state: dict[str, Tensor], name: str) -> None:
    path = write_nemo(tmp_path / "a.nemo", yaml.safe_dump(config), state)
    add_entry(path, tarfile.TarInfo(name), b"x")
    assert f"holds the entry '{name}', which leads outside" in refusal(path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.nemo"]


def test_links_and_doubles(tmp_path: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    path = write_nemo(tmp_path / "a.nemo", yaml.safe_dump(config), state)
    link = tarfile.TarInfo("./link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    add_entry(path, link)
    assert "is a link or a device" in refusal(path)
    write_nemo(path, yaml.safe_dump(config), state)
    add_entry(path, tarfile.TarInfo("./model_config.yaml"), b"x: 1")
    assert "is there twice" in refusal(path)


def test_tokens_out_of_range_are_refused(fixtures: Path) -> None:
    model = load_nanocodec(fixtures / "tiny_nemo/tiny.nemo")
    assert read_config(fixtures / "tiny_nemo/tiny.nemo") == model.config
    with pytest.raises(ValueError, match=r"0\.\.4031"):
        model.decode(torch.full((1, 2, 3), 4032), torch.tensor([3]))


def test_a_gpu_is_not_waited_for_while_it_encodes(config: dict[str, Any]) -> None:
    """By tensors that have a device and no values: whoever asks one of them for a number is refused."""
    calls: list[str] = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(str(call.overloadpacket))
            return call(*args, **(kwargs or {}))

    with FakeTensorMode():
        with torch.device("cuda"):
            model = NanoCodec(parse_config(config, where="test"), device="cuda").eval()
            audio = torch.zeros(1, 1000)
        lengths = torch.tensor([1000])
        with torch.no_grad(), Calls():
            tokens, frames = model.encode(audio, lengths)
    assert tokens.is_cuda
    assert frames.device.type == "cpu"
    assert calls.count("aten.convolution") > 10
    assert calls.count("aten.replication_pad1d") == calls.count("aten.convolution")
    assert "aten.cat" not in calls


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 instructions")
@pytest.mark.parametrize("name", ["activate", "add_and_activate"])
def test_an_activation_reads_whole_vectors(name: str) -> None:
    """An index that may be negative makes numba gather single numbers, which is several times slower."""
    kernels = pytest.importorskip("tokbench.codecs.nanocodec.kernels")
    numba = pytest.importorskip("numba")
    arrays = 5 if name == "activate" else 6
    # Compiled anew: the code of a cached kernel cannot be read.
    kernel = numba.njit([(numba.float32[::1],) * arrays], fastmath=kernels.FASTMATH)(getattr(kernels, name).py_func)
    (code,) = kernel.inspect_asm().values()
    assert re.search(r"\bv?roundps|\bvrndscaleps", code), "no vector of values is rounded"
    assert "gather" not in code
    assert "scatter" not in code
