import json

import numpy as np
import pytest
import torch
from kani_support import random_checkpoint

from tokbench.errors import MissingWeights, TokensError
from tokbench.probes.kani import (
    END_OF_SPEECH,
    FIRST_CODE,
    KaniWriter,
    frame_ids,
    frames_of,
    merge_adapter,
    prompt_ids,
    without_repeats,
)


def test_known_ids():
    assert prompt_ids([1, 17, 9]) == [64403, 1, 17, 9, 2, 64404, 64405, 64401]
    frames = np.array([[0, 0, 0, 0], [4031, 1, 2, 4031]])
    ids = frame_ids(frames)
    assert ids == [64410, 68442, 72474, 76506, 68441, 68443, 72476, 80537]
    assert np.array_equal(frames_of([*prompt_ids([1]), *ids, 64402, 64406]), frames)
    assert np.array_equal(frames_of(ids), frames)


def test_ids_in_the_wrong_place_are_refused():
    ids = frame_ids(np.array([[5, 6, 7, 8]]))
    with pytest.raises(TokensError, match="68448 of frame 0 does not belong to codebook 0"):
        frames_of([ids[1], ids[0], *ids[2:]])
    with pytest.raises(TokensError, match="3 ids are no whole frames"):
        frames_of(ids[:3])
    with pytest.raises(TokensError, match=r"outside 0\.\.4031"):
        frame_ids(np.array([[0, 0, 0, 4032]]))
    with pytest.raises(TokensError, match="frames of 4 codes"):
        frame_ids(np.zeros((2, 3), np.int64))


def test_only_frames_that_repeat_whole_are_dropped():
    frames = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]])
    assert without_repeats(frames).tolist() == [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]]
    assert without_repeats(frames[:0]).shape == (0, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("kani"))


def test_a_random_lfm2_writes_whole_frames(checkpoint):
    writer = KaniWriter.load(str(checkpoint))
    assert writer.text_ids("hello there") == [1, 3, 4]
    options = {"most_frames": 5, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
    frames, ended = writer.write("hello there", **options, seed=1)
    assert frames.shape[1] == 4
    assert 1 <= len(frames) <= 5
    assert ended == (len(frames) < 5)
    again, _ = writer.write("hello there", **options, seed=1)
    assert np.array_equal(frames, again)
    assert not np.array_equal(frames, writer.write("hello there", **options, seed=2)[0])


def test_bits_are_those_of_the_slots_alone(checkpoint):
    writer = KaniWriter.load(str(checkpoint))
    frames = np.array([[3, 1, 4, 1], [3, 1, 4, 1], [5, 9, 2, 6]])
    made = writer.bits("hello", frames)
    # By hand, id after id, on the frames that are left.
    ids = [*prompt_ids([1, 3]), *frame_ids(frames[[0, 2]]), END_OF_SPEECH]
    with torch.inference_mode():
        logits = writer.model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    total = 0.0
    for place in range(len(ids) - 9, len(ids)):
        slot = (place - (len(ids) - 9)) % 4
        allowed = list(range(FIRST_CODE + 4032 * slot, FIRST_CODE + 4032 * (slot + 1)))
        allowed += [END_OF_SPEECH] if slot == 0 else []
        row = logits[place - 1]
        total += np.log2(np.exp(row[allowed]).sum()) - row[ids[place]] / np.log(2)
    assert made == pytest.approx(total, rel=1e-6)


def test_an_adapter_is_merged_with_its_scale(checkpoint, tmp_path):
    from safetensors.torch import save_file

    model = KaniWriter.load(str(checkpoint)).model
    target = model.model.layers[1].self_attn.q_proj
    before = target.weight.detach().clone()
    down, up = torch.randn(4, 16), torch.randn(16, 4)
    prefix = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16, "use_rslora": True}))
    merge_adapter(model, tmp_path)
    torch.testing.assert_close(target.weight.detach(), before + 8 * up @ down)
    save_file({"base_model.model.nowhere.lora_A.weight": down}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MissingWeights, match="nowhere"):
        merge_adapter(model, tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(MissingWeights, match="checkpoint=FOLDER"):
        KaniWriter.load(str(tmp_path))
