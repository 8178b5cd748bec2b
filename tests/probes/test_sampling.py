import numpy as np
import pytest
import torch
from probes_support import SMALL, random_frames, stack

from tokbench.probes.documents import opening, pack, spoken, written
from tokbench.probes.layout import Layout
from tokbench.probes.sampling import Sampling, write
from tokbench.probes.token_model import TokenModel, inputs


def prompts_of(layout, rng):
    given = [random_frames(layout, n, rng) for n in (3, 0, 5)]
    texts = [written(layout, text, given[1], name=f"u{i}") for i, text in enumerate(([1, 2], [3], [0, 0, 4, 1]))]
    return texts, given


@pytest.mark.parametrize("pattern", ["interleave", "delay"])
@pytest.mark.parametrize("sizes", [(7,), (7, 5, 9)])
def test_with_and_without_the_cache_the_same_is_written(pattern, sizes):
    layout = Layout.of(stack(*sizes), pattern=pattern, text=6)
    torch.manual_seed(0)
    model = TokenModel(layout, SMALL).eval()
    prompts, given = prompts_of(layout, np.random.default_rng(0))
    options = {"most": [12, 9, 14], "sampling": Sampling(temperature=1.5, top_p=0.95, seed=3)}
    cached = write(model, prompts, given, **options)
    plain = write(model, prompts, given, **options, cached=False)
    for one, two, before, most in zip(cached, plain, given, options["most"], strict=True):
        assert np.array_equal(one.frames, two.frames)
        assert one.ended == two.ended
        assert np.array_equal(one.frames[: len(before)], before)
        assert max(1, len(before)) <= len(one.frames) <= most
        assert set(layout.streams(one.frames)) == {f"q{i}" for i in range(len(sizes))}  # every id in its slot


def test_what_shares_the_batch_changes_nothing():
    layout = Layout.of(stack(7, 5), text=6)
    torch.manual_seed(0)
    model = TokenModel(layout, SMALL).eval()
    prompts, given = prompts_of(layout, np.random.default_rng(0))
    sampling = Sampling(seed=1)
    together = write(model, prompts, given, most=[10] * 3, sampling=sampling)
    alone = [write(model, [p], [g], most=[10], sampling=sampling)[0] for p, g in zip(prompts, given, strict=True)]
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(together, alone, strict=True))
    other = write(model, prompts, given, most=[10] * 3, sampling=Sampling(seed=2))
    assert not all(np.array_equal(a.frames, b.frames) for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize("pattern", ["interleave", "delay"])
def test_the_likeliest_continuation_of_a_taught_sequence_is_that_sequence(pattern):
    layout = Layout.of(stack(4, 4), pattern=pattern)
    frames = np.stack([[slot.first + (i + k) % 4 for k, slot in enumerate(layout.slots)] for i in range(9)])
    torch.manual_seed(0)
    model = TokenModel(layout, SMALL)
    batch = inputs(pack([[spoken(layout, frames)]]), layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step()
    prompt = opening(layout)
    for start in (0, 4, 9):
        made = write(model.eval(), [prompt], [frames[:start]], most=[20], sampling=Sampling(temperature=0))[0]
        assert made.ended
        assert np.array_equal(made.frames, frames)
