"""ASR judge: Whisper by faster-whisper (CTranslate2), greedy, from an embedded or downloaded model folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokbench.config import JudgeCard
from tokbench.errors import MissingWeights
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, need
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

__all__ = ["FasterWhisper"]


class FasterWhisper(Judge):
    """Transcripts by `faster_whisper.WhisperModel.transcribe`, made deterministic.

    Beam 1 by default, temperature 0 without fallback (no sampling), language forced, no timestamps, no
    conditioning on previous text, no voice activity filter. Windows are 30 s, zero-padded, as the library defines
    them; longer audio goes through its own loop. At most 224 tokens a window (half of Whisper's text context, as
    openai-whisper has it) bound a hallucination loop; what is generated until then counts as errors. A window is
    taken for non-speech, and adds no words, where the model's no-speech probability exceeds 0.6 and the mean log
    probability is below -1 (both libraries' defaults): the transcript of silence is usually, not always, empty.

    Params:
        language: forced language, "en".
        beam_size: 1.
        compute_type: of CTranslate2, by device: "float32" is the default on the CPU, "float16" on CUDA. "int8" is
            about a third faster on a CPU but changes transcripts.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"language", "beam_size", "compute_type"})
        library = need("faster_whisper", card)
        folders = {path.parent for path in find_files(card, weights).values()}
        if len(folders) != 1:
            raise MissingWeights("its files must lie in one folder", where=f"judge {card.name}")
        kind, _, index = device.partition(":")
        default = "float16" if kind == "cuda" else "float32"
        self._model = library.WhisperModel(
            str(folders.pop()),
            device=kind,
            device_index=int(index or 0),
            compute_type=str(card.params.get("compute_type", default)),
            cpu_threads=int(os.environ.get("OMP_NUM_THREADS") or 0),
            local_files_only=True,
        )
        self._language = str(card.params.get("language", "en"))
        self._beam_size = int(card.params.get("beam_size", 1))

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of faster-whisper and CTranslate2, sha256 of the model folder's files."""
        return package_versions("faster-whisper", "ctranslate2") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Transcribe each wave on its own: {"text"}.

        One window at a time on purpose: batches of windows are slower on a CPU (the encoder is bound by
        arithmetic), and would let a transcript depend on its neighbours.
        """
        return [{"text": self._transcribe(wave)} for wave in checked(self.card, wavs)]

    def _transcribe(self, wave: Wave) -> str:
        segments, _ = self._model.transcribe(
            wave,
            language=self._language,
            task="transcribe",
            beam_size=self._beam_size,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=-1.0,
            no_speech_threshold=0.6,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
            max_new_tokens=224,
        )
        return "".join(segment.text for segment in segments).strip()
