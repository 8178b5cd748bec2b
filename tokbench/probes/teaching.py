"""Training a `TokenModel`: which documents share a row, which rows make a step, and the model from a task's parameters.

Rows are planned by seconds of audio and not by steps, so that every tokenizer sees the same utterances in the same rows
and the same seconds a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.errors import CardError
from tokbench.probes.documents import Document, pack
from tokbench.probes.layout import Layout

if TYPE_CHECKING:
    from tokbench.probes.decoder import DecoderConfig
    from tokbench.probes.token_model import TokenModel
    from tokbench.store.units import Payload
    from tokbench.training.checkpoint import Checkpoint
    from tokbench.training.loop import Log
    from tokbench.training.recipe import Recipe

__all__ = ["Course", "decoder_config", "plan_rows", "rebuilt", "teach"]

_BLOCK = 128  # steps: what flex_attention works on, and what keeps compiled shapes few


def decoder_config(params: Mapping[str, Any], *, where: str) -> DecoderConfig:
    """The size of the decoder in a task's parameters.

    Raises:
        CardError: a field is unknown, or the numbers do not fit together.
    """
    from tokbench.probes.decoder import DecoderConfig

    known = {field.name: field.type for field in fields(DecoderConfig)}
    for name, value in params.items():
        if name not in known:
            raise CardError(f"'{name}' is no field of the model", where=where, hint=f"Fields: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CardError(f"must be a number, is {value!r}", where=f"{where}.{name}")
    config = DecoderConfig(**params)
    if config.width % (2 * config.heads) or config.heads % config.kv_heads or min(config.layers, config.width) < 1:
        raise CardError(
            f"width {config.width}, heads {config.heads} and kv_heads {config.kv_heads} do not fit together",
            where=where,
            hint="width is a multiple of 2 * heads, heads of kv_heads",
        )
    return config


def plan_rows(seconds: Sequence[float], *, row_seconds: float, seed: int) -> list[list[int]]:
    """Which documents share a row: first fit by duration, in an order drawn by the seed.

    A document that is longer than a row has one of its own.
    """
    rows: list[list[int]] = []
    room: list[float] = []
    for number in np.random.default_rng([seed, 1]).permutation(len(seconds)):
        # Only the newest rows are tried: a corpus has hundreds of thousands of utterances.
        recent = range(max(0, len(rows) - 64), len(rows))
        place = next((i for i in recent if room[i] >= seconds[number]), None)
        if place is None:
            rows.append([])
            room.append(max(row_seconds, seconds[number]))
            place = len(rows) - 1
        rows[place].append(int(number))
        room[place] -= seconds[number]
    return rows


@dataclass(frozen=True)
class Course:
    """What a model is taught.

    Attributes:
        layout: of the documents.
        documents: all of them, and `seconds` of audio that each describes.
        voice: dimension of the documents' voices, 0 for none.
    """

    layout: Layout
    documents: Sequence[Document]
    seconds: Sequence[float]
    voice: int = 0

    def sha256(self) -> str:
        """Identity of everything that is taught."""
        digest = hashlib.sha256(repr((self.layout, self.voice)).encode())
        for document, seconds in zip(self.documents, self.seconds, strict=True):
            digest.update(f"{document.ids.shape} {seconds:.6f}".encode())
            digest.update(document.ids.tobytes())
            digest.update(document.slots.tobytes())
            digest.update(document.positions.tobytes())
            if document.voice is not None:
                digest.update(document.voice.tobytes())
        return digest.hexdigest()


def teach(
    course: Course,
    config: DecoderConfig,
    recipe: Recipe,
    *,
    row_seconds: float,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    log: Log | None = None,
) -> tuple[TokenModel, Payload]:
    """A trained model, in evaluation mode, and what the store keeps of it.

    Args:
        course: what it is taught.
        config: its size.
        recipe: `batch` counts rows.
        row_seconds: of audio in a row.
        device, checkpoint, log: as `tokbench.training.loop.fit`.

    Raises:
        TrainingError: as `fit`.
    """
    from tokbench.probes.token_model import TokenModel, inputs
    from tokbench.training.loop import Batch, fit, seeded
    from tokbench.training.order import Order

    plan = plan_rows(course.seconds, row_seconds=row_seconds, seed=recipe.seed)
    longest = max(sum(len(course.documents[n]) for n in row) for row in plan)
    fixed = -(-longest // _BLOCK) * _BLOCK if device.startswith("cuda") else 0
    order = Order(len(plan), recipe.batch, seed=recipe.seed)

    def batch(step: int) -> Batch:
        rows = [[course.documents[n] for n in plan[row]] for row in order(step)]
        made = pack(rows, length=fixed)
        return Batch(inputs(made, course.layout), tokens=int((made.slots >= 0).sum()))

    with seeded(recipe.seed):
        model = TokenModel(course.layout, config, voice=course.voice)
    identity = {
        "layout": course.layout.describe(),
        "vocabulary": course.layout.size,
        "model": asdict(config),
        "data": course.sha256(),
        "row_seconds": row_seconds,
    }
    fitted = fit(model, batch, recipe, device=device, checkpoint=checkpoint, log=log, identity=identity)
    return model, fitted.payload()


def rebuilt(course: Course, config: DecoderConfig, payload: Payload, *, device: str = "cpu") -> TokenModel:
    """The model of a payload of `teach`, in evaluation mode.

    Raises:
        TrainingError: the payload belongs to another layout or size.
    """
    from tokbench.probes.token_model import TokenModel
    from tokbench.training.loop import load_weights

    model = TokenModel(course.layout, config, voice=course.voice)
    load_weights(model, payload)
    return model.to(device).eval()
