"""FSQ against the reference's grid, and over its whole codebook."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kanade.recipe import deviation, tensors

from tokbench.errors import TokensError
from tokbench.kanade.config import QuantizerConfig
from tokbench.kanade.fsq import FiniteScalarQuantizer

FSQ = FiniteScalarQuantizer(QuantizerConfig(input_dim=5, output_dim=5, levels=(8, 8, 8, 5, 5)))


@torch.inference_mode()
def test_grid_and_codebook_match_the_reference(shared: Path) -> None:
    io = tensors(shared / "parity" / "kanade" / "fsq.safetensors")
    bounded = FSQ.bound(io["z"])
    assert deviation(bounded, io["bounded"]) < 1e-5
    codes = FSQ.quantize(bounded)
    assert torch.equal(codes, io["codes"])
    assert torch.equal(FSQ.tokens(codes), io["indices"])
    assert torch.equal(FSQ.codes(torch.arange(12800)), io["all_codes"])


@torch.inference_mode()
def test_every_token_comes_back() -> None:
    tokens = torch.arange(FSQ.vocab)
    codes = FSQ.codes(tokens)
    assert FSQ.vocab == 12800
    assert len(torch.unique(codes, dim=0)) == 12800
    assert torch.equal(FSQ.tokens(codes), tokens)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5))
def test_any_input_stays_on_the_grid(z: list[float]) -> None:
    codes = FSQ.quantize(FSQ.bound(torch.tensor([z])))
    token = FSQ.tokens(codes)
    assert 0 <= int(token) < 12800
    assert torch.equal(FSQ.codes(token), codes.detach())


def test_rounding_passes_gradients_unchanged() -> None:
    bounded = torch.tensor([0.3, -1.7, 2.2, 0.4, -1.1], requires_grad=True)
    FSQ.quantize(bounded).sum().backward()
    torch.testing.assert_close(bounded.grad, 1 / torch.tensor([4.0, 4.0, 4.0, 2.0, 2.0]))


@pytest.mark.parametrize("token", [-1, 12800])
def test_tokens_outside_the_codebook_are_refused(token: int) -> None:
    with pytest.raises(TokensError, match=r"0\.\.12799"):
        FSQ.codes(torch.tensor([token]))
