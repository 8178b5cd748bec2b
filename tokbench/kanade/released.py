"""The released `config.yaml`: geometry read from it, and written in its layout.

Models of this project say more than the released layout can: another SSL model, a global encoder that hears the mel
spectrogram, `input_dim`, the mel style "plain". Such a file has these options besides; a released one never does.

The file describes each net as `class_path` and `init_args`; only the geometry is taken, class names are not.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, ValidationError

from tokbench.errors import CardError
from tokbench.kanade.config import (
    Geometry,
    GlobalEncoderConfig,
    KanadeConfig,
    MelConfig,
    PostNetConfig,
    QuantizerConfig,
    TransformerConfig,
)

__all__ = ["read_config", "released_yaml"]

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
_SSL = {"wavlm_base_plus": "wavlm-base-plus", "whisper_tiny_en": "whisper-tiny.en"}
"""The file's names of SSL models -> ours."""
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
    if model not in _SSL:
        raise ValueError(f"ssl_feature_extractor is '{model}', only {' and '.join(_SSL)} are supported")
    known: dict[str, Any] = {
        "local_ssl_layers": (6, 9), "global_ssl_layers": (1, 2), "normalize_ssl_features": True,
        "downsample_factor": 2, "mel_upsample_factor": 4,
        "sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": "center",
        "global_input": "ssl", "mel_style": None,
    }  # fmt: skip
    _refuse(settings, set(known), "config")
    value = known | {key: settings[key] for key in known if key in settings}
    mel = MelConfig(
        style=value["mel_style"] or ("hift" if settings.get("bigvgan_style_mel") else "vocos"),
        sample_rate=value["sample_rate"],
        n_fft=value["n_fft"],
        hop=value["hop_length"],
        n_mels=value["n_mels"],
        padding=value["padding"],
        fmin=settings.get("mel_fmin") or 0.0,
        fmax=settings.get("mel_fmax"),
    )
    return KanadeConfig(
        ssl=_SSL[model],
        local_layers=tuple(value["local_ssl_layers"]),
        global_input=value["global_input"],
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
        if net.input_dim is not None:
            arguments["input_dim"] = net.input_dim
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
    ssl = next(name for name, ours in _SSL.items() if ours == config.ssl)
    own: dict[str, str] = {"global_input": config.global_input} if config.global_input != "ssl" else {}
    own |= {"mel_style": mel.style} if mel.style not in ("vocos", "hift") else {}
    nets: dict[str, Any] = {
        "ssl_feature_extractor": part(
            "ssl_extractor.SSLFeatureExtractor",
            {"model_name": ssl, "output_layer": config.deepest_layer, "sample_rate": mel.sample_rate},
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
            **own,
        },
    }
    model = {"class_path": "kanade_tokenizer.model.KanadeModel", "init_args": nets}
    return str(yaml.safe_dump({"model": model}, sort_keys=False))
