"""The geometry of a DAC-VAE, read from the shapes of its state dict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokbench.codecs.checkpoint import BadCheckpoint

__all__ = ["DacVaeConfig", "check_declared", "config_of_shapes"]

_HINT = "Give a checkpoint of primepake/dac_vae with --weights"
_FIXED: dict[str, Any] = {
    "d_in": 1,
    "d_out": 1,
    "activation": "snake",
    "norm": False,
    "scale_residual": False,
    "use_tanh_as_final": True,
    "use_bias_at_final": True,
    "alpha": 1.0,
}
"""Settings of the reference that decide the arithmetic and that this port has only one value for."""


@dataclass(frozen=True)
class DacVaeConfig:
    """Widths and strides.

    Attributes:
        encoder_dim: channels of the first convolution; doubled by every stride.
        encoder_rates: strides.
        latent_dim: width of the latent.
        decoder_dim: channels of the decoder's first convolution; halved by every stride.
        decoder_rates: strides.
    """

    encoder_dim: int
    encoder_rates: tuple[int, ...]
    latent_dim: int
    decoder_dim: int
    decoder_rates: tuple[int, ...]

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.encoder_rates)


def config_of_shapes(shapes: Mapping[str, tuple[int, ...]], *, where: str) -> DacVaeConfig:
    """Recognise the layout of a state dict whose weight norm is folded.

    Raises:
        BadCheckpoint: another layout; a plain DAC, which lacks the activation behind every convolution, among them.
    """
    if "encoder.block.0.0.weight" not in shapes:
        plain = "encoder.block.0.weight" in shapes
        raise BadCheckpoint(
            "has the layout of a plain DAC, without an activation behind every convolution"
            if plain
            else "is no DAC-VAE: encoder.block.0.0.weight is missing",
            where=where,
            hint=_HINT,
        )
    encoder = _strided(shapes, r"encoder\.block\.(\d+)\.block\.4\.0\.weight", where)
    decoder = _strided(shapes, r"decoder\.model\.(\d+)\.block\.1\.weight", where)
    last = shapes.get(f"encoder.block.{len(encoder) + 2}.0.weight")
    first = shapes.get("decoder.model.0.0.weight")
    if last is None or first is None or len(last) != 3 or len(first) != 3:
        raise BadCheckpoint("is no DAC-VAE: its last or first convolution is missing", where=where, hint=_HINT)
    config = DacVaeConfig(shapes["encoder.block.0.0.weight"][0], encoder, last[0], first[0], decoder)
    if math.prod(decoder) != config.hop:
        raise BadCheckpoint(
            f"encodes {config.hop} samples a frame, decodes {math.prod(decoder)}", where=where, hint=_HINT
        )
    return config


def _strided(shapes: Mapping[str, tuple[int, ...]], pattern: str, where: str) -> tuple[int, ...]:
    """Strides of the stages, half the kernel sizes."""
    found = {int(m[1]): shape[-1] for key, shape in shapes.items() if (m := re.fullmatch(pattern, key))}
    if not found or sorted(found) != list(range(1, len(found) + 1)) or any(kernel % 2 for kernel in found.values()):
        raise BadCheckpoint("is no DAC-VAE: its strided convolutions are not as expected", where=where, hint=_HINT)
    return tuple(found[i] // 2 for i in sorted(found))


def check_declared(declared: object, config: DacVaeConfig, *, where: str) -> int | None:
    """Compare the configuration inside a checkpoint (its `vae` section) with what the shapes say.

    Returns:
        The declared sample rate, or None.

    Raises:
        BadCheckpoint: they differ, or a setting changes the arithmetic.
    """
    section = declared.get("vae", declared) if isinstance(declared, Mapping) else None
    if not isinstance(section, Mapping):
        return None
    expected = _FIXED | {
        "encoder_dim": config.encoder_dim,
        "encoder_rates": list(config.encoder_rates),
        "latent_dim": config.latent_dim,
        "decoder_dim": config.decoder_dim,
        "decoder_rates": list(config.decoder_rates),
    }
    for name, value in expected.items():
        found = section.get(name, value)
        found = list(found) if isinstance(found, tuple) else found
        if found != value:
            raise BadCheckpoint(
                f"its configuration says {name} = {found}, its weights are made for {value}", where=where, hint=_HINT
            )
    rate = section.get("sample_rate")
    return rate if isinstance(rate, int) else None
