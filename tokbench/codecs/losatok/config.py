"""LoSATok's geometry: widths read from the shapes of its state dict, the rest fixed by the release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokbench.codecs.checkpoint import BadCheckpoint

__all__ = ["FRAME_HOP", "SAMPLES_PER_TOKEN", "LosatokConfig", "config_of_shapes"]

SAMPLE_RATE = 16000
FRAME_HOP = 160
"""Samples between mel frames, of both encoders."""
PATCH_FRAMES = 4
"""Mel frames of a token."""
SAMPLES_PER_TOKEN = FRAME_HOP * PATCH_FRAMES
DECODER_HOP = 320
_HINT = "Give a checkpoint of wxzyd123/LoSATok with --weights"


@dataclass(frozen=True)
class LosatokConfig:
    """Sizes of everything.

    Attributes:
        width: of both encoders' embeddings.
        depth: transformer blocks of the semantic encoder.
        heads: of its attention; no shape tells them.
        mlp: hidden width of its blocks.
        chunk: tokens that attend to each other.
        semantic_mels: bands of its input.
        bottleneck: hidden width between embedding and latent.
        latent: dimensions.
        acoustic_mels: bands of the acoustic encoder's input.
        decoder_width: of the Vocos backbone.
        decoder_depth: its blocks.
        decoder_mlp: their hidden width.
        upsample: decoder frames a token.
        n_fft: of the inverse transform.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    chunk: int
    semantic_mels: int
    bottleneck: int
    latent: int
    acoustic_mels: int
    decoder_width: int
    decoder_depth: int
    decoder_mlp: int
    upsample: int
    n_fft: int


def config_of_shapes(shapes: Mapping[str, tuple[int, ...]], *, heads: int, where: str) -> LosatokConfig:
    """Read the sizes; names as in the release.

    Raises:
        BadCheckpoint: a tensor that tells one is missing, or sizes contradict the release's fixed ones.
    """

    def size(key: str, dimension: int) -> int:
        shape = shapes.get(key, ())
        if len(shape) <= dimension:
            raise BadCheckpoint(f"is no LoSATok: {key} is {list(shape) or 'missing'}", where=where, hint=_HINT)
        return shape[dimension]

    encoder, decoder = "semantic_encoder.encoder.", "dasheng_tokenizer.decoder."
    depth = _count(shapes, f"{encoder}blocks.")
    config = LosatokConfig(
        width=size(f"{encoder}patch_embed.proj.weight", 0),
        depth=depth,
        heads=heads,
        mlp=size(f"{encoder}blocks.0.mlp.fc1.weight", 0),
        chunk=size(f"{encoder}time_pos_embed", 3),
        semantic_mels=size(f"{encoder}patch_embed.proj.weight", 2),
        bottleneck=size("semantic_encoder.bottleneck.downsample.0.weight", 0),
        latent=size("fc_mu.weight", 0),
        acoustic_mels=size("dasheng_tokenizer.encoder.patch_embed.weight", 2),
        decoder_width=size(f"{decoder}backbone.embed.weight", 0),
        decoder_depth=_count(shapes, f"{decoder}backbone.convnext."),
        decoder_mlp=size(f"{decoder}backbone.convnext.0.pwconv1.weight", 0),
        upsample=size("dasheng_tokenizer.upsampler.weight", 2),
        n_fft=size(f"{decoder}head.out.weight", 0) - 2,
    )
    if config.upsample * DECODER_HOP != SAMPLES_PER_TOKEN:
        raise BadCheckpoint(f"makes {config.upsample} decoder frames a token, 2 are known", where=where, hint=_HINT)
    if config.width % heads:
        raise BadCheckpoint(f"is {config.width} wide, which {heads} heads do not divide", where=where, hint=_HINT)
    return config


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})
