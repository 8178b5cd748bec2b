"""Opinion judge: UTMOS22's strong learner, from the checkpoint that SpeechMOS publishes.

The network is a wav2vec 2.0 base encoder, two fixed embeddings (data domain and listener), a bidirectional LSTM and
a projection. The encoder is transformers' own; the checkpoint keeps fairseq's names, which are translated here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.config import JudgeCard
from tokbench.errors import ItemError, MissingWeights
from tokbench.judges.base import Evidence, Judge
from tokbench.judges.inputs import check_params, checked, need, require_sound
from tokbench.judges.pretrained import pad_to
from tokbench.judges.weights import find_files, package_versions, weights_identity
from tokbench.types import Wave

if TYPE_CHECKING:
    import torch

__all__ = ["Utmos22Strong"]

_MIN_SAMPLES = 720
"""Two frames of the convolutional front end, 45 ms."""

_NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"^encoder\.layers\.(\d+)\.self_attn\.", r"encoder.layers.\1.attention."),
    (r"^encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (r"^encoder\.layers\.(\d+)\.fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (r"^encoder\.layers\.(\d+)\.fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (r"^mask_emb$", "masked_spec_embed"),
)
"""fairseq's names under `wav2vec2.` -> transformers'; what matches none keeps its name."""


class Utmos22Strong(Judge):
    """UTMOS22 strong learner (Saeki et al. 2022, arXiv 2204.02152): naturalness, about 1 to 5; deterministic.

    The score is the mean over frames of the projection, times 2, plus 3. The wave enters as it is, at 16 kHz. Audio
    under 45 ms is padded with zeros to two frames.
    """

    code_modules = ("tokbench.judges.inputs", "tokbench.judges.pretrained", "tokbench.judges.weights")

    def __init__(self, card: JudgeCard, *, device: str = "cpu", weights: Path | None = None) -> None:
        super().__init__(card, device=device, weights=weights)
        check_params(card, set())
        (path,) = find_files(card, weights).values()
        torch = need("torch", card)
        transformers = need("transformers", card)
        state = torch.load(path, map_location="cpu", weights_only=True)
        layers = {name.split(".")[3] for name in state if name.startswith("wav2vec2.encoder.layers.")}
        try:
            # The configuration's defaults are wav2vec 2.0 base; only the depth is read from the file.
            self._encoder = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(num_hidden_layers=len(layers)))
            self._encoder.load_state_dict(_translate(state))
            self._lstm = torch.nn.LSTM(768 + 128 + 128, 512, batch_first=True, bidirectional=True)
            self._lstm.load_state_dict(_part(state, "blstm."))
            self._projection = torch.nn.Sequential(
                torch.nn.Linear(1024, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 1)
            )
            self._projection.load_state_dict(_part(state, "projection."))
            self._fixed = torch.cat([state["domain_emb"], state["judge_emb"]], dim=1).float().to(device)
        except (KeyError, RuntimeError) as error:
            raise MissingWeights(
                f"is not SpeechMOS's UTMOS22 strong checkpoint ({str(error).splitlines()[0]})",
                where=str(path),
                hint="Fetch utmos22_strong_step7459_v1.pt from the card's address",
            ) from None
        for module in (self._encoder, self._lstm, self._projection):
            module.to(device).eval()

    @classmethod
    def identity(cls, card: JudgeCard, weights: Path | None = None) -> dict[str, str]:
        """Versions of transformers and torch, sha256 of the checkpoint where it is known."""
        return package_versions("transformers", "torch") | weights_identity(card, weights)

    def __call__(self, wavs: Sequence[Wave]) -> list[Evidence]:
        """Score each wave on its own: {"utmos"}; `ItemError` for all-zero audio."""
        return [{"utmos": self._score(wave)} for wave in checked(self.card, wavs)]

    def _score(self, wave: Wave) -> float:
        import torch

        require_sound(self.card, wave)
        with torch.inference_mode():
            batch = torch.from_numpy(pad_to(wave, _MIN_SAMPLES))[None].to(self.device)
            frames = self._encoder(batch).last_hidden_state
            fixed = self._fixed[:, None].expand(1, frames.shape[1], -1)
            hidden = self._lstm(torch.cat([frames, fixed], dim=2))[0]
            score = float(self._projection(hidden).mean()) * 2.0 + 3.0
        if score != score:
            raise ItemError("the model answered NaN", where=f"judge {self.card.name}")
        return score


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _translate(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's tensors under transformers' names."""
    renamed = {}
    for name, tensor in _part(state, "wav2vec2.").items():
        for pattern, replacement in _NAMES:
            name, count = re.subn(pattern, replacement, name)
            if count:
                break
        renamed[name] = tensor
    return renamed
