r"""DAC-VAE and LoSATok beside nets put together from the packages that their authors' code is made of.

Neither has a package of its own. DAC-VAE's code is descript-audio-codec's with an activation behind every convolution;
LoSATok's is a vision transformer over mel patches, in the layers of timm, and a Vocos. Here both are built from those
packages with the names of the released state dicts, get the same random weights as our ports, are compared with them,
and take turns in encoding and decoding:

    python -m pip install --target FOLDER --no-deps descript-audio-codec==1.0.0 vocos==0.1.0 timm==1.0.31 \
        torchvision==0.26.0 einops==0.8.2
    python benchmarks/ports.py --reference FOLDER --seconds 4 --threads 2
    python benchmarks/ports.py dacvae-50hz --reference FOLDER --device cuda

A ratio is the median over the rounds of our time over the other's: CPU seconds on a CPU, which other work on the
machine moves less than the clock, and the clock's on a GPU. It exits with 1 where a port is slower, or computes
something else.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from full_size import save
from random_checkpoints import DACVAE, write_checkpoint
from torch import Tensor, nn

from tokbench.tokenizers.conformance import speech_like
from tokbench.tokenizers.load import load_tokenizer

NAMES = ("dacvae-75hz", "dacvae-50hz", "losatok-kl1e-2", "speechtokenizer")
TOLERANCE = 1e-3
"""Largest difference of a latent or a sample, over the standard deviation of all; share of other codes."""
SLOWER = 1.02
"""A median above it counts as slower; LoSATok, the same operations on both sides, had rounds from 0.98 to 1.01."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--reference", type=Path, required=True, help="folder that the packages are installed in")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(4))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(options.threads)
    expose(options.reference)
    # Both sides in full float32, as the adapters compute.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    failed = [name for name in options.names or NAMES if not holds(name, options)]
    if failed:
        sys.exit(f"slower than the reference, or different: {', '.join(failed)}")


def expose(folder: Path) -> None:
    """Make single modules of the packages importable: what else those import is large, and not needed here."""
    for package in ("dac", "dac.model", "dac.nn", "vocos", "speechtokenizer"):
        module = ModuleType(package)
        module.__path__ = [str(folder / package.replace(".", "/"))]
        sys.modules[package] = module
    audio = ModuleType("audiotools")
    audio.AudioSignal, audio.ml = object, ModuleType("audiotools.ml")  # type: ignore[attr-defined]
    audio.ml.BaseModel = nn.Module
    sys.modules |= {"audiotools": audio, "audiotools.ml": audio.ml}
    sys.path.append(str(folder))


class DacVaeReference(nn.Module):
    """Encoder, bottleneck and decoder of descript-audio-codec's layers; weights are normed in each call, as there."""

    def __init__(self, latent: int, rates: list[int]) -> None:
        super().__init__()
        import dac.model.dac as published
        from torch.nn.utils import weight_norm

        def leaky(*arguments: Any, **named: Any) -> nn.Module:
            return nn.Sequential(weight_norm(nn.Conv1d(*arguments, **named)), nn.LeakyReLU(0.1))

        def transposed(*arguments: Any, stride: int, **named: Any) -> nn.Module:
            return weight_norm(nn.ConvTranspose1d(*arguments, stride=stride, output_padding=stride % 2, **named))

        published.WNConv1d, published.WNConvTranspose1d = leaky, transposed
        self.encoder = published.Encoder(64, rates, latent)
        self.en_conv_post = leaky(latent, 2 * latent, kernel_size=1)
        self.de_conv_pre = leaky(latent, latent, kernel_size=1)
        self.decoder = published.Decoder(latent, 1536, rates[::-1])

    def encode(self, audio: Tensor) -> Tensor:
        """Audio `[1, S]` to the mean, `[1, D, T]`."""
        made: Tensor = self.en_conv_post(nn.functional.leaky_relu(self.encoder(audio[:, None])))
        return made.chunk(2, dim=1)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """`[1, D, T]` to `[1, 1, hop * T]`."""
        return cast(Tensor, self.decoder(self.de_conv_pre(latent)))


