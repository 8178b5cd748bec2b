"""K-means against scikit-learn's MiniBatchKMeans on the same frames: seconds, inertia and their ratios.

    python benchmarks/kmeans.py                       # 500,000 x 768 frames, k = 500: 1.6 GB, about a minute
    python benchmarks/kmeans.py --frames 50000

Both fit and report the exact inertia of their centroids over all frames, one after the other, on the same threads.
The frames are synthetic: 2,000 Gaussian clusters with a power-law spectrum, as self-supervised features have.
"""

from __future__ import annotations

import argparse
import os
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--k", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(args.threads)

    import numpy as np
    from sklearn.cluster import MiniBatchKMeans

    from tokbench.tokenizers.clustering import fit_kmeans

    rng = np.random.default_rng(args.seed)
    spectrum = ((1 + np.arange(args.dim)) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((2000, args.dim), dtype=np.float32) * spectrum
    frames = np.empty((args.frames, args.dim), np.float32)
    for start in range(0, args.frames, 20_000):
        block = frames[start : start + 20_000]
        block[:] = centres[rng.integers(len(centres), size=len(block))]
        block += rng.standard_normal(block.shape, dtype=np.float32) * (np.float32(0.8) * spectrum)
    print(f"{args.frames:,} x {args.dim} float32, k = {args.k}, {args.threads} threads")

    start_s = time.perf_counter()
    ours = fit_kmeans(frames, args.k, seed=args.seed)
    our_s = time.perf_counter() - start_s
    print(f"tokbench                 {our_s:7.2f} s   inertia {ours.inertia:.6g}")

    start_s = time.perf_counter()
    theirs = MiniBatchKMeans(args.k, random_state=args.seed, n_init=1).fit(frames)
    their_s = time.perf_counter() - start_s
    print(f"sklearn MiniBatchKMeans  {their_s:7.2f} s   inertia {theirs.inertia_:.6g}")
    print(f"time ratio (theirs / ours) {their_s / our_s:.2f}; inertia ratio (ours / theirs) ", end="")
    print(f"{ours.inertia / float(theirs.inertia_):.4f}")


if __name__ == "__main__":
    main()
