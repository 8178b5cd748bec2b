"""The geometry of a NanoCodec, from the `model_config.yaml` inside its archive; what it does not know is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from tokbench.codecs.checkpoint import BadCheckpoint

__all__ = ["Activation", "DecoderConfig", "EncoderConfig", "NanoCodecConfig", "PadMode", "parse_config"]

Activation = Literal["lrelu", "elu", "snake", "half_snake"]
PadMode = Literal["replicate", "reflect", "zeros"]

_MODULES = "nemo.collections.tts.modules.audio_codec_modules."
_ENCODER = _MODULES + "HiFiGANEncoder"
_DECODER = _MODULES + "CausalHiFiGANDecoder"
_QUANTIZER = _MODULES + "GroupFiniteScalarQuantizer"
_MODEL = "nemo.collections.tts.models.audio_codec.AudioCodecModel"
_OTHER_MODELS = ("semantic_codec", "semantic_codec_path")
"""Settings by which newer NeMo adds a second codec to the model."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ("lrelu", "elu", "snake", "half_snake"),
    "pad_mode": ("replicate", "reflect", "zeros"),
    "output_activation": ("clamp", "tanh"),
}


@dataclass(frozen=True)
class EncoderConfig:
    """`HiFiGANEncoder`; the defaults are NeMo's."""

    encoded_dim: int
    down_sample_rates: tuple[int, ...] = (2, 2, 8, 8)
    base_channels: int = 32
    in_kernel_size: int = 7
    out_kernel_size: int = 7
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[int, ...] = (1, 3, 5)
    activation: Activation = "lrelu"
    pad_mode: PadMode = "reflect"


@dataclass(frozen=True)
class DecoderConfig:
    """`CausalHiFiGANDecoder`; the defaults are NeMo's. Its convolutions pad with zeros whatever `pad_mode` says."""

    input_dim: int
    up_sample_rates: tuple[int, ...] = (8, 8, 2, 2)
    base_channels: int = 512
    in_kernel_size: int = 7
    out_kernel_size: int = 3
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[int, ...] = (1, 3, 5)
    activation: Activation = "lrelu"
    output_activation: Literal["clamp", "tanh"] = "tanh"
    pad_mode: PadMode = "zeros"
    n_groups_equal_to_out_channels: bool = True


