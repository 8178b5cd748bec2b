"""Geometry of a Kanade model, and the released `config.yaml` that it is read from and written to.

Nothing here imports torch. The released file describes each net as `class_path` and `init_args`; only the geometry is
taken from it, the class names are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tokbench.errors import CardError

__all__ = [
    "GLOBAL_DIM",
    "KANADE_12HZ",
    "KANADE_25HZ",
    "KANADE_25HZ_CLEAN",
    "GlobalEncoderConfig",
    "KanadeConfig",
    "MelConfig",
    "PostNetConfig",
    "QuantizerConfig",
    "TransformerConfig",
    "read_config",
    "released_yaml",
]

GLOBAL_DIM = 128
"""Width of the speaker vector of every released model."""

SSL_RATE, SSL_HOP = 16000, 320
"""WavLM's sampling rate in Hz and its samples a frame."""


class Geometry(BaseModel):
    """Base of every part: frozen, unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TransformerConfig(Geometry):
    """One local-window transformer.

    Attributes:
        dim: width.
        n_layers: number of blocks.
        n_heads: number of heads; each is `dim / n_heads` wide.
        window: odd number of frames that a frame sees, itself in the middle.
        output_dim: width of the projection at the end; None: no projection.
        condition_dim: width of the vector behind adaLN-Zero; None: plain layer norms.
        multiple_of: the feed-forward width is `int(8 dim / 3)` rounded up to a multiple of this.
        dropout: on attention probabilities, in training alone.
    """

    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    window: int = Field(gt=0, validation_alias=AliasChoices("window_size", "window"))
    output_dim: int | None = None
    condition_dim: int | None = Field(
        default=None, validation_alias=AliasChoices("adanorm_condition_dim", "condition_dim")
    )
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    multiple_of: int = 256
    dropout: float = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        if self.dim % self.n_heads:
            raise ValueError("n_heads must divide dim")
        return self

    @property
    def radius(self) -> int:
        """Frames seen on either side."""
        return self.window // 2

    @property
    def hidden_dim(self) -> int:
        """Width of the feed-forward layer."""
        return -(-int(2 / 3 * 4 * self.dim) // self.multiple_of) * self.multiple_of


class QuantizerConfig(Geometry):
    """Finite scalar quantisation between two projections."""

    input_dim: int
    output_dim: int
    levels: tuple[int, ...]


class GlobalEncoderConfig(Geometry):
    """ConvNeXt and attentive statistics pooling."""

    input_channels: int
    output_channels: int
    num_layers: int
    dim: int
    intermediate_dim: int
    attention_channels: int = 128


class PostNetConfig(Geometry):
    """Residual convolutions over the mel spectrogram."""

    input_channels: int
    channels: int
    kernel_size: int
    num_layers: int
    dropout: float = 0.5


class MelConfig(Geometry):
    """Which log-mel spectrogram the decoder makes.

    Attributes:
        style: "vocos" (magnitude, HTK bands, floor 1e-7) or "hift" (Slaney bands, floor 1e-5).
        padding: "center", "same" or "none"; decides the number of frames.
        fmax: upper edge in Hz; None: half the sampling rate.
    """

    style: Literal["vocos", "hift"] = "vocos"
    sample_rate: int = 24000
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 100
    padding: str = "center"
    fmin: float = 0.0
    fmax: float | None = None


class KanadeConfig(Geometry):
    """Everything that decides the nets' shapes and the length arithmetic.

    Attributes:
        local_layers: WavLM layers (1 = first block's output) whose mean is the content encoder's input.
        global_layers: the same for the global encoder.
        normalize: whether content features are normalised over the utterance.
        downsample: SSL frames a token.
        mel_upsample: stride of the transposed convolution before interpolation to the mel frame rate.
        feature_decoder: reconstructs the SSL features in training; None where the model has none.
        vocoder: what turns the mel spectrogram into audio.
    """

    local_layers: tuple[int, ...]
    global_layers: tuple[int, ...]
    normalize: bool = True
    downsample: int = Field(gt=0)
    mel_upsample: int = Field(gt=0)
    local_encoder: TransformerConfig
    quantizer: QuantizerConfig
    feature_decoder: TransformerConfig | None = None
    global_encoder: GlobalEncoderConfig
    mel_prenet: TransformerConfig
    mel_decoder: TransformerConfig
    mel_postnet: PostNetConfig
    mel: MelConfig
    vocoder: Literal["vocos", "hift"] = "vocos"

    @property
    def token_rate(self) -> Fraction:
        """Tokens per second."""
        return Fraction(SSL_RATE, SSL_HOP * self.downsample)

    @property
    def prenet_dim(self) -> int:
        """Width of the prenet's output."""
        return self.mel_prenet.output_dim or self.mel_prenet.dim

    @property
    def deepest_layer(self) -> int:
        """Number of WavLM blocks that must run."""
        return max(*self.local_layers, *self.global_layers)

    @property
    def min_samples(self) -> int:
        """Shortest input at `mel.sample_rate` that makes one token: one sample more than `f - 1` SSL frames."""
        return (self.downsample - 1) * SSL_HOP * self.mel.sample_rate // SSL_RATE + 1


def _released(
    *, window: int, downsample: int, mel_upsample: int, clean: bool = False, token_decoder: bool = True
) -> KanadeConfig:
    encoder = TransformerConfig(dim=768, n_layers=6, n_heads=12, window=125)
    mel = MelConfig(style="hift", n_fft=1920, hop=480, n_mels=80, padding="same", fmax=8000) if clean else MelConfig()
    width, heads = (768, 12) if clean else (512, 8)
    return KanadeConfig(
        local_layers=(6, 9),
        global_layers=(1, 2, 3, 4) if clean else (1, 2),
        downsample=downsample,
        mel_upsample=mel_upsample,
        local_encoder=encoder,
        quantizer=QuantizerConfig(input_dim=768, output_dim=768, levels=(8, 8, 8, 5, 5)),
        feature_decoder=encoder if token_decoder else None,
        global_encoder=GlobalEncoderConfig(
            input_channels=768, output_channels=GLOBAL_DIM, num_layers=4, dim=384, intermediate_dim=1152
        ),
        mel_prenet=TransformerConfig(
            dim=768, n_layers=6, n_heads=12, window=window, output_dim=None if clean else width
        ),
        mel_decoder=TransformerConfig(
            dim=width, n_layers=6, n_heads=heads, window=65, output_dim=mel.n_mels, condition_dim=GLOBAL_DIM
        ),
        mel_postnet=PostNetConfig(input_channels=mel.n_mels, channels=256, kernel_size=7, num_layers=4),
        mel=mel,
        vocoder="hift" if clean else "vocos",
    )


KANADE_12HZ = _released(window=31, downsample=4, mel_upsample=8)
"""frothywater/kanade-12.5hz."""
KANADE_25HZ = _released(window=65, downsample=2, mel_upsample=4)
"""frothywater/kanade-25hz."""
KANADE_25HZ_CLEAN = _released(window=65, downsample=2, mel_upsample=2, clean=True, token_decoder=False)
"""frothywater/kanade-25hz-clean."""

_FREE: dict[str, frozenset[object]] = {
    # Options of the released file that only say how to compute or to train, or that have one possible value here.
    "use_rope": frozenset({True}),
    "use_adaln_zero": frozenset({True, False}),
    "use_xavier_init": frozenset({True, False}),
    "use_layer_norm": frozenset({True}),
    "use_conv_downsample": frozenset({True}),
    "local_interpolation_mode": frozenset({"linear"}),
    "mel_interpolation_mode": frozenset({"linear"}),
}
_IGNORED = {"max_seq_len", "use_flash_attention", "mel_fmin", "mel_fmax", "bigvgan_style_mel", "vocoder_name"}
_PARTS: dict[str, type[Geometry]] = {
    "local_encoder": TransformerConfig,
    "local_quantizer": QuantizerConfig,
    "feature_decoder": TransformerConfig,
    "global_encoder": GlobalEncoderConfig,
    "mel_prenet": TransformerConfig,
    "mel_decoder": TransformerConfig,
    "mel_postnet": PostNetConfig,
}


def read_config(path: Path) -> KanadeConfig:
    """Read a released `config.yaml` (the nets and, beside them, `config` or `model_config`).

    An option that is unknown and switched on is refused, since it could change the tokens.

    Raises:
        CardError: the file is not such a config; names the field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CardError(f"not readable as YAML ({str(error).splitlines()[0]})", where=str(path)) from None
    nets = _find(data)
    if nets is None:
        raise CardError("describes no Kanade model: there is no 'local_encoder'", where=str(path))
    try:
        return _parse(nets)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CardError(first["msg"], where=f"{path}: {field}") from None
    except ValueError as error:
        raise CardError(str(error), where=str(path)) from None


def _find(data: object) -> Mapping[str, Any] | None:
    """The innermost mapping that holds `local_encoder`, wherever the file nests it."""
    if not isinstance(data, Mapping):
        return None
    if "local_encoder" in data:
        return data
    return next((found for value in data.values() if (found := _find(value)) is not None), None)


def _parse(nets: Mapping[str, Any]) -> KanadeConfig:
    parts: dict[str, Any] = {}
    for name, kind in _PARTS.items():
        section = nets.get(name)
        if section is None and name == "feature_decoder":
            continue
        if not isinstance(section, Mapping):
            raise ValueError(f"there is no '{name}'")  # noqa: TRY004 - of the file, not of a type
        arguments = section.get("init_args", section if "class_path" not in section else {})
        parts[name] = _known(arguments, kind, name)
    settings: Mapping[str, Any] = next(
        (nets[key] for key in ("config", "model_config") if isinstance(nets.get(key), Mapping)), {}
    )
    settings = settings.get("init_args", settings)
    extractor = nets.get("ssl_feature_extractor") or {}
    model = extractor.get("init_args", extractor).get("model_name", "wavlm_base_plus")
    if model != "wavlm_base_plus":
        raise ValueError(f"ssl_feature_extractor is '{model}', only 'wavlm_base_plus' is supported")
    known: dict[str, Any] = {
        "local_ssl_layers": (6, 9), "global_ssl_layers": (1, 2), "normalize_ssl_features": True,
        "downsample_factor": 2, "mel_upsample_factor": 4,
        "sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": "center",
    }  # fmt: skip
    _refuse(settings, set(known), "config")
    value = known | {key: settings[key] for key in known if key in settings}
    mel = MelConfig(
        style="hift" if settings.get("bigvgan_style_mel") else "vocos",
        sample_rate=value["sample_rate"],
        n_fft=value["n_fft"],
        hop=value["hop_length"],
        n_mels=value["n_mels"],
        padding=value["padding"],
        fmin=settings.get("mel_fmin") or 0.0,
        fmax=settings.get("mel_fmax"),
    )
    return KanadeConfig(
        local_layers=tuple(value["local_ssl_layers"]),
        global_layers=tuple(value["global_ssl_layers"]),
        normalize=value["normalize_ssl_features"],
        downsample=value["downsample_factor"],
        mel_upsample=value["mel_upsample_factor"],
        quantizer=parts.pop("local_quantizer"),
        mel=mel,
        vocoder=settings.get("vocoder_name", "vocos"),
        **parts,
    )


def _known(arguments: Mapping[str, Any], kind: type[Geometry], where: str) -> dict[str, Any]:
    names = set(kind.model_fields)
    for field in kind.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice) for choice in field.validation_alias.choices}
    _refuse(arguments, names, where)
    return {key: value for key, value in arguments.items() if key in names and value is not None}


def _refuse(arguments: Mapping[str, Any], names: set[str], where: str) -> None:
    """Raise `ValueError` for an option that is neither known, nor free of effect, nor off."""
    for key, value in arguments.items():
        allowed = _FREE.get(key)
        if allowed is not None and value not in allowed:
            raise ValueError(f"{where}.{key} = {value} is not supported")
        if allowed is None and key not in names and key not in _IGNORED and value not in (None, False):
            raise ValueError(f"{where}.{key} = {value} is unknown; this version cannot tell what it changes")


def released_yaml(config: KanadeConfig) -> str:
    """The config as a released `config.yaml`; `read_config` gives it back."""

    def part(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"class_path": f"kanade_tokenizer.module.{name}", "init_args": arguments}

    def transformer(net: TransformerConfig) -> dict[str, Any]:
        arguments: dict[str, Any] = {"dim": net.dim, "n_layers": net.n_layers, "n_heads": net.n_heads}
        arguments |= {"window_size": net.window, "use_rope": True, "rope_theta": net.rope_theta, "max_seq_len": 512}
        if net.output_dim is not None:
            arguments["output_dim"] = net.output_dim
        if net.condition_dim is not None:
            arguments |= {"adanorm_condition_dim": net.condition_dim, "use_adaln_zero": True}
        defaults = TransformerConfig.model_fields
        for field in ("norm_eps", "multiple_of", "dropout"):
            if getattr(net, field) != defaults[field].default:
                arguments[field] = getattr(net, field)
        return part("transformer.Transformer", arguments)

    mel = config.mel
    nets: dict[str, Any] = {
        "ssl_feature_extractor": part(
            "ssl_extractor.SSLFeatureExtractor",
            {"model_name": "wavlm_base_plus", "output_layer": config.deepest_layer, "sample_rate": mel.sample_rate},
        ),
        "local_encoder": transformer(config.local_encoder),
        "local_quantizer": part("fsq.FiniteScalarQuantizer", config.quantizer.model_dump(mode="json")),
        "feature_decoder": transformer(config.feature_decoder) if config.feature_decoder else None,
        "global_encoder": part("global_encoder.GlobalEncoder", config.global_encoder.model_dump()),
        "mel_prenet": transformer(config.mel_prenet),
        "mel_decoder": transformer(config.mel_decoder),
        "mel_postnet": part("postnet.PostNet", config.mel_postnet.model_dump() | {"use_layer_norm": True}),
        "config": {
            "local_ssl_layers": list(config.local_layers),
            "global_ssl_layers": list(config.global_layers),
            "normalize_ssl_features": config.normalize,
            "downsample_factor": config.downsample,
            "mel_upsample_factor": config.mel_upsample,
            "use_conv_downsample": True,
            "mel_interpolation_mode": "linear",
            "sample_rate": mel.sample_rate,
            "n_fft": mel.n_fft,
            "hop_length": mel.hop,
            "n_mels": mel.n_mels,
            "padding": mel.padding,
            "mel_fmin": mel.fmin,
            "mel_fmax": mel.fmax,
            "bigvgan_style_mel": mel.style == "hift",
            "vocoder_name": config.vocoder,
        },
    }
    model = {"class_path": "kanade_tokenizer.model.KanadeModel", "init_args": nets}
    return str(yaml.safe_dump({"model": model}, sort_keys=False))
