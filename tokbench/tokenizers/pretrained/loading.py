"""A `transformers` model from its config and its weights file, without a tensor missing, left over or made up.

The library itself fills what a checkpoint lacks with random numbers and says so in a log; here that is an error. Files
are read by `tokbench.codecs.checkpoint`, so that no pickle is loaded unasked, and no code from a hub is ever run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from tokbench.codecs.checkpoint import BadCheckpoint, read_checkpoint, tensors_only
from tokbench.errors import DependencyError

__all__ = ["load_pretrained", "read_config"]

_log = logging.getLogger(__name__)


def read_config(path: Path, *, model_type: str, what: str, hint: str) -> dict[str, Any]:
    """The config as written, checked to be of `model_type`.

    Raises:
        BadCheckpoint: it is not JSON, or another model's.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"is not a model's config ({error})", where=str(path), hint=hint) from None
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise BadCheckpoint(f"is of a model of type '{found}', {what} is '{model_type}'", where=str(path), hint=hint)
    return dict(config)


def load_pretrained(
    config: Path,
    weights: Path,
    *,
    model_type: str,
    model_class: str,
    what: str,
    hint: str,
    allow_pickle: bool = False,
) -> Any:
    """The model in float32 and evaluation mode, on the CPU.

    Args:
        config: `config.json` as published.
        weights: safetensors, or a file of `torch.save`.
        model_type: what the config must be of.
        model_class: name of the class in `transformers`.
        what: how errors name the model.
        hint: what to type next.
        allow_pickle: take a weights file that holds more than tensors.

    Raises:
        DependencyError: the installed library is older than the class.
        BadCheckpoint: config or weights are damaged, another model's, incomplete or not finite.
    """
    values = read_config(config, model_type=model_type, what=what, hint=hint)
    cls = getattr(transformers, model_class, None)
    if cls is None:
        raise DependencyError(
            f"transformers {transformers.__version__} has no {model_class}, which {what} needs",
            hint="Type: python -m pip install --upgrade transformers",
        )
    state = tensors_only(read_checkpoint(weights, where=str(weights), allow_pickle=allow_pickle), where=str(weights))
    bad = next((k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
    if bad is not None:
        raise BadCheckpoint(f"{bad} has NaN or infinite values", where=str(weights), hint=hint)
    try:
        # Without the key the library would ask the hub for code that the config names.
        settings = cls.config_class.from_dict({k: v for k, v in values.items() if k != "auto_map"})
    except Exception as error:  # noqa: BLE001 - config classes raise whatever their checks raise
        raise BadCheckpoint(f"cannot be used ({_first_line(error)})", where=str(config), hint=hint) from None
    with _quiet():
        try:
            model, report = cls.from_pretrained(
                None, config=settings, state_dict=state, output_loading_info=True, dtype=torch.float32,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - any class that the config asks for may fail to be built
            raise BadCheckpoint(f"does not make a {model_class} ({_first_line(error)})", where=str(config),
                                hint=hint) from None  # fmt: skip
    for kind, keys in (("lacks", report["missing_keys"]), ("has another shape for", report["mismatched_keys"])):
        if keys:
            first = min(str(key if isinstance(key, str) else key[0]) for key in keys)
            raise BadCheckpoint(f"{kind} {len(keys)} of the tensors of {what}, for instance {first}",
                                where=str(weights), hint=hint)  # fmt: skip
    if report["unexpected_keys"]:
        extra = sorted(report["unexpected_keys"])
        _log.warning("%s: %d tensors that %s does not use, for instance %s", weights, len(extra), what, extra[0])
    return model.eval()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".")[:160]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no load report of the library's; what matters in it is raised here."""
    library: Any = transformers.utils.logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
