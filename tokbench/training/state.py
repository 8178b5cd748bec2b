"""What of a training is kept, and whether what was kept fits the training of now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokbench.errors import TrainingError

if TYPE_CHECKING:
    import torch

__all__ = ["check_same", "make_moments", "restore", "trained_weights"]


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: parameters that are trained, and buffers. A frozen base model is not copied."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def make_moments(optimizer: torch.optim.AdamW) -> None:
    """Give a fused AdamW its moments before the first step, as its first step would make them.

    They stay for the whole training. Made only at the first step, they would settle between the activations that its
    backward has just freed, and on the CPU the heap then grows around them: 5 MiB more for a model of 3.5 MiB.
    """
    import torch

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }


def restore(model: torch.nn.Module, found: dict[str, torch.Tensor]) -> None:
    """Put weights, buffers included, into a model built the same way.

    Raises:
        TrainingError: names or shapes differ; says which.
    """
    wanted = trained_weights(model)
    for name in sorted(wanted.keys() | found.keys()):
        have = tuple(found[name].shape) if name in found else None
        want = tuple(wanted[name].shape) if name in wanted else None
        if have != want:
            raise TrainingError(
                f"the weight {name} is {list(have) if have else 'absent'}, the model needs "
                f"{list(want) if want else 'none'}: the vocabulary or the model has changed since",
                where="checkpoint",
                hint="Remove it (tokbench cache gc --stage checkpoint), or train with what it was made with",
            )
    model.load_state_dict(found, strict=False)


def check_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare the facts of a checkpoint with those of now.

    Raises:
        TrainingError: one differs; says which.
    """
    now = json.loads(json.dumps(new))
    for name in sorted(old.keys() | now.keys()):
        if old.get(name) != now.get(name):
            raise TrainingError(
                f"was made with another {name}: {_short(old.get(name))} then, {_short(now.get(name))} now",
                where="checkpoint",
                hint="Remove it (tokbench cache gc --stage checkpoint), or train with what it was made with",
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
