"""FACodec (NaturalSpeech 3) from Amphion's code: prosody, content and detail codes beside a timbre vector.

With `params.redecoder`, prosody and content alone are decoded, by the redecoder, which takes any voice: that is the
authors' voice conversion, and then reconstruction goes the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokbench_worker.contract import NoLibrary, Options
from tokbench_worker.files import fill, find_file, load_tensors, use_source
from tokbench_worker.precision import exact_inference

__all__ = ["load"]

_HOP = 200
_VOCAB = 1024
_NAMES = ("prosody", "content0", "content1", "detail0", "detail1", "detail2")
_DECODER: dict[str, Any] = {
    "in_channels": 256, "upsample_initial_channel": 1024, "ngf": 32, "up_ratios": [5, 5, 4, 2], "vq_num_q_c": 2,
    "vq_num_q_p": 1, "vq_num_q_r": 3, "vq_dim": 256, "codebook_dim": 8, "codebook_size_prosody": 10,
    "codebook_size_content": 10, "codebook_size_residual": 10, "use_gr_x_timbre": True, "use_gr_residual_f0": True,
    "use_gr_residual_phone": True,
}  # fmt: skip
"""The arguments with which the authors build the published decoder."""


class FACodec:
    """Encoder and decoder, and the redecoder where it is wanted."""

    def __init__(self, options: Options) -> None:
        source = use_source(options)
        try:
            from models.codec.ns3_codec import FACodecDecoder, FACodecEncoder, FACodecRedecoder
        except ModuleNotFoundError as error:
            raise NoLibrary(f"cannot import {error.name}", where=source) from error
        self.device = options.device
        self.redecodes = bool(options.params.get("redecoder", False))
        self.names = _NAMES[:3] if self.redecodes else _NAMES
        self.encoder = self._loaded(
            FACodecEncoder(ngf=32, up_ratios=[2, 4, 5, 5], out_channels=256), options, "ns3_facodec_encoder.bin"
        )
        self.decoder = self._loaded(FACodecDecoder(**_DECODER), options, "ns3_facodec_decoder.bin")
        self.redecoder = (
            self._loaded(FACodecRedecoder(), options, "ns3_facodec_redecoder.bin") if self.redecodes else None
        )
        streams = dict.fromkeys(self.names, _VOCAB)
        self.facts = {"input_rate": 16000, "output_rate": 16000, "streams": streams, "globals": {"timbre": 256}}

    def _loaded(self, module: Any, options: Options, name: str) -> Any:
        path = find_file(options, name)
        fill(module, load_tensors(path, options), path)
        return module.to(self.device)

    def encode(self, wave: Any) -> dict[str, Any]:
        """Each stream int64 `[ceil(n / 200)]`, `timbre` float32 `[256]`."""
        import torch

        frames = -(-len(wave) // _HOP)
        audio = torch.from_numpy(np.pad(wave, (0, frames * _HOP - len(wave))))[None, None].to(self.device)
        with exact_inference():
            _, codes, _, _, timbre = self.decoder(self.encoder(audio), eval_vq=False, vq=True)
        rows = codes[:, 0].to(torch.int64).cpu().numpy()
        streams = {name: np.ascontiguousarray(rows[index]) for index, name in enumerate(self.names)}
        return {
            "streams": streams,
            "globals": {"timbre": timbre[0].float().cpu().numpy()},
            "n_samples_coded": frames * _HOP,
        }

    def decode(self, streams: Any, globals_: Any, n_samples: int) -> Any:  # noqa: ARG002 - the contract's arguments
        """Float32 `[T * 200]`."""
        import torch

        codes = torch.from_numpy(np.stack([streams[name] for name in self.names]))[:, None].to(self.device)
        timbre = torch.from_numpy(globals_["timbre"])[None].to(self.device)
        with exact_inference():
            if self.redecoder is not None:
                # It looks at the first three books only where residual codes are left out.
                embedded = self.redecoder.vq2emb(codes, timbre, use_residual=False)
                wave = self.redecoder.inference(embedded, timbre)
            else:
                wave = self.decoder.inference(self.decoder.vq2emb(codes), timbre)
        return wave.reshape(-1).float().cpu().numpy()


def load(options: Options) -> FACodec:
    """See `child.contract`."""
    return FACodec(options)
