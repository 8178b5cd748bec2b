"""Frame features of wav2vec 2.0 as fairseq2 computes them, from fairseq2's or fairseq's own checkpoints.

Parameters: `arch` (base, large, large_lv60k), `layer` (0: what the first block sees; L: the output of block L, before
any norm behind the last one), `normalise` (the wave to zero mean and unit variance, as large_lv60k was trained),
`encoder` (fields of fairseq2's `Wav2Vec2EncoderConfig` that differ from the architecture's).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokbench_worker.contract import BadItem, BadWeights, Options
from tokbench_worker.files import fill, find_file, load_tensors
from tokbench_worker.precision import exact_inference

__all__ = ["load"]

_SHORTEST = 400


class Fairseq2Layer:
    """One layer of one model."""

    def __init__(self, options: Options) -> None:
        import torch
        from fairseq2.models.transformer import TransformerNormOrder
        from fairseq2.models.wav2vec2 import Wav2Vec2Config, create_wav2vec2_model
        from fairseq2.models.wav2vec2.interop import convert_wav2vec2_state_dict

        params = options.params
        config = Wav2Vec2Config()
        _set_architecture(config, params["arch"], TransformerNormOrder.PRE)
        for key, value in params.get("encoder", {}).items():
            if not hasattr(config.encoder_config, key):
                raise BadWeights(f"there is no setting '{key}' in fairseq2's Wav2Vec2EncoderConfig")
            setattr(config.encoder_config, key, value)
        self.layer = int(params["layer"])
        layers = config.encoder_config.num_encoder_layers
        if not 0 <= self.layer <= layers:
            raise BadWeights(f"has layers 0 to {layers}, not {self.layer}", hint="Name another layer")
        path = find_file(options)
        state = load_tensors(path, options)
        if not isinstance(state, dict):
            raise BadWeights(f"holds a {type(state).__name__} and no state dict", where=path)
        model = create_wav2vec2_model(config)
        fill(model, convert_wav2vec2_state_dict(dict(state), config), path)
        self.model = model.to(options.device)
        self.device = torch.device(options.device)
        self.normalise = bool(params.get("normalise", False))
        dim = config.encoder_config.model_dim
        self.facts = {"input_rate": 16000, "output_rate": None, "streams": {"frames": dim}, "globals": {}}

    def encode(self, wave: Any) -> dict[str, Any]:
        """`frames` float32 `[floor((n - 80) / 320), D]`."""
        return {"streams": {"frames": self.features(wave, "pre_quant")}}

    def features(self, wave: Any, which: str) -> Any:
        """The same; nothing is quantised here."""
        import torch
        from fairseq2.nn import BatchLayout

        if which == "post_quant":
            raise BadItem("has no quantiser")
        if len(wave) < _SHORTEST:
            raise BadItem(f"has {len(wave)} samples, the network needs {_SHORTEST}")
        signal = torch.from_numpy(np.ascontiguousarray(wave, np.float32)).to(self.device)
        if self.normalise:
            signal = torch.nn.functional.layer_norm(signal, signal.shape)
        batch = signal[None]
        with exact_inference():
            frontend = self.model.encoder_frontend
            frames, layout, _ = frontend.extract_features(batch, BatchLayout.of(batch))
            frames, _ = frontend.process_features(frames, layout, None)
            if self.layer:
                frames = self._run(frames, layout)
        return frames[0].float().cpu().numpy()

    def _run(self, frames: Any, layout: Any) -> Any:
        """Up to the wanted block; the others are not computed."""
        kept: list[Any] = []

        def keep(layer_idx: int, layer_output: Any, layer_output_layout: Any, num_layers: int) -> bool:  # noqa: ARG001
            if layer_idx + 1 == self.layer:
                kept.append(layer_output)
            return layer_idx + 1 < self.layer

        hook = self.model.encoder.register_layer_hook(keep)
        try:
            self.model.encoder(frames, layout)
        finally:
            hook.remove()
        return kept[0]


def _set_architecture(config: Any, arch: str, pre_norm: Any) -> None:
    """The architectures that fairseq2 0.8 registers, of which only the encoder and the head's width matter here."""
    encoder = config.encoder_config
    if arch not in ("base", "large", "large_lv60k"):
        raise BadWeights(f"there is no architecture '{arch}'", hint="Write base, large or large_lv60k")
    if arch == "base":
        return
    encoder.model_dim, encoder.num_encoder_layers, encoder.num_encoder_attn_heads = 1024, 24, 16
    encoder.ffn_inner_dim = 4096
    config.quantized_dim = config.final_dim = 768
    if arch == "large_lv60k":
        encoder.layer_norm_features = False
        encoder.feature_extractor_bias = encoder.feature_extractor_layer_norm_convs = True
        encoder.norm_order = pre_norm


def load(options: Options) -> Fairseq2Layer:
    """See `child.contract`."""
    return Fairseq2Layer(options)