@dataclass(frozen=True)
class NanoCodecConfig:
    """A whole codec.

    Attributes:
        sample_rate: Hz, in and out.
        hop: samples a frame.
        num_groups: codebooks.
        levels: FSQ levels of one codebook, the first varies fastest.
        encoder: samples to latent.
        decoder: latent to samples.
    """

    sample_rate: int
    hop: int
    num_groups: int
    levels: tuple[int, ...]
    encoder: EncoderConfig
    decoder: DecoderConfig

    @property
    def vocab(self) -> int:
        """Codes of one codebook."""
        return math.prod(self.levels)

    def frames(self, n_samples: int) -> int:
        """`ceil(n / hop)`, in integers: NeMo's float32 loses a frame beyond 16.7 million samples."""
        return -(-n_samples // self.hop)


def parse_config(data: object, *, where: str) -> NanoCodecConfig:
    """Check and type the content of `model_config.yaml`.

    Classes are compared by name, never imported. Sections of training (losses, discriminators, data) are not read.

    Args:
        data: parsed YAML; a top-level `model:` section is entered.
        where: how errors name the file.

    Raises:
        BadCheckpoint: another class, an unknown argument, or sizes that contradict each other.
    """
    if isinstance(data, dict) and isinstance(data.get("model"), dict):
        data = data["model"]
    if not isinstance(data, dict):
        raise _bad("is no mapping", where)
    target = data.get("target", _MODEL)
    if target != _MODEL:
        raise _bad(f"describes the class '{target}', only '{_MODEL}' is known", where)
    for name in _OTHER_MODELS:
        if data.get(name) is not None:
            raise _bad(f"sets '{name}', which this port does not have", where)
    encoder = _section(data, "audio_encoder", _ENCODER, EncoderConfig, where)
    decoder = _section(data, "audio_decoder", _DECODER, DecoderConfig, where)
    quantizer = _arguments(data, "vector_quantizer", _QUANTIZER, where)
    rate, hop = _whole(data, "sample_rate", where), _whole(data, "samples_per_frame", where)
    groups = _whole(quantizer, "num_groups", where)
    levels = _wholes(quantizer.pop("num_levels_per_group", None), "vector_quantizer.num_levels_per_group", where)
    quantizer.pop("num_groups")
    eps = quantizer.pop("eps", 1e-3)
    if eps != 1e-3:
        raise _bad(f"vector_quantizer.eps is {eps}, only 0.001 is known", where)
    if quantizer:
        raise _bad(f"vector_quantizer has the unknown argument '{next(iter(quantizer))}'", where)
    if min(levels) < 2:
        raise _bad("vector_quantizer.num_levels_per_group must be 2 or more", where)
    config = NanoCodecConfig(rate, hop, groups, levels, encoder, decoder)
    if data.get("output_sample_rate", rate) != rate:
        raise _bad(f"output_sample_rate is {data['output_sample_rate']}, sample_rate {rate}", where)
    for name, rates in (("down_sample_rates", encoder.down_sample_rates), ("up_sample_rates", decoder.up_sample_rates)):
        if math.prod(rates) != hop:
            raise _bad(f"{name} multiply to {math.prod(rates)}, samples_per_frame is {hop}", where)
    width = groups * len(levels)
    if not encoder.encoded_dim == decoder.input_dim == width:
        raise _bad(
            f"encoded_dim {encoder.encoded_dim} and input_dim {decoder.input_dim} must be the quantiser's {width}",
            where,
        )
    if decoder.base_channels >> len(decoder.up_sample_rates) < 1:
        raise _bad(f"audio_decoder.base_channels {decoder.base_channels} cannot be halved that often", where)
    return config


_T = TypeVar("_T", EncoderConfig, DecoderConfig)


def _section(data: dict[str, Any], name: str, target: str, kind: type[_T], where: str) -> _T:
    arguments = _arguments(data, name, target, where)
    known = {field.name: field.type for field in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in arguments.items():
        here = f"{name}.{key}"
        if key not in known:
            raise _bad(f"{name} has the unknown argument '{key}'", where)
        if key in _CHOICES:
            if value not in _CHOICES[key]:
                raise _bad(f"{here} is '{value}', known are {', '.join(_CHOICES[key])}", where)
            values[key] = value
        elif known[key] == "bool":
            if not isinstance(value, bool):
                raise _bad(f"{here} must be true or false", where)
            values[key] = value
        elif known[key] == "int":
            values[key] = _whole(arguments, key, where, section=name)
        else:
            values[key] = _wholes(value, here, where)
    width = "encoded_dim" if kind is EncoderConfig else "input_dim"
    if width not in values:
        raise _bad(f"{name} lacks '{width}'", where)
    return kind(**values)


def _arguments(data: dict[str, Any], name: str, target: str, where: str) -> dict[str, Any]:
    section = data.get(name)
    if not isinstance(section, dict):
        raise _bad(f"lacks the section '{name}'", where)
    arguments = dict(section)
    found = arguments.pop("_target_", None)
    if found != target:
        raise _bad(f"{name} is of the unknown class '{found}', only '{target}' is known", where)
    return arguments


def _whole(data: dict[str, Any], key: str, where: str, *, section: str = "") -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bad(f"{section}{'.' if section else ''}{key} must be a positive integer, is {value!r}", where)
    return value


def _wholes(value: object, name: str, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(v) is int and v > 0 for v in value):
        raise _bad(f"{name} must be a list of positive integers, is {value!r}", where)
    return tuple(value)


def _bad(what: str, where: str) -> BadCheckpoint:
    return BadCheckpoint(
        what,
        where=where,
        hint="Only NVIDIA's nemo-nano-codec-22khz archives are known; give one with --weights",
    )
