"""Kanade in full size: encode and decode real-time factors, peak memory, and what bfloat16 changes.

    python benchmarks/kanade.py                         # 3, 10, 30 and 600 s on the CPU and, where there is one, GPU
    python benchmarks/kanade.py --seconds 3 10 --threads 1 --device cpu
    python benchmarks/kanade.py --model kanade-25hz --weights DIR  # released weights; random ones otherwise

Every length and device runs in a process of its own, so that its peak memory is its own. A factor of 0.1 means that ten
seconds of audio take one. The time does not depend on the weights' values; the share of tokens that bfloat16 changes
does, so with random weights it is only an indication.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

MODELS = ("kanade-12.5hz", "kanade-25hz", "kanade-25hz-clean")
LONG = 60.0
"""Seconds from which one timed run is enough, without a second one in bfloat16."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 10.0, 30.0, 600.0])
    parser.add_argument("--model", choices=MODELS, default="kanade-25hz")
    parser.add_argument("--weights", type=Path, help="folder in the released layout; default: random weights")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit-mb", type=float, default=6000.0, help="peak memory above which it exits with 1")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.model, args.weights, args.seconds[0], args.device)))
        return
    devices = [args.device] if args.device != "auto" else ["cpu", *(["cuda"] if has_cuda() else [])]
    kind = f"weights of {args.weights}" if args.weights else "random weights"
    print(f"{args.model}, {kind}, {args.threads} CPU threads; real-time factors")
    print(
        f"{'device':6} {'seconds':>8} {'encode':>9} {'decode':>9} {'both':>9} {'peak MB':>8} "
        f"{'bf16 encode':>12} changed"
    )
    worst = 0.0
    for device in devices:
        for seconds in args.seconds:
            row = child(args, device, seconds)
            encode, decode = row["encode_s"] / seconds, row["decode_s"] / seconds
            half = f"{row['bf16_s'] / seconds:12.4f} {row['changed']:7.2%}" if "bf16_s" in row else ""
            print(
                f"{device:6} {seconds:8g} {encode:9.4f} {decode:9.4f} {encode + decode:9.4f} "
                f"{row['peak_mb']:8.0f} {half}",
                flush=True,
            )
            worst = max(worst, row["peak_mb"])
    if worst > args.limit_mb:
        sys.exit(f"peak memory {worst:.0f} MB is above {args.limit_mb:.0f} MB")


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def child(args: argparse.Namespace, device: str, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", "--model", args.model, "--device", device]
    command += ["--seconds", str(seconds)] + (["--weights", str(args.weights)] if args.weights else [])
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, weights: Path | None, seconds: float, device: str) -> dict[str, float]:
    from fractions import Fraction

    import numpy as np
    import torch

    from tokbench.tokenizers.conformance import speech_like

    codec = load(name, weights, device)
    piece = speech_like(Fraction(3), 24000)
    samples = int(seconds * 24000)
    wave = torch.from_numpy(np.resize(piece, samples))[None]
    runs = 1 if seconds >= LONG else 3

    def timed(call):  # type: ignore[no-untyped-def]
        call()
        best = float("inf")
        for _ in range(runs):
            start = time.perf_counter()
            made = call()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        return best, made

    if seconds >= LONG:  # warmed up on something shorter
        first = codec.encode(wave[:, : 24000 * 3])
        codec.decode(first.tokens, first.speaker, n_samples=24000 * 3)
        start = time.perf_counter()
        coded = codec.encode(wave)
        tokens = coded.tokens.cpu()
        encode_s = time.perf_counter() - start
        start = time.perf_counter()
        codec.decode(coded.tokens, coded.speaker, n_samples=samples).cpu()
        row = {"encode_s": encode_s, "decode_s": time.perf_counter() - start}
    else:
        encode_s, coded = timed(lambda: codec.encode(wave))
        tokens = coded.tokens.cpu()
        decode_s, _ = timed(lambda: codec.decode(coded.tokens, coded.speaker, n_samples=samples))
        codec.precision = "bf16"
        bf16_s, half = timed(lambda: codec.encode(wave))
        changed = float((half.tokens.cpu() != tokens).float().mean())
        row = {"encode_s": encode_s, "decode_s": decode_s, "bf16_s": bf16_s, "changed": changed}
    if device == "cuda":
        row["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    else:
        row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return row


def load(name: str, weights: Path | None, device: str):  # type: ignore[no-untyped-def]
    import torch

    from tokbench.config import TokenizerCard
    from tokbench.kanade.codec import KanadeCodec
    from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN
    from tokbench.kanade.files import find_files
    from tokbench.kanade.hift import HiFT
    from tokbench.kanade.model import KanadeModel
    from tokbench.kanade.vocos import Vocos
    from tokbench.kanade.wavlm import WavLM
    from tokbench.registry import find_card

    if weights is not None:
        card = find_card(TokenizerCard, name)
        return KanadeCodec.load(find_files(card, weights, vocoder=card.params["vocoder"]), device=device)
    torch.manual_seed(0)
    config = dict(zip(MODELS, (KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN), strict=True))[name]
    vocoder = Vocos() if config.vocoder == "vocos" else HiFT()
    wavlm = WavLM(blocks=config.deepest_layer).freeze()
    return KanadeCodec(KanadeModel(config).eval(), wavlm, vocoder.eval(), device=device)


if __name__ == "__main__":
    main()
