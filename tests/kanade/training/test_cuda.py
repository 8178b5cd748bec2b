"""Training on a GPU: bfloat16, every attention backend, resume."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from kanade.training_support import TINY, TinyParts, corpus, recipe

from tokbench.kanade.training.checkpoints import LOSSES, read_losses
from tokbench.kanade.training.module import KanadeTraining
from tokbench.kanade.training.run import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_run_resumes_on_a_gpu(tmp_path: Path) -> None:
    dataset = corpus(tmp_path / "corpus")
    plan = recipe(precision="bf16", losses={"adversarial": 1.0, "feature_matching": 10.0}, compile=False)
    train(plan, dataset, output=tmp_path / "run", minutes=0.0, device="cuda")
    done = train(plan, dataset, output=tmp_path / "run", resume=True, device="cuda")
    assert done.complete
    assert len(read_losses(tmp_path / "run" / LOSSES)) == 6


@pytest.mark.parametrize("backend", ["sdpa", "flex", "flash"])
def test_backends_give_the_same_losses(backend: str) -> None:
    if backend == "flash" and find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    wave = torch.randn(2, 12800, device="cuda")
    wave[1, 7040:] = 0.0
    batch = {"wave": wave, "n_samples": torch.tensor([12800, 7040], device="cuda")}
    found = {}
    for name in ("sdpa", backend):
        module = KanadeTraining(recipe(attention=name), TinyParts(TINY, device="cuda")).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            inputs = module.prepare(batch)
            terms = module.generator_losses(inputs, module.generate(inputs))
        (terms["mel"] + terms["ssl"]).backward()
        assert all(torch.isfinite(p.grad).all() for p in module.model.parameters() if p.grad is not None)
        found[name] = terms
    for term in ("mel", "ssl"):
        torch.testing.assert_close(found[backend][term], found["sdpa"][term], atol=0.05, rtol=0.02)
