"""Geometry of a Kanade model, and that of the three released ones. Nothing here imports torch."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "GLOBAL_DIM",
    "KANADE_12HZ",
    "KANADE_25HZ",
    "KANADE_25HZ_CLEAN",
    "KANADE_MINI",
    "Geometry",
    "GlobalEncoderConfig",
    "KanadeConfig",
    "MelConfig",
    "PostNetConfig",
    "QuantizerConfig",
    "TransformerConfig",
]

GLOBAL_DIM = 128
"""Width of the speaker vector of every released model."""

SSL_RATE, SSL_HOP = 16000, 320
"""The SSL models' sampling rate in Hz and their samples a frame."""


class Geometry(BaseModel):
    """Base of every part: frozen, unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TransformerConfig(Geometry):
    """One local-window transformer.

    Attributes:
        dim: width.
        n_layers: number of blocks.
        n_heads: number of heads; each is `dim / n_heads` wide.
        window: odd number of frames that a frame sees, itself in the middle.
        input_dim: width of the input where a projection brings it to `dim`; None: it is `dim` wide.
        output_dim: width of the projection at the end; None: no projection.
        condition_dim: width of the vector behind adaLN-Zero; None: plain layer norms.
        multiple_of: the feed-forward width is `int(8 dim / 3)` rounded up to a multiple of this.
        dropout: on attention probabilities, in training alone.
    """

    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    window: int = Field(gt=0, validation_alias=AliasChoices("window_size", "window"))
    input_dim: int | None = None
    output_dim: int | None = None
    condition_dim: int | None = Field(
        default=None, validation_alias=AliasChoices("adanorm_condition_dim", "condition_dim")
    )
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    multiple_of: int = 256
    dropout: float = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        if self.dim % self.n_heads:
            raise ValueError("n_heads must divide dim")
        return self

    @property
    def radius(self) -> int:
        """Frames seen on either side."""
        return self.window // 2

    @property
    def hidden_dim(self) -> int:
        """Width of the feed-forward layer."""
        return -(-int(2 / 3 * 4 * self.dim) // self.multiple_of) * self.multiple_of


class QuantizerConfig(Geometry):
    """Finite scalar quantisation between two projections."""

    input_dim: int
    output_dim: int
    levels: tuple[int, ...]


class GlobalEncoderConfig(Geometry):
    """ConvNeXt and attentive statistics pooling."""

    input_channels: int
    output_channels: int
    num_layers: int
    dim: int
    intermediate_dim: int
    attention_channels: int = 128


class PostNetConfig(Geometry):
    """Residual convolutions over the mel spectrogram."""

    input_channels: int
    channels: int
    kernel_size: int
    num_layers: int
    dropout: float = 0.5


class MelConfig(Geometry):
    """Which log-mel spectrogram the decoder makes.

    Attributes:
        style: "vocos" (magnitude, HTK bands, floor 1e-7), "hift" (Slaney bands, floor 1e-5), or "plain", the recipe of
            `tokbench.codecs.mel` (magnitude, Slaney bands, floor 1e-5), which Griffin-Lim inverts.
        padding: "center", "same", "none" or "cover"; decides the number of frames.
        fmax: upper edge in Hz; None: half the sampling rate.
    """

    style: Literal["vocos", "hift", "plain"] = "vocos"
    sample_rate: int = 24000
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 100
    padding: str = "center"
    fmin: float = 0.0
    fmax: float | None = None


class KanadeConfig(Geometry):
    """Everything that decides the nets' shapes and the length arithmetic.

    Attributes:
        ssl: model whose hidden layers are read.
        local_layers: its layers (1 = first block's output) whose mean is the content encoder's input.
        global_input: what the global encoder hears: SSL layers, or the log-mel spectrogram of `mel`.
        global_layers: its SSL layers; none where it hears the spectrogram.
        normalize: whether content features are normalised over the utterance.
        downsample: SSL frames a token.
        mel_upsample: stride of the transposed convolution before interpolation to the mel frame rate.
        feature_decoder: reconstructs the SSL features in training; None where the model has none.
        vocoder: what turns the mel spectrogram into audio.
    """

    ssl: Literal["wavlm-base-plus", "whisper-tiny.en"] = "wavlm-base-plus"
    local_layers: tuple[int, ...]
    global_input: Literal["ssl", "mel"] = "ssl"
    global_layers: tuple[int, ...]
    normalize: bool = True
    downsample: int = Field(gt=0)
    mel_upsample: int = Field(gt=0)
    local_encoder: TransformerConfig
    quantizer: QuantizerConfig
    feature_decoder: TransformerConfig | None = None
    global_encoder: GlobalEncoderConfig
    mel_prenet: TransformerConfig
    mel_decoder: TransformerConfig
    mel_postnet: PostNetConfig
    mel: MelConfig
    vocoder: Literal["vocos", "hift", "griffin-lim"] = "vocos"

    @model_validator(mode="after")
    def _consistent(self) -> KanadeConfig:
        if (self.global_input == "ssl") != bool(self.global_layers):
            raise ValueError("global_layers are given exactly where the global encoder hears SSL layers")
        return self

    @property
    def token_rate(self) -> Fraction:
        """Tokens per second."""
        return Fraction(SSL_RATE, SSL_HOP * self.downsample)

    @property
    def prenet_dim(self) -> int:
        """Width of the prenet's output."""
        return self.mel_prenet.output_dim or self.mel_prenet.dim

    @property
    def deepest_layer(self) -> int:
        """Number of SSL blocks that must run."""
        return max((*self.local_layers, *self.global_layers))

    @property
    def min_samples(self) -> int:
        """Shortest input at `mel.sample_rate` that makes one token: one sample more than `f - 1` SSL frames."""
        return (self.downsample - 1) * SSL_HOP * self.mel.sample_rate // SSL_RATE + 1


def _released(
    *, window: int, downsample: int, mel_upsample: int, clean: bool = False, token_decoder: bool = True
) -> KanadeConfig:
    encoder = TransformerConfig(dim=768, n_layers=6, n_heads=12, window=125)
    mel = MelConfig(style="hift", n_fft=1920, hop=480, n_mels=80, padding="same", fmax=8000) if clean else MelConfig()
    width, heads = (768, 12) if clean else (512, 8)
    return KanadeConfig(
        local_layers=(6, 9),
        global_layers=(1, 2, 3, 4) if clean else (1, 2),
        downsample=downsample,
        mel_upsample=mel_upsample,
        local_encoder=encoder,
        quantizer=QuantizerConfig(input_dim=768, output_dim=768, levels=(8, 8, 8, 5, 5)),
        feature_decoder=encoder if token_decoder else None,
        global_encoder=GlobalEncoderConfig(
            input_channels=768, output_channels=GLOBAL_DIM, num_layers=4, dim=384, intermediate_dim=1152
        ),
        mel_prenet=TransformerConfig(
            dim=768, n_layers=6, n_heads=12, window=window, output_dim=None if clean else width
        ),
        mel_decoder=TransformerConfig(
            dim=width, n_layers=6, n_heads=heads, window=65, output_dim=mel.n_mels, condition_dim=GLOBAL_DIM
        ),
        mel_postnet=PostNetConfig(input_channels=mel.n_mels, channels=256, kernel_size=7, num_layers=4),
        mel=mel,
        vocoder="hift" if clean else "vocos",
    )


KANADE_12HZ = _released(window=31, downsample=4, mel_upsample=8)
"""frothywater/kanade-12.5hz."""
KANADE_25HZ = _released(window=65, downsample=2, mel_upsample=4)
"""frothywater/kanade-25hz."""
KANADE_25HZ_CLEAN = _released(window=65, downsample=2, mel_upsample=2, clean=True, token_decoder=False)
"""frothywater/kanade-25hz-clean."""

KANADE_MINI = KanadeConfig(
    ssl="whisper-tiny.en",
    local_layers=(1, 3),
    global_input="mel",
    global_layers=(),
    downsample=2,
    mel_upsample=2,
    local_encoder=TransformerConfig(input_dim=384, dim=120, n_layers=2, n_heads=3, window=65, multiple_of=64),
    quantizer=QuantizerConfig(input_dim=120, output_dim=120, levels=(8, 8, 8, 5, 5)),
    feature_decoder=TransformerConfig(dim=120, n_layers=1, n_heads=3, window=65, output_dim=384, multiple_of=64),
    global_encoder=GlobalEncoderConfig(
        input_channels=128, output_channels=64, num_layers=2, dim=96, intermediate_dim=192, attention_channels=64
    ),
    mel_prenet=TransformerConfig(dim=120, n_layers=1, n_heads=3, window=65, multiple_of=64),
    mel_decoder=TransformerConfig(
        dim=120, n_layers=3, n_heads=3, window=65, output_dim=128, condition_dim=64, multiple_of=64
    ),
    mel_postnet=PostNetConfig(input_channels=128, channels=64, kernel_size=7, num_layers=4, dropout=0.1),
    mel=MelConfig(style="plain", sample_rate=16000, n_fft=1280, hop=320, n_mels=128, padding="cover", fmax=8000),
    vocoder="griffin-lim",
)
"""`kanade-mini`, trained by this project: under 2 million parameters, and nothing that is not in the package index.

128 bands of 80 ms windows resolve the harmonics of low voices, which 80 bands blur (Griffin-Lim then whispers).
"""
