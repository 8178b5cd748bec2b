"""Where Kanade's weights are: a local folder or the hub, and the sha256 of every file. Nothing here imports torch.

A complete folder (`--weights DIR`) looks like this; what is missing besides the first two comes from the hub.

    config.yaml, model.safetensors      a Kanade release
    wavlm-base-plus/                    model.safetensors or pytorch_model.bin of microsoft/wavlm-base-plus
                                        (or torchaudio's wavlm_base_plus.pth, here or in DIR)
    vocos-mel-24khz/                    pytorch_model.bin or model.safetensors of charactr/vocos-mel-24khz
    hift.pt or hift.safetensors         of FunAudioLLM/CosyVoice2-0.5B
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokbench.config import TokenizerCard
from tokbench.errors import CardError, MissingWeights
from tokbench.hub import HubUnavailable, hub_file, sha256_file

__all__ = ["VOCODERS", "WAVLM", "KanadeFiles", "fetch_release", "find_files", "locate", "sha256_file"]


@dataclass(frozen=True)
class Part:
    """One set of weights besides Kanade's own.

    Attributes:
        folder: its subfolder in a weights folder.
        names: file names, in order of preference, in the subfolder or beside `config.yaml`.
        repository: on the hub.
        hub_names: those of `names` that the hub repository may hold.
        revision: commit on the hub; None: the newest.
    """

    folder: str
    names: tuple[str, ...]
    repository: str
    hub_names: tuple[str, ...]
    revision: str | None = None


WAVLM = Part(
    "wavlm-base-plus",
    ("model.safetensors", "pytorch_model.bin", "wavlm_base_plus.pth"),
    "microsoft/wavlm-base-plus",
    ("model.safetensors", "pytorch_model.bin"),
)
VOCODERS = {
    "vocos": Part(
        "vocos-mel-24khz",
        ("model.safetensors", "pytorch_model.bin"),
        "charactr/vocos-mel-24khz",
        ("model.safetensors", "pytorch_model.bin"),
    ),
    "hift": Part("hift", ("hift.safetensors", "hift.pt"), "FunAudioLLM/CosyVoice2-0.5B", ("hift.pt",)),
}
_AMBIGUOUS = {"model.safetensors", "pytorch_model.bin"}
"""Names that mean Kanade's own weights when they are not in a part's subfolder."""


@dataclass(frozen=True)
class KanadeFiles:
    """The four files that decide a Kanade tokenizer's output."""

    config: Path
    model: Path
    wavlm: Path
    vocoder: Path

    def identity(self) -> dict[str, str]:
        """What each file is for -> its sha256."""
        parts = {"config.yaml": self.config, "model.safetensors": self.model, "wavlm": self.wavlm}
        return {name: sha256_file(path) for name, path in (parts | {"vocoder": self.vocoder}).items()}


def find_files(card: TokenizerCard, folder: Path | None, *, vocoder: Literal["vocos", "hift"]) -> KanadeFiles:
    """Locate everything a Kanade tokenizer reads; hub files are downloaded unless they are cached.

    Args:
        card: its weights block names the hub repository and, where known, the revision and the files' sha256.
        folder: local folder that goes first; None for the hub alone.
        vocoder: which one the card's model needs.

    Raises:
        MissingWeights: in one line, with what to put where.
        CardError: the card has no weights block, or a file's sha256 is not the card's.
    """
    if card.weights is None:
        raise CardError("has no weights block", where=f"tokenizer '{card.name}'")
    repository, revision = card.weights.location, card.weights.revision
    part = VOCODERS[vocoder]
    hint = (
        f"Put config.yaml and model.safetensors of {repository}, {WAVLM.folder}/model.safetensors (or "
        f"pytorch_model.bin) of {WAVLM.repository} and {_home(part)} of {part.repository} into a folder, and give it "
        f"with --weights"
    )
    own = {}
    for name in ("config.yaml", "model.safetensors"):
        if folder is not None:
            own[name] = folder / name
            if not own[name].is_file():
                raise MissingWeights(f"there is no {name}", where=str(folder), hint=hint)
        else:
            own[name] = _from_hub(repository, (name,), revision, hint)
        declared = card.weights.files.get(name)
        if declared and folder is None and sha256_file(own[name]) != declared:
            raise MissingWeights(
                f"its sha256 is {sha256_file(own[name])[:12]}..., the card declares {declared[:12]}...",
                where=str(own[name]),
                hint="Delete it so that it is fetched again, or give your own file with --weights",
            )
    others = [_locate(p, folder, hint) for p in (WAVLM, part)]
    return KanadeFiles(own["config.yaml"], own["model.safetensors"], *others)


def _home(part: Part) -> str:
    return part.hub_names[-1] if not _AMBIGUOUS & set(part.names) else f"{part.folder}/{part.hub_names[-1]}"


def locate(part: Part, folder: Path | None) -> Path:
    """One part's weights, for training, which needs no Kanade release.

    Raises:
        MissingWeights: in one line, with what to put where.
    """
    hint = f"Put {_home(part)} of {part.repository} into a folder, and give it with --set params.weights=FOLDER"
    return _locate(part, folder, hint)


def fetch_release(repository: str, revision: str | None) -> Path:
    """`model.safetensors` of a release on the hub.

    Raises:
        MissingWeights: it is neither cached nor reachable.
    """
    return _from_hub(repository, ("model.safetensors",), revision, "Give a local file as start_from instead")


def _locate(part: Part, folder: Path | None, hint: str) -> Path:
    if folder is not None:
        for name in part.names:
            places = [folder / part.folder / name] + ([folder / name] if name not in _AMBIGUOUS else [])
            for place in places:
                if place.is_file():
                    return place
    return _from_hub(part.repository, part.hub_names, part.revision, hint)


def _from_hub(repository: str, names: tuple[str, ...], revision: str | None, hint: str) -> Path:
    """The first of some files that the hub's local cache, or else the hub, has."""
    try:
        return hub_file(repository, names, revision)
    except HubUnavailable as error:
        raise MissingWeights(f"the weights of {repository} cannot be had from the hub ({error})", hint=hint) from None
