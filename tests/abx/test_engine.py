"""The engine against fastabx's published scores, and against a slow reading of the definition."""

from __future__ import annotations

import itertools
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.abx import kernels, pool, scheduler, torch_backend
from tokbench.abx.engine import empty_items, score_abx
from tokbench.abx.features import ArrayFeatures, FolderFeatures
from tokbench.abx.items import SCALE, Items, Labels, read_items
from tokbench.abx.representation import lattice, prepare, store_frames
from tokbench.abx.slicing import frame_slices
from tokbench.errors import DatasetError, MissingBackend, UserError

pytest.importorskip("numba")
torch = pytest.importorskip("torch")

RATE = Fraction(50)


def dtw(lattice: np.ndarray) -> float:
    """Cost along the best path over its length, by the recurrence and a backward walk."""
    n, m = lattice.shape
    cost = np.full((n, m), np.inf)
    for i, j in itertools.product(range(n), range(m)):
        before = [cost[a, b] for a, b in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if a >= 0 and b >= 0]
        cost[i, j] = lattice[i, j] + (min(before) if before else 0.0)
    i, j, steps = n - 1, m - 1, 1
    while i or j:
        options = [(cost[a, b], rank, a, b) for rank, (a, b) in enumerate(((i - 1, j - 1), (i, j - 1), (i - 1, j)))
                   if a >= 0 and b >= 0]  # fmt: skip
        _, _, i, j = min(options)
        steps += 1
    return float(cost[-1, -1] / steps)


def frame_distance(x: np.ndarray, y: np.ndarray, distance: str) -> np.ndarray:
    x, y = x.astype(np.float64), y.astype(np.float64)
    if distance == "identical":
        return (x != y.T).astype(np.float32)
    if distance == "euclidean":
        return np.linalg.norm(x[:, None] - y[None], axis=2).astype(np.float32)
    if distance == "kl":
        p, q = x[:, None], y[None]
        return (0.5 * ((p - q) * (np.log(p + 1e-6) - np.log(q + 1e-6))).sum(axis=2)).astype(np.float32)
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    return (np.arccos(np.clip(x @ y.T, -1, 1)) / np.pi).astype(np.float32)


def slow(items: Items, arrays: dict[str, np.ndarray], speaker: str, context: str, distance: str) -> float:
    """Cells, triplets and averages, as they are defined."""
    start, stop = frame_slices(items, RATE)
    name = items.file.names
    part = [arrays[name[items.file.codes[i]]][start[i] : stop[i]] for i in range(len(items))]
    p, s = items.phone.codes, items.speaker.codes
    beside = (
        list(zip(items.previous.codes, items.following.codes, strict=True)) if context == "within" else [0] * len(items)
    )
    known: dict[tuple[int, int], float] = {}

    def d(x: int, y: int) -> float:
        if (x, y) not in known:
            known[x, y] = dtw(frame_distance(part[x], part[y], distance))
        return known[x, y]

    cells: dict[tuple, float] = {}
    everything = range(len(items))
    keys = {(beside[i], s[i], p[i]) for i in everything}
    for (c, sa, pa), (c2, sb, pb) in itertools.product(keys, keys):
        if c != c2 or sa != sb or pa == pb:
            continue
        a_items = [i for i in everything if (beside[i], s[i], p[i]) == (c, sa, pa)]
        b_items = [i for i in everything if (beside[i], s[i], p[i]) == (c, sa, pb)]
        for sx in [sa] if speaker == "within" else sorted(set(s) - {sa}):
            x_items = [i for i in everything if (beside[i], s[i], p[i]) == (c, sx, pa)]
            wins = [
                1.0 if d(x, a) < d(x, b) else 0.5 if d(x, a) == d(x, b) else 0.0
                for x in x_items for a in a_items for b in b_items if a != x
            ]  # fmt: skip
            if wins:
                cells[c, sx, sa, pa, pb] = 1 - float(np.mean(wins))

    def mean_by(values: dict[tuple, float], keep: slice) -> dict[tuple, float]:
        grouped: dict[tuple, list[float]] = {}
        for key, value in values.items():
            grouped.setdefault(key[keep], []).append(value)
        return {key: float(np.mean(v)) for key, v in grouped.items()}

    rows = mean_by(cells, slice(2, 5)) if context == "within" else cells
    pairs = mean_by(rows, slice(-2, None))
    return float(np.mean(list(pairs.values())))


