"""K-means units over frame features, fitted on a declared corpus, with a weight-free resynthesis.

The token of a frame is the nearest of k centroids. Centroids and the unit-to-mel map live in one safetensors file: in
the package for the shipped cards, else in the cache folder, where they are put the first time a card is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

import tokbench
from tokbench.codecs.griffin_lim import vocode
from tokbench.codecs.mel import VOCODER_MEL, log_mel
from tokbench.config import TokenizerCard
from tokbench.errors import CardError, MissingWeights, NotApplicable, TokensError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.clustering import KMeansFit, assign, fit_kmeans
from tokbench.tokenizers.codebook import Units
from tokbench.tokenizers.features import FrameFeatures, features_identity, file_sha256, load_features
from tokbench.tokenizers.params import read_params
from tokbench.tokenizers.unit_to_mel import UnitToMel, fit_unit_to_mel
from tokbench.types import Encoded, Wave

__all__ = ["KMeansParams", "KMeansUnits", "cache_folder"]

_log = logging.getLogger(__name__)

FIT_VERSION = 1
"""Raised when the same parameters would give other centroids; part of the cache's file names."""

_SHIPPED = Path(__file__).parent / "weights"


class KMeansParams(BaseModel):
    """The card's `params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: str
    """One of `tokbench.tokenizers.features.NAMES`."""
    layer: int | None = None
    k: int = Field(gt=0)
    seed: int = 0
    normalise: Literal["utterance"] | None = None
    """`utterance`: every feature has zero mean and unit variance over the utterance."""
    corpus: str = "mini-en:train"
    """What it is fitted on, as typed after `--data`."""
    lookahead_samples: int = Field(default=0, ge=0)
    """How far a frame's window reaches beyond its hop; so much may be missing from the last frame."""
    centroids: str | None = None
    """File in `tokbench/tokenizers/weights`; None: fitted on first use and kept in the cache folder."""


