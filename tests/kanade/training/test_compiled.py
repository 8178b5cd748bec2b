"""Compiled nets: whole graphs, one for alike blocks, the same numbers, and nothing compiled a second time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from kanade.training_support import TINY, TinyParts, padded_batch, recipe
from torch import nn
from torch._dynamo.utils import counters

from tokbench.errors import UserError
from tokbench.kanade.training.module import KanadeTraining
from tokbench.kanade.training.run import _compiles
from tokbench.kanade.transformer import Block, Transformer

GAN = {"adversarial": 1.0, "feature_matching": 10.0}


@pytest.fixture
def whole_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compilation without a C++ compiler, that refuses what would cut a net in two."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _losses(module: KanadeTraining, lengths: list[int]) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    inputs = module.prepare(padded_batch(lengths))
    made = module.generate(inputs)
    terms = module.generator_losses(inputs, made)
    audible = module.audible(made.mel, inputs)
    return terms | module.adversarial_terms(module.judge(inputs.mel), audible)


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.usefixtures("whole_graphs")
def test_compiled_nets_compute_the_same() -> None:
    plain = KanadeTraining(recipe(losses=GAN), TinyParts(TINY))
    module = KanadeTraining(recipe(losses=GAN), TinyParts(TINY))
    module.compile_nets()
    counters.clear()
    for lengths in ([12800, 7040], [12800, 12800]):
        for name, value in _losses(module, lengths).items():
            torch.testing.assert_close(value, _losses(plain, lengths)[name], atol=1e-5, rtol=1e-4)
    made = _graphs()
    for lengths in ([12800, 9000], [12800, 12800]):
        sum(_losses(module, lengths).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert _graphs() == made
    assert not counters["graph_break"]


@pytest.mark.usefixtures("whole_graphs")
def test_a_block_is_compiled_once_for_all_that_are_alike() -> None:
    net = Transformer(TINY.local_encoder.model_copy(update={"n_layers": 5, "input_dim": TINY.local_encoder.dim}))
    for block in net.modules():
        if isinstance(block, Block):
            block.compile()
    counters.clear()
    net(torch.randn(2, 40, TINY.local_encoder.dim)).sum().backward()
    assert _graphs() == 1


def test_compiled_bfloat16_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"crash on a CPU.*--set precision=fp32"):
        _compiles(recipe(compile=True, precision="bf16"), "cpu")
    assert _compiles(recipe(compile=True, precision="fp32"), "cpu")
    assert not _compiles(recipe(compile=False), "cuda")
    assert [_compiles(recipe(), kind) for kind in ("cpu", "cuda")] == [False, True]
