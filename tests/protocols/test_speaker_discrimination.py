"""Speaker discrimination on toy voices whose global vector is exact and whose content is blind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.auditing import audit_results
from tokbench.comparison import read_table
from tokbench.config import TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.engines.local import LocalEngine
from tokbench.errors import DatasetError, UndefinedMetric
from tokbench.handle import TokenizerHandle
from tokbench.metrics.discrimination import histogram, probe_eers
from tokbench.metrics.eer import eer
from tokbench.protocols.speaker_discrimination import read_trials
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

CARD = """\
name: voices
summary: The voice is in the offset of the wave; codes are noise, or (leaky) the voice.
adapter: test_speaker_discrimination:Voices
family: toys
capabilities: [discrete, codebook]
streams: [{name: q0, rate_hz: 50, vocab: 40}]
globals: [{name: voice, dim: 2}]
input_rate: 16000
licence: MIT
"""


class Voices(Tokenizer):
    """The utterance's mean is its speaker's number / 100."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            speaker = round(float(wave.mean()) * 100)
            rng = np.random.default_rng(int(np.abs(wave).sum() * 1e3))
            codes = rng.integers(40, size=len(wave) // 320)
            if self.card.params.get("leaky"):
                codes[::2] = speaker
            vector = np.array([np.cos(speaker), np.sin(speaker)], np.float32)
            made.append(Encoded({"q0": codes.astype(np.int64)}, len(wave), {"voice": vector}))
        return made

    def codebook(self, stream: str) -> np.ndarray:
        assert stream == "q0"
        return np.eye(40, dtype=np.float32)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(0)
    made = []
    for s in range(6):
        for u in range(5):
            path = folder / f"s{s}u{u}.wav"
            wave = 0.01 * rng.standard_normal(16000)
            soundfile.write(path, wave - wave.mean() + (s + 1) / 100, 16000, subtype="FLOAT")
            made.append(
                Utterance(
                    f"s{s}u{u}", path, f"s{s}", text=f"Sentence {u}." if u < 2 else None, gender="fm"[s % 2],
                    chapter=f"s{s}c{u // 3}",
                )
            )  # fmt: skip
    return Dataset("voices", tuple(made), licence="CC0-1.0")


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    (folder / "tokenizers" / "voices.yaml").write_text(CARD)
    leaky = CARD.replace("name: voices", "name: leaky") + "params: {leaky: true}\n"
    (folder / "tokenizers" / "leaky.yaml").write_text(leaky)
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


def measured(data: Dataset, tmp_path: Path, toys: Path, tokenizer: str, **params: object) -> Result:
    card = find_card(TaskCard, "speaker")
    cell = Cell(
        TokenizerHandle(tokenizer), card, prepare_dataset(data, tmp_path / "index"), {}, dict(card.params) | params
    )
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=200, paths=(toys,))
    return next(run([cell], options, LocalEngine(1)))


def value(result: Result, metric: str) -> float:
    found = result.estimate(metric)
    assert found is not None, [e.metric for e in result.estimates]
    assert found.value is not None, found
    return found.value


def test_the_voice_is_where_it_is(voices: Dataset, tmp_path: Path, toys: Path) -> None:
    result = measured(voices, tmp_path, toys, "voices")
    assert result.status == "complete"
    for suffix in ("", "_same_gender", "_balanced"):
        assert value(result, f"eer_speaker{suffix}[voice:global]") == 0
        assert value(result, f"eer_leakage{suffix}[q0:histogram]") == pytest.approx(0.5, abs=0.15)
    assert value(result, "eer_probe[q0:pooled]") > 0.3
    everything = result.estimate("eer_speaker[voice:global]")
    assert everything is not None
    # 6 speakers x 6 pairs of another chapter; 30 * 29 / 2 - 60 pairs of two speakers, 2 texts x 15 pairs left out
    assert (everything.note or "").startswith("36 same-speaker and 345 different-speaker trials (all pairs)")
    assert everything.clusters == 6
    balanced = result.estimate("eer_speaker_balanced[voice:global]")
    assert balanced is not None
    assert "list sha256" in (balanced.note or "")
    leaky = measured(voices, tmp_path, toys, "leaky")
    assert value(leaky, "eer_leakage[q0:histogram]") < 0.05
    assert value(leaky, "eer_leakage[q0:pooled]") == pytest.approx(value(leaky, "eer_leakage[q0:histogram]"))
    assert audit_results([tmp_path / "out"]).findings == []


