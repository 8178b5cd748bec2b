"""Speaker judges whose weights come from the hub or a local folder: WavLM x-vectors and SpeechBrain's ECAPA-TDNN.

Both give embeddings of unit length. Audio shorter than 5,200 samples (0.325 s) is padded with zeros: fewer leave
the x-vector one pooled frame or none, whose standard deviation is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokbench.config import JudgeCard
from tokbench.errors import MissingWeights
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, need, require_finite, require_sound
from tokbench.judges.pretrained import load_transformer, pad_to, zero_mean_unit_variance
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

__all__ = ["MIN_SAMPLES", "SpeechBrainEcapa", "WavLMXVector"]

MIN_SAMPLES = 5200
"""Samples at 16 kHz under which audio is padded with zeros: 16 frames of 400 samples, 320 apart."""


class WavLMXVector(Judge):
    """`transformers.WavLMForXVector`, as microsoft/wavlm-base-plus-sv (Chen et al. 2021, arXiv 2110.13900)."""

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.pretrained", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, set())
        self._model, _, self._normalise = load_transformer(card, "WavLMForXVector", device=device, weights=weights)

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of transformers and torch, the files' sha256 or hub revision."""
        return package_versions("transformers", "torch") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Embed each wave on its own: {"embedding" float32 [D]}, unit length; `ItemError` for all-zero audio."""
        return [{"embedding": self._embed(wave)} for wave in checked(self.card, wavs)]

    def _embed(self, wave: Wave) -> npt.NDArray[np.float32]:
        import torch

        require_sound(self.card, wave)
        wave = pad_to(zero_mean_unit_variance(wave) if self._normalise else wave, MIN_SAMPLES)
        with torch.inference_mode():
            vector = self._model(torch.from_numpy(wave)[None].to(self.device)).embeddings[0]
        return _unit(self.card, vector.cpu().numpy())


class SpeechBrainEcapa(Judge):
    """SpeechBrain's ECAPA-TDNN on VoxCeleb (Desplanques et al. 2020, arXiv 2005.07143).

    80 log-mel bands, mean of each utterance removed, then the network, as `EncoderClassifier.encode_batch` does for
    the published model. The modules are built here and only `embedding_model.ckpt` is read: the published
    hyperparams.yaml can run any code, and makes the library ask the hub.

    Params:
        channels, lin_neurons, attention_channels: sizes of the network; those of the published model by default.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.pretrained", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, {"channels", "lin_neurons", "attention_channels"})
        (path,) = find_files(card, weights).values()
        torch = need("torch", card)
        self._features = need("speechbrain.lobes.features", card).Fbank(n_mels=80).to(device).eval()
        self._model = need("speechbrain.lobes.models.ECAPA_TDNN", card).ECAPA_TDNN(
            input_size=80,
            channels=list(card.params.get("channels", [1024, 1024, 1024, 1024, 3072])),
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=int(card.params.get("attention_channels", 128)),
            lin_neurons=int(card.params.get("lin_neurons", 192)),
        )
        try:
            self._model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except RuntimeError as error:
            raise MissingWeights(
                f"is not an ECAPA-TDNN of the card's sizes ({str(error).splitlines()[0]})", where=str(path)
            ) from None
        self._model.to(device).eval()

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of SpeechBrain and torch, the file's sha256 or hub revision."""
        return package_versions("speechbrain", "torch") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Embed each wave on its own: {"embedding" float32 [192]}, unit length; `ItemError` for all-zero audio."""
        return [{"embedding": self._embed(wave)} for wave in checked(self.card, wavs)]

    def _embed(self, wave: Wave) -> npt.NDArray[np.float32]:
        import torch

        require_sound(self.card, wave)
        with torch.inference_mode():
            batch = torch.from_numpy(pad_to(wave, MIN_SAMPLES))[None].to(self.device)
            bands = self._features(batch)
            bands = bands - bands.mean(dim=1, keepdim=True)
            vector = self._model(bands, torch.ones(1, device=self.device))[0, 0]
        return _unit(self.card, vector.cpu().numpy())


def _unit(card: JudgeCard, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    require_finite(card, vector)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
