"""With masks an item of a padded batch is computed as it is alone: nets, losses and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kanade.training_support import TINY, TinyParts, padded_batch, recipe
from torch import Tensor
from torch.nn import functional

from tokbench.kanade.attention import local_attention
from tokbench.kanade.config import KANADE_25HZ
from tokbench.kanade.padding import interpolate
from tokbench.kanade.training.module import Inputs, KanadeTraining


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("radius", [3, 40, 100])
def test_attention_sees_no_padding(backend: str, radius: int) -> None:
    q, k, v = torch.randn(3, 2, 2, 90, 16)
    lengths = torch.tensor([90, 37])
    out = local_attention(q, k, v, radius=radius, backend=backend, lengths=lengths)  # type: ignore[arg-type]
    assert torch.isfinite(out).all()
    for item, length in enumerate(lengths.tolist()):
        alone = local_attention(*(x[item : item + 1, :, :length] for x in (q, k, v)), radius=radius, backend="sdpa")
        torch.testing.assert_close(out[item : item + 1, :, :length], alone, atol=2e-6, rtol=1e-5)


def test_interpolation_is_that_of_each_item_alone() -> None:
    x = torch.randn(3, 4, 24)
    lengths, targets = torch.tensor([24, 11, 1]), torch.tensor([31, 9, 2])
    out = interpolate(x, lengths, targets, 31)
    for item, (length, target) in enumerate(zip(lengths.tolist(), targets.tolist(), strict=True)):
        alone = functional.interpolate(x[item : item + 1, :, :length], size=target, mode="linear", align_corners=False)
        torch.testing.assert_close(out[item : item + 1, :, :target], alone)


def _run(module: KanadeTraining, inputs: Inputs) -> tuple[dict[str, Tensor], Tensor]:
    made = module.generate(inputs)
    return module.generator_losses(inputs, made), made.mel


@pytest.mark.parametrize("masks", [True, False])
def test_a_padded_item_is_computed_as_it_is_alone(masks: bool) -> None:
    """Features of the padded wave are cut to the item's own, as the front end's part in it is not the nets'."""
    module = KanadeTraining(recipe(data={"masks": masks}), TinyParts(TINY))
    for parameter in module.model.parameters():  # adaptive norms begin closed, which would hide the voice
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    batch = padded_batch([12800, 7040])
    inputs = module.prepare(batch)
    losses, mel = _run(module, inputs)
    frames = 7040 // 320
    alone = Inputs(
        module.prepare({"wave": batch["wave"][1:, :7040], "n_samples": batch["n_samples"][1:]}).content
        if not masks
        else inputs.content[1:, :frames],
        inputs.speaker[1:, :frames],
        inputs.mel[1:, :, :frames],
        7040,
        None,
        None,
        None,
    )
    own_losses, own_mel = _run(module, alone)
    same = torch.allclose(mel[1:, :, :frames], own_mel, atol=1e-4)
    assert same == masks
    if masks:
        first = Inputs(inputs.content[:1], inputs.speaker[:1], inputs.mel[:1], 12800, None, None, None)
        other_losses, _ = _run(module, first)
        weights = torch.tensor([40.0, 22.0])
        for name in ("mel", "ssl"):
            expected = (torch.stack([other_losses[name], own_losses[name]]) * weights).sum() / weights.sum()
            torch.testing.assert_close(losses[name], expected, atol=1e-4, rtol=1e-5)


def test_padding_gets_no_gradient() -> None:
    module = KanadeTraining(recipe(), TinyParts(TINY))
    inputs = module.prepare(padded_batch([12800, 7040]))
    content = inputs.content.clone().requires_grad_()
    losses, _ = _run(module, inputs._replace(content=content))
    (losses["mel"] + losses["ssl"]).backward()
    assert content.grad is not None
    # The target of the SSL loss is the same tensor: its padded frames are outside the loss, too.
    assert not content.grad[1, 22:].any()
    assert content.grad[1, :22].any()


@pytest.mark.slow
def test_a_full_size_step_has_finite_gradients() -> None:
    """Random WavLM, both phases' losses, one padded item."""
    from tokbench.kanade.training.recipe import load_recipe
    from tokbench.kanade.training.released import ReleasedParts
    from tokbench.registry import package_folder

    plan = load_recipe(
        package_folder("reproduce") / "kanade" / "25hz_pretrain.yaml",
        settings={"losses.adversarial": 1, "losses.feature_matching": 10},
    )
    assert plan.model.config == KANADE_25HZ
    module = KanadeTraining(plan, ReleasedParts(KANADE_25HZ, ssl_weights="random"))
    inputs = module.prepare(padded_batch([19200, 12000]))
    made = module.generate(inputs)
    terms = module.generator_losses(inputs, made)
    adversarial = module.adversarial_terms(module.judge(inputs.mel), module.audible(made.mel, inputs))
    total = 30 * terms["mel"] + 30 * terms["ssl"] + adversarial["adversarial"] + 10 * adversarial["feature_matching"]
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in module.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_step_equals_its_float64_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gan = {"adversarial": 1.0, "feature_matching": 10.0}
    single = KanadeTraining(recipe(losses=gan), TinyParts(TINY))
    with torch.no_grad():
        for parameter in single.model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    double = KanadeTraining(recipe(losses=gan), TinyParts(TINY))
    double.load_state_dict(single.state_dict())
    inputs = single.prepare(padded_batch([12800, 7040]))
    tokens = _gradients(single, inputs)
    # `.float()` in nets and losses would bring the float64 run back to single precision.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    double.double()
    wide = Inputs(*(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs))
    assert torch.equal(tokens, _gradients(double, wide))
    wanted = {name: p.grad for name, p in double.model.named_parameters() if p.grad is not None}
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    for name, parameter in single.model.named_parameters():
        assert parameter.grad is not None
        assert wanted[name].dtype == torch.float64
        # Some gradients vanish in exact arithmetic (a bias before a softmax): those are held to the step's scale.
        scale = max(float(wanted[name].abs().max()), 1e-3 * largest)
        error = float((parameter.grad.double() - wanted[name]).abs().max()) / scale
        assert error < 1e-4, (name, error)


def _gradients(module: KanadeTraining, inputs: Inputs) -> Tensor:
    made = module.generate(inputs)
    terms = module.generator_losses(inputs, made)
    terms |= module.adversarial_terms(module.judge(inputs.mel), module.audible(made.mel, inputs))
    total = 30 * terms["mel"] + 30 * terms["ssl"] + terms["adversarial"] + 10 * terms["feature_matching"]
    total.backward()
    return made.tokens


def test_the_discriminator_step_comes_first_and_real_maps_are_reused(tmp_path: Path) -> None:
    """After a step, both nets have moved, and the generator's loss was judged by the updated discriminator."""
    from kanade.training_support import corpus

    from tokbench.kanade.training.run import train

    gan = {"adversarial": 1.0, "feature_matching": 10.0}
    plan = recipe(losses=gan, batches=2, schedule={"warmup": 0.9}, save_every=1)
    train(plan, corpus(tmp_path / "corpus"), output=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert len(state["optimizer_states"]) == 2
    fresh = KanadeTraining(plan, TinyParts(TINY))
    moved = [
        key
        for key, value in fresh.discriminator.state_dict().items()  # type: ignore[union-attr]
        if not torch.equal(value, state["state_dict"][f"discriminator.{key}"])
    ]
    assert moved
