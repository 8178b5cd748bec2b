"""Work on a batch in which any item may fail: results and errors stay in their places."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from tokbench.errors import DependencyError, ItemError, NotApplicable, StoreError, UndefinedMetric
from tokbench.types import Encoded

__all__ = ["attempt", "attempt_batch", "both", "merge"]

log = logging.getLogger(__name__)

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def attempt(call: Callable[[], _Out], stage: str) -> _Out | ItemError:
    """Run for one item; whatever goes wrong with it becomes its error, except what the user must mend first."""
    try:
        return call()
    except ItemError as error:
        return _staged(error, stage)
    except (DependencyError, StoreError, NotApplicable, UndefinedMetric, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # third-party models raise anything; it becomes a typed, reported row
        log.debug("%s failed", stage, exc_info=True)
        return _staged(ItemError(f"{type(error).__name__}: {error}"), stage)


def attempt_batch(
    run: Callable[[Sequence[_In]], list[_Out]], batch: Sequence[_In], stage: str
) -> list[_Out | ItemError]:
    """Run for a batch, and one by one where the batch fails, so that one bad item costs one row.

    Raises:
        ItemError: `run` gave another number of results than there are items.
    """
    whole = attempt(lambda: run(batch), stage)
    if not isinstance(whole, ItemError):
        if len(whole) != len(batch):
            raise ItemError(f"{stage} gave {len(whole)} results for {len(batch)} items")
        return list(whole)
    if len(batch) == 1:
        return [whole]
    return [attempt(partial(_first, run, item), stage) for item in batch]


def _staged(error: ItemError, stage: str) -> ItemError:
    error.stage = error.stage or stage
    return error


def _first(run: Callable[[Sequence[_In]], list[_Out]], item: _In) -> _Out:
    return run([item])[0]


def merge(slots: Sequence[object], made: Sequence[_Out | ItemError]) -> list[_Out | ItemError]:
    """Put results back where the inputs were usable; inputs that were errors stay errors."""
    results = iter(made)
    return [slot if isinstance(slot, ItemError) else next(results) for slot in slots]


def both(
    item: Encoded | ItemError, reference: Encoded | ItemError | None
) -> tuple[Encoded, Encoded | None] | ItemError:
    """The pair, or the error of whichever is one."""
    if isinstance(item, ItemError):
        return item
    return reference if isinstance(reference, ItemError) else (item, reference)
