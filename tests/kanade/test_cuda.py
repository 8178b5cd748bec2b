"""Everything on CUDA: the parity fixtures, attention backends, the whole codec beside the CPU, bfloat16, memory.

python -m pytest -m cuda tests/kanade/test_cuda.py -s      # prints the shares of changed tokens
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kanade.recipe import build, deviation, fill, noise, tensors, tiny_config
from torch import Tensor

from tokbench.kanade.attention import Backend, local_attention, resolve_backend
from tokbench.kanade.codec import KanadeCodec
from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig
from tokbench.kanade.discriminator import BandDiscriminator
from tokbench.kanade.hift import HiFT
from tokbench.kanade.lengths import padding
from tokbench.kanade.mel import log_mel
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.resample import resample
from tokbench.kanade.vocos import Vocos
from tokbench.kanade.wavlm import WavLM
from tokbench.manifest import resolve_device

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Convolutions default to TensorFloat-32, which the codec switches off, too."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model(full_25hz: KanadeModel) -> KanadeModel:
    return copy.deepcopy(full_25hz).to(CUDA)


@pytest.fixture(scope="module")
def front(wavlm: WavLM) -> WavLM:
    return copy.deepcopy(wavlm).to(CUDA)


@pytest.fixture(scope="module")
def codecs(full_25hz: KanadeModel, wavlm: WavLM) -> dict[str, KanadeCodec]:
    """The same weights on both devices."""
    vocos = fill(Vocos(), "vocos.")
    made = {}
    for device in ("cpu", "cuda"):
        parts = [copy.deepcopy(part) for part in (full_25hz, wavlm, vocos)]
        made[device] = KanadeCodec(*parts, device=device)  # type: ignore[arg-type]
    return made


def on_cuda(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(CUDA) for name, value in found.items()}


def told(line: str) -> None:
    """A measurement for whoever runs pytest with -s."""
    sys.stdout.write(f"\n{line}\n")


def changed(ours: Tensor, theirs: Tensor) -> float:
    """Share of tokens that differ."""
    assert ours.shape == theirs.shape
    return float((ours.cpu() != theirs.cpu()).float().mean())


@pytest.mark.parametrize("case", ["T150", "T37", "batch2"])
@pytest.mark.parametrize("kind", ["tiny_12hz", "tiny_25hz", "tiny_25hz_clean"])
def test_tiny_geometries_match_the_reference(parity: Path, kind: str, case: str) -> None:
    folder = parity / kind
    model = KanadeModel(tiny_config(folder), feature_decoder=True).eval()
    model.load_state_dict(tensors(folder / "state.safetensors"))
    model.to(CUDA)
    io = on_cuda(tensors(folder / f"io_{case}.safetensors"))
    content = model.encode_content(io["in.local_ssl"])
    assert torch.equal(content.tokens, io["tokens"])
    speaker = model.encode_global(io["in.global_ssl"])
    assert deviation(speaker, io["global_embedding"]) < 1e-4
    mel = model.decode_mel(content.embedding, speaker, n_samples=int(io["meta.audio_length"][0]))
    assert deviation(mel, io["mel"]) < 2e-4
    assert deviation(model.reconstruct_features(content.embedding), io["ssl_recon"]) < 1e-4


@pytest.mark.parametrize("backend", ["flex", "sdpa"])
def test_full_size_matches_the_reference(parity: Path, model: KanadeModel, backend: Backend) -> None:
    model.use_backend(backend)
    io = on_cuda(tensors(parity / "full_25hz" / "io.safetensors"))
    content = model.encode_content(io["in.local_ssl"])
    share = changed(content.tokens, io["tokens"])
    told(f"full size, {backend}: {share:.2%} of tokens changed against the CPU reference")
    assert share == 0
    speaker = model.encode_global(io["in.global_ssl"])
    assert deviation(speaker, io["global_embedding"]) < 1e-4
    mel = model.decode_mel(content.embedding, speaker, n_samples=int(io["meta.audio_length"][0]))
    told(f"full size, {backend}: mel differs by {deviation(mel, io['mel']):.1e} at most")
    assert deviation(mel, io["mel"]) < 1e-3
    model.use_backend("auto")


@pytest.mark.parametrize("config", [KANADE_12HZ, KANADE_25HZ_CLEAN], ids=["12.5hz", "25hz-clean"])
def test_the_other_sizes_equal_the_cpu(parity: Path, config: KanadeConfig) -> None:
    io = tensors(parity / "full_25hz" / "io.safetensors")
    cpu = build(config)
    expected = cpu.encode_content(io["in.local_ssl"])
    speaker = cpu.encode_global(io["in.global_ssl"])
    mel = cpu.decode_mel(expected.embedding, speaker, n_samples=72000)
    gpu = cpu.to(CUDA)
    content = gpu.encode_content(io["in.local_ssl"].to(CUDA))
    assert changed(content.tokens, expected.tokens) == 0
    again = gpu.decode_mel(content.embedding, speaker.to(CUDA), n_samples=72000)
    assert deviation(again.cpu(), mel) < 1e-3


def test_wavlm_matches_the_reference_and_the_cpu(parity: Path, front: WavLM, wavlm: WavLM) -> None:
    io = tensors(parity / "wavlm_recipe.safetensors")
    pad = padding(len(io["wav24k"]))
    padded = torch.nn.functional.pad(io["wav24k"], (pad, pad))[None]
    wave = resample(padded, 24000, 16000)
    assert deviation(resample(padded.to(CUDA), 24000, 16000).cpu(), wave) < 1e-6
    layers = (1, 2, 3, 4, 6, 9)
    cpu = wavlm(wave, layers)
    for layer, hidden in front(wave.to(CUDA), layers).items():
        assert deviation(hidden.cpu(), io[f"layer{layer}"]) < 5e-3
        assert deviation(hidden.cpu(), cpu[layer]) < 1e-3


def test_both_mels_match_the_reference(parity: Path) -> None:
    io = tensors(parity / "mel.safetensors")
    wave = noise("melaudio", (2, 138240), 0.1).to(CUDA)
    for name, config in (("vocos", KANADE_25HZ), ("hift", KANADE_25HZ_CLEAN)):
        assert deviation(log_mel(wave, config.mel)[..., :40].cpu(), io[f"mel_{name}_fp32_head"]) < 1e-3


def test_hift_matches_the_reference_with_a_given_source(parity: Path) -> None:
    vocoder = fill(HiFT(), "hift.").to(CUDA)
    io = on_cuda(tensors(parity / "hift_recipe.safetensors"))
    assert deviation(vocoder.f0_predictor(io["mel"]), io["f0"]) < 1e-4  # type: ignore[operator]
    assert deviation(vocoder(io["mel"], source=io["source"]), io["wav"]) < 1e-3


@pytest.mark.parametrize(
    ("kind", "options", "frames"),
    [("vocos", {"n_mels": 100}, 41), ("hift", {"n_mels": 80, "kernel": (7, 7), "downsample": False}, 23)],
)
def test_the_discriminator_matches_the_reference(parity: Path, kind: str, options: dict[str, int], frames: int) -> None:
    net = fill(BandDiscriminator(**options), "disc.").to(CUDA)
    io = tensors(parity / f"disc_{kind}.safetensors")
    made = net(noise(f"disc.real.{kind}", (2, 1, options["n_mels"], frames), 1.0).to(CUDA))
    assert deviation(made.scores.cpu(), io["real_out"]) < 1e-4


@pytest.mark.parametrize("length", [37, 300, 1333])
@pytest.mark.parametrize("radius", [15, 32, 62])
def test_backends_equal_each_other(length: int, radius: int) -> None:
    """In float32, flex and blocks on the GPU equal blocks on the CPU to 1e-4; flash in half precision to its digits."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, 4, length, 64, generator=generator) for _ in range(3))
    expected = local_attention(q, k, v, radius=radius, backend="sdpa")
    backends: list[Backend] = ["flex", "sdpa"]
    for backend in backends:
        found = local_attention(q.to(CUDA), k.to(CUDA), v.to(CUDA), radius=radius, backend=backend)
        torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)