class KMeansUnits(Tokenizer):
    """See the module. `weights` may be a codebook file, a folder with `centroids.safetensors`, or the feature model.

    Raises:
        CardError: the parameters do not fit together.
        MissingBackend, MissingWeights: of the features, when they are first needed.
    """

    code_modules: ClassVar[tuple[str, ...]] = (
        "tokbench.codecs.griffin_lim",
        "tokbench.codecs.mel",
        "tokbench.tokenizers.clustering",
        "tokbench.tokenizers.codebook",
        "tokbench.tokenizers.features",
        "tokbench.tokenizers.unit_to_mel",
    )

    def __init__(
        self, card: TokenizerCard, *, device: str = "cpu", weights: Path | None = None, allow_pickle: bool = False
    ) -> None:
        super().__init__(card, device=device, weights=weights, allow_pickle=allow_pickle)
        self._params = _params(card)
        self._frames: FrameFeatures = load_features(
            self._params.features,
            layer=self._params.layer,
            device=device,
            weights=_feature_weights(weights),
            allow_pickle=allow_pickle,
        )
        path = _find(card, self._params, weights)
        self._units: Units | None = self._checked(Units.load(path), path) if path is not None else None

    @classmethod
    def weights_identity(cls, card: TokenizerCard, weights: Path | None = None) -> dict[str, str]:
        """Hash of the codebook's file, or of the recipe by which it is fitted on first use; and the features' own."""
        params = _params(card)
        own = features_identity(params.features, _feature_weights(weights))
        path = _given(weights) or _shipped(params)
        if path is not None:
            return own | {f"centroids/{path.name}": file_sha256(path)}
        return own | {"centroids": f"fitted, recipe {_recipe(params, weights)}"}

    @property
    def units(self) -> Units:
        """The codebook; fitted on the declared corpus where there is none yet."""
        if self._units is None:
            from tokbench.data.fingerprint import dataset_fingerprint, dataset_hashes
            from tokbench.data.load import load_dataset
            from tokbench.data.places import cache_folder as user_cache

            path = cache_folder() / f"{_recipe(self._params, self.weights)}.safetensors"
            _log.warning(
                "%s has no centroids yet: fitting on %s, to be kept in %s", self.card.name, self._params.corpus, path
            )
            dataset = load_dataset(self._params.corpus)
            waves = (_at_rate(utterance.read(), self.card.input_rate) for utterance in dataset.utterances)
            fingerprint = dataset_fingerprint(dataset, dataset_hashes(dataset, user_cache()))
            self.fit(waves, seed=self._params.seed, corpus=self._params.corpus, fingerprint=fingerprint)
            self.save(path)
        if self._units is None:
            raise AssertionError("fit sets the units")
        return self._units

    def fit(
        self, wavs: Iterable[Wave], *, seed: int, corpus: str = "given by the caller", fingerprint: str = ""
    ) -> dict[str, float]:
        """Fit centroids and the unit-to-mel map; see `Fittable`.

        Features wait in temporary files, so that a corpus need not fit in memory.

        Args:
            wavs: float32 `[n]` at `card.input_rate`.
            seed: of the k-means draws.
            corpus: name, for the file's metadata.
            fingerprint: of the corpus, for the file's metadata.

        Returns:
            `inertia`, `inertia_per_frame`, `frames`, `passes` and `converged` (1.0 or 0.0).
        """
        with tempfile.TemporaryDirectory(prefix="tokbench-kmeans-") as folder:
            spool = _Spool(Path(folder), self._frames.dim)
            for wave in wavs:
                prepared = self.prepare(wave)
                spool.add(self._quantisable(prepared), self._heard(prepared))
            rows = spool.rows()
            if len(rows) < self._params.k:
                raise CardError(
                    f"{self._params.k} units cannot be fitted on {len(rows)} frames",
                    where=f"{self.card.name}: params.k",
                )
            found = fit_kmeans(rows, self._params.k, seed=seed, device=self.device)
            to_mel = self._fit_decoder(spool, found.centroids)
        self._units = Units(found.centroids, to_mel, self._metadata(found, seed, corpus, fingerprint))
        return {
            "inertia": found.inertia,
            "inertia_per_frame": found.inertia / found.n_frames,
            "frames": float(found.n_frames),
            "passes": float(found.passes),
            "converged": float(found.converged),
        }

    def _heard(self, wave: Wave) -> npt.NDArray[np.float32]:
        """What the decoder is fitted to, float32 `[m, n_mels]`; no rows where there is no decoder to fit."""
        return log_mel(_levelled(wave))

    def _fit_decoder(self, spool: _Spool, centroids: npt.NDArray[np.float32]) -> UnitToMel | None:
        pairs = ((assign(features, centroids), mels) for features, mels in spool.utterances())
        return fit_unit_to_mel(pairs, self._params.k)

    def save(self, path: Path) -> None:
        """Write the codebook; a card finds it as `params.centroids`, and `--weights` takes it too."""
        self.units.save(path)

    def encode(self, wavs: Sequence[Wave]) -> list[Encoded]:
        """See `Tokenizer.encode`."""
        stream = self.card.streams[0].name
        items = []
        for wave in wavs:
            prepared = self.prepare(wave)
            codes = assign(self._quantisable(prepared), self.units.centroids)
            coded = len(prepared) if len(prepared) > len(wave) else None
            items.append(Encoded(streams={stream: codes}, n_samples=len(wave), n_samples_coded=coded))
        return items

    def decode(self, items: Sequence[Encoded], *, globals_from: Sequence[Encoded] | None = None) -> list[Wave]:
        """Units to log-mels by the linear map, log-mels to samples by NNLS and Griffin-Lim; deterministic."""
        if globals_from is not None:
            raise NotApplicable(f"{self.card.name} has no globals to swap")
        return [self._synthesise(item) for item in items]

    def _synthesise(self, item: Encoded) -> Wave:
        item.check(self.card.stream_specs, ())
        codes = np.asarray(item.streams[self.card.streams[0].name], np.int64)
        if codes.size == 0:
            raise TokensError("there are no tokens to decode")
        to_mel = self.units.to_mel
        if to_mel is None:
            raise MissingWeights("its codebook has no map from units to mels", where=self.card.name,
                                 hint="Give the codebook that `tokbench` fitted for this card")  # fmt: skip
        mels = to_mel(codes)
        missing = VOCODER_MEL.n_frames(item.n_samples) - len(mels)
        mels = np.pad(mels, ((0, missing), (0, 0)), mode="edge") if missing > 0 else mels
        return vocode(mels[: VOCODER_MEL.n_frames(item.n_samples)], item.n_samples)

    def features(
        self, wavs: Sequence[Wave], which: Literal["pre_quant", "post_quant"]
    ) -> list[npt.NDArray[np.float32]]:
        """Features before k-means, or the centroid of every frame, float32 `[T, D]`; see `ExposesFeatures`."""
        before = [self._quantisable(self.prepare(wave)) for wave in wavs]
        if which == "pre_quant":
            return before
        return [self.units.centroids[assign(rows, self.units.centroids)] for rows in before]

    def codebook(self, stream: str) -> npt.NDArray[np.float32]:
        """Centroids float32 `[k, D]`; see `ExposesCodebook`."""
        if stream != self.card.streams[0].name:
            raise TokensError(f"there is no stream '{stream}', only '{self.card.streams[0].name}'")
        return self.units.centroids.copy()

    def _quantisable(self, wave: Wave) -> npt.NDArray[np.float32]:
        rows = self._frames(wave)
        if self._params.normalise is None:
            return rows
        return np.asarray((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-5), np.float32)

    def _checked(self, units: Units, path: Path) -> Units:
        want = (self._params.k, self._frames.dim)
        if units.centroids.shape != want:
            raise MissingWeights(f"holds centroids {units.centroids.shape}, the card needs {want}", where=str(path))
        return units

    def _metadata(self, found: KMeansFit, seed: int, corpus: str, fingerprint: str) -> dict[str, str]:
        values: dict[str, Any] = {
            "features": self._params.features,
            "layer": self._params.layer,
            "normalise": self._params.normalise,
            "k": self._params.k,
            "seed": seed,
            "corpus": corpus,
            "corpus_fingerprint": fingerprint,
            "frames": found.n_frames,
            "inertia": repr(found.inertia),
            "passes": found.passes,
            "tokbench": tokbench.__version__,
        }
        return {key: str(value) for key, value in values.items()}


