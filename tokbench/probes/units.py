"""Units of text that a probe reads tokens into: byte-pair encoding fitted on the training texts alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from tokbench.errors import DatasetError, MissingBackend

__all__ = ["Units", "spoken"]

_SPACE = "▁"


def spoken(text: str) -> str:
    """A text as it is trained on: lower case, letters, digits and apostrophes, single spaces.

    Lighter than the normaliser that scores, which writes numbers as digits although words are what is heard.
    """
    kept = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower().replace("’", "'"))
    return " ".join(kept.split())


class Units:
    """Byte-pair units (Sennrich et al. 2016; the library `tokenizers`), ids `0 .. size - 1`, without special ones.

    Args:
        definition: JSON that `fit` made.
    """

    def __init__(self, definition: str) -> None:
        self.definition = definition
        self._coder = _library().Tokenizer.from_str(definition)
        self.size = int(self._coder.get_vocab_size())

    @classmethod
    def fit(cls, texts: Iterable[str], size: int, *, where: str) -> Units:
        """Units of the training texts.

        Args:
            texts: as `spoken` gives them.
            size: number of units.
            where: the training data, for the message.

        Raises:
            DatasetError: there are fewer characters and merges in the texts than units asked for, or more characters.
        """
        library = _library()
        texts = [text for text in texts if text]
        alphabet = {c for text in texts for c in text.replace(" ", _SPACE)} | {_SPACE}
        if not texts or len(alphabet) > size:
            raise DatasetError(
                f"has {len(alphabet) if texts else 'no'} characters in its texts, which do not fit {size} units",
                where=where,
                hint=f"Ask for at least {len(alphabet)} units: --set units={len(alphabet)}" if texts else None,
            )
        coder = library.Tokenizer(library.models.BPE())
        coder.pre_tokenizer = library.pre_tokenizers.Metaspace(replacement=_SPACE)
        coder.decoder = library.decoders.Metaspace(replacement=_SPACE)
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, show_progress=False, initial_alphabet=sorted(alphabet), special_tokens=[]
        )
        coder.train_from_iterator(texts, trainer)
        made = int(coder.get_vocab_size())
        if made < size:
            raise DatasetError(
                f"has too little text for {size} units: its {len(texts)} texts give {made}",
                where=where,
                hint=f"Train on more data, or ask for fewer units: --set units={made}",
            )
        return cls(coder.to_str())

    @cached_property
    def sha256(self) -> str:
        """Identity of the units."""
        return hashlib.sha256(self.definition.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; characters that the training texts lack have none and are left out."""
        return [int(i) for i in self._coder.encode(text).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; any sequence has one."""
        return " ".join(str(self._coder.decode(list(ids))).split())


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError:
        raise MissingBackend("tokenizers", extra="mini", needed_by="units of text") from None
    return tokenizers
