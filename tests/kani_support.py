"""A checkpoint of KaniTTS's layout with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def random_checkpoint(folder: Path) -> Path:
    """Write a small LFM2 of 80,539 ids and a tokenizer of words to `folder`."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "hello": 3, "there": 4, "<unk>": 5}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    config = transformers.Lfm2Config(
        vocab_size=80539, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Lfm2ForCausalLM(config).save_pretrained(folder)
    return folder
