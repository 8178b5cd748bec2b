"""fairseq2 in its own environment, beside transformers in ours: the same weights give the same frames."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokbench.config import StreamDecl, TokenizerCard
from tokbench.errors import MissingWeights
from tokbench.isolated.environments import Environment
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

NAMES = (
    (r"^feature_extractor\.conv_layers\.0\.layer_norm\.", r"encoder_frontend.feature_extractor.layers.0.group_norm."),
    (r"^feature_extractor\.conv_layers\.", r"encoder_frontend.feature_extractor.layers."),
    (r"^feature_projection\.layer_norm\.", r"encoder_frontend.post_extract_layer_norm."),
    (r"^feature_projection\.projection\.", r"encoder_frontend.model_dim_proj."),
    (
        r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0",
        r"encoder_frontend.pos_encoder.conv.weight_g",
    ),
    (
        r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1",
        r"encoder_frontend.pos_encoder.conv.weight_v",
    ),
    (r"^encoder\.pos_conv_embed\.conv\.", r"encoder_frontend.pos_encoder.conv."),
    (r"\.attention\.out_proj\.", r".self_attn.output_proj."),
    (r"\.attention\.", r".self_attn."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", r".ffn.inner_proj."),
    (r"\.feed_forward\.output_dense\.", r".ffn.output_proj."),
    (r"\.final_layer_norm\.", r".ffn_layer_norm."),
)
"""transformers' names of wav2vec 2.0 to fairseq2's."""


@pytest.fixture(scope="module", params=["base", "large_lv60k"])
def pair(
    request: pytest.FixtureRequest,
    ready: Callable[[str], tuple[TokenizerCard, Environment]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TokenizerCard, Path, Any]:
    """A small card, a file in fairseq2's layout, and transformers' model with the same random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    arch: str = request.param
    card, _ = ready(f"fairseq2-wav2vec2-{arch.replace('_', '-')}-l1")
    large = arch != "base"
    torch.manual_seed(0)
    model = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, conv_bias=large,
            feat_extract_norm="layer" if large else "group", do_stable_layer_norm=large,
        )
    ).eval()  # fmt: skip
    state = {}
    for key, value in model.state_dict().items():
        for pattern, name in NAMES[1:] if large else NAMES:
            key = re.sub(pattern, name, key)
        key = key.replace("encoder.layer_norm.", "encoder.layer_norm." if large else "encoder_frontend.layer_norm.")
        state[key.replace("masked_spec_embed", "masker.temporal_mask_embed")] = value
    # The head of pretraining is in the published files too.
    head = 768 if large else 256
    state |= {
        "quantizer.entries": torch.randn(1, 640, head // 2),
        "quantizer.num_updates": torch.zeros((), dtype=torch.int64),
        "quantizer.entry_proj.weight": torch.randn(640, 512), "quantizer.entry_proj.bias": torch.randn(640),
        "final_proj.weight": torch.randn(head, 32), "final_proj.bias": torch.randn(head),
        "final_target_proj.weight": torch.randn(head, head), "final_target_proj.bias": torch.randn(head),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("fairseq2") / "tiny.pt"
    torch.save({"model": state}, path)
    small = {"model_dim": 32, "num_encoder_layers": 3, "num_encoder_attn_heads": 2, "ffn_inner_dim": 48}
    return with_layer(card, 1, small), path, model


def with_layer(card: TokenizerCard, layer: int, encoder: dict[str, int]) -> TokenizerCard:
    stream = StreamDecl(name="frames", kind="latent", rate_hz=50, dim=32)
    params = card.params | {"layer": layer, "encoder": encoder}
    return card.model_copy(update={"streams": (stream,), "params": params})


def test_every_layer_is_that_of_transformers(pair: tuple[TokenizerCard, Path, Any]) -> None:
    import torch

    card, path, model = pair
    wave = speech_like(1, 16000) + 0.1
    given = torch.from_numpy(wave)[None]
    if card.params.get("normalise"):
        given = torch.nn.functional.layer_norm(given, given.shape)
    # `hidden_states` of pre-norm models ends with the normed output; a hook sees the block's own.
    seen: list[Any] = []
    model.encoder.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or [kwargs["hidden_states"]])[0]), with_kwargs=True
    )
    for block in model.encoder.layers:
        block.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    with torch.inference_mode():
        model(given)
    for layer in range(4):
        tokenizer = IsolatedTokenizer(with_layer(card, layer, card.params["encoder"]), weights=path)
        encoded = tokenizer.encode([wave])[0]
        tokenizer.close()
        frames = encoded.streams["frames"]
        assert frames.shape == ((len(wave) - 80) // 320, 32)
        assert np.abs(frames - seen[layer][0].numpy()).max() < 1e-4, layer


def test_the_contract_holds_and_another_checkpoint_is_refused(
    pair: tuple[TokenizerCard, Path, Any], tmp_path: Path
) -> None:
    import torch

    card, path, _ = pair
    checks = conformance(IsolatedTokenizer(card, weights=path), long_seconds=(35,))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    state = torch.load(path, weights_only=True)
    del state["model"]["encoder.layers.2.ffn.inner_proj.bias"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(MissingWeights, match=r"other\.pt: lacks encoder\.layers\.2\.ffn\.inner_proj\.bias\. Give the"):
        IsolatedTokenizer(card, weights=tmp_path / "other.pt")
