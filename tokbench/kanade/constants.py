"""Tensors that depend on sizes alone: made once, and made anew inside a compiled net, which keeps them by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import TypeVar

import torch

__all__ = ["constant"]

T = TypeVar("T")


def constant(make: Callable[..., T]) -> Callable[..., T]:
    """Remember what `make` returns for its arguments.

    What is first needed in inference must still serve training, so it is made outside inference mode.
    """
    remembered = lru_cache(maxsize=64)(torch.inference_mode(mode=False)(make))

    @wraps(make)
    def call(*arguments: Hashable) -> T:
        if torch.compiler.is_compiling():  # the compiler would warn of the cache, and look through it
            return make(*arguments)
        return remembered(*arguments)

    return call
