"""Reading a `.nemo` archive: two members of a tar file are looked at, nothing is unpacked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

import torch
import yaml
from torch import Tensor

from tokbench.codecs.checkpoint import FETCH_AGAIN, BadCheckpoint, fill, fold_weight_norm, read_checkpoint, tensors_only
from tokbench.codecs.nanocodec.config import NanoCodecConfig, parse_config
from tokbench.codecs.nanocodec.model import NanoCodec

__all__ = ["load_nanocodec", "read_config"]

_CONFIG, _WEIGHTS = "model_config.yaml", "model_weights.ckpt"
_OURS = ("audio_encoder.", "audio_decoder.", "vector_quantizer.")
_TRAINING = (
    "discriminator.",
    "mel_loss_fn.",
    "stft_loss_fn.",
    "generator_loss.",
    "discriminator_loss.",
    "feature_loss.",
)
_TRAINING_MODELS = ("slm_", "speaker_encoder.", "scl_loss")
_MAX_CONFIG = 1 << 20


def read_config(path: Path) -> NanoCodecConfig:
    """The geometry that an archive declares, without its weights.

    Raises:
        BadCheckpoint: see `load_nanocodec`.
    """
    with _open(path) as tar:
        return _config(tar, _members(tar, path), path)


def load_nanocodec(path: Path, *, what: str = "a NanoCodec", allow_pickle: bool = False) -> NanoCodec:
    """The model of an archive, in evaluation mode on the CPU.

    Args:
        path: `.nemo` file, a plain or gzipped tar.
        what: how errors name the model.
        allow_pickle: load a checkpoint that holds more than tensors, which can run code.

    Raises:
        BadCheckpoint: no tar, damaged, an entry that leads outside, an unknown class or argument in the configuration,
            a tensor missing, left over or of another shape, or quantiser levels that contradict the configuration.
    """
    where = str(path)
    with _open(path) as tar:
        members = _members(tar, path)
        config = _config(tar, members, path)
        handle = _member(tar, members, _WEIGHTS, path)
        source: IO[bytes] = handle if _is_plain(path) else io.BytesIO(_read(handle, where))
        found = read_checkpoint(source, where=f"{where}: {_WEIGHTS}", allow_pickle=allow_pickle)
    state = tensors_only(found, where=where)
    state = {key: value for key, value in state.items() if not key.startswith((*_TRAINING, *_TRAINING_MODELS))}
    _check_levels(state, config, where)
    nets = {key: value for key, value in state.items() if not key.startswith("vector_quantizer.fsqs.")}
    model = NanoCodec(config, device="meta")
    fill(model, fold_weight_norm(nets, where=where), where=where, what=what)
    return model.eval()


def _open(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:*")
    except FileNotFoundError:
        raise BadCheckpoint("is not there", where=str(path), hint="Give the .nemo file with --weights") from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(path, error) from None


def _is_plain(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) != b"\x1f\x8b"


def _damaged(path: Path, error: Exception) -> BadCheckpoint:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadCheckpoint(f"is damaged, or is no .nemo archive ({reason})", where=str(path), hint=FETCH_AGAIN)


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    """Members by plain name; an archive with an entry that leads outside is refused as a whole."""
    found: dict[str, tarfile.TarInfo] = {}
    try:
        entries = tar.getmembers()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(path, error) from None
    for entry in entries:
        name = PurePosixPath(entry.name)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.name:
            raise _unsafe(path, entry.name, "leads outside")
        if not (entry.isfile() or entry.isdir()):
            raise _unsafe(path, entry.name, "is a link or a device")
        if str(name) in found:
            raise _unsafe(path, entry.name, "is there twice")
        found[str(name)] = entry
    return found


def _unsafe(path: Path, name: str, why: str) -> BadCheckpoint:
    return BadCheckpoint(f"holds the entry '{name}', which {why}", where=str(path), hint="Do not use this archive")


def _member(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str, path: Path) -> IO[bytes]:
    entry = members.get(name)
    handle = tar.extractfile(entry) if entry is not None else None
    if handle is None:
        raise BadCheckpoint(f"holds no {name}", where=str(path), hint="Give a .nemo archive of a NanoCodec")
    return handle


def _read(handle: IO[bytes], where: str, limit: int = -1) -> bytes:
    try:
        return handle.read(limit)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(Path(where), error) from None


def _config(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: Path) -> NanoCodecConfig:
    text = _read(_member(tar, members, _CONFIG, path), str(path), _MAX_CONFIG)
    where = f"{path}: {_CONFIG}"
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "problem", None) or type(error).__name__)
        raise BadCheckpoint(f"is not plain YAML ({reason})", where=where, hint=FETCH_AGAIN) from None
    return parse_config(data, where=where)


def _check_levels(state: dict[str, Tensor], config: NanoCodecConfig, where: str) -> None:
    """The checkpoint repeats the quantiser's levels for every group; they must be the configuration's."""
    base = [1]
    for level in config.levels[:-1]:
        base.append(base[-1] * level)
    for group in range(config.num_groups):
        for name, wanted in (("num_levels", list(config.levels)), ("dim_base_index", base)):
            key = f"vector_quantizer.fsqs.{group}.{name}"
            if key not in state:
                raise BadCheckpoint(f"lacks {key}", where=where, hint=FETCH_AGAIN)
            if not torch.equal(state[key].flatten().to(torch.int64), torch.tensor(wanted)):
                raise BadCheckpoint(
                    f"{key} is {state[key].flatten().tolist()}, the configuration makes it {wanted}",
                    where=where,
                    hint="The weights are another variant's",
                )
    extra = [k for k in state if k.startswith("vector_quantizer.fsqs.") and int(_group(k)) >= config.num_groups]
    if extra:
        raise BadCheckpoint(
            f"holds {extra[0]}, the configuration has {config.num_groups} groups",
            where=where,
            hint="The weights are another variant's",
        )


def _group(key: str) -> str:
    part = key.split(".")[2]
    return part if part.isdigit() else "-1"
