"""Which crops there are, what they hold, and the order in which a run sees them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kanade.training_support import TINY, TinyParts, corpus

from tokbench.audio import write_audio
from tokbench.data.dataset import Utterance
from tokbench.errors import DatasetError
from tokbench.kanade.training.crops import CropBatches, WaveCrops, crop_starts, list_crops
from tokbench.kanade.training.parts import Features
from tokbench.kanade.training.stored import StoredCrops, store_utterances


@given(n=st.integers(1, 5000), size=st.integers(1, 500), hop=st.integers(1, 500))
def test_crops_follow_the_published_rule(n: int, size: int, hop: int) -> None:
    starts = crop_starts(n, size, hop)
    whole = [s for s in range(0, n, hop) if s + size <= n]  # the rule, said another way
    if n <= size:
        assert starts == [0]
    elif whole[-1] + size == n:
        assert starts == whole
    else:
        assert starts == [*whole, n - size]


def test_the_published_crops_of_ten_seconds() -> None:
    assert crop_starts(240_000, 138_240, 34_560) == [0, 34_560, 69_120, 101_760]


def test_a_corpus_of_short_files_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"no utterance is as long as a crop .*75 %.*crop_seconds"):
        list_crops([60, 75], size=100, hop=10, name="folder:x")


def test_a_crop_is_resampled_scaled_and_padded(tmp_path: Path) -> None:
    t = np.arange(24000) / 48000
    path = tmp_path / "a.wav"
    write_audio(path, (0.1 * np.sin(2 * np.pi * 440 * t)).astype(np.float32), 48000)
    crops = WaveCrops(
        [Utterance("a", path, "s")],
        list_crops([8000, 20000], size=12000, hop=4000, name="x")[:1],
        size=12000,
        rate=16000,
        random=False,
        seed=0,
    )
    item = crops[0]
    assert item["n_samples"] == 8000
    assert item["wave"].shape == (12000,)
    assert float(item["wave"].abs().max()) == pytest.approx(1.0, abs=1e-6)
    assert not item["wave"][8000:].any()


def test_batches_are_decided_by_seed_and_position() -> None:
    first = list(islice(CropBatches(10, batch_size=3, seed=1), 8))
    again = list(islice(CropBatches(10, batch_size=3, seed=1, start=5), 3))
    assert again == first[5:]
    assert [epoch for batch in first for _, epoch in batch][::3] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len({item for batch in first[:3] for item, _ in batch}) == 9
    assert list(islice(CropBatches(10, batch_size=3, seed=2), 8)) != first


def test_processes_share_an_epoch_without_overlap() -> None:
    ranks = [next(iter(CropBatches(8, batch_size=4, seed=0, rank=rank, world=2))) for rank in (0, 1)]
    assert sorted(item for batch in ranks for item, _ in batch) == list(range(8))
    with pytest.raises(DatasetError, match="8 crops, one batch takes 12"):
        CropBatches(8, batch_size=6, seed=0, world=2)


def test_stored_crops_are_slices_of_the_whole_utterance(tmp_path: Path) -> None:
    dataset = corpus(tmp_path, speakers=1, each=1, seconds=1.5)
    parts = TinyParts(TINY)
    store = tmp_path / "store"
    stored = store_utterances(dataset.utterances, parts, normalize=False, store=store)
    items = StoredCrops(stored, parts, size=10240, hop=5000, random=False, seed=0)
    assert items.grid == 640
    assert [crop.start for crop in items.crops] == [0, 4480, 8960, 13440]
    one = items[1]
    torch.testing.assert_close(one["mel"], stored[0].mel[14 : 14 + 32])  # type: ignore[index]
    torch.testing.assert_close(one["content"], one["mel"], atol=5e-3, rtol=1e-3)
    assert len(list(store.rglob("*.unit"))) == 1
    again = store_utterances(dataset.utterances, _Deaf(TINY), normalize=False, store=store)
    assert torch.equal(again[0].content, stored[0].content)


class _Deaf(TinyParts):
    """Its features must come from the store."""

    def features(self, *_: torch.Tensor) -> Features:
        raise AssertionError("the store has them")


def test_random_crops_move_between_epochs_and_stay_within_one(tmp_path: Path) -> None:
    dataset = corpus(tmp_path, speakers=1, each=1, seconds=2.0)
    stored = store_utterances(dataset.utterances, TinyParts(TINY), normalize=True, store=None)
    items = StoredCrops(stored, TinyParts(TINY), size=6400, hop=6400, random=True, seed=3)
    first, same, other = items[(0, 0)], items[(0, 0)], items[(0, 1)]
    assert torch.equal(first["mel"], same["mel"])
    assert not torch.equal(first["mel"], other["mel"])
