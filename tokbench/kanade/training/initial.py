"""Weights to begin with: those of an earlier phase, loaded strictly, with every exception named in the recipe."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tokbench.errors import UserError
from tokbench.kanade.files import fetch_release
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.training.checkpoints import read_checkpoint
from tokbench.kanade.training.recipe import Recipe
from tokbench.kanade.weights import TRAINING_ONLY, IncompatibleWeights, read_tensors

__all__ = ["load_initial"]


def load_initial(model: KanadeModel, recipe: Recipe) -> None:
    """Give a model the weights that `recipe.start_from` names; `fresh` modules keep their new ones.

    Raises:
        UserError: there is no such file, or a damaged one.
        IncompatibleWeights: a key is missing, unexpected or of another shape, and the recipe does not say so.
    """
    if recipe.start_from is None:
        return
    path = _locate(recipe.start_from)
    given = _read(path)
    own = model.state_dict()
    ignored = (*TRAINING_ONLY, *recipe.dropped, *(f"{name}." for name in recipe.fresh))
    given = {key: value for key, value in given.items() if not key.startswith(ignored)}
    wanted = {key for key in own if not key.startswith(ignored)}
    for label, keys in (
        ("lacks", wanted - given.keys()),
        ("has, without a place for them,", given.keys() - wanted),
        ("has in another shape", {k for k in wanted & given.keys() if own[k].shape != given[k].shape}),
    ):
        if keys:
            shown = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise IncompatibleWeights(
                f"{label} {shown}",
                where=str(path),
                hint="Name modules to initialise anew under 'fresh', keys to leave out under 'dropped'",
            )
    model.load_state_dict(given, strict=False)


def _locate(name: str) -> Path:
    if name.startswith("hf:"):
        repository, _, revision = name.removeprefix("hf:").partition("@")
        return fetch_release(repository, revision or None)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError("no such checkpoint", where=f"start_from: {name}", hint="Train the earlier phase first")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".ckpt":
        return read_tensors(path)
    state = read_checkpoint(path)["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
