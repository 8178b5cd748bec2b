"""PESQ of one pair in its own process: `python -m tokbench.metrics._pesq_child RATE MODE`, both waves on stdin.

The ITU's C code keeps fixed tables of 50 utterances and overruns them without a check; here it can only take this
process with it. Reads two `.npy` arrays, writes `score VALUE`, or `none` and the name of the package's exception.
"""

from __future__ import annotations

import io
import sys

import numpy as np


def main() -> None:
    """Read, score, write."""
    import pesq

    rate, mode = int(sys.argv[1]), sys.argv[2]
    stdin = io.BytesIO(sys.stdin.buffer.read())
    reference, degraded = np.load(stdin, allow_pickle=False), np.load(stdin, allow_pickle=False)
    try:
        line = f"score {float(pesq.pesq(rate, reference, degraded, mode))!r}"
    except (pesq.NoUtterancesError, pesq.BufferTooShortError, ValueError) as error:
        line = f"none {type(error).__name__}"
    sys.stdout.write(line)


if __name__ == "__main__":
    main()
