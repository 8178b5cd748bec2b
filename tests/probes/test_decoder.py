import numpy as np
import pytest
import torch
from probes_support import SMALL, random_frames, stack

from tokbench.probes.decoder import Decoder, DecoderConfig, document_mask, flex_mask
from tokbench.probes.documents import pack, pieces, spoken, written
from tokbench.probes.layout import Layout
from tokbench.probes.token_model import TokenModel, inputs, score


def test_equals_transformers_llama_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=32, intermediate_size=SMALL.hidden_width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, attention_bias=False, rope_theta=10_000.0,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    reference = transformers.LlamaModel(config).eval()
    ours = Decoder(SMALL).eval()
    for block, layer in zip(ours.blocks, reference.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        weights = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        block.qkv.weight.data = torch.cat([w.data for w in weights])
        block.out.weight.data = attention.o_proj.weight.data
        block.gate_up.weight.data = torch.cat([mlp.gate_proj.weight.data, mlp.up_proj.weight.data])
        block.down.weight.data = mlp.down_proj.weight.data
        block.before_attention.weight.data = torch.rand(32)
        layer.input_layernorm.weight.data = block.before_attention.weight.data
    ids = torch.randint(0, 11, (3, 17))
    with torch.inference_mode():
        wanted = reference(input_ids=ids).last_hidden_state
        got = ours(reference.embed_tokens(ids), torch.arange(17).expand(3, 17))
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["interleave", "delay"])
def test_packing_equals_separate_sequences(pattern):
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(7, 5, 9), pattern=pattern)
    torch.manual_seed(1)
    model = TokenModel(layout, SMALL).eval()
    documents = [spoken(layout, random_frames(layout, n, rng)) for n in (4, 1, 9, 6, 2)]
    packed = score(model, documents, steps=64)
    alone = [score(model, [one], steps=1) for one in documents]
    np.testing.assert_allclose(packed.codes, np.concatenate([one.codes for one in alone]), atol=1e-5)
    np.testing.assert_allclose(packed.end, np.concatenate([one.end for one in alone]), atol=1e-5)
    assert packed.counts.tolist() == [[n] * 3 for n in (4, 1, 9, 6, 2)]
    # The training loss is the same quantity, over all ids and the ends.
    loss = model(**inputs(pack([documents[:2], documents[2:]]), layout))["loss"].item()
    assert loss == pytest.approx((packed.codes.sum() + packed.end.sum()) / (packed.counts.sum() + 5), rel=1e-5)


def test_a_step_never_sees_another_document_nor_the_future():
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(7))
    model = TokenModel(layout, SMALL).eval()
    first, second = random_frames(layout, 6, rng), random_frames(layout, 8, rng)
    rows = pack([[spoken(layout, first), spoken(layout, second)]])
    changed = random_frames(layout, 6, rng)
    other = pack([[spoken(layout, changed), spoken(layout, second)]])
    hidden = [
        model.hidden(*(torch.from_numpy(x) for x in (r.ids, r.documents, r.positions))).detach() for r in (rows, other)
    ]
    assert torch.equal(hidden[0][:, 8:], hidden[1][:, 8:])
    assert not torch.allclose(hidden[0][:, 1:8], hidden[1][:, 1:8])
    mask = document_mask(torch.tensor([[1, 1, 2, 0]]))[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_voice_and_a_text_stand_before_the_frames_and_are_not_predicted():
    rng = np.random.default_rng(0)
    layout = Layout.of(stack(7, 5), text=10)
    model = TokenModel(layout, SMALL, voice=4).eval()
    frames = random_frames(layout, 3, rng)
    voices = rng.standard_normal((2, 4)).astype(np.float32)
    documents = [written(layout, [3, 1, 4], frames, voice=v) for v in voices]
    assert (documents[0].slots[:6] == -1).all()
    scores = score(model, documents, steps=64)
    assert scores.counts.tolist() == [[3, 3], [3, 3]]
    assert not np.allclose(scores.codes[0], scores.codes[1])
    # Twice as long a vector is the same voice.
    longer = score(model, [written(layout, [3, 1, 4], frames, voice=2 * voices[0])], steps=64)
    np.testing.assert_allclose(longer.codes[0], scores.codes[0], atol=1e-5)


def test_pieces_of_a_long_utterance_have_one_beginning_and_one_end():
    layout = Layout.of(stack(7))
    frames = random_frames(layout, 10, np.random.default_rng(0))
    made = pieces(layout, frames, most=4)
    assert [len(one) for one in made] == [5, 5, 4]
    assert [int(one.ids[0, 0]) for one in made] == [1, 2, 2]
    assert [int((one.ids == layout.end).sum()) for one in made] == [0, 0, 1]


DOCUMENTS = torch.tensor([[1] * 100 + [2] * 37 + [3] * 90 + [0] * 29, [4] * 256])
POSITIONS = torch.cat([torch.arange(n) for n in (100, 37, 90, 29, 256)]).view(2, 256).float()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_equals_the_mask():
    torch.manual_seed(0)
    decoder = Decoder(SMALL).eval()
    x = torch.randn(2, 256, 32)
    with torch.no_grad():
        wanted = decoder(x, POSITIONS, document_mask(DOCUMENTS))
        got = decoder(x, POSITIONS, flex_mask(DOCUMENTS))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_batches_of_other_documents_are_not_compiled_anew(monkeypatch):
    from tokbench.probes import token_model

    # As on CUDA, but traced only: flex_attention learns on no CPU.
    monkeypatch.setattr(token_model, "_mask", lambda documents, **_: flex_mask(documents))
    layout = Layout.of(stack(7, 5))
    model = TokenModel(layout, SMALL).requires_grad_(requires_grad=False).eval()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend="eager")
    rng = np.random.default_rng(0)
    graphs = []
    for count in (5, 7, 3, 6):
        made = [[spoken(layout, random_frames(layout, count + k, rng)) for k in range(2)] for _ in range(2)]
        batch = inputs(pack(made, length=128), layout)
        assert compiled(**batch)["loss"].item() == pytest.approx(model(**batch)["loss"].item(), rel=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[1], graphs


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_flex_attention_equals_the_mask_on_cuda():
    torch.manual_seed(0)
    documents, positions = DOCUMENTS.cuda(), POSITIONS.cuda()
    decoder = Decoder(DecoderConfig(layers=2, width=128, heads=4, kv_heads=2)).cuda().eval()
    x = torch.randn(2, 256, 128, device="cuda")
    with torch.no_grad():
        wanted = decoder(x, positions, document_mask(documents))
        got = torch.compile(decoder)(x, positions, flex_mask(documents))
    torch.testing.assert_close(got[documents > 0], wanted[documents > 0], atol=1e-3, rtol=1e-3)
