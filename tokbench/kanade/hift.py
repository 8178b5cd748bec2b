"""HiFT at 24 kHz: a source-filter vocoder whose last step is an inverse STFT (Li et al. 2023, HiFTNet).

The geometry and the parameter names are those of CosyVoice 2's `hift.pt`. The original draws fresh noise for its source
at every call; here the source is given, or drawn from a fixed seed, so that decoding is deterministic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["HOP", "HiFT"]

HOP = 480
"""Samples a mel frame."""
RATE = 24000

_UPS = ((8, 16), (5, 11), (3, 7))
"""Rate and kernel of each upsampling stage."""
_KERNELS, _DILATIONS = (3, 7, 11), (1, 3, 5)
_SOURCE_KERNELS = (7, 7, 11)
_N_FFT, _STEP = 16, 4
_BINS = _N_FFT // 2 + 1
_SPECTRA = HOP // _STEP
"""Spectral frames a mel frame."""
_HARMONICS = 8
_AMPLITUDE, _NOISE, _VOICED_HZ = 0.1, 0.003, 10.0
_LIMIT, _MAX_MAGNITUDE = 0.99, 100.0
_PIECE, _CONTEXT = 500, 32
"""Mel frames that are synthesised at a time, and those computed beside them; the filter sees about 14 either side."""


class Snake(nn.Module):
    """`x + sin^2(alpha x) / alpha` with an alpha a channel (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same."""
        alpha = self.alpha[:, None]
        return x + (x * alpha).sin().square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Residual pairs of a dilated and a plain convolution, each behind a snake."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, channels, kernel, dilation=d) for d in _DILATIONS)
        self.convs2 = nn.ModuleList(_conv(channels, channels, kernel) for _ in _DILATIONS)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in _DILATIONS)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in _DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same."""
        for snake1, conv1, snake2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class PitchPredictor(nn.Module):
    """Mel spectrogram to fundamental frequency in Hz."""

    def __init__(self, n_mels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (n_mels, *[channels] * 4):
            layers += [_conv(inputs, channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """`[B, n_mels, M]` to `[B, M]`."""
        out: Tensor = self.classifier(self.condnet(mel).transpose(1, 2))[..., 0].abs()
        return out


class HarmonicSource(nn.Module):
    """Fundamental and harmonics with noise, mixed to one channel (the neural source-filter source)."""

    def __init__(self) -> None:
        super().__init__()
        self.l_linear = nn.Linear(_HARMONICS + 1, 1)

    def forward(self, f0: Tensor, *, seed: int = 0) -> Tensor:
        """`[B, M]` in Hz to an excitation `[B, 1, 480 M]`; the same noise for every utterance of a batch.

        Phases are summed a frame at a time and run linearly between the middles of frames, in float64: over minutes
        float32 would lose them.
        """
        samples = f0.shape[1] * HOP
        numbers = torch.arange(1, _HARMONICS + 2, device=f0.device, dtype=torch.float64)
        turns = (f0.double()[:, None] * numbers[:, None] / RATE) % 1.0  # [B, 9, M], in turns a sample
        phase = functional.interpolate(turns.cumsum(-1) * HOP, size=samples, mode="linear")
        sines = torch.sin(2 * math.pi * (phase % 1.0)).to(f0.dtype)
        voiced = (f0 > _VOICED_HZ).to(f0.dtype).repeat_interleave(HOP, dim=1)[:, None]
        # Drawn on the CPU so that every device synthesises the same waveform.
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(_HARMONICS + 1, samples, generator=generator).to(f0)
        level = voiced * _NOISE + (1 - voiced) * _AMPLITUDE / 3
        mixed = self.l_linear((sines * _AMPLITUDE * voiced + level * noise).transpose(1, 2))
        return torch.tanh(mixed).transpose(1, 2)


class HiFT(nn.Module):
    """Log-mel `[B, 80, M]` (style "hift") to audio `[B, 480 M]` at 24 kHz."""

    def __init__(self, *, n_mels: int = 80, channels: int = 512) -> None:
        super().__init__()
        self.m_source = HarmonicSource()
        self.f0_predictor = PitchPredictor(n_mels, 512)
        self.conv_pre = _conv(n_mels, channels, 7)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        remaining = _SPECTRA
        for (rate, kernel), source_kernel in zip(_UPS, _SOURCE_KERNELS, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(weight_norm(up))
            channels //= 2
            remaining //= rate
            size = (2 * remaining, remaining, remaining // 2) if remaining > 1 else (1, 1, 0)
            self.source_downs.append(nn.Conv1d(2 * _BINS, channels, size[0], size[1], padding=size[2]))
            self.source_resblocks.append(ResBlock(channels, source_kernel))
            self.resblocks.extend(ResBlock(channels, kernel) for kernel in _KERNELS)
        self.conv_post = _conv(channels, 2 * _BINS, 7)

    def forward(self, mel: Tensor, *, source: Tensor | None = None, seed: int = 0) -> Tensor:
        """Synthesise `[B, 480 M]`.

        Args:
            mel: `[B, n_mels, M]`.
            source: excitation `[B, 1, 480 M]`; None to make it from the predicted pitch.
            seed: of the noise in an excitation that is made.
        """
        if source is None:
            source = self.m_source(self.f0_predictor(mel), seed=seed)
        window = torch.hann_window(_N_FFT, device=mel.device)
        spectrum = torch.stft(source[:, 0].float(), _N_FFT, _STEP, window=window, return_complex=True)
        excitation = torch.cat((spectrum.real, spectrum.imag), dim=1).to(mel.dtype)
        magnitude, phase = self._filter(mel, excitation).float().chunk(2, dim=1)
        made = torch.polar(magnitude.exp().clamp(max=_MAX_MAGNITUDE), phase.sin())
        return torch.istft(made, _N_FFT, _STEP, window=window).clamp(-_LIMIT, _LIMIT)

    def _filter(self, mel: Tensor, excitation: Tensor) -> Tensor:
        """Pieces with context for long input, since the last stage runs at 120 times the mel rate."""
        frames = mel.shape[2]
        if frames <= _PIECE + 2 * _CONTEXT:
            return self._filter_piece(mel, excitation)
        pieces = []
        for start in range(0, frames, _PIECE):
            stop = min(start + _PIECE, frames)
            left, right = max(0, start - _CONTEXT), min(frames, stop + _CONTEXT)
            out = self._filter_piece(mel[..., left:right], excitation[..., left * _SPECTRA : right * _SPECTRA + 1])
            # The very last spectral frame stands after the last mel frame.
            length = (stop - start) * _SPECTRA + (stop == frames)
            pieces.append(out[..., (start - left) * _SPECTRA :][..., :length])
        return torch.cat(pieces, dim=2)

    def _filter_piece(self, mel: Tensor, excitation: Tensor) -> Tensor:
        """`[B, n_mels, M]` and `[B, 18, 120 M + 1]` to log magnitudes and phases `[B, 18, 120 M + 1]`."""
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, 0.1))
            if i == len(self.ups) - 1:
                x = functional.pad(x, (1, 0), mode="reflect")
            x = x + self.source_resblocks[i](self.source_downs[i](excitation))
            blocks = self.resblocks[i * len(_KERNELS) : (i + 1) * len(_KERNELS)]
            x = sum(block(x) for block in blocks) / len(_KERNELS)
        out: Tensor = self.conv_post(functional.leaky_relu(x))
        return out


def _conv(inputs: int, outputs: int, kernel: int, *, dilation: int = 1) -> nn.Module:
    """A weight-normed convolution that keeps the length."""
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
    normed: nn.Module = weight_norm(conv)
    return normed
