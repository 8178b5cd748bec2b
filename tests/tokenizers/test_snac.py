"""SNAC on random weights in the released layout, beside the package called directly."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from one_task import reconstruction, value

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.config import TokenizerCard
from tokbench.errors import MissingWeights, NotApplicable, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import LONG_SECONDS, conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.snac import Snac
from tokbench.types import Encoded

snac = pytest.importorskip("snac")

PUBLISHED = {
    "snac-24khz": {"sampling_rate": 24000, "encoder_rates": [2, 4, 8, 8], "decoder_rates": [8, 8, 4, 2],
                   "attn_window_size": None, "vq_strides": [4, 2, 1]},
    "snac-32khz": {"sampling_rate": 32000, "encoder_rates": [2, 3, 8, 8], "decoder_rates": [8, 8, 3, 2],
                   "attn_window_size": 32, "vq_strides": [8, 4, 2, 1]},
    "snac-44khz": {"sampling_rate": 44100, "encoder_rates": [2, 3, 8, 8], "decoder_rates": [8, 8, 3, 2],
                   "attn_window_size": 32, "vq_strides": [8, 4, 2, 1]},
}  # fmt: skip
"""The published configs; the widths are smaller here."""


def save(name: str, folder: Path) -> Path:
    """A random narrow model as published: config.json beside what torch.save writes."""
    torch.manual_seed(3)
    config = PUBLISHED[name] | {"encoder_dim": 4, "decoder_dim": 64, "codebook_size": 4096, "codebook_dim": 8,
                                "noise": True, "depthwise": True}  # fmt: skip
    model = snac.SNAC(**config)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            # Louder than initialised, so that the codes are not all the same.
            if key.startswith("encoder") and key.endswith("original0"):
                tensor.mul_(3 * torch.rand(tensor.shape) + 1)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", ["snac-24khz", "snac-44khz"])
def test_the_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(name, weights=save(name, tmp_path))
    # A new process for every family takes too long; Mimi's goes through one.
    monkeypatch.setattr(
        "tokbench.tokenizers.conformance.decode_elsewhere",
        lambda own, item: load_tokenizer(name, weights=own.weights).decode([item])[0],
    )
    checks = conformance(tokenizer, long_seconds=LONG_SECONDS[:1])
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_tokens_and_samples_are_the_packages(name: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(name, weights=save(name, tmp_path))
    assert isinstance(tokenizer, Snac)
    reference = snac.SNAC.from_pretrained(str(tmp_path))
    wave = speech_like(Fraction(3, 2), tokenizer.card.input_rate)[:-11]
    item = tokenizer.encode([wave])[0]
    with torch.inference_mode():
        codes = reference.encode(torch.from_numpy(wave)[None, None])
        torch.manual_seed(0)
        samples = reference.decode(codes)[0, 0].numpy()
    assert len(codes) == len(item.streams)
    for mine, theirs in zip(item.streams.values(), codes, strict=True):
        assert np.array_equal(mine, theirs[0].numpy())
    assert len(np.unique(item.streams[f"q{len(codes) - 1}"])) > 3
    assert item.n_samples_coded == len(samples)
    assert np.array_equal(tokenizer.decode([item])[0], samples[: len(wave)])
    book = tokenizer.codebook("q0")
    assert book.shape[0] == 4096
    lengths = [len(stream) for stream in item.streams.values()]
    assert [lengths[-1] // n for n in lengths] == PUBLISHED[name]["vq_strides"]


def test_one_task_counts_every_books_own_rate(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    result = reconstruction("snac-24khz", save("snac-24khz", tmp_path / "weights"), tmp_path)
    assert result.status == "complete"
    assert value(result, "bps_nominal") == pytest.approx(984.375)
    # 1.2 s are 28800 samples, padded to 15 frames of 2048: 15, 30 and 60 codes of 12 bits.
    assert value(result, "bps_measured") == pytest.approx(105 * 12 / 1.2)


def test_decoding_leaves_the_random_state_alone(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("snac-24khz", weights=save("snac-24khz", tmp_path))
    item = tokenizer.encode([speech_like(Fraction(1, 5), 24000)])[0]
    torch.manual_seed(9)
    want = torch.rand(1)
    torch.manual_seed(9)
    tokenizer.decode([item])
    assert torch.rand(1) == want


def test_rates_on_the_cards() -> None:
    for name, config in PUBLISHED.items():
        card = find_card(TokenizerCard, name)
        hop = int(np.prod(config["encoder_rates"]))
        rates = [Fraction(card.input_rate, hop * stride) for stride in config["vq_strides"]]
        assert [spec.rate_hz for spec in card.stream_specs] == rates
    total = sum(spec.nominal_bps or 0 for spec in find_card(TokenizerCard, "snac-24khz").stream_specs)
    assert total == pytest.approx(984.375)


def test_what_is_refused(tmp_path: Path) -> None:
    folder = save("snac-24khz", tmp_path)
    with pytest.raises(BadCheckpoint, match=r"is a SNAC of 24000 Hz .* which snac-32khz is not"):
        load_tokenizer("snac-32khz", weights=folder)
    tokenizer = load_tokenizer("snac-24khz", weights=folder)
    item = tokenizer.encode([np.zeros(3000, np.float32)])[0]
    with pytest.raises(TokensError, match=r"9000 samples have \[5, 10, 20\] frames, the streams \[2, 4, 8\]"):
        tokenizer.decode([Encoded(item.streams, n_samples=9000)])
    with pytest.raises(NotApplicable):
        tokenizer.decode([item], globals_from=[item])
    state = torch.load(folder / "pytorch_model.bin")
    torch.save({k: v for k, v in state.items() if k != "encoder.block.0.bias"}, folder / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match=r"lacks 1 of the .* for instance encoder\.block\.0\.bias"):
        load_tokenizer("snac-24khz", weights=folder)
    torch.save(state | {"what": Fraction(1, 2)}, folder / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match="--allow-pickle"):
        load_tokenizer("snac-24khz", weights=folder)
    (folder / "config.json").write_text('{"sampling_rate": 24000, "mystery": 1}')
    with pytest.raises(BadCheckpoint, match=r"is not SNAC's config .*mystery"):
        load_tokenizer("snac-24khz", weights=folder)
    (folder / "pytorch_model.bin").unlink()
    for weights in (None, folder):
        with pytest.raises(MissingWeights, match=r"config\.json and pytorch_model\.bin .*--weights DIR"):
            load_tokenizer("snac-24khz", weights=weights)
