"""Time and memory of the equal error rate over 10 million trials, and its value beside SpeechBrain's rule.

Run: `python benchmarks/eer.py`
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from tokbench.metrics.eer import det_curve, eer, eer_interpolated

LIMIT_SECONDS = 3.0
LIMIT_MIB = 2048.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000_000)
    parser.add_argument("--targets", type=float, default=0.5, help="share of target trials")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n_target = int(options.trials * options.targets)
    target, nontarget = rng.normal(2, 1, n_target), rng.normal(0, 1, options.trials - n_target)
    print(f"{n_target:,} target and {len(nontarget):,} non-target trials, float64")
    print(f"{'what':<32}{'seconds':>9}  value")
    start = time.perf_counter()
    found = eer(target, nontarget)
    seconds = time.perf_counter() - start
    # Normal scores of unit variance, 2 apart, cross at Phi(-1).
    print(f"{'SpeechBrain rule':<32}{seconds:>9.2f}  {found.value:.6f} at {found.threshold:.4f} (expected 0.158655)")
    start = time.perf_counter()
    other = eer_interpolated(target, nontarget)
    print(f"{'ROC-interpolated':<32}{time.perf_counter() - start:>9.2f}  {other.value:.6f} at {other.threshold:.4f}")
    start = time.perf_counter()
    points = len(det_curve(target, nontarget).threshold)
    print(f"{'DET curve':<32}{time.perf_counter() - start:>9.2f}  {points} points")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    within = seconds < LIMIT_SECONDS and peak < LIMIT_MIB
    print(f"peak memory {peak:.0f} MiB with the scores; {'within' if within else 'NOT within'} 3 s and 2 GiB")
    if not within:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
