"""`tokbench encode` and `tokbench decode`: audio to tokens and back, one file or a whole dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.commands.options import Device, Weights
from tokbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokbench.tokenizers.base import Tokenizer
    from tokbench.types import Encoded, Wave

__all__ = ["decode", "encode"]


def encode(
    audio: Annotated[list[Path] | None, typer.Argument(help="Audio files.")] = None,
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Name of the tokenizer.")] = "",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .npz file, or a folder for a dump.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A dataset instead of files; makes a dump for replay:.")
    ] = None,
    with_audio: Annotated[bool, typer.Option("--with-audio", help="Add the decoded audio to a dump.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First utterances only.")] = None,
    weights: Weights = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights.")] = False,
    device: Device = "auto",
) -> None:
    """Turn audio into tokens.

    One file: `tokbench encode --tokenizer NAME in.wav -o tokens.npz`. A dump that `replay:FOLDER` reads:
    `tokbench encode --tokenizer NAME --data mini-en -o FOLDER`.
    """
    from tokbench.audio import read_audio
    from tokbench.data.dataset import Dataset, Utterance
    from tokbench.data.load import load_dataset
    from tokbench.manifest import resolve_device
    from tokbench.tokenizers.load import load_tokenizer
    from tokbench.tokenizers.replay import is_dumped, write_dump

    if not tokenizer:
        raise UserError("no --tokenizer is given", hint="Type: tokbench list tokenizers")
    if out is None:
        raise UserError("no place for the tokens is given", hint="Add -o tokens.npz, or -o FOLDER")
    if (data is None) == (not audio):
        raise UserError("give either audio files or --data", where="tokbench encode")
    model = load_tokenizer(tokenizer, device=resolve_device(device), weights=weights, allow_pickle=allow_pickle)
    if data is None and audio and len(audio) == 1 and out.suffix == ".npz":
        encoded = _encode_one(model, *read_audio(audio[0]))
        out.write_bytes(encoded.to_npz(tokenizer=tokenizer))
        _say(f"{out}: {_sizes(encoded)} for {encoded.n_samples / model.card.input_rate:.2f} s")
        return
    if data is not None:
        dataset = load_dataset(data, limit=limit)
    else:
        dataset = Dataset("files", tuple(Utterance(path.stem, path, "unknown") for path in audio or ()))
    if len({u.id for u in dataset.utterances}) < len(dataset):
        raise UserError("two files have the same name", hint="Names become the ids of the dump")

    def items() -> Iterator[tuple[str, Encoded, Wave | None]]:
        for utterance in dataset.utterances:
            if is_dumped(out, utterance.id, with_audio=with_audio):
                continue  # an earlier, interrupted run made it
            encoded = _encode_one(model, *utterance.read())
            yield utterance.id, encoded, model.decode([encoded])[0] if with_audio else None

    identity = type(model).weights_identity(model.card, weights)
    write_dump(out, model.card, identity, items())
    _say(f"{out}: tokens of {len(dataset)} utterances; score them with --tokenizer replay:{out}")


def decode(
    tokens: Annotated[list[Path], typer.Argument(help=".npz files made by `tokbench encode`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A .wav or .flac file, or a folder.")],
    weights: Weights = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights.")] = False,
    device: Device = "auto",
) -> None:
    """Turn tokens back into audio."""
    import zipfile

    from tokbench.audio import write_audio
    from tokbench.manifest import resolve_device
    from tokbench.tokenizers.load import load_tokenizer
    from tokbench.types import Encoded

    single = len(tokens) == 1 and out.suffix != ""
    models: dict[str, Tokenizer] = {}
    for path in tokens:
        try:
            encoded, name = Encoded.from_npz(path.read_bytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"is not a file of tokens ({error})", where=str(path), hint="Make one with tokbench encode"
            ) from error
        if name not in models:
            models[name] = load_tokenizer(
                name, device=resolve_device(device), weights=weights, allow_pickle=allow_pickle
            )
        model = models[name]
        encoded.check(model.card.stream_specs, model.card.global_specs)
        wave = model.decode([encoded])[0]
        target = out if single else out / f"{path.stem}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        rate = model.card.output_rate
        assert rate is not None, "a tokenizer that decodes has an output rate"
        write_audio(target, wave, rate)
        _say(f"{target}: {len(wave) / rate:.2f} s at {rate} Hz")


def _encode_one(model: Tokenizer, wave: Wave, rate: int) -> Encoded:
    from tokbench.audio import resample

    encoded = model.encode([resample(wave, rate, model.card.input_rate)])[0]
    encoded.check(model.card.stream_specs, model.card.global_specs)
    return encoded


def _sizes(encoded: Encoded) -> str:
    parts = [f"{name} {'x'.join(str(n) for n in array.shape)}" for name, array in encoded.streams.items()]
    parts += [f"{name} {len(vector)} (global)" for name, vector in encoded.globals.items()]
    return ", ".join(parts)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
