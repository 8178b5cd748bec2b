"""Reading a LoSATok checkpoint, which holds the semantic encoder too: the 7-billion-parameter model is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tokbench.codecs.checkpoint import FETCH_AGAIN, BadCheckpoint, fill, read_checkpoint, tensors_only
from tokbench.codecs.losatok.config import config_of_shapes
from tokbench.codecs.losatok.model import Losatok

__all__ = ["SEMANTIC_FILE", "load_losatok"]

SEMANTIC_FILE = "semantic_encoder.pth"
_SEMANTIC = "semantic_encoder."
_ENCODER = "semantic_encoder.encoder."
_ACOUSTIC = "dasheng_tokenizer.encoder.front_end.mel_spec."

_BUFFERS = {
    f"{_ENCODER}front_end.0.spectrogram.window": ("semantic_encoder.front_end", "window"),
    f"{_ENCODER}front_end.0.mel_scale.fb": ("semantic_encoder.front_end", "filters"),
    f"{_ENCODER}front_end.spectrogram_window": ("semantic_encoder.front_end", "window"),
    f"{_ENCODER}front_end.melscale_fbanks": ("semantic_encoder.front_end", "filters"),
    f"{_ACOUSTIC}spectrogram.window": ("dasheng_tokenizer.encoder.front_end", "window"),
    f"{_ACOUSTIC}mel_scale.fb": ("dasheng_tokenizer.encoder.front_end", "filters"),
    "dasheng_tokenizer.decoder.head.istft.window": ("dasheng_tokenizer.decoder.head", "window"),
}
"""Windows and filters that some releases store -> module and buffer here; used where they are there."""


def load_losatok(path: Path, *, heads: int = 16, what: str = "a LoSATok", allow_pickle: bool = False) -> Losatok:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a state dict, bare or under `state_dict`. Where it lacks the semantic encoder, `semantic_encoder.pth`
            beside it is read as well.
        heads: attention heads of the semantic encoder, which no tensor tells.
        what: how errors name the model.
        allow_pickle: load objects beside tensors too, which can run code.

    Raises:
        BadCheckpoint: damaged, another model, or a tensor missing, left over or of another shape.
    """
    where = str(path)
    state = _state(path, allow_pickle=allow_pickle)
    if any(key.startswith("dasheng_tokenizer.encoder.model.") for key in state):
        raise BadCheckpoint("is a DashengTokenizer", where=where, hint="Give a LoSATok checkpoint with --weights")
    if not any(key.startswith(_SEMANTIC) for key in state):
        beside = path.with_name(SEMANTIC_FILE)
        if not beside.is_file():
            raise BadCheckpoint("lacks the semantic encoder", where=where, hint=f"Put {SEMANTIC_FILE} beside it")
        state |= {_SEMANTIC + key: value for key, value in _state(beside, allow_pickle=allow_pickle).items()}
    state = _one_naming(state, where)
    buffers = {key: state.pop(key) for key in _BUFFERS if key in state}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    model = Losatok(config_of_shapes(shapes, heads=heads, where=where), device="meta")
    fill(model, state, where=where, what=what)
    for key, value in buffers.items():
        module, name = _BUFFERS[key]
        _replace(model.get_submodule(module), name, value, key=key, where=where)
    return model.eval()


def _state(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    found = read_checkpoint(path, where=str(path), allow_pickle=allow_pickle)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    return tensors_only(found, where=str(path))


def _one_naming(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Original Dasheng wraps its batch norm, MiDashengLM does not; a counter of training steps says nothing."""
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".num_batches_tracked"):
            continue
        name = key.replace(f"{_ENCODER}init_bn.1.", f"{_ENCODER}init_bn.")
        if name in named:
            raise BadCheckpoint(f"holds {name} twice", where=where, hint=FETCH_AGAIN)
        named[name] = value
    return named


def _replace(module: nn.Module, name: str, value: Tensor, *, key: str, where: str) -> None:
    own = getattr(module, name)
    if own.shape != value.shape:
        raise BadCheckpoint(f"{key} is {list(value.shape)}, must be {list(own.shape)}", where=where, hint=FETCH_AGAIN)
    module.register_buffer(name, value.float(), persistent=False)