class _Spool:
    """Features and log-mels of a corpus in two files."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._features, self._mels = folder / "features", folder / "mels"
        self._dim = dim
        self._lengths: list[tuple[int, int]] = []

    def add(self, features: npt.NDArray[np.float32], mels: npt.NDArray[np.float32]) -> None:
        for path, array in ((self._features, features), (self._mels, mels.astype(np.float16))):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(array).tobytes())
        self._lengths.append((len(features), len(mels)))

    def rows(self) -> npt.NDArray[np.float32]:
        if not self._lengths:
            return np.zeros((0, self._dim), np.float32)
        return np.memmap(self._features, np.float32, "r").reshape(-1, self._dim)

    def utterances(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        rows, mels = self.rows(), np.memmap(self._mels, np.float16, "r").reshape(-1, VOCODER_MEL.n_mels)
        start = first = 0
        for n_rows, n_mels in self._lengths:
            yield rows[start : start + n_rows], np.asarray(mels[first : first + n_mels], np.float32)
            start, first = start + n_rows, first + n_mels


def cache_folder() -> Path:
    """Where fitted codebooks are kept: `kmeans` in `$TOKBENCH_CACHE`, else in the user's cache folder."""
    from tokbench.data.places import cache_folder as user_cache

    root = os.environ.get("TOKBENCH_CACHE")
    return (Path(root).expanduser() if root else user_cache()) / "kmeans"


def _params(card: TokenizerCard) -> KMeansParams:
    params = read_params(card, KMeansParams)
    if [stream.vocab for stream in card.streams] != [params.k]:
        raise CardError(f"needs one stream with vocab {params.k}, as params.k says", where=f"{card.name}: streams")
    return params


def _given(weights: Path | None) -> Path | None:
    if weights is None:
        return None
    path = weights if weights.is_file() else weights / "centroids.safetensors"
    return path if path.is_file() else None


def _feature_weights(weights: Path | None) -> Path | None:
    """The folder that `--weights` names, unless it only holds a codebook."""
    if weights is None or weights.is_file():
        return None
    holds_model = (weights / "config.json").is_file() or any(weights.glob("*.pth"))
    return None if _given(weights) is not None and not holds_model else weights


def _shipped(params: KMeansParams) -> Path | None:
    if params.centroids is None:
        return None
    path = _SHIPPED / params.centroids
    return path if path.is_file() else None


def _find(card: TokenizerCard, params: KMeansParams, weights: Path | None) -> Path | None:
    path = _given(weights) or _shipped(params)
    if path is not None:
        return path
    cached = cache_folder() / f"{_recipe(params, weights)}.safetensors"
    _log.debug("%s looks for its centroids in %s", card.name, cached)
    return cached if cached.is_file() else None


def _recipe(params: KMeansParams, weights: Path | None) -> str:
    """Readable name and hash of everything that decides the fitted centroids."""
    whole = params.model_dump(exclude={"centroids", "lookahead_samples"}) | {
        "version": FIT_VERSION,
        "identity": features_identity(params.features, _feature_weights(weights)),
    }
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
    layer = "" if params.layer is None else f"-l{params.layer}"
    return f"{params.features}{layer}-{params.k}-{digest}"


def _levelled(wave: Wave) -> Wave:
    """Scale so that the louder half has an RMS of 0.06: units of speech do not tell how loud the microphone was."""
    loud = float(np.sqrt(np.mean(np.sort(np.square(wave, dtype=np.float64))[len(wave) // 2 :])))
    return (wave * np.float32(0.06 / max(loud, 1e-4))).astype(np.float32)


def _at_rate(source: tuple[Wave, int], rate: int) -> Wave:
    from tokbench.audio import resample

    return resample(source[0], source[1], rate)