class LosatokReference(nn.Module):
    """torchaudio's spectrograms, timm's blocks, Vocos' backbone and head, under the names of the release."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram
        from vocos.heads import ISTFTHead
        from vocos.models import VocosBackbone

        mel = functools.partial(MelSpectrogram, 16000, hop_length=160, f_min=0, f_max=8000)
        self.semantic_mel = nn.Sequential(mel(n_fft=512, n_mels=64), AmplitudeToDB(top_db=120))
        self.acoustic_mel = mel(n_fft=1024, n_mels=128, power=1)
        semantic, acoustic = nn.Module(), nn.Module()
        semantic.encoder, semantic.bottleneck = nn.Module(), nn.Module()
        encoder = semantic.encoder
        encoder.init_bn, encoder.patch_embed = nn.BatchNorm1d(64), nn.Module()
        encoder.patch_embed.proj = nn.Conv2d(1, 1280, (64, 4), (64, 4))
        encoder.time_pos_embed = nn.Parameter(torch.zeros(1, 1280, 1, 252))
        encoder.freq_pos_embed = nn.Parameter(torch.zeros(1, 1280, 1, 1))
        encoder.blocks = nn.Sequential(*(Block(1280, 16, qkv_bias=True, norm_layer=_Norm) for _ in range(32)))
        encoder.norm = _Norm(1280)
        semantic.bottleneck.downsample = nn.Sequential(nn.Linear(1280, 512), nn.GELU(), nn.Linear(512, 128))
        acoustic.encoder = nn.Module()
        acoustic.encoder.patch_embed, acoustic.encoder.norm = nn.Conv2d(1, 1280, (128, 4), (128, 4)), nn.LayerNorm(1280)
        acoustic.upsampler = nn.ConvTranspose1d(128, 1280, 2, stride=2)
        acoustic.decoder = nn.Module()
        acoustic.decoder.backbone = VocosBackbone(1280, 1280, 5120, 12)
        acoustic.decoder.head = ISTFTHead(1280, 1280, 320, padding="same")
        self.semantic_encoder, self.dasheng_tokenizer = semantic, acoustic
        self.fc_a, self.fc_mu, self.fc_logvar = nn.Linear(1280, 128), nn.Linear(128, 128), nn.Linear(128, 128)

    def encode(self, audio: Tensor) -> Tensor:
        """Audio `[1, S]` to the mean, `[1, T, 128]`; the variance is computed, too."""
        semantic: Any = self.semantic_encoder
        acoustic: Any = self.dasheng_tokenizer
        encoder = semantic.encoder
        patches = encoder.patch_embed.proj(encoder.init_bn(self.semantic_mel(audio))[:, None])
        pieces = []
        for piece in patches.split(252, dim=3):
            placed = piece + encoder.time_pos_embed[..., : piece.shape[3]] + encoder.freq_pos_embed
            pieces.append(encoder.norm(encoder.blocks(placed.flatten(2).transpose(1, 2))))
        low = semantic.bottleneck.downsample(torch.cat(pieces, dim=1))
        mel = self.acoustic_mel(audio).clamp(min=1e-7).log()[:, None]
        fine = acoustic.encoder.norm(acoustic.encoder.patch_embed(mel).flatten(2).transpose(1, 2))
        unified = self.fc_a(fine) + low
        mean: Tensor = self.fc_mu(unified)
        self.fc_logvar(unified).clamp(-20, 20)
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """`[1, T, 128]` to `[1, 640 T]`."""
        acoustic: Any = self.dasheng_tokenizer
        made: Tensor = acoustic.decoder.head(acoustic.decoder.backbone(acoustic.upsampler(latent.transpose(1, 2))))
        return made


class _Norm(nn.LayerNorm):
    """With the blocks' epsilon."""

    def __init__(self, width: int, **_: Any) -> None:
        super().__init__(width, eps=1e-6)


