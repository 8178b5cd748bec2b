"""Voice conversion with toy voices (a tone's pitch) and a judge that hears nothing but pitch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.auditing import audit_results
from tokbench.comparison import read_table
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.dataset import Dataset, Utterance
from tokbench.data.load import load_dataset
from tokbench.engines.local import LocalEngine
from tokbench.errors import CardError, DatasetError
from tokbench.handle import TokenizerHandle
from tokbench.judges.base import Evidence, Judge
from tokbench.metrics.catalogue import metric
from tokbench.metrics.eer import eer
from tokbench.protocols.voice_conversion import VoiceConversion, draw_pairs, first_codebook, folder_pairs, pairs_hash
from tokbench.registry import find_card, set_extra_paths
from tokbench.results import Result
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

RATE = 16000
CARD = """\
name: singer
summary: A tone; its pitch is the global vector, its length the content.
adapter: test_voice_conversion:Singer
family: toys
capabilities: [discrete, decode, swap_global]
streams: [{name: q0, rate_hz: 50, vocab: 4}, {name: q1, rate_hz: 50, vocab: 1000}]
globals: [{name: pitch, dim: 1}]
input_rate: 16000
output_rate: 16000
licence: MIT
"""
EAR = """\
name: ear
summary: Hears pitch.
kind: speaker
adapter: test_voice_conversion:Ear
input_rate: 16000
licence: MIT
"""


def tone(pitch: float, samples: int) -> Wave:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(samples) / RATE)).astype(np.float32)


def pitch_of(wave: Wave) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave))


class Singer(Tokenizer):
    """`params.stuck` ignores the reference; `params.stack` carries the pitch in its second stream instead."""

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        made = []
        for wave in wavs:
            pitch = pitch_of(wave)
            frames = len(wave) // 320
            streams = {"q0": np.zeros(frames, np.int64), "q1": np.full(frames, round(pitch), np.int64)}
            made.append(Encoded(streams, len(wave), {"pitch": np.array([pitch], np.float32)}))
        return made

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        voices = items if globals_from is None or self.card.params.get("stuck") else globals_from
        if self.card.params.get("stack"):
            return [tone(float(item.streams["q1"][0]), item.n_samples) for item in items]
        return [tone(float(v.globals["pitch"][0]), i.n_samples) for i, v in zip(items, voices, strict=True)]


class Ear(Judge):
    """A bump at the pitch."""

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        grid = np.arange(100, 1000, 10)
        return [{"embedding": np.exp(-(((grid - pitch_of(w)) / 60) ** 2)).astype(np.float32)} for w in wavs]


@pytest.fixture(scope="module")
def singers(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("singers")
    made = []
    for s in range(4):
        for u in range(3):
            path = folder / f"s{s}u{u}.wav"
            soundfile.write(path, tone(200 + 200 * s + u, RATE // 2 + 320 * u), RATE, subtype="FLOAT")
            made.append(Utterance(f"s{s}u{u}", path, f"s{s}", text=f"verse {(u + s) % 4}", gender="fm"[s % 2]))
    return Dataset("singers", tuple(made), licence="CC0-1.0")


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "content"
    (folder / "tokenizers").mkdir(parents=True)
    (folder / "judges").mkdir()
    for name in ("singer", "stuck", "stack"):
        extra = "" if name == "singer" else f"params: {{{name}: true}}\n"
        (folder / "tokenizers" / f"{name}.yaml").write_text(CARD.replace("name: singer", f"name: {name}") + extra)
    (folder / "judges" / "ear.yaml").write_text(EAR)
    set_extra_paths((folder,))
    yield folder
    set_extra_paths(())


def measured(data: Dataset, tmp_path: Path, toys: Path, tokenizer: str, task: str = "vc", **params: object) -> Result:
    card = find_card(TaskCard, task)
    judges = {"ear": find_card(JudgeCard, "ear")}
    cell = Cell(
        TokenizerHandle(tokenizer), card, prepare_dataset(data, tmp_path / "index"), judges, dict(card.params) | params
    )
    options = Options(store=tmp_path / "store", output=tmp_path / "out", draws=200, paths=(toys,))
    return next(run([cell], options, LocalEngine(1)))


def value(result: Result, name: str) -> float:
    found = result.estimate(name)
    assert found is not None, [e.metric for e in result.estimates]
    assert found.value is not None, found
    return found.value


def test_a_change_of_voice_is_told_from_none(singers: Dataset, tmp_path: Path, toys: Path) -> None:
    good = measured(singers, tmp_path, toys, "singer", pairs=10)
    assert good.status == "complete"
    assert value(good, "vc_eer[ear]") == 0
    assert value(good, "vc_eer_verification[ear]") == 0
    assert value(good, "similarity_target[ear]") > 0.99
    stuck = measured(singers, tmp_path, toys, "stuck", pairs=10)
    assert value(stuck, "vc_eer[ear]") == 1  # an unchanged voice, never folded back
    assert value(stuck, "vc_eer_verification[ear]") > 0.4
    assert value(stuck, "similarity_source[ear]") > 0.99
    for result in (good, stuck):
        assert value(result, "vc_eer_real[ear]") == 0
        assert value(result, "vc_eer_verification_real[ear]") == 0
        estimate = result.estimate("vc_eer[ear]")
        assert estimate is not None
        assert (estimate.note or "").startswith("10 pairs, list sha256 ")
        trials = read_table(result, "trials")
        for role, suffix in (("converted", ""), ("real", "_real")):
            own = trials[trials["role"] == role]
            again = eer(own["score"][own["target"]], own["score"][~own["target"]]).value
            assert again == pytest.approx(value(result, f"vc_eer_verification{suffix}[ear]"), abs=1e-12)
    assert {(clip.kind) for clip in good.samples} == {"source", "reference", "converted"}
    assert audit_results([tmp_path / "out"]).findings == []


def test_a_stack_takes_the_other_codebooks_of_the_reference(singers: Dataset, tmp_path: Path, toys: Path) -> None:
    result = measured(singers, tmp_path, toys, "stack", "vc-first-codebook", pairs=6)
    assert value(result, "vc_eer[ear]") == 0
    source = Encoded({"a": np.arange(5), "b": np.zeros(5, np.int64)}, 100)
    reference = Encoded({"a": np.zeros(3, np.int64), "b": np.array([7, 8, 9])}, 60)
    mixed = first_codebook(source, reference, ["a", "b"])
    assert mixed.streams["a"].tolist() == [0, 1, 2, 3, 4]
    assert mixed.streams["b"].tolist() == [7, 8, 9, 7, 8]
    assert mixed.n_samples == 100


def test_replayed_conversions_are_a_row(singers: Dataset, tmp_path: Path, toys: Path) -> None:
    folder = tmp_path / "published"
    for name, source, target in (("1_a_b", 300, 600), ("2_b_a", 600, 300)):
        for part, pitch in (("src", source), ("tgt", target), ("system", target + 5)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / part / f"{name}.wav", tone(pitch, RATE // 2), RATE)
    data = load_dataset(f"folder:{folder}?speaker=(?:src/\\d_|tgt/\\d_\\w_|^[^/]+/)(\\w)")
    assert [item.id for item in folder_pairs(data)] == ["1_a_b", "2_b_a"]
    result = measured(data, tmp_path, toys, f"replay:{folder / 'system'}")
    assert result.status == "complete"
    assert value(result, "vc_eer[ear]") == 0
    assert result.estimate("vc_eer_real[ear]") is None
    (folder / "tgt" / "2_b_a.wav").unlink()
    with pytest.raises(DatasetError, match="'2_b_a' is in only one of src and tgt"):
        folder_pairs(load_dataset(f"folder:{folder}?speaker=(?:src/\\d_|tgt/\\d_\\w_|^[^/]+/)(\\w)"))


@pytest.mark.parametrize(
    ("tokenizer", "task", "reason"),
    [
        ("identity", "vc", "has no global vector that could be swapped"),
        ("kmeans-mfcc-500", "vc-first-codebook", "has no stack of codebooks"),
    ],
)
def test_what_cannot_convert_is_not_applicable(
    singers: Dataset, tmp_path: Path, toys: Path, tokenizer: str, task: str, reason: str
) -> None:
    result = measured(singers, tmp_path, toys, tokenizer, task)
    assert result.status == "not_applicable"
    assert reason in (result.reason or "")


def test_pairs_are_drawn_by_the_seed(singers: Dataset) -> None:
    first = draw_pairs(singers, count=12, seed=0)
    assert [i.id for i in first] == [i.id for i in draw_pairs(singers, count=12, seed=0)]
    assert pairs_hash([i.id for i in first]) != pairs_hash([i.id for i in draw_pairs(singers, count=12, seed=1)])
    assert len({i.id for i in first}) == 12
    for item in first:
        source, reference, real = (item.utterances[r] for r in ("source", "reference", "real"))
        assert source.speaker != reference.speaker == real.speaker
        assert reference.id != real.id
        assert source.text not in (reference.text, real.text)
    alone = replace(singers, utterances=singers.utterances[:3])
    with pytest.raises(DatasetError, match="voice conversion needs two"):
        draw_pairs(alone, count=3, seed=0)
    with pytest.raises(DatasetError, match="no speaker has two utterances with other words"):
        draw_pairs(replace(singers, utterances=singers.utterances[::3]), count=3, seed=0)
    with pytest.raises(CardError, match="'magic' is no way to convert"):
        VoiceConversion(find_card(TaskCard, "vc"), {}, {"mode": "magic"}, 0)


def test_the_paired_rate_is_that_of_its_scores() -> None:
    columns = {
        "similarity_target[j]": np.array([0.6, 0.7, 0.8, 0.5]), "similarity_source[j]": np.array([0.4, 0.3, 0.2, 0.1]),
    }  # fmt: skip
    one = metric("vc_eer[j]")
    assert one.value(columns) == 0
    columns = {
        "similarity_target[j]": np.array([0.9, 0.8, 0.4, 0.7]), "similarity_source[j]": np.array([0.5, 0.3, 0.2, 0.6]),
    }  # fmt: skip
    assert one.value(columns) == 0.25
    columns = {name: np.full(4, 0.5) for name in columns}
    assert one.value(columns) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("system", "expected"), [("kanade_25hz", 0.0), ("ticodec", 1.0)])
def test_published_conversions_have_the_known_rates(shared: Path, tmp_path: Path, system: str, expected: float) -> None:
    """TiCodec leaves the voice as it was, Kanade changes it, under Resemblyzer."""
    pytest.importorskip("torch")
    folder = shared / "data" / "published-audio" / "voice_conversion"
    data = load_dataset(f"folder:{folder}?speaker=(?:src/\\d+_|tgt/\\d+_p\\d+_|^[^/]+/)(\\w+?)(?=[_.])")
    judges = {"resemblyzer": find_card(JudgeCard, "resemblyzer")}
    card = find_card(TaskCard, "vc")
    cell = Cell(
        TokenizerHandle(f"replay:{folder / system}"), card, prepare_dataset(data, tmp_path / "index"), judges, {}
    )
    (result,) = run([cell], Options(store=tmp_path / "s", output=tmp_path / "o", draws=200), LocalEngine(1))
    assert value(result, "vc_eer[resemblyzer]") == expected
