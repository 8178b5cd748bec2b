"""ABX discrimination error of items under a representation.

For an X and an A of one phone and a B of another, the error counts how often X is not nearer to A than to B, half a
point for a tie. Every pair of items is warped once: a context group is one matrix of distances, and every cell is a
comparison of rows of it. Counts are integers, so a score depends on neither threads nor batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tokbench.abx.features import FeatureSource
from tokbench.abx.items import Items
from tokbench.abx.plan import Context, Plan, SpeakerMode, make_plan
from tokbench.abx.pool import fill_pool
from tokbench.abx.representation import DISTANCES, Distance, canonical
from tokbench.abx.slicing import frame_slices
from tokbench.errors import DatasetError, MissingBackend, NothingToCompare, UnknownName, UserError

__all__ = ["AbxScore", "empty_items", "score_abx"]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

POOL_BYTES = 1 << 30
"""Frames held in memory; more go through a temporary file."""


@dataclass(frozen=True)
class AbxScore:
    """What was found.

    Attributes:
        error: the mean over ordered phone pairs of the mean over speakers (of A and B) of the mean over cells.
        items: items that entered (empty ones are left out).
        compared: items of these that meet others in at least one group.
        empty: items left out because no frame's centre lies in them.
        cells: combinations of phones, context and speakers with at least one triplet.
        triplets: A, B and X compared.
        speaker, phone_a, phone_b: int64 `[rows]`, numbers of the names below.
        row_error, row_cells: the mean over the cells of a row, and how many they are.
        speakers, phones: names.
    """

    error: float
    items: int
    compared: int
    empty: int
    cells: int
    triplets: int
    speaker: Int
    phone_a: Int
    phone_b: Int
    row_error: Float
    row_cells: Int
    speakers: tuple[str, ...]
    phones: tuple[str, ...]


def empty_items(items: Items, rates: Iterable[Fraction], *, drop_last: bool = False) -> npt.NDArray[np.bool_]:
    """Which items hold no frame at one of the frame rates, bool `[n]`; leave them out of a comparison of systems."""
    empty = np.zeros(len(items), np.bool_)
    for rate in rates:
        start, stop = frame_slices(items, rate, drop_last=drop_last)
        empty |= stop <= start
    return empty


def score_abx(
    items: Items,
    features: FeatureSource,
    *,
    rate: Fraction,
    speaker: SpeakerMode = "within",
    context: Context = "within",
    distance: Distance = "angular",
    codebook: npt.NDArray[np.float32] | None = None,
    drop_last: bool = False,
    also_rates: Sequence[Fraction] = (),
    pad: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    pool_bytes: int = POOL_BYTES,
) -> AbxScore:
    """ABX error of the items, without subsampling.

    Args:
        items: see `read_items` and `items_from_alignments`.
        features: frames `[T, D]` by recording.
        rate: frames a second.
        speaker: "within" one speaker, or "across": A and B of one, X of another speaker.
        context: "within" one pair of neighbouring phones, or "any".
        distance: of frames; "cosine" is "angular", arccos / pi, as in Libri-Light. The distance of two items is the
            mean along the path of dynamic time warping.
        codebook: float32 `[vocab, D]`; the features are then codes, compared by their vectors.
        drop_last: Libri-Light's slices, without the last frame of every item.
        also_rates: rates of other systems of a comparison; what is empty at one of them is left out.
        pad: frames that a recording may lack at its end; its last frame is repeated.
        device: "cpu" (numba), or a torch device such as "cuda".
        threads: threads on the CPU; None for one a core.
        pool_bytes: frames held in memory.

    Raises:
        DatasetError: see `fill_pool`; or every item is empty.
        NothingToCompare: see `make_plan`.
        MissingBackend: numba is not installed.

    Source: Schatz et al., "Evaluating speech features with the minimal-pair ABX task", Interspeech 2013; averaging as
        in Libri-Light's `eval_ABX.py` and fastabx 0.9.0, to which scores are equal.
    """
    if distance not in DISTANCES:
        raise UnknownName("distance", distance, DISTANCES)
    if pad < 0:
        raise UserError(f"{pad} is not a number of frames", where="pad")
    name = canonical(distance)
    _check_codebook(codebook, name)
    empty = empty_items(items, [rate, *also_rates], drop_last=drop_last)
    if empty.all():
        raise DatasetError(
            f"every item is empty at {float(rate):g} frames a second", where=items.source, hint="Check the frequency"
        )
    kept = items.take(~empty)
    start, stop = frame_slices(kept, rate, drop_last=drop_last)
    plan = make_plan(kept, speaker=speaker, context=context)
    count = threads if threads is not None else len(os.sched_getaffinity(0))
    stored = name if codebook is None else "identical"
    try:
        from tokbench.abx.scheduler import run_plan
    except ModuleNotFoundError as error:
        raise MissingBackend(str(error.name), extra="mini", needed_by="the ABX engine") from None
    with fill_pool(kept, plan.order, start, stop, features, stored, pad=pad, budget=pool_bytes, threads=count) as pool:
        sums, cells, triplets = run_plan(plan, pool, name, codebook=codebook, device=device, threads=count)
    if not cells.any():
        raise NothingToCompare(
            "no item has both an equal and a different phone to be compared with", where=items.source
        )
    return _collapse(plan, sums, cells, triplets, len(kept), int(empty.sum()))


def _check_codebook(codebook: npt.NDArray[np.float32] | None, distance: str) -> None:
    if codebook is None:
        return
    if distance == "identical":
        raise UserError("the identical distance compares codes and takes no codebook", where="distance")
    if codebook.ndim != 2 or not np.isfinite(codebook).all():
        raise UserError("the codebook must be finite float32 [vocab, D]", where="codebook")


def _collapse(plan: Plan, sums: Float, cells: Int, triplets: int, items: int, empty: int) -> AbxScore:
    """Average cells by speaker and phone pair, then (speakers within a context) as Libri-Light does."""
    phones, speakers = plan.items.phone.names, plan.items.speaker.names
    used = np.flatnonzero(cells)
    speaker, pair = np.divmod(used, len(phones) ** 2)
    a, b = np.divmod(pair, len(phones))
    row = sums[used] / cells[used]
    # Across speakers in any context there is one cell for each two speakers, and all of a pair weigh the same.
    weight = cells[used].astype(np.float64) if plan.context == "any" else np.ones(len(used))
    total = np.bincount(pair, weights=row * weight, minlength=len(phones) ** 2)
    mass = np.bincount(pair, weights=weight, minlength=len(phones) ** 2)
    return AbxScore(
        error=float((total[mass > 0] / mass[mass > 0]).mean()),
        items=items,
        compared=len(plan.order),
        empty=empty,
        cells=int(cells.sum()),
        triplets=triplets,
        speaker=speaker,
        phone_a=a,
        phone_b=b,
        row_error=row,
        row_cells=cells[used],
        speakers=speakers,
        phones=phones,
    )
