import numpy as np
import pytest
import soundfile as sf

from tokbench.data.load import load_dataset
from tokbench.errors import DatasetError


def wav(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(160, np.float32), 16000)


@pytest.fixture
def challenge(tmp_path):
    for name in ("aa", "ab", "ba", "bb", "ca", "cb"):
        wav(tmp_path / "lexical" / "dev" / f"{name}.wav")
    (tmp_path / "lexical" / "dev" / "gold.csv").write_text(
        "id,filename,voice,frequency,word,phones,length,correct\n"
        "1,aa,A,12,brick,B R IH K,4,1\n1,ab,A,,,B L IH K,4,0\n"
        "1,ba,B,12,brick,B R IH K,4,1\n1,bb,B,,,B L IH K,4,0\n"
        "2,ca,A,0,zyme,Z AY M,3,1\n2,cb,A,,,Z AY N,3,0\n"
    )
    for name in ("s1", "s2"):
        wav(tmp_path / "syntactic" / "dev" / f"{name}.wav")
    (tmp_path / "syntactic" / "dev" / "gold.csv").write_text(
        "id,filename,voice,type,subtype,transcription,correct\n"
        "7,s1,A,agreement,noun,the dogs bark,1\n7,s2,A,agreement,noun,the dogs barks,0\n"
    )
    return tmp_path


def test_words_in_the_challenge_layout(challenge):
    made = load_dataset(f"swuggy:{challenge}")
    assert [u.id for u in made.utterances] == ["aa", "ab", "ba", "bb", "ca", "cb"]
    assert made.utterances[1].extra == {"set": "swuggy", "group": "1", "right": "0", "pair": "1:A", "band": "known"}
    assert {u.extra["pair"] for u in made.utterances} == {"1:A", "1:B", "2:A"}
    assert made.utterances[5].extra["band"] == "oov"
    inner = load_dataset(f"swuggy:{challenge / 'lexical'}")
    assert [u.extra for u in inner.utterances] == [u.extra for u in made.utterances]


def test_sentences_in_the_challenge_layout(challenge):
    right, wrong = load_dataset(f"sblimp:{challenge}").utterances
    assert right.extra["group"] == "agreement:noun:7"
    assert (right.text, right.extra["right"], wrong.extra["right"]) == ("the dogs bark", "1", "0")


def test_stories_by_number(tmp_path):
    for name in ("10_x", "2_b", "3_c", "11_y"):
        wav(tmp_path / f"{name}.wav")
    made = {u.id: u.extra for u in load_dataset(f"storycloze:{tmp_path}").utterances}
    assert {k: (v["pair"], v["right"]) for k, v in made.items()} == {
        "2_b": ("0", "1"), "3_c": ("0", "0"), "10_x": ("1", "1"), "11_y": ("1", "0"),
    }  # fmt: skip
    wav(tmp_path / "4_z.wav")
    with pytest.raises(DatasetError, match="5 numbered wav files, which make no pairs"):
        load_dataset(f"storycloze:{tmp_path}")


def test_what_is_wrong_is_said(challenge):
    table = challenge / "lexical" / "dev" / "gold.csv"
    (challenge / "lexical" / "dev" / "cb.wav").unlink()
    with pytest.raises(DatasetError, match=r"1 recordings that are not there: cb\.wav"):
        load_dataset(f"swuggy:{challenge}")
    text = table.read_text()
    table.write_text("\n".join(line for line in text.splitlines() if ",cb," not in line) + "\n")
    with pytest.raises(DatasetError, match="pair 2 in voice A has 1 right and 0 wrong"):
        load_dataset(f"swuggy:{challenge}")
    table.write_text(text.replace("voice", "speaker"))
    with pytest.raises(DatasetError, match="no column 'voice'"):
        load_dataset(f"swuggy:{challenge}")
    with pytest.raises(DatasetError, match=r"has no lexical/test/gold\.csv"):
        load_dataset(f"swuggy:{challenge}", split="test")