def random_items(seed: int, count: int, *, dim: int, kind: str = "normal") -> tuple[Items, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 6, count)
    edge = np.concatenate([[0], np.cumsum(length)])
    labels = [Labels.of([f"{name}{v}" for v in rng.integers(high, size=count)]) for name, high in
              (("p", 3), ("l", 2), ("r", 2), ("s", 3))]  # fmt: skip
    tick = SCALE // 50
    items = Items("test", Labels.of(["f"] * count), edge[:-1] * tick, edge[1:] * tick, *labels, np.arange(count))
    if kind == "codes":
        frames = rng.integers(3, size=(edge[-1], 1)).astype(np.float32)
    elif kind == "probabilities":
        frames = rng.dirichlet(np.ones(dim), edge[-1]).astype(np.float32)
    else:
        frames = rng.standard_normal((edge[-1], dim)).astype(np.float32)
    return items, {"f": frames}


CONDITIONS = [("within", "within"), ("within", "any"), ("across", "within"), ("across", "any")]


@pytest.mark.parametrize("slicing", ["fixed", "librilight_last_frame_dropped"])
def test_scores_equal_fastabx(shared: Path, slicing: str) -> None:
    folder = shared / "parity" / "abx"
    items = read_items(folder / "items.item")
    expected = json.loads((folder / "scores.json").read_text())[slicing]
    sources = {"features": FolderFeatures(folder / "features"), "codes": FolderFeatures(folder / "codes")}
    for row, value in expected.items():
        if row == "constant codes":
            source, condition, distance = (
                ArrayFeatures({f"s{i}": np.zeros(300) for i in (1, 2, 3)}),
                "within",
                "identical",
            )
        else:
            condition, _, distance = row.partition("/")
            source = sources["codes" if "codes" in distance else "features"]
        for device in ("cpu", "cpu:0"):  # the second one takes torch's way, as on CUDA
            score = score_abx(
                items, source, rate=RATE, speaker=condition.split()[-1],
                context="any" if "any" in condition else "within", distance=distance.split()[0],
                drop_last=slicing != "fixed", device=device,
            )  # fmt: skip
            assert score.error == pytest.approx(value, abs=1e-6), (row, device)
            assert score.items == 54
            assert score.empty == 0


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), condition=st.sampled_from(CONDITIONS), device=st.sampled_from(["cpu", "cpu:0"]))
def test_scores_are_those_of_the_definition(seed: int, condition: tuple[str, str], device: str) -> None:
    for kind, distance in (
        ("normal", "angular"),
        ("normal", "euclidean"),
        ("codes", "identical"),
        ("probabilities", "kl"),
    ):
        items, arrays = random_items(seed, 24, dim=5, kind=kind)
        try:
            found = score_abx(
                items, ArrayFeatures(arrays), rate=RATE, speaker=condition[0], context=condition[1], distance=distance,
                device=device,
            )  # fmt: skip
        except DatasetError:
            continue  # too few items for a cell
        assert found.error == pytest.approx(slow(items, arrays, *condition, distance), abs=1e-9), distance


def test_distances_of_items_are_those_of_float64() -> None:
    """Near ties are decided by the rounding of the inner products alone; paths summed in float32 are off by 1e-7."""
    rng = np.random.default_rng(3)
    frames = rng.standard_normal((120, 768))
    ready = prepare(store_frames(frames, "angular", "test"), "angular", None)
    square = np.empty((120, 120))
    lattice(ready, ready, "angular", square)
    edge, n = np.arange(0, 121, 8), 15
    found = np.empty((n, n))
    one, own = np.zeros(n, np.int64), np.zeros((1, 1), np.int64)
    kernels.group_pairs(square, edge[:-1], edge[1:], one, one, own, found)
    i, j = np.triu_indices(n, 1)
    columns = {"frames": torch.from_numpy(ready.frames), "null": torch.from_numpy(ready.null)}
    as_on_cuda = torch_backend._lattice(columns, columns, "angular")
    eight = np.full(len(i), 8)
    forth, _ = torch_backend._warp_all(as_on_cuda, edge[i], eight, edge[j], eight)
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    true = np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    expected = [dtw(true[edge[a] : edge[a + 1], edge[b] : edge[b + 1]]) for a, b in zip(i, j, strict=True)]
    assert np.abs(found[i, j] - expected).max() < 8e-9
    assert np.abs(forth - expected).max() < 8e-9


