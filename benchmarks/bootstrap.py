"""Time and memory of the cluster bootstrap: 10,000 draws over 100,000 rows in 1,000 clusters.

Run: `python benchmarks/bootstrap.py`
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd

from tokbench.metrics.catalogue import metric
from tokbench.stats import compare, estimate

LIMIT_SECONDS = 5.0


def made(rows: int, clusters: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    speaker = rng.integers(clusters, size=rows)
    skill = rng.uniform(0.02, 0.2, clusters)
    words = rng.integers(5, 30, rows)
    return pd.DataFrame(
        {
            "id": [f"u{i:07d}" for i in range(rows)],
            "speaker": [f"s{i:05d}" for i in speaker],
            "wer_errors": rng.binomial(words, skill[speaker]).astype(np.float64),
            "wer_words": words.astype(np.float64),
            "stoi": rng.normal(0.9, 0.02, rows),
            "error": None,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--draws", type=int, default=10_000)
    options = parser.parse_args()
    rows = made(options.rows, options.clusters)
    other = rows.assign(wer_errors=np.minimum(rows["wer_errors"] + (np.arange(len(rows)) % 50 == 0), rows["wer_words"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.rows:,} rows, {options.clusters:,} clusters, {options.draws:,} draws")
    print(f"{'what':<32}{'seconds':>9}  value and 95 % interval")
    slowest = 0.0
    for name in ("wer", "stoi"):
        start = time.perf_counter()
        found = estimate(metric(name), rows, draws=options.draws)
        seconds = time.perf_counter() - start
        slowest = max(slowest, seconds)
        assert found.value is not None
        assert found.ci95 is not None
        print(f"{'estimate ' + name:<32}{seconds:>9.2f}  {found.value:.5f} [{found.ci95[0]:.5f}, {found.ci95[1]:.5f}]")
    start = time.perf_counter()
    compared = compare(metric("wer"), rows, other, draws=options.draws)
    seconds = time.perf_counter() - start
    assert compared.ci95 is not None
    print(
        f"{'compare wer, two systems':<32}{seconds:>9.2f}  {compared.difference:.5f} "
        f"[{compared.ci95[0]:.5f}, {compared.ci95[1]:.5f}], p = {compared.p_value:.2g}"
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {after:.0f} MiB, of which {after - before:.0f} MiB above the rows and the libraries")
    verdict = "within" if slowest < LIMIT_SECONDS else "NOT within"
    print(f"slowest estimate {slowest:.2f} s, {verdict} the limit of {LIMIT_SECONDS:g} s")
    if slowest >= LIMIT_SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
