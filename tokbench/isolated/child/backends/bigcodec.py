"""BigCodec from its authors' code: one stream of 8192 codes every 200 samples of 16 kHz.

The checkpoint is a dictionary with the encoder under `CodecEnc` and the decoder, quantiser included, under
`generator`. The authors' script always pads, a whole frame more where none is needed; here a full last frame stays as
it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokbench_worker.contract import BadWeights, NoLibrary, Options
from tokbench_worker.files import fill, find_file, load_tensors, use_source
from tokbench_worker.precision import exact_inference

__all__ = ["load"]

_HOP = 200


class BigCodec:
    """Encoder and decoder of one checkpoint."""

    def __init__(self, options: Options) -> None:
        source = use_source(options)
        try:
            from vq.codec_decoder import CodecDecoder
            from vq.codec_encoder import CodecEncoder
        except ModuleNotFoundError as error:
            raise NoLibrary(f"cannot import {error.name}", where=source) from error
        path = find_file(options)
        state = load_tensors(path, options)
        if not isinstance(state, dict) or not {"CodecEnc", "generator"} <= set(state):
            raise BadWeights("holds no 'CodecEnc' and 'generator'", where=path, hint="Give BigCodec's bigcodec.pt")
        settings = options.params.get("geometry", {})
        self.encoder = CodecEncoder(**settings.get("encoder", {}))
        self.decoder = CodecDecoder(**settings.get("decoder", {}))
        fill(self.encoder, state["CodecEnc"], path)
        fill(self.decoder, state["generator"], path)
        self.encoder.to(options.device)
        self.decoder.to(options.device)
        self.device = options.device
        vocab = int(self.decoder.quantizer.layers[0].codebook_size)
        self.facts = {"input_rate": 16000, "output_rate": 16000, "streams": {"q0": vocab}, "globals": {}}

    def encode(self, wave: Any) -> dict[str, Any]:
        """`q0` int64 `[ceil(n / 200)]`."""
        import torch

        frames = -(-len(wave) // _HOP)
        audio = torch.from_numpy(np.pad(wave, (0, frames * _HOP - len(wave))))[None, None].to(self.device)
        with exact_inference():
            _, codes, _ = self.decoder(self.encoder(audio), vq=True)
        flat = codes.reshape(-1).to(torch.int64).cpu().numpy()
        return {"streams": {"q0": flat}, "n_samples_coded": frames * _HOP}

    def decode(self, streams: Any, globals_: Any, n_samples: int) -> Any:  # noqa: ARG002 - the contract's arguments
        """Float32 `[T * 200]`."""
        import torch

        codes = torch.from_numpy(streams["q0"])[None, :, None].to(self.device)
        with exact_inference():
            latent = self.decoder.vq2emb(codes).transpose(1, 2)
            wave = self.decoder(latent, vq=False)
        return wave.reshape(-1).float().cpu().numpy()

    def codebook(self, stream: str) -> Any:  # noqa: ARG002 - there is one
        """The quantiser's table, float32 `[8192, 8]`."""
        return self.decoder.quantizer.layers[0].codebook.weight.detach().float().cpu().numpy()


def load(options: Options) -> BigCodec:
    """See `child.contract`."""
    return BigCodec(options)