def test_auto_takes_what_fits() -> None:
    wide, narrow = torch.zeros(1, 1, 300, 64, device=CUDA), torch.zeros(1, 1, 300, 8, device=CUDA)
    assert resolve_backend("auto", wide) == "flex"
    assert resolve_backend("auto", narrow) == "sdpa"
    assert resolve_backend("auto", wide, dropout=0.1) == "sdpa"
    assert resolve_device("auto") == "cuda"


def test_the_codec_equals_the_cpus(codecs: dict[str, KanadeCodec]) -> None:
    wave = noise("codec", (2, 72_000), 0.1)
    cpu, gpu = codecs["cpu"].encode(wave), codecs["cuda"].encode(wave)
    share = changed(gpu.tokens, cpu.tokens)
    told(f"from audio: {share:.2%} of {cpu.tokens.numel()} tokens changed on CUDA in float32")
    assert share <= 0.02  # a token beside a rounding boundary
    assert deviation(gpu.speaker.cpu(), cpu.speaker) < 1e-3
    decoded = [codec.decode(cpu.tokens, cpu.speaker, n_samples=72_000).cpu() for codec in codecs.values()]
    scale = float(decoded[0].abs().max())
    assert deviation(decoded[1], decoded[0]) < 1e-2 * max(1.0, scale)
    assert torch.equal(codecs["cuda"].encode(wave).tokens, gpu.tokens), "the same call twice"


def test_bfloat16_changes_some_tokens_and_little_else(codecs: dict[str, KanadeCodec]) -> None:
    codec = codecs["cuda"]
    wave = noise("bf16", (1, 240_000), 0.1)
    full = codec.encode(wave)
    codec.precision = "bf16"
    try:
        half = codec.encode(wave)
        decoded = codec.decode(full.tokens, full.speaker, n_samples=240_000)
    finally:
        codec.precision = "fp32"
    told(f"bfloat16 (random weights): {changed(half.tokens, full.tokens):.2%} of tokens changed")
    assert deviation(half.speaker.cpu(), full.speaker.cpu()) < 0.1
    assert torch.isfinite(decoded).all()


def test_memory_is_linear_in_length(codecs: dict[str, KanadeCodec]) -> None:
    codec = codecs["cuda"]
    rest = torch.cuda.memory_allocated()
    peaks = []
    for seconds in (60, 240):
        wave = noise("memory", (1, 24_000 * seconds), 0.1)
        torch.cuda.reset_peak_memory_stats()
        coded = codec.encode(wave)
        codec.decode(coded.tokens, coded.speaker, n_samples=wave.shape[1])
        peaks.append(torch.cuda.max_memory_allocated() - rest)
    told(f"peak of 60 s and 240 s beside the weights: {', '.join(f'{p / 1e6:.0f} MB' for p in peaks)}")
    assert peaks[1] < 4.6 * peaks[0]
    assert peaks[1] < 6e9
