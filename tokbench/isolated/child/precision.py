"""Inference as the rest of tokbench does it: full float32 products, no kernels chosen by timing."""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = ["exact_inference"]


@contextlib.contextmanager
def exact_inference() -> Any:
    """Run a block without gradients and without TF32, convolutions deterministic; as `tokbench.codecs.precision`."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.inference_mode(), flags:
            yield
    finally:
        matmul.allow_tf32 = before
