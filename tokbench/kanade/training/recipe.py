"""Training recipes: the YAML files of `reproduce/kanade/`, read into frozen models. Nothing here imports torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from tokbench.card_files import load_card, merge_fields
from tokbench.config import Card, Strict
from tokbench.errors import UserError
from tokbench.kanade.config import KANADE_12HZ, KANADE_25HZ, KANADE_25HZ_CLEAN, KanadeConfig

__all__ = [
    "DataRecipe",
    "DiscriminatorRecipe",
    "Freezing",
    "LossWeights",
    "ModelChoice",
    "OptimizerRecipe",
    "Recipe",
    "ScheduleRecipe",
    "differences",
    "load_recipe",
]

_RELEASED = {"12.5hz": KANADE_12HZ, "25hz": KANADE_25HZ, "25hz-clean": KANADE_25HZ_CLEAN}


class ModelChoice(Strict):
    """Which geometry is trained.

    Attributes:
        base: "12.5hz", "25hz", "25hz-clean", or `module:NAME` of a `KanadeConfig`.
        overrides: fields of `KanadeConfig` that differ, nested as there.
    """

    base: str
    overrides: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _buildable(self) -> ModelChoice:
        self.config  # noqa: B018 - a wrong field is told when the recipe is read
        return self

    @property
    def config(self) -> KanadeConfig:
        """The geometry."""
        if self.base in _RELEASED:
            base = _RELEASED[self.base]
        else:
            module, colon, name = self.base.partition(":")
            if not colon:
                raise ValueError(f"'{self.base}' is neither of {', '.join(_RELEASED)} nor module:NAME")
            try:
                base = getattr(importlib.import_module(module), name)
            except (ModuleNotFoundError, AttributeError) as error:
                raise ValueError(f"'{self.base}' cannot be imported ({error})") from None
        if not self.overrides:
            return base
        try:
            return type(base).model_validate(merge_fields(base.model_dump(), self.overrides))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"overrides.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class DataRecipe(Strict):
    """What a batch is made of.

    Attributes:
        crop_seconds: length of a training item; shorter utterances are padded with zeros at the end.
        hop_seconds: distance between the crops of an utterance; one more crop is aligned with its end.
        random_crops: draw the place of every crop anew in each epoch; False: the fixed list, as published.
        features: "on_the_fly" runs the front end on every crop; "stored" runs it once an utterance, and cuts.
        normalize_over: content features have zero mean and unit variance over the "crop" (as published) or the
            "utterance" (as at inference; needs stored features).
        masks: keep padding out of the normalisation, the pooling, the attention and the losses. The published code has
            no masks: with False, padded zeros enter all of them.
        batch_size: items a step and process.
        workers: processes that read audio.
        held_out_speakers: speakers that only validate, where no validation data is named.
        validation_items: crops that validate, at most.
    """

    crop_seconds: float = Field(default=5.76, gt=0)
    hop_seconds: float = Field(default=1.44, gt=0)
    random_crops: bool = False
    features: Literal["on_the_fly", "stored"] = "on_the_fly"
    normalize_over: Literal["crop", "utterance"] = "crop"
    masks: bool = True
    batch_size: int = Field(default=128, gt=0)
    workers: int = Field(default=4, ge=0)
    held_out_speakers: int = Field(default=2, ge=0)
    validation_items: int = Field(default=64, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> DataRecipe:
        if self.normalize_over == "utterance" and self.features == "on_the_fly":
            raise ValueError("normalize_over: utterance needs features: stored")
        return self


class LossWeights(Strict):
    """Weights of the loss terms; a term of weight 0 is not computed.

    Attributes:
        ssl: reconstruction of the normalised content features.
        ssl_kind: "mse" or "l1".
        mel: L1 between log-mel spectrograms.
        adversarial: of the discriminator's scores.
        feature_matching: L1 between the discriminator's feature maps.
        objective: form of the adversarial losses.
    """

    ssl: float = Field(default=30.0, ge=0)
    ssl_kind: Literal["mse", "l1"] = "mse"
    mel: float = Field(default=30.0, ge=0)
    adversarial: float = Field(default=0.0, ge=0)
    feature_matching: float = Field(default=0.0, ge=0)
    objective: Literal["hinge", "least_squares"] = "hinge"

    @property
    def uses_discriminator(self) -> bool:
        """Whether there is a discriminator at all."""
        return self.adversarial > 0 or self.feature_matching > 0


class Freezing(Strict):
    """Which parts learn; has nothing to do with the weights of the losses.

    Attributes:
        content: content encoder, downsampling and quantiser.
        feature_decoder: the branch that reconstructs content features.
        speaker: global encoder.
        decoder: prenet, upsampling, mel decoder and postnet.
    """

    content: bool = True
    feature_decoder: bool = True
    speaker: bool = True
    decoder: bool = True


class OptimizerRecipe(Strict):
    """AdamW and gradient clipping, for the generator and, with its own state, the discriminator."""

    lr: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    """The first is overridden by the schedule where `schedule.cycle_momentum` is on."""
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradients."""


