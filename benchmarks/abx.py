"""The ABX engine beside fastabx 0.9.0: seconds from feature files to the score, peak memory, and both scores.

    python3.12 -m venv /tmp/fastabx && /tmp/fastabx/bin/pip install fastabx==0.9.0
    python benchmarks/abx.py --fastabx-python /tmp/fastabx/bin/python
    python benchmarks/abx.py --items 200000                 # the engine alone
    python benchmarks/abx.py --items 3500 --exact           # whose error it is, where the scores differ
    python benchmarks/abx.py --items 20000 --device cuda    # the engine on a GPU; fastabx, if given, too

fastabx needs Python 3.12, hence an environment of its own. Both read the same `.npy` files and item file, without
subsampling, on the same number of threads, each in a fresh process, one after the other, after a warm-up on a few
items (compiled code is cached, files are in the page cache). Imports are not timed.

The items are synthetic: 40 speakers, 40 phones, contexts with Zipf-distributed frequencies, items of 4 to 16 frames;
a frame is the sum of a phone's, a neighbourhood's and a speaker's vector and of noise.

`--exact` computes the score of conditions within speakers once more with frames, distances and paths in float64, which
is slow. The engine takes inner products in float32 and the rest in float64, fastabx everything in float32: where two
distances are equal to that precision, a triplet may fall to either side, and one triplet in a small cell moves the
score by up to a few 1e-6.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FASTABX = """
import json, os, resource, sys, time
import numpy as np, torch
item, root, warm_item, speaker, context, distance, threads, device = sys.argv[1:9]
torch.set_num_threads(int(threads))
from fastabx import zerospeech_abx
def score(path):
    return zerospeech_abx(path, root, max_size_group=None, max_x_across=None, speaker=speaker, context=context,
        distance=distance, frequency=50, feature_maker=lambda p: torch.from_numpy(np.load(p)), extension=".npy",
        device=device, progress=False)
score(warm_item)
start, cpu = time.perf_counter(), time.process_time()
error = score(item)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"error": error, "seconds": seconds, "cpu": cpu, "peak_mib": peak}))
"""

TOKBENCH = """
import json, resource, sys, time
from fractions import Fraction
from pathlib import Path
item, root, warm_item, speaker, context, distance, threads, device = sys.argv[1:9]
from tokbench.abx.engine import score_abx
from tokbench.abx.features import FolderFeatures
from tokbench.abx.items import read_items
distance = "kl" if distance == "kl_symmetric" else distance
def score(path):
    return score_abx(read_items(Path(path)), FolderFeatures(Path(root)), rate=Fraction(50), speaker=speaker,
        context=context, distance=distance, threads=int(threads), device=device)
