"""ASR judge: a transformers CTC model such as HuBERT-large fine-tuned on LibriSpeech, greedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tokbench.config import JudgeCard
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked
from tokbench.judges.pretrained import load_transformer, pad_to, zero_mean_unit_variance
from tokbench.judges.weights import package_versions, weights_identity
from tokbench.types import Wave

__all__ = ["TransformersCTC", "greedy_text"]

_RECEPTIVE_FIELD = 400
"""Samples under one frame of the convolutional front end, 25 ms."""


class TransformersCTC(Judge):
    """Transcripts by the argmax of each frame, repeats and blanks removed; no language model.

    A whole utterance is one forward pass in float32. Audio under 25 ms is padded with zeros to one frame.

    Params:
        model: class in transformers, "HubertForCTC" or "Wav2Vec2ForCTC".
        blank: the CTC blank's name in vocab.json, "<pad>".
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.pretrained", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"model", "blank"})
        name = str(card.params.get("model", "HubertForCTC"))
        self._model, folder, self._normalise = load_transformer(card, name, device=device, weights=weights)
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        self._symbols = {int(index): symbol for symbol, index in vocabulary.items()}
        self._blank = int(vocabulary[str(card.params.get("blank", "<pad>"))])

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of transformers and torch, the files' sha256 or hub revision."""
        return package_versions("transformers", "torch") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Transcribe each wave on its own: {"text"}."""
        return [{"text": self._transcribe(wave)} for wave in checked(self.card, wavs)]

    def _transcribe(self, wave: Wave) -> str:
        import torch

        wave = pad_to(zero_mean_unit_variance(wave) if self._normalise else wave, _RECEPTIVE_FIELD)
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(wave)[None].to(self.device)).logits[0]
            ids: list[int] = logits.argmax(dim=-1).tolist()
        return greedy_text(ids, symbols=self._symbols, blank=self._blank)


def greedy_text(ids: Sequence[int], *, symbols: dict[int, str], blank: int) -> str:
    """CTC's best path as text: merge repeats, drop blanks and other `<...>` symbols, "|" is a space.

    Source: Graves et al. 2006, Connectionist temporal classification.
    """
    kept = (symbols[index] for index, _ in groupby(ids) if index != blank)
    text = "".join(symbol for symbol in kept if not (symbol.startswith("<") and symbol.endswith(">")))
    return " ".join(text.replace("|", " ").split())
