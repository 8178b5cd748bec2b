"""`tokbench convert`: what one recording says, in the voice of another, by any tokenizer that can swap globals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokbench.commands.options import Device, Weights

__all__ = ["convert"]


def convert(
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Name of a tokenizer with swap_global.")],
    source: Annotated[Path, typer.Option("--source", help="Audio whose words are kept.")],
    reference: Annotated[Path, typer.Option("--reference", help="Audio whose voice is taken.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A .wav or .flac file.")],
    weights: Weights = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights.")] = False,
    device: Device = "auto",
) -> None:
    """Convert a voice: decode the source's tokens with the reference's globals."""
    from tokbench.audio import read_audio, resample, write_audio
    from tokbench.config import TokenizerCard
    from tokbench.errors import UserError
    from tokbench.manifest import resolve_device
    from tokbench.registry import find_card
    from tokbench.tokenizers.load import load_tokenizer

    card = find_card(TokenizerCard, tokenizer)
    if "swap_global" not in card.capabilities or card.output_rate is None:
        raise UserError(
            "has no global vector to swap, so that it cannot convert voices",
            where=f"tokenizer '{tokenizer}'",
            hint="Choose one that lists swap_global in: tokbench list tokenizers",
        )
    waves = [resample(*read_audio(path), card.input_rate) for path in (source, reference)]
    model = load_tokenizer(card, device=resolve_device(device), weights=weights, allow_pickle=allow_pickle)
    content, voice = model.encode(waves)
    wave = model.decode([content], globals_from=[voice])[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_audio(out, wave, card.output_rate)
    sys.stdout.write(f"{out}: {len(wave) / card.output_rate:.2f} s at {card.output_rate} Hz\n")
