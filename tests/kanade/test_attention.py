"""Local attention against its definition, for every backend that runs here."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokbench.errors import MissingBackend, UserError
from tokbench.kanade import attention
from tokbench.kanade.attention import local_attention, resolve_backend


def definition(q: Tensor, k: Tensor, v: Tensor, radius: int) -> Tensor:
    position = torch.arange(q.shape[2])
    far = (position[:, None] - position).abs() > radius
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(far, -torch.inf)
    return scores.softmax(-1) @ v


def draw(length: int, *, batch: int = 2, heads: int = 3, width: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, length, width, generator=generator) for _ in range(3)]


@given(length=st.integers(1, 400), radius=st.integers(0, 80), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_blocks_equal_the_definition(length: int, radius: int, seed: int) -> None:
    q, k, v = draw(length, seed=seed)
    ours = local_attention(q, k, v, radius=radius, backend="sdpa")
    torch.testing.assert_close(ours, definition(q, k, v, radius), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("length", "radius"), [(300, 32), (128, 15), (129, 62), (700, 62), (515, 200), (3, 1)])
def test_flex_equals_blocks(length: int, radius: int) -> None:
    q, k, v = draw(length)
    flex = local_attention(q, k, v, radius=radius, backend="flex")
    torch.testing.assert_close(flex, local_attention(q, k, v, radius=radius, backend="sdpa"), atol=1e-4, rtol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("length", "radius"), [(300, 32), (700, 62), (5000, 62)])
def test_flex_on_cuda_equals_the_definition(length: int, radius: int) -> None:
    q, k, v = (x.cuda() for x in draw(length, width=64))
    flex = local_attention(q, k, v, radius=radius, backend="flex")
    expected = local_attention(q.cpu(), k.cpu(), v.cpu(), radius=radius, backend="sdpa")
    torch.testing.assert_close(flex.cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("flash_attn") is None, reason="no flash-attn on CUDA"
)
def test_flash_equals_the_definition_in_half_precision() -> None:
    q, k, v = (x.cuda().bfloat16() for x in draw(700, width=64))
    flash = local_attention(q, k, v, radius=62, backend="flash").float().cpu()
    expected = local_attention(*(x.float().cpu() for x in (q, k, v)), radius=62, backend="sdpa")
    torch.testing.assert_close(flash, expected, atol=2e-2, rtol=2e-2)


def test_flash_is_called_as_it_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its README: q, k, v `[B, T, H, D]`, window (left, right) inclusive, scale 1 / sqrt(D), result `[B, T, H, D]`."""
    seen: list[tuple[int, ...]] = []

    def flash_attn_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
    ) -> Tensor:
        assert dropout_p == 0.0
        assert all(x.stride(-1) == 1 for x in (q, k, v)), "the last dimension must be contiguous"
        seen.append(window_size)
        position = torch.arange(q.shape[1])
        offset = position - position[:, None]
        seeable = (offset >= -window_size[0]) & (offset <= window_size[1])
        scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * scale
        return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seeable, -torch.inf).softmax(-1), v)

    package = ModuleType("flash_attn")
    package.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = draw(91)
    made = attention._flash(q, k, v, 7, 0.0, q.shape[-1] ** -0.5)
    torch.testing.assert_close(made, definition(q, k, v, 7), atol=1e-5, rtol=1e-4)
    assert seen == [(7, 7)]


def test_gradients_are_finite_where_blocks_are_padded() -> None:
    q, k, v = (x.requires_grad_() for x in draw(70))
    local_attention(q, k, v, radius=4, backend="sdpa").square().sum().backward()
    ours = [x.grad.clone() for x in (q, k, v)]  # type: ignore[union-attr]
    for x in (q, k, v):
        x.grad = None
    definition(q, k, v, 4).square().sum().backward()
    for mine, x in zip(ours, (q, k, v), strict=True):
        torch.testing.assert_close(mine, x.grad, atol=1e-4, rtol=1e-3)


def test_a_mask_made_in_inference_serves_training() -> None:
    q, k, v = draw(91)
    with torch.inference_mode():
        local_attention(q, k, v, radius=7, backend="sdpa")
    q.requires_grad_()
    local_attention(q, k, v, radius=7, backend="sdpa").sum().backward()
    assert q.grad is not None


def test_memory_is_linear_in_length() -> None:
    """100,000 frames would need 40 GB for one head's full matrix."""
    q, k, v = draw(100_000, batch=1, heads=1, width=8)
    assert torch.isfinite(local_attention(q, k, v, radius=15, backend="sdpa")).all()


def test_requests_that_cannot_be_met_are_refused() -> None:
    q = draw(8)[0]
    assert resolve_backend("auto", q) == "sdpa"
    with pytest.raises(UserError, match="no dropout"):
        resolve_backend("flex", q, dropout=0.1)
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(MissingBackend, match=r"tokbench\[flash\]"):
            resolve_backend("flash", q)
