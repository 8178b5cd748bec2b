"""Sources whose answer is known, and trainings that are interrupted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes_support import SMALL, random_frames, stack

from tokbench.errors import CardError, TrainingError
from tokbench.metrics.catalogue import metric
from tokbench.probes.decoder import DecoderConfig
from tokbench.probes.documents import spoken
from tokbench.probes.layout import Layout
from tokbench.probes.teaching import Course, decoder_config, plan_rows, rebuilt, teach
from tokbench.probes.token_model import score
from tokbench.store.store import Store
from tokbench.store.units import UnitKey
from tokbench.training.checkpoint import Checkpoint
from tokbench.training.recipe import Recipe

RECIPE = Recipe(steps=120, batch=4, lr=0.01, warmup=10, weight_decay=0.05)
TINY = DecoderConfig(layers=1, width=32, heads=2, kv_heads=1)


def course_of(layout, sequences):
    documents = [spoken(layout, codes[:, None] + layout.slots[0].first) for codes in sequences]
    return Course(layout, documents, [len(d) / 25 for d in documents])


def perplexity(model, course):
    made = score(model, course.documents, steps=256)
    bits, count = made.codes.sum(axis=1) / np.log(2), made.counts.sum(axis=1)
    return metric("lm_perplexity").value({"lm_code_bits": bits, "lm_codes": count})


def test_uniform_tokens_have_the_perplexity_of_their_vocabulary():
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(8))
    train, test = (course_of(layout, rng.integers(0, 8, (n, 60))) for n in (400, 200))
    model, _ = teach(train, TINY, RECIPE, row_seconds=10)
    assert perplexity(model.eval(), test) == pytest.approx(8, rel=0.01)


def test_a_markov_source_reaches_its_entropy_rate():
    rng = np.random.default_rng(1)
    layout = Layout.of(stack(4))
    matrix = rng.dirichlet([0.4] * 4, size=4)
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    rate = -(stationary[:, None] * matrix * np.log2(np.clip(matrix, 1e-300, 1))).sum()

    def walk(length):
        states = [int(rng.choice(4, p=stationary))]
        while len(states) < length:
            states.append(int(rng.choice(4, p=matrix[states[-1]])))
        return np.array(states)

    train, test = (course_of(layout, [walk(60) for _ in range(n)]) for n in (400, 200))
    model, _ = teach(train, TINY, RECIPE, row_seconds=10)
    made = score(model.eval(), test.documents, steps=256)
    # The first code of a walk is drawn from the stationary distribution; the others follow the chain.
    first = -(stationary * np.log2(stationary)).sum()
    expected = (59 * rate + first) / 60
    assert made.codes.sum() / np.log(2) / made.counts.sum() == pytest.approx(expected, rel=0.02)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(5, 3), text=4)
    documents = [spoken(layout, random_frames(layout, n, rng)) for n in (9, 4, 7, 12, 3)]
    course = Course(layout, documents, [len(d) / 50 for d in documents])
    recipe = Recipe(steps=12, batch=1, lr=0.01, checkpoint_every_s=0, log_every=1, seed=5)
    dropped = DecoderConfig(layers=1, width=32, heads=2, kv_heads=1, dropout=0.2)
    whole, kept = teach(course, dropped, recipe, row_seconds=0.3)

    class Killed(Exception):
        pass

    def kill(point):
        if point.step == 7:
            raise Killed

    checkpoint = Checkpoint(Store(tmp_path), UnitKey("checkpoint", {"name": "probe"}, "a probe"))
    with pytest.raises(Killed):
        teach(course, dropped, recipe, row_seconds=0.3, checkpoint=checkpoint, log=kill)
    again, resumed = teach(course, dropped, recipe, row_seconds=0.3, checkpoint=checkpoint)
    assert resumed.record["facts"]["resumed_at"] == [6]
    assert resumed.record["curves"] == kept.record["curves"]
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    back = rebuilt(course, dropped, resumed)
    assert np.array_equal(score(back, documents, steps=99).codes, score(whole.eval(), documents, steps=99).codes)


def test_a_vocabulary_that_changed_since_the_checkpoint_is_named(tmp_path):
    rng = np.random.default_rng(0)
    recipe = Recipe(steps=4, batch=1, lr=0.01, checkpoint_every_s=0)
    checkpoint = Checkpoint(Store(tmp_path), UnitKey("checkpoint", {"name": "probe"}, "a probe"))

    def stop(point):
        raise KeyboardInterrupt

    courses = []
    for size in (5, 6):
        layout = Layout.of(stack(size))
        documents = [spoken(layout, random_frames(layout, 6, rng))]
        courses.append(Course(layout, documents, [1.0]))
    with pytest.raises(KeyboardInterrupt):
        teach(
            courses[0],
            SMALL,
            replace(recipe, log_every=2),
            row_seconds=1,
            checkpoint=checkpoint,
            log=stop,
        )
    with pytest.raises(TrainingError, match=r"made with another (data|vocabulary)"):
        teach(courses[1], SMALL, recipe, row_seconds=1, checkpoint=checkpoint)


def test_rows_are_planned_by_seconds_alone():
    seconds = [3.0, 2.0, 2.5, 9.0, 0.5]
    plan = plan_rows(seconds, row_seconds=5, seed=0)
    assert sorted(n for row in plan for n in row) == [0, 1, 2, 3, 4]
    assert all(sum(seconds[n] for n in row) <= 5 or len(row) == 1 for row in plan)
    assert plan == plan_rows(seconds, row_seconds=5, seed=0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"widht": 3}, "'widht' is no field"),
        ({"width": "wide"}, "must be a number"),
        ({"width": 30, "heads": 4}, "do not fit together"),
    ],
)
def test_a_model_that_cannot_be_is_refused(params, message):
    with pytest.raises(CardError, match=message):
        decoder_config(params, where="task slm: model")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bf16_and_compiled_it_learns_on_cuda():
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(16, 16), text=8)
    documents = [spoken(layout, np.repeat(random_frames(layout, 8, rng), 20, axis=0)) for _ in range(64)]
    course = Course(layout, documents, [len(d) / 50 for d in documents])
    config = DecoderConfig(layers=2, width=128, heads=4, kv_heads=2)
    recipe = Recipe(steps=150, batch=4, lr=0.003, warmup=10)
    model, kept = teach(course, config, recipe, row_seconds=20, device="cuda")
    facts = kept.record["facts"]
    assert (facts["precision"], facts["device"]) == ("bf16", "cuda")
    on_cuda = score(model.eval(), documents[:8], steps=4096, device="cuda")
    on_cpu = score(model.cpu(), documents[:8], steps=4096)
    np.testing.assert_allclose(on_cuda.codes, on_cpu.codes, rtol=0.02, atol=0.5)
    # 8 new frames of 2 x 4 bits in 160 are all there is to know.
    assert on_cpu.codes.sum() / on_cpu.counts.sum() < 0.8 * np.log(16)