score(warm_item)
start, cpu = time.perf_counter(), time.process_time()
found = score(item)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"error": found.error, "seconds": seconds, "cpu": cpu, "peak_mib": peak, "cells": found.cells,
    "triplets": found.triplets, "compared": found.compared}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 3500, 20000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--per-context", type=int, default=25, help="mean items of a speaker in a context")
    parser.add_argument("--speaker", choices=("within", "across"), default="within")
    parser.add_argument("--context", choices=("within", "any"), default="within")
    parser.add_argument("--distance", default="angular", choices=("angular", "euclidean", "kl_symmetric"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the fastest counts")
    parser.add_argument("--fastabx-python", type=Path, help="interpreter of an environment with fastabx 0.9.0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--exact", action="store_true", help="also compute the score in float64 (within speakers)")
    parser.add_argument("--folder", type=Path, help="where features are put (default: a temporary folder)")
    args = parser.parse_args()
    missed = False
    for count in args.items:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            frames = generate(folder, count, args.dim, args.per_context, kl=args.distance == "kl_symmetric")
            load = os.getloadavg()[0]
            print(
                f"{count:,} items, {frames:,} frames x {args.dim}, {args.speaker} speakers, {args.context} context, "
                f"{args.distance}, {args.threads} threads; load before {load:.1f} on {os.cpu_count()} cores",
                flush=True,
            )
            ours = best(sys.executable, TOKBENCH, folder, args)
            print(told("tokbench", ours), f"{ours['cells']:.0f} cells, {ours['triplets']:.0f} triplets", flush=True)
            missed |= ours["peak_mib"] >= 4096
            exact = float64_error(folder, args.context, args.distance) if args.exact else None
            if exact is not None:
                print(f"  float64   error {exact:.9f}; tokbench is {ours['error'] - exact:+.1e} from it", flush=True)
            if args.fastabx_python is not None:
                theirs = best(str(args.fastabx_python), FASTABX, folder, args)
                print(told("fastabx", theirs))
                difference = abs(ours["error"] - theirs["error"])
                ratio, cpu = theirs["seconds"] / ours["seconds"], theirs["cpu"] / ours["cpu"]
                print(
                    f"  {ratio:.1f} times faster ({cpu:.1f} in CPU seconds), scores differ by {difference:.1e}",
                    flush=True,
                )
                if exact is not None:
                    print(f"  fastabx is {theirs['error'] - exact:+.1e} from the score in float64", flush=True)
                wrong = difference if exact is None else abs(ours["error"] - exact)
                missed |= ratio < 4 or wrong > 1e-6
    if missed:
        raise SystemExit("a goal was missed: 4 times faster, equal to 1e-6 (to float64, with --exact), under 4 GiB")


def told(name: str, run: dict[str, float]) -> str:
    """One line of the report."""
    times = f"{run['seconds']:8.2f} s {run['cpu']:8.2f} CPU s"
    return f"  {name:<9}{times} {run['peak_mib']:7.0f} MiB  error {run['error']:.9f} "


def best(python: str, code: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """The fastest of several fresh processes."""
    environment = os.environ | {
        name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    arguments = [
        str(folder / "items.item"), str(folder / "features"), str(folder / "warm.item"),
        args.speaker, args.context, args.distance, str(args.threads), args.device,
    ]  # fmt: skip
    runs: list[dict[str, float]] = []
    for _ in range(args.repeats):
        done = subprocess.run(
            [python, "-c", code, *arguments], check=False, capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise SystemExit(f"{python} failed:\n{done.stderr[-3000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["seconds"])


def float64_error(folder: Path, context: str, distance: str) -> float:
    """The score within speakers with everything in float64: frames, distances, and the paths through them."""
    from fractions import Fraction

    import numpy as np
    from numba import njit

    from tokbench.abx.engine import _collapse
    from tokbench.abx.items import read_items
    from tokbench.abx.plan import make_plan
    from tokbench.abx.scheduler import cell_errors
    from tokbench.abx.slicing import frame_slices

    @njit
    def warp(lattice):  # type: ignore[no-untyped-def]
        n, m = lattice.shape
        cost, steps = np.empty((n, m)), np.empty((n, m), np.int64)
        for i in range(n):
            for j in range(m):
                best, count = 0.0, 0
                if i or j:
                    best = np.inf
                    # Of equals the diagonal one, then the one to the left, then the one above.
                    for a, b in ((i - 1, j - 1), (i, j - 1), (i - 1, j)):
                        if a >= 0 and b >= 0 and cost[a, b] < best:
                            best, count = cost[a, b], steps[a, b]
                cost[i, j], steps[i, j] = lattice[i, j] + best, count + 1
        return cost[n - 1, m - 1] / steps[n - 1, m - 1]

    @njit
    def pairs(lattice, edges, out):  # type: ignore[no-untyped-def]
        for i in range(len(edges) - 1):
            for j in range(len(edges) - 1):
                if i != j:
                    out[i, j] = warp(lattice[edges[i] : edges[i + 1], edges[j] : edges[j + 1]])

    items = read_items(folder / "items.item")
    plan = make_plan(items, speaker="within", context=context)  # type: ignore[arg-type]
    start, stop = frame_slices(items, Fraction(50))
    loaded = {name: np.load(folder / "features" / f"{name}.npy").astype(np.float64) for name in items.file.names}
    phones = len(items.phone.names)
    sums, cells = np.zeros(len(items.speaker.names) * phones**2), np.zeros(len(items.speaker.names) * phones**2, int)
    triplets = 0
    for index in range(len(plan.starts) - 1):
        members = plan.order[plan.starts[index] : plan.starts[index + 1]]
        group = plan.group(index)
        parts = [loaded[items.file.names[items.file.codes[k]]][start[k] : stop[k]] for k in members]
        frames = np.concatenate(parts)
        if distance == "angular":
            frames /= np.linalg.norm(frames, axis=1, keepdims=True)
            lattice = np.arccos(np.clip(frames @ frames.T, -1, 1)) / np.pi
        elif distance == "euclidean":
            square = (frames**2).sum(1)
            lattice = np.sqrt(np.maximum(square[:, None] + square - 2 * frames @ frames.T, 0))
        else:
            logs = np.log(frames + 1e-6)
            own = (frames * logs).sum(1)
            cross = frames @ logs.T
            lattice = 0.5 * (own[:, None] + own - cross - cross.T)
        between = np.zeros((len(members), len(members)))
        pairs(lattice, np.concatenate([[0], np.cumsum([len(part) for part in parts])]), between)
        counts = np.zeros((len(group.phone), len(group.phone)), np.int64)
        for a_class in range(len(group.phone)):
            a = np.arange(group.bounds[a_class], group.bounds[a_class + 1])
            for b_class in range(len(group.phone)):
                b = np.arange(group.bounds[b_class], group.bounds[b_class + 1])
                for x in a if b_class != a_class else ():
                    near, far = between[x, a[a != x], None], between[x, b]
                    counts[a_class, b_class] += 2 * int((near < far).sum()) + int((near == far).sum())
        keys, errors, count = cell_errors(plan, group, counts, 0, len(group.phone))
        np.add.at(sums, keys, errors)
        np.add.at(cells, keys, 1)
        triplets += count
    return _collapse(plan, sums, cells, triplets, len(items), 0).error


def generate(folder: Path, count: int, dim: int, per_context: int, *, kl: bool) -> int:
    """Write item files and features; returns the number of frames."""
    import numpy as np

    rng = np.random.default_rng(count)
    speakers, phones = 40, 40
    contexts = max(1, count // (speakers * per_context))
    weight = 1.0 / np.arange(1, contexts + 1) ** 0.7
    chosen = rng.choice(contexts, size=count, p=weight / weight.sum())
    speaker = rng.integers(speakers, size=count)
    order = np.argsort(speaker, kind="stable")
    chosen, speaker = chosen[order], speaker[order]
    phone_weight = 1.0 / np.arange(1, phones + 1) ** 0.8
    phone = rng.choice(phones, size=count, p=phone_weight / phone_weight.sum())
    length = np.clip(rng.lognormal(np.log(8), 0.35, count).round(), 4, 16).astype(int)
    voice = rng.standard_normal((speakers, dim), dtype=np.float32)
    sound = rng.standard_normal((phones, dim), dtype=np.float32)
    beside = rng.standard_normal((contexts, dim), dtype=np.float32)
    (folder / "features").mkdir()
    head = "#file onset offset #phone prev-phone next-phone speaker\n"
    total = 0
    with (folder / "items.item").open("w") as listing:
        listing.write(head)
        for number, start in enumerate(range(0, count, 100)):
            made, at = [], 0
            for k in range(start, min(count, start + 100)):
                centre = 0.35 * sound[phone[k]] + 0.3 * beside[chosen[k]] + 0.5 * voice[speaker[k]]
                made.append(centre + 3.0 * rng.standard_normal((length[k], dim), dtype=np.float32))
                on, off = at / 50, (at + length[k]) / 50
                listing.write(f"f{number:05d} {on:.4f} {off:.4f} p{phone[k]} c{chosen[k]} c{chosen[k]} s{speaker[k]}\n")
                at += length[k]
            frames = np.concatenate(made)
            if kl:
                frames = np.exp(frames)
                frames /= frames.sum(axis=1, keepdims=True)
            np.save(folder / "features" / f"f{number:05d}.npy", frames)
            total += at
    # A warm-up with cells in every condition: two phones, twice each, by two speakers, in one file.
    size = int(np.load(folder / "features" / "f00000.npy", mmap_mode="r").shape[0])
    with (folder / "warm.item").open("w") as listing:
        listing.write(head)
        for k in range(size // 5):
            on, off = k * 5 / 50, (k * 5 + 5) / 50
            listing.write(f"f00000 {on:.4f} {off:.4f} p{k % 3} c0 c0 s{k % 2}\n")
    return total


if __name__ == "__main__":
    main()
