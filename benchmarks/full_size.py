"""Full-size tokenizers through `transformers`, SNAC and SpeechTokenizer: random weights, published config, the adapter.

    python benchmarks/full_size.py mimi-8 encodec-24khz-6k dac-16khz          # on the CPU
    python benchmarks/full_size.py --all --device cuda --seconds 30

Each model is built from the config that its authors publish, saved as the hub lays it out, loaded through its adapter,
and run through the conformance suite. Then the same audio is encoded and decoded by the adapter, and encoded by the
model called directly, in turns; the ratio of the best times is what the adapter costs. `encode_peak_mib` and
`decode_peak_mib` are the most memory in use meanwhile, weights included: of the process, or of the GPU. Weights are
random, so that nothing is said about quality. A model takes up to 3 GB on disk and three times that in memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tokbench.codecs.precision import exact_inference
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
}


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
        return
    if name == "snac-24khz":
        import snac

        config, state, file = SNAC, snac.SNAC(**SNAC).state_dict(), "pytorch_model.bin"
    else:
        config, file = SPEECHTOKENIZER, "SpeechTokenizer.pt"
        state = SpeechTokenizerNet(SpeechTokenizerConfig.model_validate(config)).state_dict()
        for key in state:
            if key.endswith("embed"):
                state[key] = torch.randn(state[key].shape)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / file)


def best(work: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, device: str, seconds: Fraction, turns: int, long_seconds: list[Fraction]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        save(name, Path(place))
        tokenizer = load_tokenizer(name, device=device, weights=Path(place))
        failed = [c for c in conformance(tokenizer, long_seconds=long_seconds) if not c.passed]
    wave = speech_like(seconds, tokenizer.card.input_rate)
    item = tokenizer.encode([wave])[0]
    row: dict[str, object] = {
        "name": name,
        "device": device,
        "conformance": "passed" if not failed else "; ".join(f"{c.name}: {c.detail}" for c in failed),
    }
    model = getattr(tokenizer, "_model", None)
    audio = torch.from_numpy(np.pad(wave, (0, -len(wave) % 9600)))[None, None].to(device)
    direct: Callable[[], object] | None = None
    if name in ("mimi-8", "pocket-tts", "encodec-24khz-6k", "dac-16khz", "dac-24khz", "dac-44khz", "snac-24khz"):
        extra = {"mimi-8": {"num_quantizers": 8}, "encodec-24khz-6k": {"bandwidth": 6.0}}.get(name, {})

        def call() -> object:
            with exact_inference():
                return model.encode(audio, **extra)

        direct = call
    for kind, work in (("encode", lambda: tokenizer.encode([wave])), ("decode", lambda: tokenizer.decode([item]))):
        reset_peak(device)
        work()
        row[f"{kind}_peak_mib"] = round(peak_bytes(device) / 2**20)
    times: dict[str, list[float]] = {"encode": [], "decode": [], "direct": []}
    for _ in range(turns):
        times["encode"].append(best(lambda: tokenizer.encode([wave]), device))
        times["decode"].append(best(lambda: tokenizer.decode([item]), device))
        if direct is not None:
            times["direct"].append(best(direct, device))
    row["encode_rtf"] = round(min(times["encode"]) / float(seconds), 4)
    row["decode_rtf"] = round(min(times["decode"]) / float(seconds), 4)
    if direct is not None:
        row["encode_adapter_to_direct"] = round(min(times["encode"]) / min(times["direct"]), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MODELS, "snac-24khz", "speechtokenizer"])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(4))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--long", type=Fraction, nargs="*", default=[Fraction(35), Fraction(262, 5)])
    options = parser.parse_args()
    names = [*MODELS, "snac-24khz", "speechtokenizer"] if options.all else options.names
    for name in names:
        print(json.dumps(measure(name, options.device, options.seconds, options.turns, options.long)), flush=True)


if __name__ == "__main__":
    main()
