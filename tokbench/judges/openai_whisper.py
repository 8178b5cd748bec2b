"""ASR judge: Whisper by openai-whisper, greedy, from OpenAI's own checkpoint file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokbench.config import JudgeCard
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, need
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

__all__ = ["OpenAIWhisper"]


class OpenAIWhisper(Judge):
    """Transcripts by `whisper.transcribe`, made deterministic.

    Greedy, temperature 0 without fallback (no sampling), language forced, no timestamps, no conditioning on previous
    text; float16 on CUDA, float32 on the CPU. Windows of 30 s, longer audio by the library's own loop. The library
    stops a window after 224 tokens (half its text context), which bounds hallucination loops, and drops a window
    that it takes for non-speech (no-speech probability over 0.6 and mean log probability under -1).

    Params:
        language: forced language, "en".
        beam_size: None (greedy) or a number of beams.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"language", "beam_size"})
        (path,) = find_files(card, weights).values()
        # A path makes the library read the checkpoint as it is (tensors only, no pickled code) and fetch nothing.
        self._model = need("whisper", card).load_model(str(path), device=device)
        self._language = str(card.params.get("language", "en"))
        self._beam_size = card.params.get("beam_size")

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of openai-whisper and torch, sha256 of the checkpoint."""
        return package_versions("openai-whisper", "torch") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Transcribe each wave on its own: {"text"}."""
        return [{"text": self._transcribe(wave)} for wave in checked(self.card, wavs)]

    def _transcribe(self, wave: Wave) -> str:
        answer = self._model.transcribe(
            wave,
            verbose=None,
            language=self._language,
            task="transcribe",
            beam_size=self._beam_size,
            temperature=0.0,
            compression_ratio_threshold=None,
            logprob_threshold=-1.0,
            no_speech_threshold=0.6,
            condition_on_previous_text=False,
            without_timestamps=True,
            fp16=self.device.startswith("cuda"),
        )
        return str(answer["text"]).strip()
