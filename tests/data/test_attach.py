from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.data.alignment import write_textgrid
from tokbench.data.dataset import Segment
from tokbench.data.load import load_dataset
from tokbench.errors import DatasetError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "u1.wav", np.full(16000, 0.01), 16000)
    (tmp_path / "grids" / "deep").mkdir(parents=True)
    return tmp_path


def test_textgrids_become_phones_and_words(corpus: Path) -> None:
    phones = [Segment("sil", 0.0, 0.2), Segment("AE1", 0.2, 0.5), Segment("T", 0.5, 0.7)]
    words = [Segment("at", 0.2, 0.7)]
    write_textgrid(corpus / "grids" / "deep" / "u1.TextGrid", {"phones": phones, "words": words}, duration=1.0)
    (utterance,) = load_dataset(f"folder:{corpus / 'audio'}?alignments={corpus / 'grids'}").utterances
    assert utterance.phones is not None
    assert [p.label for p in utterance.phones] == ["SIL", "AE", "T"]
    assert utterance.phones[1].end == 0.5
    assert utterance.words == (Segment("at", 0.2, 0.7),)


def test_a_missing_alignment_is_named(corpus: Path) -> None:
    with pytest.raises(DatasetError, match=r"u1\.TextGrid"):
        load_dataset(f"folder:{corpus / 'audio'}?alignments={corpus / 'grids'}")


def test_a_grid_without_phones_is_named(corpus: Path) -> None:
    write_textgrid(corpus / "grids" / "u1.TextGrid", {"words": [Segment("at", 0.2, 0.7)]}, duration=1.0)
    with pytest.raises(DatasetError, match="no 'phones'"):
        load_dataset(f"folder:{corpus / 'audio'}?alignments={corpus / 'grids'}")
