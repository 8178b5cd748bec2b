"""What the training speech of kanade-mini says: WordNet's example sentences, two or three to an utterance."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["WORDNET", "normal", "utterances", "wordnet_examples"]

WORDNET = Path("/usr/share/wordnet")
"""Where Debian's package wordnet-base (Princeton WordNet 3.0, free for any use) puts its database."""

_QUOTED = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[A-Za-z][A-Za-z',;:?! -]*[a-z?!]")


def normal(text: str) -> str:
    """A text as lower-case words, to compare texts by."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def wordnet_examples(folder: Path, *, without: Iterable[str]) -> list[str]:
    """Plain example sentences of 4 to 16 words, sorted, each once.

    Args:
        folder: holds WordNet's `data.noun`, `data.verb`, `data.adj` and `data.adv`.
        without: texts that must not be spoken (those of the test), compared by `normal`.
    """
    banned = {normal(text) for text in without}
    found: dict[str, str] = {}
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith(" "):  # the licence
                continue
            _, _, gloss = line.partition("|")
            for example in _QUOTED.findall(gloss):
                text = " ".join(example.split())
                if 4 <= len(text.split()) <= 16 and _PLAIN.fullmatch(text) and normal(text) not in banned:
                    found.setdefault(normal(text), text[0].upper() + text[1:])
    return [found[key] for key in sorted(found)]


def utterances(examples: list[str], *, seed: str, letters: tuple[int, int] = (45, 110)) -> Iterator[str]:
    """Endless texts of one to three shuffled examples, each between about `letters` long; the seed decides them."""
    generator = random.Random(seed)
    while True:
        order = generator.sample(examples, len(examples))
        text, length = "", generator.randint(*letters)
        for example in order:
            ended = example if example[-1] in "?!" else f"{example}."
            text = f"{text} {ended}".strip()
            if len(text) >= length:
                yield text
                text, length = "", generator.randint(*letters)
