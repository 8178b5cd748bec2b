"""Kanade (frothywater/kanade-tokenizer): content tokens beside one speaker vector an utterance."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tokbench.errors import CardError, MissingBackend, NotApplicable
from tokbench.kanade.files import find_files
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, Wave

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["Kanade", "package_version"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "vocoder": ("vocos", "hift"),
    "precision": ("fp32", "bf16"),
    "attention": ("auto", "flash", "flex", "sdpa"),
}


class Kanade(Tokenizer):
    """A released Kanade, or one in the released layout.

    `card.params`: `vocoder` (vocos, hift), `precision` (fp32, bf16), `attention` (auto, flash, flex, sdpa) and
    `batch_seconds`, the audio that utterances of equal length may share a forward pass for.

    Every utterance is scaled to peak 1 before encoding, which the model expects; its level is not coded and does not
    come back. The decoder is told the length of the original (`n_samples`), as in the authors' voice conversion.
    """

    code_modules: ClassVar[tuple[str, ...]] = tuple(
        f"tokbench.kanade.{name}"
        for name in (
            "attention", "codec", "config", "fsq", "global_encoder", "hift", "lengths", "model", "padding", "postnet",
            "relative_attention", "released", "resample", "transformer", "vocos", "wavlm", "weights",
        )
    )  # fmt: skip

    def __init__(
        self,
        card: TokenizerCard,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        settings = self._settings(card)
        self._codec = self._load(card, settings, device=device, weights=weights)
        self._batch_samples = int(settings["batch_seconds"] * card.input_rate)
        _agree(card, self._codec.config, vocoder=settings["vocoder"], shortest=self._shortest(self._codec.config))

    @classmethod
    def _settings(cls, card: TokenizerCard) -> dict[str, Any]:
        """Checked `card.params`, defaults filled in."""
        return _settings(card)

    @classmethod
    def _shortest(cls, config: Any) -> int:
        """Samples that make a token."""
        return int(config.min_samples)

    def _load(self, card: TokenizerCard, settings: dict[str, Any], *, device: str, weights: Path | None) -> Any:
        """The codec, an object with the methods of `tokbench.kanade.codec.KanadeCodec`."""
        files = find_files(card, weights, vocoder=settings["vocoder"])
        try:
            from tokbench.kanade.codec import KanadeCodec
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="judges", needed_by=f"tokenizer '{card.name}'") from None
        return KanadeCodec.load(files, device=device, precision=settings["precision"], attention=settings["attention"])

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of the four files and the versions of the libraries that run them; fetches files that are missing."""
        found = find_files(card, weights, vocoder=_settings(card)["vocoder"]).identity()
        return found | {name: package_version(name) for name in ("torch", "transformers")}

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """Content int64 `[floor(ceil(n / 480) / f)]` and speaker float32 `[128]`; see the class on level."""
        import torch

        prepared = [self.prepare(wave) for wave in wavs]
        made: dict[int, Encoded] = {}
        for group in _groups([wave.size for wave in prepared], [wave.size for wave in prepared], self._batch_samples):
            batch = self._codec.encode(torch.from_numpy(np.stack([prepared[i] for i in group])))
            for i, tokens, speaker in zip(group, batch.tokens.cpu(), batch.speaker.cpu(), strict=True):
                padded = prepared[i].size > wavs[i].size
                made[i] = Encoded(
                    {"content": tokens.numpy()},
                    n_samples=wavs[i].size,
                    globals={"speaker": speaker.numpy()},
                    n_samples_coded=prepared[i].size if padded else None,
                )
        return [made[i] for i in range(len(wavs))]

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """Float32 `[n_samples]` at the output rate; the last incomplete mel frame is zeros.

        Args:
            items: content, and speaker unless `globals_from` is given.
            globals_from: one utterance an item, whose voice is used (voice conversion).
        """
        import torch

        voices = items if globals_from is None else globals_from
        if len(voices) != len(items):
            raise NotApplicable(f"{len(voices)} voices are given for {len(items)} utterances; one each is needed")
        for item in {id(x): x for x in (*items, *voices)}.values():
            item.check(self.card.stream_specs, self.card.global_specs)
        lengths = [max(item.n_samples, item.n_samples_coded or 0) for item in items]
        keys = [(item.streams["content"].size, n) for item, n in zip(items, lengths, strict=True)]
        waves: dict[int, Wave] = {}
        for group in _groups(keys, lengths, self._batch_samples):
            tokens = torch.from_numpy(np.stack([items[i].streams["content"] for i in group]))
            speaker = torch.from_numpy(np.stack([voices[i].globals["speaker"] for i in group]))
            batch = self._codec.decode(tokens, speaker, n_samples=lengths[group[0]]).cpu().numpy()
            for i, wave in zip(group, batch, strict=True):
                n = items[i].n_samples
                waves[i] = np.pad(wave[:n], (0, max(0, n - wave.size))).astype(np.float32)
        return [waves[i] for i in range(len(items))]

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """Float32 `[T, 768]` an utterance: the downsampled encoder output, or its quantised embedding."""
        import torch

        found = []
        for wave in wavs:
            content = self._codec.content(torch.from_numpy(self.prepare(wave))[None])
            chosen = content.pre_quant if which == "pre_quant" else content.embedding
            found.append(np.asarray(chosen[0].cpu().numpy(), np.float32))
        return found

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Float32 `[12800, 768]`: what the decoder is given for each token; a linear map of the FSQ grid."""
        if stream != "content":
            raise NotApplicable(f"{self.card.name} has no codebook for a stream '{stream}', only for 'content'")
        return np.asarray(self._codec.codebook().cpu().numpy(), np.float32)


def _groups(keys: Sequence[Hashable], lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of items with equal keys, as many together as `limit` samples allow, one at least."""
    same: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        same.setdefault(key, []).append(i)
    for members in same.values():
        size = max(1, limit // max(1, lengths[members[0]]))
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _settings(card: TokenizerCard) -> dict[str, Any]:
    """Checked `card.params`, defaults filled in."""
    settings = {"vocoder": "vocos", "precision": "fp32", "attention": "auto", "batch_seconds": 60.0}
    unknown = set(card.params) - set(settings)
    if unknown:
        raise CardError(f"unknown params {sorted(unknown)}", where=f"tokenizer '{card.name}'")
    settings |= card.params
    for name, choices in _CHOICES.items():
        if settings[name] not in choices:
            raise CardError(
                f"'{settings[name]}' is not one of {', '.join(choices)}",
                where=f"tokenizer '{card.name}': params.{name}",
            )
    return settings


def _agree(card: TokenizerCard, config: Any, *, vocoder: str, shortest: int) -> None:
    """Refuse weights of another geometry than the card declares, since all tables are made from the card."""
    stream = card.streams[0]
    for name, declared, loaded in (
        ("rate_hz", stream.rate_hz, config.token_rate),
        ("levels", stream.levels, config.quantizer.levels),
        ("input_rate", card.input_rate, config.mel.sample_rate),
        ("min_samples", card.min_samples, shortest),
        ("globals.dim", card.globals[0].dim, config.global_encoder.output_channels),
        ("params.vocoder", vocoder, config.vocoder),
    ):
        if declared != loaded:
            raise CardError(
                f"declares {name} {declared}, but the weights' config.yaml says {loaded}",
                where=f"tokenizer '{card.name}'",
                hint="Use the card of the model that the weights belong to",
            )


def package_version(package: str) -> str:
    """Installed version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
