"""How batches reach the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["ahead", "moved"]

_Batch = TypeVar("_Batch")


def moved(value: Any, device: str) -> Any:
    """Tensors, also in lists and tuples, on the device."""
    if isinstance(value, list | tuple):
        return [moved(one, device) for one in value]
    return value.to(device, non_blocking=True) if hasattr(value, "to") else value


def ahead(batches: Callable[[int], _Batch], steps: range, *, wanted: bool) -> Iterator[_Batch]:
    """The batches in order; where wanted, each is made while the device works on the one before."""
    if not wanted or not steps:
        yield from map(batches, steps)
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(batches, steps[0])
        for step in steps:
            batch = following.result()
            if step + 1 < steps.stop:
                following = pool.submit(batches, step + 1)
            yield batch
