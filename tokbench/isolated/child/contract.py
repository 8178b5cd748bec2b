"""What a backend is, and the errors by which it says whose fault something is.

A backend is a module with a function `load(options)` that returns an object with some of these methods, one utterance
a call, arrays in and out:

    facts                            dict: what the loaded model is, compared with the card by the parent
    encode(wave)                     float32 [n] to {"streams": {...}, "globals": {...}, "n_samples_coded": n}
    decode(streams, globals, n)      back to float32 [m] at the card's output rate; the parent cuts to length
    features(wave, which)            float32 [T, D], which is "pre_quant" or "post_quant"
    codebook(stream)                 float32 [vocab, D]
"""

from __future__ import annotations

from typing import Any

__all__ = ["BadItem", "BadWeights", "NoLibrary", "Options", "Refusal"]


class Refusal(Exception):
    """An error with a sentence for the user.

    Args:
        what: what is wrong, without a final full stop.
        where: the file it is about.
        hint: what to do next.
    """

    kind = "failed"

    def __init__(self, what: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint


class BadItem(Refusal):
    """This utterance cannot be processed; others can."""

    kind = "item"


class BadWeights(Refusal):
    """The checkpoint is absent, damaged, unsafe or another model's."""

    kind = "weights"


class NoLibrary(Refusal):
    """A library or a source folder is not in the environment."""

    kind = "library"


class Options:
    """What the parent says when it starts a backend.

    Attributes:
        name: the tokenizer, for messages.
        params: the card's `params`.
        device: torch device string.
        weights: checkpoint file or folder, None where the user gave none.
        files: names under which the checkpoint is published.
        source: folder of the environment's source, None where it has none.
        allow_pickle: whether a pickle may be loaded.
    """

    def __init__(self, message: dict[str, Any]) -> None:
        self.name: str = message["name"]
        self.params: dict[str, Any] = message["params"]
        self.device: str = message["device"]
        self.weights: str | None = message["weights"]
        self.files = tuple(message["files"])
        self.source: str | None = message["source"]
        self.allow_pickle: bool = message["allow_pickle"]
