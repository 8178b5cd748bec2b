"""Spoken language model and text to tokens on a code of letters: a wave's level is a letter, and a judge reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.auditing import audit_results
from tokbench.comparison import read_table
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.errors import UserError
from tokbench.handle import TokenizerHandle
from tokbench.judges.base import Evidence, Judge
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

LETTERS = " abcdefg"
HOP = 320
CARD = """\
name: speller
summary: A letter each 40 ms.
adapter: test_token_models:Speller
family: toys
capabilities: [discrete, decode]
streams: [{name: letters, rate_hz: 25, vocab: 8}]
input_rate: 8000
output_rate: 8000
licence: MIT
"""
LATENT = """\
name: latent
summary: Continuous.
adapter: test_token_models:Speller
family: toys
capabilities: [continuous]
streams: [{name: z, kind: latent, rate_hz: 25, dim: 2}]
input_rate: 8000
licence: MIT
"""
SINGER = CARD.replace("name: speller", "name: with-voice").replace("streams:", "globals: [{name: v, dim: 3}]\nstreams:")
READER = """\
name: reader
summary: Reads letters.
kind: asr
adapter: test_token_models:Reader
input_rate: 8000
licence: MIT
"""
SMALL = {
    "seeds": 2, "row_seconds": 8, "context_seconds": 4, "continuations": 2, "prompt_seconds": 0.3,
    "continuation_seconds": 0.4, "utterances": 3, "normaliser": "none",
    "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2},
    "recipe": {"steps": 40, "batch": 1, "lr": 0.01, "warmup": 5},
}  # fmt: skip


def say(text: str) -> Wave:
    codes = np.array([LETTERS.index(c) for c in text])
    return np.repeat((codes + 1) / 10, HOP).astype(np.float32)


def read(wave: Wave) -> np.ndarray:
    frames = wave[: len(wave) // HOP * HOP].reshape(-1, HOP).mean(axis=1)
    return np.clip(np.round(frames * 10 - 1), 0, 7).astype(np.int64)


class Speller(Tokenizer):
    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        voice = {g.name: np.array([1, 2, 3], np.float32) for g in self.card.globals}
        return [Encoded({"letters": read(wave)}, len(wave), voice) for wave in wavs]

    def decode(
        self,
        items: Sequence[Encoded],
        *,
        globals_from: Sequence[Encoded] | None = None,  # noqa: ARG002
    ) -> list[Wave]:
        return [np.repeat((item.streams["letters"] + 1) / 10, HOP).astype(np.float32) for item in items]


class Reader(Judge):
    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        return [{"text": "".join(LETTERS[c] for c in read(wave)).strip()} for wave in wavs]


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join("".join(rng.choice(list(LETTERS[1:]), 3)) for _ in range(4)) for _ in range(count)]


def spoken(folder: Path, name: str, said: Sequence[str], written: Sequence[str | None], **extra: str) -> Dataset:
    made = []
    for k, (one, text) in enumerate(zip(said, written, strict=True)):
        path = folder / f"{name}{k:03}.wav"
        soundfile.write(path, say(one), 8000, subtype="FLOAT")
        made.append(Utterance(path.stem, path, f"s{k % 6}", text=text, extra=dict(extra)))
    table = folder / f"{name}.csv"
    rows = [f"{u.id},{u.path.name},{u.speaker},{u.text or ''}" for u in made]
    table.write_text("\n".join(["id,path,speaker,text", *rows]) + "\n")
    return Dataset(name, tuple(made))


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    (folder / "judges").mkdir()
    for name, card in (("speller", CARD), ("latent", LATENT), ("with-voice", SINGER)):
        (folder / "tokenizers" / f"{name}.yaml").write_text(card)
    (folder / "judges" / "reader.yaml").write_text(READER)
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


def measured(
    tmp_path: Path,
    toys: Path,
    task: str,
    data: Dataset,
    train: str | None,
    tokenizer: str = "speller",
    **params: object,
) -> Result:
    card = find_card(TaskCard, task)
    merged = {**card.params, **SMALL, "train": f"manifest:{tmp_path / train}.csv" if train else None, **params}
    judges = {"reader": find_card(JudgeCard, "reader")}
    cell = Cell(TokenizerHandle(tokenizer), card, prepare_dataset(data, tmp_path / "index"), judges, merged)
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=400, paths=(toys,))
    return next(run([cell], options, LocalEngine(1)))


def value(result: Result, name: str) -> float:
    found = result.estimate(name)
    assert found is not None, [e.metric for e in result.estimates]
    assert found.value is not None, found
    return found.value


def test_tokens_without_order_cost_their_entropy_and_prompts_go_on(tmp_path: Path, toys: Path) -> None:
    said = texts(60, 0)
    spoken(tmp_path, "train", said[:48], said[:48])
    data = spoken(tmp_path, "test", said[48:], said[48:])
    result = measured(tmp_path, toys, "slm", data, "train")
    assert result.status == "complete", result.coverage
    # Three letters of seven, then a space: 3 log2(7) bits each 4 codes at best, at 25 codes a second.
    best = 25 * 11 * np.log2(7) / 15
    assert best * 0.98 < value(result, "lm_bps") < 75  # uniform over 8 ids would be 75
    assert value(result, "lm_perplexity") < 8
    assert result.estimate("lm_bps").note.startswith("1 ids a frame of 40 ms, one id a step; seeds: ")  # type: ignore[union-attr]
    assert {s.kind for s in result.samples} == {"prompt", "continuation"}
    assert len(read_table(result, "continuations")) == 4
    curves = read_table(result, "curves")
    assert set(curves["seed"]) == {0, 1}
    assert audit_results([tmp_path / "out"]).findings == []


def test_merged_runs_are_charged_for_their_lengths(tmp_path: Path, toys: Path) -> None:
    rng = np.random.default_rng(0)
    held = ["".join(c * int(rng.integers(1, 5)) for c in text) for text in texts(40, 1)]
    spoken(tmp_path, "train", held[:30], held[:30])
    data = spoken(tmp_path, "test", held[30:], held[30:])
    plain = measured(tmp_path, toys, "slm", data, "train", seeds=1, continuations=0)
    rows = read_table(plain, "items")
    merged = measured(tmp_path, toys, "slm", data, "train", seeds=1, continuations=0, dedup=True)
    assert 0 < value(merged, "lm_duration_bps") < value(merged, "lm_bps")
    runs = read_table(merged, "items")
    assert (runs["lm_codes"] < rows["lm_codes"]).all()
    assert (runs["lm_seconds"] == rows["lm_seconds"]).all()
    np.testing.assert_allclose(runs["lm_bits"], runs["lm_code_bits"] + runs["lm_duration_bits"])


def test_pairs_are_told_apart_by_what_was_heard_before(tmp_path: Path, toys: Path) -> None:
    heard = [" ".join(["abc", "abd", "abe"][k] for k in np.random.default_rng(s).integers(0, 3, 4)) for s in range(30)]
    spoken(tmp_path, "train", heard, heard)
    right, wrong = ["abc", "abd", "abe"], ["bac", "dba", "eab"]
    made = []
    for side, words in (("1", right), ("0", wrong)):
        for k, u in enumerate(spoken(tmp_path, f"side{side}", words, words).utterances):
            extra = {"set": "swuggy", "pair": f"{k}", "group": f"{k}", "right": side, "band": "known" if k else "oov"}
            made.append(Utterance(u.id, u.path, "A", text=u.text, extra=extra))
    result = measured(tmp_path, toys, "slm", Dataset("pairs", tuple(made)), "train", seeds=1)
    assert value(result, "swuggy") == 1
    assert value(result, "swuggy_normalised") == 1
    known = result.estimate("swuggy_known")
    assert known is not None
    assert (known.value, known.n, known.reasons) == (1, 2, {"the word does not occur in LibriSpeech": 1})
    assert result.estimate("lm_bps") is None
    assert audit_results([tmp_path / "out"]).findings == []


def test_tokens_that_have_nothing_to_do_with_the_text_gain_nothing(tmp_path: Path, toys: Path) -> None:
    said, other = texts(70, 2), texts(70, 3)
    spoken(tmp_path, "train", said[:46], other[:46])
    data = spoken(tmp_path, "test", said[46:], other[46:])
    result = measured(tmp_path, toys, "tts_probe", data, "train", utterances=0)
    gain = result.estimate("tts_information_gain")
    assert gain is not None
    assert gain.ci95 is not None
    assert gain.ci95[0] < 0 < gain.ci95[1]


def test_a_text_that_spells_its_tokens_is_spoken(tmp_path: Path, toys: Path) -> None:
    said = texts(130, 4)
    spoken(tmp_path, "train", said[:120], said[:120])
    data = spoken(tmp_path, "test", said[120:], said[120:])
    recipe = {"steps": 150, "batch": 1, "lr": 0.01, "warmup": 10}
    result = measured(tmp_path, toys, "tts_probe", data, "train", recipe=recipe, temperature=0.3, seeds=1)
    assert value(result, "tts_information_gain") > 5  # of the 8.4 bits of three letters of seven
    assert value(result, "tts_cer[reader]") < 0.2
    assert value(result, "tts_failures") == 0
    assert value(result, "tts_duration_ratio") == pytest.approx(1, abs=0.1)
    assert value(result, "tts_wer_original[reader]") == 0
    assert value(result, "tts_wer_resynthesised[reader]") == 0
    assert {s.kind for s in result.samples} == {"generated", "original"}
    assert audit_results([tmp_path / "out"]).findings == []


def test_what_cannot_be_measured_says_why(tmp_path: Path, toys: Path) -> None:
    said = texts(12, 5)
    spoken(tmp_path, "train", said[:8], said[:8])
    spoken(tmp_path, "silent", said[:8], [None] * 8)
    data = spoken(tmp_path, "test", said[8:], [None, "?!", *said[10:]])
    small = {"recipe": {"steps": 2, "batch": 1, "lr": 0.01}, "seeds": 1, "continuations": 0, "utterances": 0}
    for task in ("slm", "tts_probe"):
        result = measured(tmp_path, toys, task, data, "train", tokenizer="latent", **small)
        assert result.status == "not_applicable"
        assert "continuous" in (result.reason or "")
    result = measured(tmp_path, toys, "tts_probe", data, "train", **small)
    gain = result.estimate("tts_information_gain")
    assert gain is not None
    assert gain.reasons == {"the utterance has no text": 2}
    result = measured(tmp_path, toys, "tts_probe", data, "silent", **small)
    assert result.status == "partial"
    assert "no utterance of the training data has a text" in result.coverage.failed[0].error  # type: ignore[union-attr]


def test_a_voice_stands_before_the_text(tmp_path: Path, toys: Path) -> None:
    said = texts(14, 6)
    spoken(tmp_path, "train", said[:8], said[:8])
    data = spoken(tmp_path, "test", said[8:], said[8:])
    small = {"recipe": {"steps": 2, "batch": 1, "lr": 0.01}, "seeds": 1}
    result = measured(tmp_path, toys, "tts_probe", data, "train", tokenizer="with-voice", **small)
    assert result.status == "complete", result.coverage
    spoke = read_table(result, "generated")
    assert len(spoke) == 3


STACK = """\
name: four-books
summary: NanoCodec's shape; the first code is a letter.
adapter: test_token_models:FourBooks
family: toys
capabilities: [discrete, decode]
streams:
  - {name: q0, rate_hz: "25/2", vocab: 4032}
  - {name: q1, rate_hz: "25/2", vocab: 4032}
  - {name: q2, rate_hz: "25/2", vocab: 4032}
  - {name: q3, rate_hz: "25/2", vocab: 4032}
