"""NanoCodec by NeMo itself, as the reference for our port: the same archive, NeMo's own encode and decode."""

from __future__ import annotations

from typing import Any

from tokbench_worker.contract import BadWeights, Options
from tokbench_worker.files import find_file
from tokbench_worker.precision import exact_inference

__all__ = ["load"]


class NemoCodec:
    """NeMo's `AudioCodecModel`, restored from its archive."""

    def __init__(self, options: Options) -> None:
        import torch
        from nemo.collections.tts.models import AudioCodecModel

        path = find_file(options)
        try:
            config = _without_training(AudioCodecModel.restore_from(path, return_config=True))
            model = AudioCodecModel.restore_from(
                path, override_config_path=config, map_location=torch.device(options.device)
            )
        except Exception as error:
            raise BadWeights(f"cannot be restored by NeMo ({error})"[:300], where=path) from error
        self.model = model.eval()
        self.device = options.device
        self.hop = int(model.samples_per_frame)
        groups = int(model.num_codebooks)
        rate, vocab = int(model.sample_rate), int(model.codebook_size)
        streams = {f"q{index}": vocab for index in range(groups)}
        self.facts = {"input_rate": rate, "output_rate": rate, "streams": streams, "globals": {}}

    def encode(self, wave: Any) -> dict[str, Any]:
        """`q0`, `q1`, ... int64 `[ceil(n / hop)]`."""
        import torch

        audio = torch.from_numpy(wave)[None].to(self.device)
        with exact_inference():
            tokens, _ = self.model.encode(audio=audio, audio_len=torch.tensor([len(wave)], device=self.device))
        rows = tokens[0].to(torch.int64).cpu().numpy()
        return {
            "streams": {f"q{index}": row.copy() for index, row in enumerate(rows)},
            "n_samples_coded": rows.shape[1] * self.hop,
        }

    def decode(self, streams: Any, globals_: Any, n_samples: int) -> Any:  # noqa: ARG002 - the contract's arguments
        """Float32 `[T * hop]`."""
        import numpy as np
        import torch

        rows = np.stack([streams[f"q{index}"] for index in range(len(streams))])
        tokens = torch.from_numpy(rows)[None].to(self.device)
        with exact_inference():
            wave, _ = self.model.decode(tokens=tokens, tokens_len=torch.tensor([rows.shape[1]], device=self.device))
        return wave[0].float().cpu().numpy()


def _without_training(config: Any) -> Any:
    """The archive's configuration without the parts of training, some of which NeMo would fetch from a hub."""
    from omegaconf import open_dict

    with open_dict(config):
        config.discriminator = None
        config.use_scl_loss = config.use_slm_loss = False
    return config


def load(options: Options) -> NemoCodec:
    """See `child.contract`."""
    return NemoCodec(options)
