"""Item files, items from alignments, and which frames belong to them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.abx.features import FolderFeatures, load_codebook
from tokbench.abx.items import SCALE, Items, Labels, items_from_alignments, read_items
from tokbench.abx.slicing import frame_slices, parse_rate
from tokbench.data.dataset import Segment, Utterance
from tokbench.errors import DatasetError, UserError

HEAD = "#file onset offset #phone prev-phone next-phone speaker\n"


def one_item(onset: int, offset: int) -> Items:
    label = Labels.of(["x"])
    return Items("t", label, np.array([onset]), np.array([offset]), label, label, label, label, np.array([2]))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.item"
    path.write_text(text)
    return path


def test_reads_times_exactly(tmp_path: Path) -> None:
    items = read_items(written(tmp_path, HEAD + "b/f1 0.0025 12.3 AA B T s1\n\nf0 1 1.000000001 IH B T s2\n"))
    assert items.onset.tolist() == [2_500_000, SCALE]
    assert items.offset.tolist() == [12_300_000_000, SCALE + 1]
    assert items.file.names == ("b/f1", "f0")
    assert items.where(1).endswith("a.item:4")
    assert items.phone.names == ("AA", "IH")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line must be the column names"),
        ("#file onset offset\n", "its first line must be the column names"),
        (HEAD, "has no items"),
        (HEAD + "f 0 1 AA B T\n", r"a\.item:2: has 6 fields, an item has 7"),
        (HEAD + "f 0 1 AA B T s\nf 0 x AA B T s\n", r"a\.item:3: offset 'x' is not a decimal number of seconds"),
        (HEAD + "f -1 1 AA B T s\n", "onset '-1' is not a decimal number"),
        (HEAD + "f nan 1 AA B T s\n", "onset 'nan' is not a decimal number"),
        (HEAD + "f 1 1 AA B T s\n", "the offset 1 is not after the onset 1"),
        (HEAD + "f 0 0.0123456789 AA B T s\n", "more than 9 decimals"),
        (HEAD + "f 0 2000000 AA B T s\n", "beyond 1e\\+06 seconds"),
    ],
)
def test_bad_item_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_items(written(tmp_path, text))


@pytest.mark.parametrize(
    ("onset", "offset", "counts"),
    [("0.2925", "0.4725", (9, 5, 2)), ("0.3725", "0.5325", (8, 4, 2)), ("0.4325", "0.5725", (7, 3, 2))],
)
def test_the_slices_of_the_reference_table(onset: str, offset: str, counts: tuple[int, ...]) -> None:
    item = one_item(int(Fraction(onset) * SCALE), int(Fraction(offset) * SCALE))
    for rate, count in zip((Fraction(50), Fraction(25), Fraction(25, 2)), counts, strict=True):
        start, stop = frame_slices(item, rate)
        assert stop[0] - start[0] == count
        _, dropped = frame_slices(item, rate, drop_last=True)
        assert dropped[0] == stop[0] - 1
    start, stop = frame_slices(one_item(292_500_000, 472_500_000), Fraction(50))
    assert (start[0], stop[0] - 1) == (15, 23)


@given(
    st.integers(0, 10**12), st.integers(1, 10**9),
    st.sampled_from([Fraction(50), Fraction(25, 2), Fraction(75), Fraction(22050, 256), Fraction(16000)]),
)  # fmt: skip
def test_slices_are_the_frames_whose_centres_lie_inside(onset: int, length: int, rate: Fraction) -> None:
    start, stop = frame_slices(one_item(onset, onset + length), rate)
    low, high = Fraction(onset, SCALE) * rate - Fraction(1, 2), Fraction(onset + length, SCALE) * rate - Fraction(1, 2)
    first, after = math.ceil(low), math.floor(high) + 1
    assert start[0] == first
    assert stop[0] == max(first, after)


def test_rates_are_exact() -> None:
    assert parse_rate("12.5") == parse_rate("25/2") == Fraction(25, 2)
    for bad in ("0", "-1", "x", "1/0"):
        with pytest.raises(UserError, match="is not a frame rate"):
            parse_rate(bad)


PHONES = (
    Segment("SIL", 0.0, 0.1),
    Segment("HH", 0.1, 0.2),
    Segment("AY", 0.2, 0.4),
    Segment("T", 0.4, 0.5),
    Segment("SIL", 0.5, 0.6),
    Segment("AY", 0.6, 0.8),
)


def spoken(phones: tuple[Segment, ...] | None) -> Utterance:
    return Utterance("u1", Path("none.wav"), "anna", phones=phones)


def test_items_from_alignments() -> None:
    items = items_from_alignments([spoken(PHONES)], unit="phone")
    rows = [
        (items.previous.names[a], items.phone.names[b], items.following.names[c])
        for a, b, c in zip(items.previous.codes, items.phone.codes, items.following.codes, strict=True)
    ]
    assert rows == [("SIL", "HH", "AY"), ("HH", "AY", "T"), ("AY", "T", "SIL"), ("SIL", "AY", "SIL")]
    assert items.onset[0] == SCALE // 10
    triphones = items_from_alignments([spoken(PHONES)], unit="triphone")
    assert len(triphones) == 1
    assert (triphones.onset[0], triphones.offset[0]) == (SCALE // 10, SCALE // 2)
    assert triphones.describe(0) == "item 'AY' of 'u1' (0.1 to 0.5 s)"
    assert triphones.where(0) == "alignments: utterance u1, segment 2"


def test_alignments_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DatasetError, match="utterance u1 has no phone alignment"):
        items_from_alignments([spoken(None)])
    with pytest.raises(DatasetError, match="utterance u1, segment 1: 'QQ' is not a known phone"):
        items_from_alignments([spoken((PHONES[0], Segment("QQ", 0.1, 0.2)))])
    with pytest.raises(DatasetError, match="the alignments hold no triphone"):
        items_from_alignments([spoken(PHONES[:3])], unit="triphone")


def test_folders_of_features(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.ones((3, 2), np.float16))
    torch.save(torch.ones(4, dtype=torch.bfloat16), tmp_path / "b.pt")
    torch.save({"x": 1}, tmp_path / "c.pt")
    (tmp_path / "d.npy").write_bytes(b"not an array")
    folder = FolderFeatures(tmp_path)
    assert folder.names() == {"in/a", "b", "c", "d"}
    assert folder.load("in/a").shape == (3, 2)
    assert folder.load("b").shape == (4, 1)
    with pytest.raises(DatasetError, match=r"c\.pt: cannot be read \(holds a dict, not a tensor\)"):
        folder.load("c")
    with pytest.raises(DatasetError, match=r"d\.npy: cannot be read"):
        folder.load("d")
    np.save(tmp_path / "b.npy", np.ones(3))
    with pytest.raises(DatasetError, match="'b' is there as"):
        FolderFeatures(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        FolderFeatures(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no"):
        FolderFeatures(tmp_path / "empty")
    np.save(tmp_path / "book.npy", np.ones(3))
    with pytest.raises(DatasetError, match="is not a finite matrix"):
        load_codebook(tmp_path / "book.npy")
