"""Tokenizer and judges before they are loaded: how they were asked for, and what decides what they say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokbench.config import JudgeCard, TokenizerCard
from tokbench.errors import DependencyError, TokenizerUnavailable
from tokbench.judges.load import judge_class
from tokbench.store.code import class_hash
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.load import load_tokenizer, tokenizer_class
from tokbench.tokenizers.replay import Replay, load_replay

__all__ = ["TokenizerHandle", "judge_identity"]

# What a card says for readers only, and what cannot change a token.
_DESCRIPTIVE = {
    "summary", "notes", "url", "citation", "proven", "licence", "trained_on", "languages", "family", "anchor",
    "decoder", "parameters", "capabilities", "requires", "environment",
}  # fmt: skip


@dataclass(frozen=True)
class TokenizerHandle:
    """How a tokenizer was asked for; loaded on first use, once a process.

    Attributes:
        spec: a card's name, or `replay:FOLDER`.
        device: "cpu" or "cuda".
        weights: folder that replaces the card's weights.
        allow_pickle: whether the user allowed pickled weights.
    """

    spec: str
    device: str = "cpu"
    weights: Path | None = None
    allow_pickle: bool = False

    @cached_property
    def replay(self) -> Replay | None:
        """The replay, where the spec names one."""
        return load_replay(self.spec) if self.spec.startswith("replay:") else None

    @cached_property
    def card(self) -> TokenizerCard:
        """The card, without loading the model."""
        from tokbench.registry import find_card

        return self.replay.card if self.replay else find_card(TokenizerCard, self.spec)

    @cached_property
    def weights_identity(self) -> dict[str, str]:
        """Name -> sha256 or version of everything outside the card that decides the tokens."""
        if self.replay:
            return {"replay": self.replay.content_hash()}
        return tokenizer_class(self.card).weights_identity(self.card, self.weights)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything about the tokenizer that decides tokens and audio, for store keys."""
        try:
            code = "replay" if self.replay else class_hash(tokenizer_class(self.card))
            weights = self.weights_identity
        except DependencyError as error:
            raise TokenizerUnavailable(error.what, where=error.where, hint=error.hint) from error
        return {
            "card": self.card.model_dump(mode="json", exclude=_DESCRIPTIVE),
            "weights": weights,
            "code": code,
            "device": self.device,
        }

    @cached_property
    def live(self) -> Tokenizer:
        """The loaded tokenizer.

        Raises:
            TokenizerUnavailable: a library or the weights are missing; with what to type.
        """
        try:
            return self._load()
        except DependencyError as error:
            raise TokenizerUnavailable(error.what, where=error.where, hint=error.hint) from error

    def _load(self) -> Tokenizer:
        return load_tokenizer(self.spec, device=self.device, weights=self.weights, allow_pickle=self.allow_pickle)

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the loaded model."""
        return {key: value for key, value in self.__dict__.items() if key not in ("live", "replay")}


def judge_identity(card: JudgeCard, weights: Path | None = None) -> dict[str, Any]:
    """Everything that decides a judge's evidence, for store keys and the manifest."""
    cls = judge_class(card)
    dump = card.model_dump(mode="json", include={"name", "kind", "adapter", "input_rate", "params"})
    return {"card": dump, "weights": cls.identity(card, weights), "code": class_hash(cls)}
