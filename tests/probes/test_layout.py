from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probes_support import stack

from tokbench.errors import NotApplicable, TokensError
from tokbench.probes.layout import PAD, SPECIALS, Layout, choose_layout
from tokbench.streams import StreamSpec

SNAC = [StreamSpec(f"l{k}", "codes", Fraction(12000, 1024) * 2**k, 10 + k) for k in range(3)]


def test_equal_rates_interleave_in_the_order_of_the_card():
    layout = Layout.of(stack(4, 3), text=2)
    assert [(s.stream, s.first, s.size) for s in layout.slots] == [("q0", SPECIALS + 2, 4), ("q1", SPECIALS + 7, 3)]
    assert layout.end == SPECIALS + 6
    assert layout.size == SPECIALS + 2 + 4 + 1 + 3
    assert layout.block(0) == (SPECIALS + 2, 5)  # with the end
    frames = layout.frames({"q0": np.array([0, 3]), "q1": np.array([2, 1])})
    ids, slots = layout.steps(frames)
    assert ids[:, 0].tolist() == [7, 14, 10, 13, 11]
    assert slots[:, 0].tolist() == [0, 1, 0, 1, 0]
    assert layout.steps_per_second == 50


def test_delay_shifts_every_slot_and_ends_in_the_first_column():
    layout = Layout.of(stack(4, 3, 2), pattern="delay")
    frames = layout.frames({"q0": np.array([0, 3]), "q1": np.array([2, 1]), "q2": np.array([0, 1])})
    ids, slots = layout.steps(frames)
    a, b, c = (s.first for s in layout.slots)
    assert ids.tolist() == [[a, PAD, PAD], [a + 3, b + 2, PAD], [layout.end, b + 1, c], [PAD, PAD, c + 1]]
    assert slots.tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2], [-1, -1, 2]]
    assert layout.steps_per_second == 25


def test_ragged_rates_are_written_in_the_order_of_time():
    layout = Layout.of(SNAC)
    assert [(s.stream, s.place) for s in layout.slots] == [
        ("l0", 0), ("l1", 0), ("l2", 0), ("l2", 1), ("l1", 1), ("l2", 2), ("l2", 3),
    ]  # fmt: skip
    assert layout.frame_rate == Fraction(12000, 1024)


def test_a_frame_that_is_not_complete_is_written_as_far_as_it_goes():
    layout = Layout.of(SNAC)
    frames = layout.frames({"l0": np.array([1]), "l1": np.array([1, 2]), "l2": np.array([0, 1, 2])})
    assert (frames < 0).tolist() == [[False] * 6 + [True]]
    ids, slots = layout.steps(frames)
    assert slots[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert ids[-1, 0] == layout.end


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_streams_come_back(data):
    specs = data.draw(st.sampled_from([stack(5), stack(3, 4), SNAC]))
    layout = Layout.of(
        specs,
        pattern=data.draw(st.sampled_from(["interleave", "delay"])),
        longest_run=data.draw(st.sampled_from([0, 1, 3])),
        fold=data.draw(st.integers(1, 3)) if len(specs) == 1 else 1,
    )
    count = data.draw(st.integers(0, 12))
    per_frame = {s.name: sum(slot.stream == s.name for slot in layout.slots) for s in specs}
    streams = {
        s.name: np.array(data.draw(st.lists(st.integers(0, min(1, s.vocab - 1)), min_size=n, max_size=n)), np.int64)
        for s in specs
        for n in (per_frame[s.name] * count,)
    }
    back = layout.streams(layout.frames(streams))
    assert all(np.array_equal(back[name], codes) for name, codes in streams.items())
    if layout.longest_run > 1 and count:
        assert len(layout.frames(streams)) <= count


def test_runs_become_one_frame_and_a_length():
    layout = Layout.of(stack(9), longest_run=3)
    frames = layout.frames({"q0": np.array([5, 5, 5, 5, 2, 2, 7])})
    assert (frames[:, 0] - layout.slots[0].first).tolist() == [5, 5, 2, 7]
    assert (frames[:, 1] - layout.slots[1].first + 1).tolist() == [3, 1, 2, 1]


def test_the_rule_that_chooses_a_layout():
    assert choose_layout(stack(4, 4), most_steps=100).pattern == "interleave"
    delayed = choose_layout(stack(*[4] * 12), most_steps=100)
    assert (delayed.pattern, delayed.steps_per_second, len(delayed.slots)) == ("delay", 25, 12)
    folded = choose_layout([StreamSpec("bytes", "codes", Fraction(750), 256)], most_steps=100)
    assert (folded.pattern, len(folded.slots), folded.steps_per_second) == ("delay", 8, 93.75)
    assert "delayed columns" in folded.describe()
    stacked = choose_layout(stack(4, 4, rate="75"), most_steps=60)
    assert (stacked.pattern, stacked.steps_per_second) == ("delay", 37.5)
    assert [(s.stream, s.place) for s in stacked.slots] == [("q0", 0), ("q1", 0), ("q0", 1), ("q1", 1)]
    with pytest.raises(NotApplicable, match="64"):
        choose_layout([StreamSpec("bits", "codes", Fraction(16000), 2)], most_steps=100)
    with pytest.raises(NotApplicable, match="samples, 16000 a second"):
        choose_layout([StreamSpec("pcm", "codes", Fraction(16000), 65536, role="waveform")], most_steps=400)
    with pytest.raises(NotApplicable, match="continuous"):
        choose_layout([StreamSpec("z", "latent", Fraction(25), dim=8)], most_steps=100)


def test_codes_outside_their_vocabulary_are_refused():
    layout = Layout.of(stack(4))
    with pytest.raises(TokensError, match=r"outside 0\.\.3"):
        layout.frames({"q0": np.array([4])})
    with pytest.raises(TokensError, match="slot 0"):
        layout.streams(np.array([[layout.end]]))
