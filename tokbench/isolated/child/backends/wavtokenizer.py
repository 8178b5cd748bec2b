"""WavTokenizer from its authors' code: one stream of 4096 codes, 75 or 40 a second, of 24 kHz.

`params.config` names the YAML file inside the checkout, `params.bandwidth_id` the embedding that its backbone is
conditioned on (0 in the authors' examples).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import numpy as np
from tokbench_worker.contract import BadWeights, NoLibrary, Options
from tokbench_worker.files import fill, find_file, load_tensors, use_source
from tokbench_worker.precision import exact_inference

__all__ = ["load"]

_PARTS = ("backbone.", "head.", "feature_extractor.")


class WavTokenizer:
    """One model."""

    def __init__(self, options: Options) -> None:
        source = use_source(options)
        path = find_file(options)
        config = os.path.join(source, options.params["config"])  # noqa: PTH118
        # The checkout is itself a package, whose modules import each other relatively.
        parent, package = os.path.split(source.rstrip("/"))
        sys.path.insert(0, parent)
        try:
            Model = importlib.import_module(f"{package}.decoder.pretrained").WavTokenizer
        except ModuleNotFoundError as error:
            raise NoLibrary(f"cannot import {error.name}", where=source) from error
        if not os.path.isfile(config):  # noqa: PTH113
            raise NoLibrary("is not in the source folder", where=config)
        model = Model.from_hparams0802(config)
        state = load_tensors(path, options)
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        if not isinstance(state, dict):
            raise BadWeights("holds no state dict", where=path)
        fill(model, {key: value for key, value in state.items() if key.startswith(_PARTS)}, path)
        self.model = model.to(options.device)
        self.device = options.device
        self.bandwidth = int(options.params.get("bandwidth_id", 0))
        self.hop = int(options.params["hop"])
        vocab = int(model.feature_extractor.encodec.quantizer.bins)
        self.facts = {"input_rate": 24000, "output_rate": 24000, "streams": {"q0": vocab}, "globals": {}}

    def encode(self, wave: Any) -> dict[str, Any]:
        """`q0` int64 `[T]`."""
        import torch

        frames = -(-len(wave) // self.hop)
        audio = torch.from_numpy(np.pad(wave, (0, frames * self.hop - len(wave))))[None].to(self.device)
        with exact_inference():
            _, codes = self.model.encode_infer(audio, bandwidth_id=self._bandwidth())
        return {"streams": {"q0": codes.reshape(-1).cpu().numpy()}, "n_samples_coded": frames * self.hop}

    def decode(self, streams: Any, globals_: Any, n_samples: int) -> Any:  # noqa: ARG002 - the contract's arguments
        """Float32 `[about T * hop]`."""
        import torch

        codes = torch.from_numpy(streams["q0"])[None, None].to(self.device)
        with exact_inference():
            wave = self.model.decode(self.model.codes_to_features(codes), bandwidth_id=self._bandwidth())
        return wave.reshape(-1).float().cpu().numpy()

    def codebook(self, stream: str) -> Any:  # noqa: ARG002 - there is one
        """The quantiser's table, float32 `[4096, 512]`."""
        with contextlib.suppress(AttributeError):
            table = self.model.feature_extractor.encodec.quantizer.vq.layers[0].codebook
            return table.detach().float().cpu().numpy()
        raise NoLibrary("has its codebook elsewhere than expected")

    def _bandwidth(self) -> Any:
        import torch

        return torch.tensor([self.bandwidth], device=self.device)


def load(options: Options) -> WavTokenizer:
    """See `child.contract`."""
    return WavTokenizer(options)