def test_trials_are_a_table_that_the_audit_checks(voices: Dataset, tmp_path: Path, toys: Path) -> None:
    result = measured(voices, tmp_path, toys, "leaky")
    trials = read_table(result, "trials")
    for variant, chosen in (("", trials), ("_balanced", trials[trials["balanced"]])):
        scores, target = chosen["score[q0:pooled]"].to_numpy(), chosen["target"].to_numpy()
        again = eer(scores[target], scores[~target]).value
        assert again == pytest.approx(value(result, f"eer_leakage{variant}[q0:pooled]"), abs=1e-12)
    assert trials.loc[trials["same_gender"], "speaker_a"].str[1:].astype(int).mod(2).nunique() == 2
    assert result.folder is not None
    path = result.folder / "trials.parquet"
    trials.loc[3, "score[q0:pooled]"] += 0.01
    trials.to_parquet(path, index=False)
    record = json.loads((result.folder / "result.json").read_text())
    record["tables"]["trials"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (result.folder / "result.json").write_text(json.dumps(record))
    findings = audit_results([tmp_path / "out"]).findings
    assert "derived table 'trials' does not follow from the rows" in [finding.what for finding in findings]


def test_a_published_list_is_taken_as_it_is(voices: Dataset, tmp_path: Path, toys: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1 s0u0.wav s0u1\n\n0 s0u0 s1u0\n0 s2u0 s1u0\n")
    result = measured(voices, tmp_path, toys, "voices", trials=str(path))
    found = result.estimate("eer_speaker[voice:global]")
    assert found is not None
    assert found.value == 0
    assert found.n == 3
    path.write_text("1 s0u0 nobody\n")
    with pytest.raises(DatasetError, match=r"trials\.txt:1: names 'nobody'"):
        measured(voices, tmp_path, toys, "voices", trials=str(path))
    path.write_text("yes a b\n")
    with pytest.raises(DatasetError, match=r"trials\.txt:1: is not a trial"):
        read_trials(path)
    path.write_text("\n")
    with pytest.raises(DatasetError, match="has no trials"):
        read_trials(path)


def test_waveforms_and_single_speakers_are_refused(voices: Dataset, tmp_path: Path, toys: Path) -> None:
    identity = measured(voices, tmp_path, toys, "identity")
    assert identity.status == "not_applicable"
    assert "has no global vector" in (identity.reason or "")
    with pytest.raises(DatasetError, match="all utterances are of the speaker 's0'"):
        measured(replace(voices, utterances=voices.utterances[:5]), tmp_path, toys, "voices")
    with pytest.raises(DatasetError, match="no speaker has two utterances"):
        measured(replace(voices, utterances=voices.utterances[::5]), tmp_path, toys, "voices")


def test_the_probe_finds_what_a_cosine_does_not() -> None:
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(24), 12)
    hidden = rng.standard_normal((24, 8))[speakers]
    vectors = np.hstack(
        [50 * rng.standard_normal((len(speakers), 12)), hidden + 0.02 * rng.standard_normal(hidden.shape)]
    )
    assert np.mean(probe_eers(vectors, speakers, seed=0)) < 0.15
    assert np.mean(probe_eers(vectors[:, :12], speakers, seed=0)) == pytest.approx(0.5, abs=0.06)
    assert probe_eers(vectors, speakers, seed=1) == probe_eers(vectors, speakers, seed=1)
    with pytest.raises(UndefinedMetric, match="needs four speakers with two utterances, there are 1"):
        probe_eers(vectors[:12], speakers[:12], seed=0)


def test_histograms_are_relative() -> None:
    assert histogram([5, 5, 9], np.array([2, 5, 9])).tolist() == pytest.approx([0, 2 / 3, 1 / 3])
