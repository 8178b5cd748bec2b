"""Reading tokens into text where the answer is known: spelt texts, noise, too few frames, too little data."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tokbench.errors import DatasetError, NotApplicable, TrainingError
from tokbench.metrics.wer import word_errors
from tokbench.probes.frames import Clock
from tokbench.probes.reader import BiLSTM, Reader, Shape, code_width
from tokbench.probes.reading import latent_statistics, lessons, make_reader, read, train_reader
from tokbench.probes.units import Units, spoken
from tokbench.store.store import Store
from tokbench.store.units import UnitKey
from tokbench.streams import StreamSpec
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.recipe import Recipe

WORDS = ("stone", "river", "green", "apple", "window", "seven", "table", "cloud", "paper", "music", "horse", "winter")
LETTERS = sorted({c for word in WORDS for c in word} | {" "})
SHAPE = Shape(entry=4000, width=32, hidden=32, dropout=0.0, mask=0.0)
RECIPE = Recipe(steps=180, batch=8, lr=0.02, warmup=10, seed=1)
CODES = StreamSpec("letters", "codes", Fraction(25), vocab=len(LETTERS))


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=4)) for _ in range(count)]


def spelt(text: str) -> dict[str, np.ndarray]:
    return {"letters": np.array([LETTERS.index(c) for c in text], np.int64)}


def wer(texts: list[str], said: list[str]) -> float:
    made = [word_errors(text, one, normaliser="none") for text, one in zip(texts, said, strict=True)]
    return sum(m["wer_errors"] for m in made) / sum(m["wer_words"] for m in made)


def trained(clock: Clock, tokens, units: Units, recipe: Recipe = RECIPE, **kwargs) -> tuple[Reader, list]:
    texts = sentences(200, 0)
    streams = [tokens(text) for text in texts]
    model = make_reader(
        clock, SHAPE, units, recipe, name="toy", latents=latent_statistics(clock, streams), codebooks={}
    )
    taught = lessons(clock, units, streams, texts)
    fitted = train_reader(model, taught, recipe, where="toy", units=units, **kwargs)
    return model, fitted.curves


@pytest.fixture(scope="module")
def units() -> Units:
    return Units.fit(sentences(200, 0), 40, where="toy")


def test_tokens_that_spell_the_text_are_read_and_noise_is_not(units: Units) -> None:
    clock = Clock.of([CODES], Fraction(25), name="toy")
    texts = sentences(60, 9)
    model, _ = trained(clock, spelt, units)
    heard = read(model, lessons(clock, units, [spelt(t) for t in texts], texts), units, beam=8)
    assert wer(texts, [one.greedy for one in heard]) < 0.02
    assert wer(texts, [one.beam for one in heard]) < 0.02

    rng = np.random.default_rng(0)

    def noise(text: str) -> dict[str, np.ndarray]:
        return {"letters": rng.integers(len(LETTERS), size=len(text))}

    deaf, _ = trained(clock, noise, units, replace(RECIPE, steps=60))
    heard = read(deaf, lessons(clock, units, [noise(t) for t in texts], texts), units, beam=8)
    assert wer(texts, [one.greedy for one in heard]) > 0.9
    assert wer(texts, [one.beam for one in heard]) > 0.9


def test_neighbours_in_a_batch_change_nothing(units: Units) -> None:
    clock = Clock.of([CODES], Fraction(25), name="toy")
    torch.manual_seed(0)
    model = Reader(clock, SHAPE, units.size)
    model.eval()
    short, long = lessons(clock, units, [spelt("stone"), spelt("green window seven")], ["stone", "green window seven"])
    from tokbench.probes.reading import collate

    alone = model.log_probs(collate(clock, [short.streams]), [short.frames])
    beside = model.log_probs(collate(clock, [long.streams, short.streams]), [long.frames, short.frames])
    torch.testing.assert_close(beside[1, : short.frames], alone[0], rtol=1e-5, atol=1e-5)


def test_every_tokenizer_has_the_same_number_of_parameters() -> None:
    shape = Shape(entry=128_000, width=128, hidden=96)
    specs = {
        "50": [StreamSpec("q", "codes", Fraction(50), vocab=50)],
        "500": [StreamSpec("q", "codes", Fraction(50), vocab=500)],
        "12800": [StreamSpec("q", "codes", Fraction(25, 2), vocab=12800)],
        "eight": [StreamSpec(f"q{k}", "codes", Fraction(75), vocab=1024) for k in range(8)],
        "packets": [StreamSpec("q", "codes", Fraction(750), vocab=256)],
        "latent": [StreamSpec("z", "latent", Fraction(50), dim=64)],
    }
    counts = {}
    for name, streams in specs.items():
        clock = Clock.of(streams, Fraction(25), name=name)
        latents = {s.name: (np.zeros(s.dim), np.ones(s.dim)) for s in streams if s.kind == "latent"}
        counts[name] = sum(p.numel() for p in Reader(clock, shape, 300, latents=latents).parameters())
        assert 25 <= clock.frame_rate < 50
    assert max(counts.values()) <= 1.04 * min(counts.values())
    with pytest.raises(NotApplicable, match="65536 codes do not fit into the 128000 parameters"):
        code_width(
            Clock.of([StreamSpec("q", "codes", Fraction(50), vocab=65536)], Fraction(25), name="x"), shape, name="x"
        )
    with pytest.raises(NotApplicable, match="samples of the waveform"):
        Clock.of([StreamSpec("pcm", "codes", Fraction(16000), vocab=65536, role="waveform")], Fraction(25), name="x")


def test_streams_of_several_rates_meet_at_the_finest() -> None:
    clock = Clock.of(
        [StreamSpec(f"q{k}", "codes", Fraction(12 * 2**k), vocab=9) for k in range(3)], Fraction(40), name="snac"
    )
    assert (clock.rate, clock.fold, clock.spread) == (48, 1, 1)
    aligned = clock.aligned({"q0": np.array([1, 2]), "q1": np.array([3, 4, 5, 6]), "q2": np.arange(8)})
    assert aligned["q0"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert aligned["q1"].tolist() == [3, 3, 4, 4, 5, 5, 6, 6]
    assert aligned["q2"].tolist() == list(range(8))
    ragged = clock.aligned({"q0": np.array([1, 2]), "q1": np.array([3, 4, 5]), "q2": np.arange(7)})
    assert [len(one) for one in ragged.values()] == [8, 8, 8]
    slow = Clock.of([StreamSpec("q", "codes", Fraction(25, 2), vocab=9)], Fraction(25), name="slow")
    assert (slow.fold, slow.spread, slow.frames(7)) == (1, 2, 14)
    fast = Clock.of([StreamSpec("q", "codes", Fraction(300), vocab=16)], Fraction(25), name="packets")
    assert (fast.fold, fast.spread, fast.frames(25)) == (12, 1, 3)


def test_latents_are_read_as_well(units: Units) -> None:
    table = np.random.default_rng(0).normal(5, 3, (len(LETTERS), 6)).astype(np.float32)
    clock = Clock.of([StreamSpec("z", "latent", Fraction(25), dim=6)], Fraction(25), name="toy")
    texts = sentences(30, 9)

    def vectors(text: str) -> dict[str, np.ndarray]:
        return {"z": table[spelt(text)["letters"]]}

    model, _ = trained(clock, vectors, units)
    heard = read(model, lessons(clock, units, [vectors(t) for t in texts], texts), units, beam=8)
    assert wer(texts, [one.greedy for one in heard]) < 0.05


def test_an_interrupted_probe_ends_as_an_undisturbed_one(tmp_path: Path, units: Units) -> None:
    clock = Clock.of([CODES], Fraction(25), name="toy")
    short = replace(RECIPE, steps=12, checkpoint_every_s=0.0, log_every=1)
    whole, curves = trained(clock, spelt, units, short)
    kept = Checkpoint(Store(tmp_path), UnitKey("checkpoint", {"name": "probe"}))

    class Stop(Exception):
        pass

    def stop(point: object) -> None:
        if point.step == 7:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        trained(clock, spelt, units, short, checkpoint=kept, log=stop)
    other = Units.fit(sentences(200, 0), 44, where="toy")
    with pytest.raises(TrainingError, match="was made with another units"):
        trained(clock, spelt, other, short, checkpoint=kept)
    resumed, again = trained(clock, spelt, units, short, checkpoint=kept)
    assert again == curves
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_texts_without_room_or_words_are_not_learnt_from(units: Units) -> None:
    clock = Clock.of([CODES], Fraction(25), name="toy")
    tight = lessons(clock, units, [spelt("st"), spelt("stone")], ["stone river green apple", "?"])
    assert [one.feasible for one in tight] == [False, True]
    model = Reader(clock, SHAPE, units.size)
    with pytest.raises(TrainingError, match=r"none of the 2 training utterances.*1 have more labels than frames"):
        train_reader(model, tight, RECIPE, where="toy", units=units)


def test_units_are_those_of_the_training_texts() -> None:
    texts = [spoken(t) for t in ("It’s Mr. Quilter's apple, again!", "an apple a day")]
    assert texts[0] == "it's mr quilter's apple again"
    units = Units.fit(texts, 30, where="toy")
    assert units.size == 30
    assert units.decode(units.encode(texts[0])) == texts[0]
    assert units.decode(units.encode("an épée")) == "an pe"  # letters that were never seen have no unit
    assert units.decode([]) == ""
    assert Units(units.definition).encode(texts[1]) == units.encode(texts[1])
    with pytest.raises(DatasetError, match=r"too little text for 300 units: its 2 texts give \d+. Train on more data"):
        Units.fit(texts, 300, where="toy")
    with pytest.raises(DatasetError, match="characters in its texts, which do not fit 5 units"):
        Units.fit(texts, 5, where="toy")
    with pytest.raises(DatasetError, match="has no characters"):
        Units.fit(["", ""], 5, where="toy")


def test_both_directions_are_those_of_packed_sequences() -> None:
    torch.manual_seed(0)
    ours = BiLSTM(5, 4, 2, 0.0)
    theirs = torch.nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for suffix, half in (("", ours.forwards[layer]), ("_reverse", ours.backwards[layer])):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(theirs, f"{name}_l{layer}{suffix}").copy_(getattr(half, f"{name}_l0"))
    frames, lengths = torch.randn(3, 7, 5), torch.tensor([7, 2, 5])
    packed = torch.nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    made = ours(frames, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(made[row, :length], expected[row, :length])