@pytest.mark.parametrize(("speaker", "context"), CONDITIONS)
def test_tiles_rows_and_files_change_nothing(speaker: str, context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items, arrays = random_items(5, 160, dim=8)
    codes, code_arrays = random_items(6, 160, dim=1, kind="codes")
    book = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)

    def scores(**options: object) -> list[float]:
        return [
            score_abx(items, ArrayFeatures(arrays), rate=RATE, speaker=speaker, context=context, **options).error,
            score_abx(
                codes, ArrayFeatures(code_arrays), rate=RATE, speaker=speaker, context=context, distance="identical",
                **options,
            ).error,
            score_abx(
                codes, ArrayFeatures(code_arrays), rate=RATE, speaker=speaker, context=context, codebook=book, **options
            ).error,
        ]  # fmt: skip

    whole = scores(threads=1)
    assert scores(threads=3) == whole
    assert scores(pool_bytes=0) == whole  # frames through a temporary file
    monkeypatch.setattr(scheduler, "SMALL_FRAMES", 8)
    monkeypatch.setattr(scheduler, "TILE_ROWS", 11)
    monkeypatch.setattr(scheduler, "TILE_COLUMNS", 17)
    assert scores(threads=2) == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(scheduler, "MATRIX_BYTES", 0)
    monkeypatch.setattr(scheduler, "ROW_BYTES", 1 << 13)
    assert scores(threads=2) == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(scheduler, "MAX_TABLE", 0)
    assert scores(threads=2)[:2] == pytest.approx(whole[:2], abs=1e-12)


def test_a_codebook_compares_codes_by_their_vectors() -> None:
    items, arrays = random_items(3, 60, dim=1, kind="codes")
    book = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    by_table = score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any", codebook=book)
    vectors = {"f": book[arrays["f"][:, 0].astype(int)]}
    assert by_table.error == pytest.approx(slow(items, vectors, "within", "any", "angular"), abs=1e-9)
    with pytest.raises(DatasetError, match=r"not in the codebook, whose codes are 0\.\.1"):
        score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any", codebook=book[:2])
    with pytest.raises(UserError, match="takes no codebook"):
        score_abx(items, ArrayFeatures(arrays), rate=RATE, distance="identical", codebook=book)


def test_null_frames_are_far_from_all_others_and_equal_to_each_other() -> None:
    items, arrays = random_items(4, 60, dim=3)
    arrays["f"][::2] = 0
    score = score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any")
    assert 0 <= score.error <= 1
    constant = score_abx(items, ArrayFeatures({"f": np.zeros_like(arrays["f"])}), rate=RATE, context="any")
    assert constant.error == 0.5


def test_offsets_far_from_zero_do_not_hurt_the_euclidean_distance() -> None:
    items, arrays = random_items(7, 60, dim=4)
    near = score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any", distance="euclidean")
    # Multiples of a power of two keep the frames' own digits.
    rounded = {"f": np.round(arrays["f"] * 256) / 256}
    plain = score_abx(items, ArrayFeatures(rounded), rate=RATE, context="any", distance="euclidean")
    moved = score_abx(items, ArrayFeatures({"f": rounded["f"] + 1024}), rate=RATE, context="any", distance="euclidean")
    assert moved.error == pytest.approx(plain.error, abs=1e-3)
    assert near.error == pytest.approx(plain.error, abs=0.05)