input_rate: 8000
output_rate: 8000
licence: MIT
"""


class FourBooks(Tokenizer):
    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        letters = [read(wave)[: len(wave) // (2 * HOP) * 2 : 2] for wave in wavs]
        return [
            Encoded({f"q{k}": one + k for k in range(4)}, len(wave)) for one, wave in zip(letters, wavs, strict=True)
        ]

    def decode(
        self,
        items: Sequence[Encoded],
        *,
        globals_from: Sequence[Encoded] | None = None,  # noqa: ARG002
    ) -> list[Wave]:
        return [np.repeat((item.streams["q0"] % 8 + 1) / 10, 2 * HOP).astype(np.float32) for item in items]


def test_a_checkpoint_of_kanis_layout_speaks(tmp_path: Path, toys: Path) -> None:
    from kani_support import random_checkpoint

    (toys / "tokenizers" / "four-books.yaml").write_text(STACK)
    said = ["".join(c * 2 for c in text) for text in texts(5, 7)]
    data = spoken(tmp_path, "test", said, said)
    checkpoint = random_checkpoint(tmp_path / "kani")
    options = {"checkpoint": str(checkpoint), "utterances": 2, "repetition_penalty": 1.0}
    result = measured(tmp_path, toys, "tts_kani", data, None, tokenizer="four-books", seeds=1, **options)
    assert result.status == "complete", result.coverage
    gain = result.estimate("tts_information_gain")
    assert gain is not None
    assert gain.value == pytest.approx(0, abs=0.5)  # random weights have learnt nothing
    # What KaniTTS drops it does not charge for, so bits per second would be no account of the speech.
    assert result.estimate("tts_bps") is None
    assert value(result, "tts_wer_resynthesised[reader]") == 0
    assert len(read_table(result, "generated")) == 2
    other = measured(tmp_path, toys, "tts_kani", data, None, tokenizer="speller", **options)
    assert other.status == "not_applicable"
    assert "is not what KaniTTS writes" in (other.reason or "")


def test_a_loss_that_is_no_number_fails_every_item_and_says_where(tmp_path: Path, toys: Path) -> None:
    said = texts(12, 8)
    spoken(tmp_path, "train", said[:8], said[:8])
    data = spoken(tmp_path, "test", said[8:], said[8:])
    wild = {"recipe": {"steps": 30, "batch": 1, "lr": 1e30}, "seeds": 1, "continuations": 0}
    result = measured(tmp_path, toys, "slm", data, "train", **wild)
    assert result.status == "partial"
    assert result.coverage is not None
    assert [failure.stage for failure in result.coverage.failed] == ["train"] * 4
    assert "of 30, and the training stopped" in result.coverage.failed[0].error
    with pytest.raises(UserError, match="names no training data"):
        measured(tmp_path, toys, "slm", data, None)
