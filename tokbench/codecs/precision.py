"""Inference in plain float32: no gradients, no TF32, no choice of kernels by timing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["exact_inference"]


@contextmanager
def exact_inference() -> Iterator[None]:
    """Run a block without gradients and with full float32 products.

    cuDNN convolutions use TF32 unless told otherwise, which moves latents by more than a rounding boundary of a
    quantiser is wide, and kernels chosen by timing may differ from run to run.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        matmul.allow_tf32 = before
