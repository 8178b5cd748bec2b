"""kanade-mini: the Kanade that this project trains and ships, or another one of its kind (`--weights DIR`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokbench.errors import CardError, MissingBackend, MissingWeights
from tokbench.tokenizers.features import features_identity, file_sha256, whisper_folder
from tokbench.tokenizers.kanade import Kanade, package_version

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["FOLDER", "KanadeMini"]

FOLDER = Path(__file__).parent / "weights"
"""Holds one folder for each shipped model, named by `card.params.model`."""
FILES = ("config.yaml", "model.safetensors")


class KanadeMini(Kanade):
    """A Kanade on Whisper tiny.en's hidden layers, with Griffin-Lim for a vocoder.

    `card.params`: `model` (folder of the shipped weights) and `batch_seconds`, the audio that utterances of equal
    length may share a forward pass for. Codes and speaker vector depend on the whole utterance; its level is not coded.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.tokenizers.kanade",
        "tokbench.tokenizers.features",
        "tokbench.codecs.griffin_lim",
        "tokbench.codecs.mel",
        *(
            f"tokbench.kanade.{name}"
            for name in (
                "attention", "config", "ctranslate2_file", "fsq", "global_encoder", "lengths", "mel", "mini", "model",
                "postnet", "released", "transformer", "weights", "whisper",
            )
        ),
    )  # fmt: skip

    def _load(self, card: TokenizerCard, settings: dict[str, Any], *, device: str, weights: Path | None) -> Any:
        folder = _folder(settings, weights)
        try:
            from tokbench.kanade.mini import MiniCodec
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="mini", needed_by=f"tokenizer '{card.name}'") from None
        return MiniCodec.load(folder, whisper_folder(None) / "model.bin", device=device)

    @classmethod
    def _settings(cls, card: TokenizerCard) -> dict[str, Any]:
        settings = {"model": card.name, "batch_seconds": 60.0, "vocoder": "griffin-lim"}
        unknown = set(card.params) - set(settings)
        if unknown:
            raise CardError(f"unknown params {sorted(unknown)}", where=f"tokenizer '{card.name}'")
        return settings | card.params

    @classmethod
    def _shortest(cls, config: Any) -> int:  # noqa: ARG003 - the last token is filled up with zeros
        return 1

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Sha256 of config, nets and Whisper, and the version of torch."""
        folder = _folder(cls._settings(card), weights)
        identity = {name: file_sha256(folder / name) for name in FILES}
        whisper = {k: v for k, v in features_identity("whisper-tiny").items() if k.endswith(".bin")}
        return identity | whisper | {"torch": package_version("torch")}


def _folder(settings: dict[str, Any], weights: Path | None) -> Path:
    folder = weights if weights is not None else FOLDER / str(settings["model"])
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise MissingWeights(
            f"there is no {missing[0]}",
            where=str(folder),
            hint="Give the folder that a training run exported (RUN/export) with --weights",
        )
    return folder