class ScheduleRecipe(Strict):
    """OneCycle, stepped once a batch.

    Attributes:
        total: batches that the whole cycle takes; None: as many as are trained. Published GAN runs stop in mid-cycle.
        warmup: share of the cycle until the peak.
        div: peak over first learning rate.
        final_div: first over last learning rate.
        anneal: shape of both legs.
        cycle_momentum: move the first beta from 0.95 to 0.85 and back, torch's default.
    """

    total: int | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.1, gt=0, lt=1)
    div: float = Field(default=10.0, gt=0)
    final_div: float = Field(default=1.0, gt=0)
    anneal: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True


class DiscriminatorRecipe(Strict):
    """The multi-band discriminator.

    Attributes:
        start: batch from which it takes part.
    """

    channels: int = Field(default=64, gt=0)
    kernel: tuple[int, int] = (3, 3)
    downsample: bool = True
    start: int = Field(default=0, ge=0)


class Recipe(Card):
    """Everything that decides a training run but the data's place.

    Attributes:
        model: geometry.
        parts: `module:Class` of the nets, front end, mel and vocoder, a subclass of `parts.Parts`.
        params: read by the parts alone.
        batches: generator updates.
        start_from: checkpoint (.ckpt), `model.safetensors`, or `hf:REPOSITORY[@REVISION]`, whose weights are loaded
            before the first step.
        fresh: modules that are initialised anew although `start_from` has them.
        dropped: prefixes of keys that `start_from` has and this geometry has no place for.
        mel_bias: where the mel decoder's output bias starts: "zero", as published, or the "mean" spectrogram of the
            training data, which short runs need not learn (stored mels only).
        precision: "auto" is bf16 autocast where the hardware has it, float32 elsewhere.
        attention: backend of the local attention.
        compile: compile the nets with torch.compile; "auto" does on CUDA.
        validate_every, save_every: in batches.
    """

    model: ModelChoice
    parts: str = Field(default="tokbench.kanade.training.released:ReleasedParts", pattern=r"^[\w.]+:\w+$")
    params: dict[str, Any] = Field(default_factory=dict)
    data: DataRecipe = DataRecipe()
    losses: LossWeights = LossWeights()
    train: Freezing = Freezing()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    discriminator: DiscriminatorRecipe = DiscriminatorRecipe()
    batches: int = Field(default=200_000, gt=0)
    seed: int = 42
    mel_bias: Literal["zero", "mean"] = "zero"
    precision: Literal["auto", "bf16", "fp32"] = "bf16"
    attention: Literal["auto", "flash", "flex", "sdpa"] = "auto"
    compile: Literal["auto", True, False] = "auto"
    start_from: str | None = None
    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    log_every: int = Field(default=50, gt=0)
    validate_every: int = Field(default=2000, gt=0)
    save_every: int = Field(default=1000, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.losses.ssl > 0 and self.model.config.feature_decoder is None:
            raise ValueError("losses.ssl needs a model with a feature decoder")
        if self.losses.ssl == 0 and self.losses.mel == 0 and not self.losses.uses_discriminator:
            raise ValueError("all losses have weight 0")
        if self.schedule.total is not None and self.schedule.total < self.batches:
            raise ValueError("schedule.total is smaller than batches: the cycle would be over before the training")
        if self.schedule.warmup * (self.schedule.total or self.batches) <= 1:
            raise ValueError("schedule.warmup is shorter than a batch; raise it, or train more batches")
        return self


def load_recipe(path: Path, *, settings: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe; `extends: NAME` starts from another one of the same folder.

    Args:
        path: YAML file.
        settings: replacements by dotted name, for instance `{"losses.ssl": 0}`.

    Raises:
        CardError: with `file:line: field` and the reason.
    """
    if not path.is_file():
        raise UserError("no such recipe", where=str(path), hint="Type: tokbench reproduce list")
    return load_card(path, Recipe, settings=settings)


def differences(before: Recipe | dict[str, Any], after: Recipe) -> list[str]:
    """What differs between two recipes, one line a field: `losses.ssl: 30.0 -> 0.0`; names and notes do not count."""
    old = _flat(before.model_dump(mode="json") if isinstance(before, Recipe) else before)
    new = _flat(after.model_dump(mode="json"))
    skipped = ("name", "summary", "notes", "url", "citation", "requires", "data.workers", "log_every", "save_every")
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(skipped)
    ]


def refuse_another(saved: dict[str, Any], recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint of another recipe.

    Args:
        saved: the recipe of the checkpoint, as JSON has it.
        recipe: what is asked for.

    Raises:
        UserError: names the fields that differ.
    """
    changed = differences(saved, recipe)
    if changed:
        raise UserError(
            f"the checkpoint was made by another recipe: {'; '.join(changed[:6])}",
            where=f"recipe '{recipe.name}'",
            hint="Resume with the recipe of the checkpoint, or train into another --output folder",
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