def test_empty_items_are_left_out_for_all_and_counted() -> None:
    items, arrays = random_items(8, 80, dim=4)
    slow_rate = Fraction(25, 2)
    sparse = {"f": arrays["f"][::4]}
    union = empty_items(items, [RATE, slow_rate])
    assert 0 < union.sum() < 80
    one = score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any", also_rates=[slow_rate])
    two = score_abx(items, ArrayFeatures(sparse), rate=slow_rate, context="any", also_rates=[RATE], pad=1)
    assert one.items == two.items == 80 - union.sum()
    assert one.empty == two.empty == union.sum()
    with pytest.raises(DatasetError, match="every item is empty"):
        score_abx(items, ArrayFeatures(arrays), rate=Fraction(1, 1000))


def test_bad_features_name_the_row(tmp_path: Path) -> None:
    items, arrays = random_items(9, 60, dim=4)
    frames = arrays["f"]

    def fails(match: str, array: np.ndarray, **options: object) -> None:
        with pytest.raises(DatasetError, match=match):
            score_abx(items, ArrayFeatures({"f": array}), rate=RATE, context="any", **options)

    broken = frames.copy()
    broken[5, 1] = np.nan
    fails(r"test:\d+: item 'p\d' of 'f' .* NaN or infinite features \(frame 5", broken)
    fails(r"test:59: item .* has only \d+ frames", frames[:-1])
    score_abx(items, ArrayFeatures({"f": frames[:-1]}), rate=RATE, context="any", pad=1)
    fails("has 4 dimensions", frames, distance="identical")
    fails("rows that are not negative and sum to 1", frames, distance="kl")
    fails("has dtype bool", frames > 0)
    with pytest.raises(DatasetError, match=r"test:\d+: there are no features of 'f' \(1 of 1"):
        score_abx(items, ArrayFeatures({"g": frames}), rate=RATE, context="any")


def test_impossible_comparisons_say_what_is_missing() -> None:
    items, arrays = random_items(10, 40, dim=4)
    source = ArrayFeatures(arrays)
    alone = items.take(items.speaker.codes == 0)
    with pytest.raises(DatasetError, match="across speakers needs two speakers, all items are of 's0'"):
        score_abx(alone, source, rate=RATE, speaker="across")
    one_phone = items.take(items.phone.codes == 1)
    with pytest.raises(DatasetError, match="needs two phones to tell apart, all items are 'p1'"):
        score_abx(one_phone, source, rate=RATE)
    first = np.zeros(len(items), np.bool_)
    _, places = np.unique(items.phone.codes, return_index=True)
    first[places] = True
    with pytest.raises(DatasetError, match="no pair of equal phones: none is spoken twice at all by one speaker"):
        score_abx(items.take(first), source, rate=RATE, context="any")


def test_without_numba_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    items, arrays = random_items(12, 60, dim=4)
    monkeypatch.delitem(sys.modules, "tokbench.abx.scheduler", raising=False)
    monkeypatch.delitem(sys.modules, "tokbench.abx.kernels", raising=False)
    monkeypatch.delattr("tokbench.abx.kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingBackend, match=r"the ABX engine needs the package 'numba'.*tokbench\[mini\]"):
        score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any")


def test_infinite_frames_outside_the_items_do_no_harm() -> None:
    items, arrays = random_items(13, 60, dim=4)
    plain = score_abx(items, ArrayFeatures(arrays), rate=RATE, context="any")
    tail = np.full((3, 4), np.nan, np.float32)
    longer = score_abx(items, ArrayFeatures({"f": np.concatenate([arrays["f"], tail])}), rate=RATE, context="any")
    assert longer.error == plain.error


def test_memory_is_bounded_by_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames beyond the budget are never held at once."""
    held: list[int] = []
    original = pool.Pool.read

    def read(self: pool.Pool, first: int, last: int) -> np.ndarray:
        frames = original(self, first, last)
        held.append(frames.nbytes)
        assert self._memory is None
        return frames

    monkeypatch.setattr(pool.Pool, "read", read)
    monkeypatch.setattr(scheduler, "BATCH_FRAMES", 64)
    items, arrays = random_items(11, 300, dim=16)
    score_abx(items, ArrayFeatures(arrays), rate=RATE, pool_bytes=1000)
    assert max(held) <= 64 * 16 * 4 + 1024 * 16 * 4