@dataclass(frozen=True)
class Pair:
    """Ours and the reference's, with the same weights: `[1, S]` to latents or codes, and those to samples."""

    encode: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
    decode: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def losatok(ours: Any, weights: Path, device: str) -> Pair:
    model = LosatokReference()
    state = torch.load(weights, map_location="cpu", weights_only=True)
    missing, unexpected = model.load_state_dict(state, strict=False)
    spare = ("semantic_encoder.bottleneck.upsample.", "num_batches_tracked")
    left = [key for key in unexpected if not key.startswith(spare)]
    left += [key for key in missing if not key.endswith(("window", "fb", "num_batches_tracked"))]
    if left:
        raise SystemExit(f"the reference and the release differ in {', '.join(left[:5])}")
    model = model.eval().to(device)
    return Pair((lambda wave: ours.posterior(wave)[0], model.encode), (ours.decode, model.decode))


def dacvae(ours: Any, weights: Path, device: str) -> Pair:
    model = DacVaeReference(*DACVAE[weights.stem])
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["generator"])
    model = model.eval().to(device)
    return Pair(
        (lambda wave: ours.posterior(ours.pad(wave[:, None]))[0], lambda wave: model.encode(ours.pad(wave))),
        (ours.decode, model.decode),
    )


def speechtokenizer(ours: Any, weights: Path, device: str) -> Pair:
    from speechtokenizer.model import SpeechTokenizer

    found = SpeechTokenizer.load_from_checkpoint(str(weights / "config.json"), str(weights / "SpeechTokenizer.pt"))
    model = found.eval().to(device)
    return Pair(
        (lambda wave: ours.encode(wave[0], 8), lambda wave: model.encode(wave[:, None])[:, 0]),
        (ours.decode, lambda codes: model.decode(codes[:, None])[0, 0]),
    )


def holds(name: str, options: argparse.Namespace) -> bool:
    """Measure one and print a line for each direction; whether it computes the same and is not slower."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "speechtokenizer":
            path, make = Path(folder), speechtokenizer
            save(name, path)
        else:
            path, make = write_checkpoint(name, Path(folder)), losatok if name.startswith("losatok") else dacvae
        tokenizer: Any = load_tokenizer(name, device=options.device, weights=path)
        pair = make(tokenizer._model, path, options.device)
    wave = torch.from_numpy(tokenizer.prepare(speech_like(options.seconds, tokenizer.card.input_rate)))
    wave = wave[None].to(options.device)
    fine = True
    with torch.inference_mode():
        tokens = pair.encode[0](wave)
        for stage, calls, given in (("encode", pair.encode, wave), ("decode", pair.decode, tokens)):
            made, wanted = (call(given) for call in calls)
            apart = different(made, wanted)
            found = turns(*(functools.partial(call, given) for call in calls), options)
            fine &= apart < TOLERANCE and statistics.median(found) < SLOWER
            print(
                f"{name:<16} {stage}: {statistics.median(found):.2f} of the reference's time (median of {len(found)} "
                f"rounds, {min(found):.2f} to {max(found):.2f}); differs by {apart:.1e}",
                flush=True,
            )
    return fine


def different(made: Tensor, wanted: Tensor) -> float:
    """See `TOLERANCE`."""
    if not wanted.is_floating_point():
        return float((made != wanted).float().mean())
    return float((made - wanted).abs().max() / wanted.std())


def turns(mine: Callable[[], object], other: Callable[[], object], options: argparse.Namespace) -> list[float]:
    """Our time over the other's in each round; who begins changes from round to round."""
    clock = time.process_time if options.device == "cpu" else time.perf_counter

    def seconds(call: Callable[[], object]) -> float:
        start = clock()
        call()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    ratios = []
    for number in range(options.rounds):
        if number % 2:
            theirs, ours = seconds(other), seconds(mine)
        else:
            ours, theirs = seconds(mine), seconds(other)
        ratios.append(ours / theirs)
    return ratios


if __name__ == "__main__":
    main()
