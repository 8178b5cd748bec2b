"""Full-size tokenizers of other libraries: random weights in the published geometry, through the adapter.

    python benchmarks/full_size.py mimi-8 encodec-24khz-6k dac-16khz          # on the CPU
    python benchmarks/full_size.py --all --device cuda --seconds 30
    python benchmarks/full_size.py --all --keep FOLDER --no-conformance     # models made once, times alone

Each model is built from the config that its authors publish, saved as the hub lays it out, loaded through its adapter,
and run through the conformance suite. Then the same audio is encoded and decoded by the adapter and by the model called
directly, in turns; the ratios of the best times are what the adapter costs. SpeechTokenizer is a port, which
`benchmarks/ports.py` sets beside its package. `encode_peak_mib` and
`decode_peak_mib` are the most memory in use meanwhile, weights included: of the process, or of the GPU. Weights are
random, so that nothing is said about quality. A model takes up to 3 GB on disk and three times that in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from direct_calls import direct_calls

from tokbench.codecs.speechtokenizer import SpeechTokenizerConfig, SpeechTokenizerNet
from tokbench.protocols.speed_probe import peak_bytes, reset_peak
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer

SNAC = {
    "sampling_rate": 24000, "encoder_dim": 48, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "codebook_size": 4096, "codebook_dim": 8,
    "vq_strides": [4, 2, 1], "noise": True, "depthwise": True,
}  # fmt: skip
SPEECHTOKENIZER = {
    "sample_rate": 16000, "n_filters": 64, "dimension": 1024, "semantic_dimension": 768, "strides": [8, 5, 4, 2],
    "lstm_layers": 2, "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
    "activation": "ELU", "n_q": 8, "codebook_size": 1024,
}  # fmt: skip


def dac(strides: list[int], books: int, rate: int) -> Any:
    config = transformers.DacConfig(downsampling_ratios=strides, n_codebooks=books, sampling_rate=rate)
    return transformers.DacModel(config)


MODELS: dict[str, Callable[[], Any]] = {
    "mimi-8": lambda: transformers.MimiModel(transformers.MimiConfig()),
    "encodec-24khz-6k": lambda: transformers.EncodecModel(transformers.EncodecConfig()),
    "encodec-48khz-6k": lambda: transformers.EncodecModel(
        transformers.EncodecConfig(
            audio_channels=2,
            sampling_rate=48000,
            chunk_length_s=1.0,
            overlap=0.01,
            normalize=True,
            norm_type="time_group_norm",
            use_causal_conv=False,
            target_bandwidths=[3.0, 6.0, 12.0, 24.0],
        )
    ),
    "dac-16khz": lambda: dac([2, 4, 5, 8], 12, 16000),
    "dac-24khz": lambda: dac([2, 4, 5, 8], 32, 24000),
    "dac-44khz": lambda: dac([2, 4, 8, 8], 9, 44100),
    "xcodec-hubert-librispeech-4": lambda: transformers.XcodecModel(transformers.XcodecConfig()),
    "xcodec2": lambda: transformers.Xcodec2Model(transformers.Xcodec2Config()),
    "neucodec": lambda: transformers.NeuCodecModel(transformers.NeuCodecConfig()),
    "pocket-tts": lambda: transformers.PocketTTSAudioTokenizerModel(transformers.PocketTTSAudioTokenizerConfig()),
    "vibevoice-acoustic": lambda: transformers.VibeVoiceAcousticTokenizerModel(
        transformers.VibeVoiceAcousticTokenizerConfig()
    ),
    "published-units-hubert-base-l9-500": lambda: transformers.HubertModel(transformers.HubertConfig()),
    "published-units-wavlm-large-l23-1000": lambda: transformers.WavLMModel(
        transformers.WavLMConfig(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
            feat_extract_norm="layer", do_stable_layer_norm=True, num_buckets=320, max_bucket_distance=800,
        )
    ),
}  # fmt: skip
NAMES = (*MODELS, "snac-24khz", "speechtokenizer", "s3-v2-25hz", "s3-v3-25hz")


def s3(version: int) -> Any:
    if version == 2:
        from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2

        return S3TokenizerV2("speech_tokenizer_v2_25hz", ModelConfig())
    from s3tokenizer.model_v3 import ModelConfigV3, S3TokenizerV3

    return S3TokenizerV3("speech_tokenizer_v3_25hz", ModelConfigV3())


S3: dict[str, Callable[[], Any]] = {"s3-v2-25hz": lambda: s3(2), "s3-v3-25hz": lambda: s3(3)}


def save(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    if name in MODELS:
        model = MODELS[name]()
        for key, tensor in model.state_dict().items():
            if key.endswith(("codebook.embed", "embed_sum")):
                tensor.copy_(torch.randn(tensor.shape))
            elif name == "vibevoice-acoustic" and (tensor.ndim > 1 or key.endswith("gamma")):
                # Unit gain: as the library starts it, gains of its layers are near zero, and silence comes out.
                tensor.copy_(torch.randn(tensor.shape) / tensor[0].numel() ** 0.5)
        model.save_pretrained(folder)
        if name.startswith("published-units"):
            wide = name.startswith("published-units-wavlm-large")
            transformers.Wav2Vec2FeatureExtractor(do_normalize=wide, return_attention_mask=wide).save_pretrained(folder)
            np.save(folder / "centroids.npy", torch.randn(int(name.rpartition("-")[2]), model.config.hidden_size))
        return
    if name in S3:
        torch.save(S3[name]().state_dict(), folder / "s3.pt")
        return
    if name == "snac-24khz":
        import snac

        config, state, file = SNAC, snac.SNAC(**SNAC).state_dict(), "pytorch_model.bin"
    else:
        config, file = SPEECHTOKENIZER, "SpeechTokenizer.pt"
        state = SpeechTokenizerNet(SpeechTokenizerConfig.model_validate(config)).state_dict()
        for key, tensor in list(state.items()):
            if key.endswith("embed"):
                state[key] = torch.randn(tensor.shape)
            elif key.endswith(("conv.weight", "convtr.weight")):  # released with weight norm, which ours folds
                del state[key]
                state[f"{key}_g"] = tensor.norm(dim=(1, 2), keepdim=True)
                state[f"{key}_v"] = tensor
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / file)


def timed(work: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    name: str, device: str, seconds: Fraction, turns: int, long_seconds: list[Fraction] | None, keep: Path | None
) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        folder = (keep or Path(place)) / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            save(name, folder)
        tokenizer = load_tokenizer(name, device=device, weights=folder / "s3.pt" if name in S3 else folder)
        checked = "not run" if long_seconds is None else "passed"
        failed = [] if long_seconds is None else conformance(tokenizer, long_seconds=long_seconds)
        failed = [check for check in failed if not check.passed]
    wave = speech_like(seconds, tokenizer.card.input_rate)
    item = tokenizer.encode([wave])[0]
    row: dict[str, object] = {
        "name": name,
        "device": device,
        "conformance": checked if not failed else "; ".join(f"{c.name}: {c.detail}" for c in failed),
    }
    works: dict[str, Callable[[], object]] = {"encode": lambda: tokenizer.encode([wave])}
    if "decode" in tokenizer.card.capabilities:
        works["decode"] = lambda: tokenizer.decode([item])
    for kind, work in works.items():
        reset_peak(device)
        work()
        row[f"{kind}_peak_mib"] = round(peak_bytes(device) / 2**20)
    for kind, work in direct_calls(name, tokenizer, wave, item).items():
        works[f"{kind}_direct"] = work
        work()
    times: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(turns):
        for kind, work in works.items():
            times[kind].append(timed(work, device))
    for kind in ("encode", "decode"):
        if kind in times:
            row[f"{kind}_rtf"] = round(min(times[kind]) / float(seconds), 4)
        if f"{kind}_direct" in times:
            row[f"{kind}_adapter_to_direct"] = round(min(times[kind]) / min(times[f"{kind}_direct"]), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(4))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--long", type=Fraction, nargs="*", default=[Fraction(35), Fraction(262, 5)])
    parser.add_argument("--no-conformance", action="store_true", help="measure times and memory alone")
    parser.add_argument("--keep", type=Path, help="folder where models are kept, and found the next time")
    options = parser.parse_args()
    long = None if options.no_conformance else options.long
    names = NAMES if options.all else options.names
    failed = False
    if len(names) > 1 and options.device == "cpu":
        # A process each: resident memory would hold what the models before have left. A GPU's is counted by torch.
        given = [argument for argument in sys.argv[1:] if argument not in (*names, "--all")]
        codes = [subprocess.run([sys.executable, __file__, name, *given], check=False).returncode for name in names]
        raise SystemExit(int(any(codes)))
    for name in names:
        try:
            row = measure(name, options.device, options.seconds, options.turns, long, options.keep)
        except Exception as error:  # noqa: BLE001 - one model that fails, or that this transformers lacks, stops no other
            row = {"name": name, "error": f"{type(error).__name__}: {error}"}
        failed |= "error" in row or row["conformance"] not in ("passed", "not run")
        print(json.dumps(row), flush=True)
        gc.collect()
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
