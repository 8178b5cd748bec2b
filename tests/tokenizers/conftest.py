"""Fixtures of the tokenizer tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _save_tiny(folder: Path, name: str, *, normalise: bool) -> Any:
    """A random model in the hub's layout: the large ones are pre-norm with layer-normed convolutions."""
    import torch
    import transformers

    large = name.endswith("large")
    kind = name.partition("-")[0]
    config_class = transformers.HubertConfig if kind == "hubert" else transformers.WavLMConfig
    model_class = transformers.HubertModel if kind == "hubert" else transformers.WavLMModel
    torch.manual_seed(0)
    config = config_class(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=large,
        feat_extract_norm="layer" if large else "group",
    )
    model = model_class(config).eval()
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=large).save_pretrained(folder)
    return model


@pytest.fixture
def save_tiny() -> Callable[..., Any]:
    """`save_tiny(folder, name, normalise=...)` writes a random HuBERT or WavLM and returns it."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return _save_tiny
