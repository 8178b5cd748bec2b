"""Time and memory of PNMI over 10 million frames against 12,800 codes, and the bias that independent labels show.

Run: `python benchmarks/pnmi.py`
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from tokbench.metrics.pnmi import joint_counts, phone_unit_scores, shuffled_units

LIMIT_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--codes", type=int, default=12_800)
    parser.add_argument("--phones", type=int, default=40)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    phones = rng.integers(options.phones, size=options.frames)
    # Half of the codes tell the phone, the others nothing.
    units = rng.integers(options.codes, size=options.frames)
    units = np.where(units % 2 == 0, units, units // options.phones * options.phones + phones) % options.codes
    start, cpu = time.perf_counter(), time.process_time()
    scores = phone_unit_scores(
        joint_counts(phones, units, n_phones=options.phones, n_units=options.codes), samples=options.frames
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"{options.frames:,} frames, {options.phones} phones, {options.codes:,} codes: {seconds:.2f} s, {cpu:.2f} CPU s"
    )
    print(
        f"PNMI {scores.pnmi:.4f}, corrected {scores.pnmi_corrected:.4f}, phone purity {scores.phone_purity:.4f}, "
        f"cluster purity {scores.cluster_purity:.4f}"
    )
    print("independent labels, 40 phones x 12,800 codes (expected .163, .082, .038):", end="")
    for frames in (475_000, 950_000, 1_900_000):
        labels, codes = rng.integers(40, size=frames), shuffled_units(rng.integers(12_800, size=frames), seed=0)
        found = phone_unit_scores(joint_counts(labels, codes, n_phones=40, n_units=12_800))
        print(f"  {frames:,}: {found.pnmi:.3f} (corrected {found.pnmi_corrected:.3f})", end="")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if seconds >= LIMIT_SECONDS:
        raise SystemExit(f"not within {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()
