"""Text as a model reads it: lower-case letters, apostrophes and single spaces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Characters", "plain"]


def plain(text: str) -> str:
    """Lower case, composed letters, digits and apostrophes; everything else is a space, and spaces are single."""
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in text).split())


@dataclass(frozen=True)
class Characters:
    """An alphabet.

    Attributes:
        letters: in order; symbol 0 is every character outside it.
    """

    letters: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """All characters of the texts, in plain form."""
        return cls(tuple(sorted({c for text in texts for c in plain(text)})))

    @property
    def size(self) -> int:
        """Number of symbols."""
        return len(self.letters) + 1

    def __call__(self, text: str) -> list[int]:
        """Symbols of a text in plain form."""
        number = {letter: place for place, letter in enumerate(self.letters, start=1)}
        return [number.get(c, 0) for c in plain(text)]
