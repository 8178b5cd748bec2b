"""Speaker judge: Resemblyzer's GE2E encoder, from the weights inside its wheel.

Preprocessing and network are written out here, so that neither the package (which pulls in librosa, and
pkg_resources through webrtcvad) nor its print statements are needed; tests show equality with the package itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokbench.config import JudgeCard
from tokbench.errors import ItemError
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, full_scale, need, require_finite, require_sound
from tokbench.judges.mel import mel_power
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

if TYPE_CHECKING:
    import torch

__all__ = ["Resemblyzer", "preprocess"]

RATE = 16000
_LEVEL_DBFS = -30.0
_VAD_WINDOW = 480
_VAD_SMOOTHING = 8
_VAD_DILATION = 7
_PARTIAL_FRAMES = 160
_PARTIAL_STEP = 77
"""Frames between partial utterances: 1.3 a second, in frames of 10 ms."""
_HOP = 160


class Resemblyzer(Judge):
    """256-d embeddings of unit length; cosines of two embeddings compare voices.

    As `VoiceEncoder.embed_utterance(preprocess_wav(wave))` of Resemblyzer 0.1.4 (Wan et al. 2018, Generalized
    end-to-end loss, arXiv 1710.10467): level raised to -30 dBFS, long silences cut out by WebRTC's detector, 40-band
    mel power, partial utterances of 1.6 s at 1.3 a second, mean of their embeddings. Shorter audio is padded with
    zeros to 1.6 s. Where the detector hears no speech at all, the whole utterance is embedded uncut.

    Params:
        cut_silence: True; False embeds the whole utterance.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.mel", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"cut_silence"})
        self._cut = bool(card.params.get("cut_silence", True))
        if self._cut:
            need("_webrtcvad", card)
        torch = need("torch", card)
        (path,) = find_files(card, weights).values()
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self._linear = torch.nn.Linear(256, 256)
        for prefix, module in (("lstm.", self._lstm), ("linear.", self._linear)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
            module.to(device).eval()

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Version of the voice activity detector, sha256 of the weights."""
        return package_versions("webrtcvad") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Embed each wave: {"embedding" float32 [256]}.

        Raises:
            ItemError: every sample is zero, or the encoder's answer is not finite.
        """
        return [{"embedding": self._embed(wave)} for wave in checked(self.card, wavs)]

    def _embed(self, wave: Wave) -> npt.NDArray[np.float32]:
        require_sound(self.card, wave)
        wave = preprocess(wave, cut_silence=self._cut)
        starts = _partial_starts(len(wave))
        end = (starts[-1] + _PARTIAL_FRAMES) * _HOP
        wave = np.pad(wave, (0, max(0, end - len(wave))))
        mel = mel_power(wave, rate=RATE, n_fft=400, hop=_HOP, n_mels=40).T
        partials = self._forward(np.stack([mel[s : s + _PARTIAL_FRAMES] for s in starts]))
        mean = partials.mean(axis=0)
        norm = float(np.linalg.norm(mean))
        if norm == 0.0:
            raise ItemError("the embedding is zero", where=f"judge {self.card.name}")
        embedding = np.asarray(mean / norm, np.float32)
        require_finite(self.card, embedding)
        return embedding

    def _forward(self, mels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            batch: torch.Tensor = torch.from_numpy(np.ascontiguousarray(mels)).to(self.device)
            state: tuple[torch.Tensor, Any] = self._lstm(batch)[1]
            raw = torch.relu(self._linear(state[0][-1]))
            # An all-zero partial (digital silence inside an utterance) stays zero instead of becoming NaN.
            return np.asarray((raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-12)).cpu().numpy(), np.float32)


def preprocess(wave: Wave, *, cut_silence: bool = True) -> Wave:
    """Raise the level to -30 dBFS (never lower it) and cut out silences longer than about 0.2 s.

    Args:
        wave: float32 `[n]` at 16 kHz, not all zero.
        cut_silence: whether to cut at all.

    Returns:
        Float32, at most as long; uncut where no window of 30 ms holds speech.
    """
    level = 20.0 * np.log10(float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))))
    if level < _LEVEL_DBFS:
        wave = (wave * np.float32(10.0 ** ((_LEVEL_DBFS - level) / 20.0))).astype(np.float32)
    if not cut_silence or len(wave) < _VAD_WINDOW:
        return wave
    mask = _speech_mask(wave)
    cut = wave[: len(mask) * _VAD_WINDOW].reshape(-1, _VAD_WINDOW)[mask].reshape(-1)
    return cut if cut.size else wave


def _speech_mask(wave: Wave) -> npt.NDArray[np.bool_]:
    """Bool `[n // 480]`: WebRTC's strictest detector, smoothed by a majority of 8 windows, widened by 3 windows."""
    import _webrtcvad  # type: ignore[import-not-found]  # the C module; webrtcvad.py around it needs pkg_resources
    from scipy.ndimage import binary_dilation

    detector = _webrtcvad.create()
    _webrtcvad.init(detector)
    _webrtcvad.set_mode(detector, 3)
    count = len(wave) // _VAD_WINDOW
    # The level may push a crest above full scale; 16-bit integers cannot hold it.
    pcm = np.round(full_scale(wave[: count * _VAD_WINDOW]) * 32767.0).astype("<i2").reshape(count, _VAD_WINDOW)
    flags = np.array([bool(_webrtcvad.process(detector, RATE, row.tobytes(), _VAD_WINDOW)) for row in pcm], float)
    padded = np.pad(flags, ((_VAD_SMOOTHING - 1) // 2, _VAD_SMOOTHING // 2))
    sums = np.convolve(padded, np.ones(_VAD_SMOOTHING), mode="valid")
    voiced = np.round(sums / _VAD_SMOOTHING).astype(bool)
    return np.asarray(binary_dilation(voiced, np.ones(_VAD_DILATION, bool)), np.bool_)


def _partial_starts(n_samples: int) -> list[int]:
    """First mel frame of each partial utterance; the last is dropped where under 75 % of it is audio."""
    frames = -(-(n_samples + 1) // _HOP)
    starts = list(range(0, max(1, frames - _PARTIAL_FRAMES + _PARTIAL_STEP + 1), _PARTIAL_STEP))
    covered = (n_samples - starts[-1] * _HOP) / (_PARTIAL_FRAMES * _HOP)
    return starts[:-1] if covered < 0.75 and len(starts) > 1 else starts
