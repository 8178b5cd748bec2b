"""From a tokenizer's name to a running adapter, and the identity of the code that makes its tokens."""

from __future__ import annotations

from pathlib import Path

from tokbench.config import TokenizerCard
from tokbench.registry import find_card, import_object
from tokbench.store.code import class_hash
from tokbench.tokenizers.base import Tokenizer

__all__ = ["code_hash", "load_tokenizer", "tokenizer_class"]


def tokenizer_class(card: TokenizerCard) -> type[Tokenizer]:
    """The adapter class of a card; imports the adapter's module and loads no weights.

    Raises:
        MissingBackend: a library that the module imports is not installed.
        CardError: `card.adapter` names no tokenizer class.
    """
    return import_object(card.adapter, Tokenizer, needed_by=f"tokenizer '{card.name}'", extra=card.requires)  # type: ignore[type-abstract]


def load_tokenizer(
    name: str | TokenizerCard,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    allow_pickle: bool = False,
) -> Tokenizer:
    """Find the card, import the adapter, load the weights.

    Args:
        name: name of a tokenizer card, or the card itself.
        device: torch device string; classical coders ignore it.
        weights: folder or file that replaces the card's own weights.
        allow_pickle: whether a pickle may be loaded.

    Raises:
        UnknownName: no card of that name.
        MissingBackend, MissingWeights: in one line, with what to type next.
    """
    card = find_card(TokenizerCard, name) if isinstance(name, str) else name
    return tokenizer_class(card)(card, device=device, weights=weights, allow_pickle=allow_pickle)


def code_hash(cls: type[Tokenizer]) -> str:
    """Sha256 of the code that decides a tokenizer's tokens; comments, docstrings and layout do not count.

    Covers the modules of the class and of its bases, the contract included, and every `code_modules` entry. Modules
    are read as files, so nothing heavy is imported for a store key.
    """
    return class_hash(cls)
