"""Encode and decode real-time factor and peak memory of the ports, on random weights in the released geometries.

Each tokenizer runs in a process of its own, through its adapter, from a file in the released layout:

    python benchmarks/codecs.py --seconds 10 --threads 2
    python benchmarks/codecs.py nanocodec-0.6k --reference FOLDER     # beside nanocodec-torch 1.0.0, same weights
    python benchmarks/codecs.py losatok-kl1e-2 --conformance          # the conformance suite in full size

The real-time factor is the best of some rounds over the length of the audio: below 1 is faster than speech. Beside a
reference, the two take turns, and the ratio is the median over the rounds. `cpu` is
the process's own time, which other work on the machine moves less than the clock. The reference is installed aside:

    python -m pip install --target FOLDER --no-deps nanocodec-torch==1.0.0
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("nanocodec-0.6k", "nanocodec-1.78k", "nanocodec-1.89k", "dacvae-75hz", "dacvae-50hz", "losatok-kl1e-2")
WANTED = 2.0
"""How many times faster than its reference NanoCodec must decode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reference", type=Path, help="folder that nanocodec-torch is installed in")
    parser.add_argument("--conformance", action="store_true", help="run the conformance suite instead")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options)
        return
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    failed = False
    for name in options.names:
        arguments = [a for a in sys.argv[1:] if a not in options.names]
        failed |= bool(
            subprocess.run(
                [sys.executable, __file__, name, *arguments, "--child"], env=environment, check=False
            ).returncode
        )
    raise SystemExit(int(failed))


def measure(options: argparse.Namespace) -> None:
    import torch

    from tokbench.tokenizers.conformance import conformance, speech_like
    from tokbench.tokenizers.load import load_tokenizer

    torch.set_num_threads(options.threads)
    (name,) = options.names
    with tempfile.TemporaryDirectory() as folder:
        # Written by another process, so that making weights does not count as memory.
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}; from pathlib import Path;"
        code += f"from random_checkpoints import write_checkpoint as w; print(w({name!r}, Path({folder!r})))"
        made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        path = Path(made.stdout.strip())
        start = time.perf_counter()
        tokenizer: Any = load_tokenizer(name, device=options.device, weights=path)
        loading = time.perf_counter() - start
        if options.conformance:
            for check in conformance(tokenizer):
                print(f"{name:<16} {'holds' if check.passed else 'FAILS':<6} {check.name}: {check.detail}", flush=True)
                if not check.passed:
                    raise SystemExit(1)
            return
        from fractions import Fraction

        wave = speech_like(Fraction(options.seconds), tokenizer.card.input_rate)
        loaded = peak(options.device)
        items = tokenizer.encode([wave])
        actions: dict[str, Callable[[], object]] = {
            "encode": lambda: tokenizer.encode([wave]),
            "decode": lambda: tokenizer.decode(items),
        }
        if options.reference is None or name != "nanocodec-0.6k":
            report(name, actions, options, loading=loading, loaded=loaded)
            return
        reference, difference = reference_model(options.reference, tokenizer, items[0])
        audio = torch.from_numpy(wave)[None, None].to(options.device)
        tokens = stacked(items[0], options.device)
        n_samples, n_frames = torch.tensor([audio.shape[2]]), torch.tensor([tokens.shape[2]])
        # The nets alone on both sides; the reference has neither lengths nor checks.
        model = tokenizer._model
        actions = {
            "encode": lambda: model.encode(audio[0], n_samples),
            "encode, reference": lambda: reference.encode(audio),
            "decode": lambda: model.decode(tokens, n_frames),
            "decode, reference": lambda: reference.decode(tokens),
        }
        print(f"{name:<16} largest difference of decoded samples {difference:.1e}")
        rounds = report(name, actions, options, loading=loading, loaded=loaded)
        ratio = {}
        for action in ("encode", "decode"):
            pairs = zip(rounds[f"{action}, reference"], rounds[action], strict=True)
            found = sorted(theirs / ours for theirs, ours in pairs)
            ratio[action] = statistics.median(found)
            print(
                f"{name:<16} {action}s {ratio[action]:.2f} times as fast as nanocodec-torch 1.0.0 "
                f"(median of {len(found)} rounds, {found[0]:.2f} to {found[-1]:.2f})"
            )
        verdict = "at least" if ratio["decode"] >= WANTED else "NOT"
        print(f"{name:<16} decoding is {verdict} {WANTED:g} times as fast")
        raise SystemExit(int(ratio["decode"] < WANTED or ratio["encode"] < 1))


def report(
    name: str, actions: dict[str, Callable[[], object]], options: argparse.Namespace, *, loading: float, loaded: float
) -> dict[str, list[float]]:
    """Print a line for each action; returns the seconds of each round (CPU seconds on the CPU).

    In a round all take turns. The first, in which code is compiled and memory fetched, is not counted.
    """
    import torch

    spent: dict[str, list[tuple[float, float]]] = {action: [] for action in actions}
    memory: dict[str, float] = {}
    with torch.inference_mode():
        for call in actions.values():
            call()
        for _ in range(options.rounds):
            for action, call in actions.items():
                cpu, clock = time.process_time(), time.perf_counter()
                call()
                if options.device != "cpu":
                    torch.cuda.synchronize()
                spent[action].append((time.perf_counter() - clock, time.process_time() - cpu))
                memory.setdefault(action, peak(options.device))
    for action, rounds in spent.items():
        clock, cpu = (min(one) for one in zip(*rounds, strict=True))
        print(
            f"{name:<16} {action:<18} RTF {clock / options.seconds:7.4f} (cpu {cpu / options.seconds:7.4f})  "
            f"peak {memory[action]:6.0f} MiB, of which {loaded:.0f} after loading in {loading:.1f} s",
            flush=True,
        )
    which = 1 if options.device == "cpu" else 0
    return {action: [one[which] for one in rounds] for action, rounds in spent.items()}


def peak(device: str) -> float:
    """MiB at most so far: resident on the CPU, allocated on a GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stacked(item: Any, device: str) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([item.streams[f"q{i}"] for i in range(len(item.streams))]))[None].to(device)


def reference_model(folder: Path, tokenizer: Any, item: Any) -> tuple[Any, float]:
    """nanocodec-torch's model with the tokenizer's weights, and how far its decoded samples are from ours."""
    import torch

    sys.path.append(str(folder))
    from nanocodec_torch.models.audio_codec import AudioCodecModel

    reference = AudioCodecModel().eval()
    ours = tokenizer._model.state_dict()
    state = {}
    for key, value in reference.state_dict().items():
        names = (key, key.replace(".weight", ".conv.weight").replace(".bias", ".conv.bias"))
        names += (key.replace(".alpha", ".activation.snake_act.alpha"),)
        found = next((ours[name] for name in names if name in ours), value)
        state[key] = found.reshape(value.shape)
    reference.load_state_dict(state)
    reference.to(tokenizer.device)
    with torch.inference_mode():
        made, _ = reference.decode(stacked(item, tokenizer.device))
        wave = torch.from_numpy(tokenizer.decode([item])[0]).to(made.device)
    return reference, float((made.flatten()[: wave.numel()] - wave).abs().max())


if __name__ == "__main__":
    main()
