"""Replay: tokens and audio that another system, or `tokbench encode`, left in a folder, scored like a live tokenizer.

A folder holds `ID.npz` (tokens) and `ID.wav` or `audio/ID.wav` (or another audio suffix) for each utterance, and
says what made them: `manifest.json` in a dump, or a `card.yaml` that somebody wrote; audio alone needs neither.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import tokbench
from tokbench.audio import SUFFIXES, read_audio
from tokbench.card_files import load_card, parse_card
from tokbench.config import TokenizerCard
from tokbench.errors import CardError, DatasetError, ItemError, TokensError, UserError
from tokbench.types import Encoded, Wave
from tokbench.whole_files import replace_file

__all__ = ["CARD", "MANIFEST", "Replay", "is_dumped", "load_replay", "write_dump"]

MANIFEST = "manifest.json"
CARD = "card.yaml"
AUDIO_FOLDER = "audio"

_PREFIX = "replay:"
_FORMAT = 1
_NEEDS_TOKENS = {"discrete", "continuous", "codebook", "features", "posterior", "fit"}


class Replay:
    """A folder of tokens, audio or both, looked up by utterance id.

    Attributes:
        folder: where the files are.
        declared: the tokenizer as its manifest or card declares it.
        card: `declared` without what the folder does not hold: no streams without token files, no decoder without
            audio files. This is the card to score under.
        identity: weights identity that a dump recorded; {} where nobody said.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DatasetError("is not a folder", where=str(folder), hint="Type: --tokenizer replay:FOLDER")
        self.folder = folder
        files = list(_files(folder))
        self.has_tokens = any(path.suffix == ".npz" for path in files)
        audio = [path for path in files if path.suffix.lower() in SUFFIXES]
        self.has_audio = bool(audio)
        if not files:
            raise DatasetError(
                "holds neither tokens (ID.npz) nor audio (ID.wav)",
                where=str(folder),
                hint="Make a dump with: tokbench encode --tokenizer NAME --data DATASET --out FOLDER",
            )
        self.declared, self.identity = _declaration(folder, audio[0] if audio else None)
        if self.has_tokens and not self.declared.streams:
            raise CardError(
                "declares no stream, but the folder holds tokens",
                where=str(folder / CARD),
                hint="Write streams with name, rate_hz and vocab into card.yaml",
            )
        self.card = _effective(self.declared, tokens=self.has_tokens, audio=self.has_audio)
        self._hash: str | None = None

    def tokens_for(self, utterance_id: str) -> Encoded | None:
        """Tokens of an utterance, checked against the card; None where the folder holds no tokens at all.

        Raises:
            ItemError: this utterance has no file; names the file that was expected.
            TokensError: the file is damaged or breaks the declaration.
        """
        if not self.has_tokens:
            return None
        path = self.folder / _relative(utterance_id, ".npz")
        if not path.is_file():
            raise ItemError("has no tokens", where=f"utterance {utterance_id}", hint=f"Expected {path}")
        try:
            encoded = _read_tokens(path, self.declared)
            encoded.check(self.card.stream_specs, self.card.global_specs)
        except TokensError as error:
            raise TokensError(error.what, where=f"utterance {utterance_id} ({path})", hint=error.hint) from error
        return encoded

    def audio_for(self, utterance_id: str) -> tuple[Wave, int] | None:
        """Decoded or converted audio, float32 `[n]`, and its rate; None where the folder holds no audio at all.

        Args:
            utterance_id: an utterance, or whatever a protocol names its outputs ("006_p227_p284" for a conversion).

        Raises:
            ItemError: this utterance has no file; names the file that was expected.
            AudioError: the file cannot be used.
        """
        if not self.has_audio:
            return None
        path = self._audio_path(utterance_id)
        if path is None:
            expected = self.folder / _relative(utterance_id, ".wav")
            raise ItemError(
                "has no audio",
                where=f"utterance {utterance_id}",
                hint=f"Expected {expected} (or {', '.join(SUFFIXES[1:])}; also in the subfolder '{AUDIO_FOLDER}')",
            )
        return read_audio(path, name=f"utterance {utterance_id} ({path})")

    def encoded(self, utterance_id: str) -> Encoded:
        """`tokens_for`, where having none is an error too."""
        found = self.tokens_for(utterance_id)
        if found is None:
            raise ItemError("the replay holds audio only", where=f"utterance {utterance_id}")
        return found

    def audio(self, utterance_id: str) -> tuple[Wave, int]:
        """`audio_for`, where having none is an error too."""
        found = self.audio_for(utterance_id)
        if found is None:
            raise ItemError("the replay holds tokens only", where=f"utterance {utterance_id}")
        return found

    def content_hash(self, utterance_id: str | None = None) -> str:
        """Sha256 of the declaration and of the files, for store keys.

        Args:
            utterance_id: this utterance's files only; None for the whole folder, computed once.
        """
        if utterance_id is not None:
            tokens = self.folder / _relative(utterance_id, ".npz")
            found = [path for path in (tokens, self._audio_path(utterance_id)) if path is not None and path.is_file()]
            return self._digest(found)
        if self._hash is None:
            self._hash = self._digest(_files(self.folder))
        return self._hash

    def _audio_path(self, utterance_id: str) -> Path | None:
        for folder in (self.folder / AUDIO_FOLDER, self.folder):
            for suffix in SUFFIXES:
                path = folder / _relative(utterance_id, suffix)
                if path.is_file():
                    return path
        return None

    def _digest(self, files: Iterable[Path]) -> str:
        declaration = {"card": self.declared.model_dump(mode="json"), "identity": self.identity}
        digest = hashlib.sha256(json.dumps(declaration, sort_keys=True).encode())
        for path in files:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"\n{path.relative_to(self.folder).as_posix()} {content}".encode())
        return digest.hexdigest()


def load_replay(spec: str) -> Replay:
    """The replay that `replay:FOLDER` (or the folder alone) names.

    Raises:
        DatasetError: no such folder, or nothing to replay in it.
        CardError: its card or manifest is wrong, with file, line and field.
    """
    return Replay(Path(spec.removeprefix(_PREFIX)).expanduser())


def write_dump(
    folder: Path,
    card: TokenizerCard,
    identity: dict[str, str],
    items: Iterable[tuple[str, Encoded, Wave | None]],
) -> int:
    """Write a folder that `load_replay` reads; returns how many utterances were written.

    Every file appears under its name complete or not at all, and an existing one is replaced. To go on after an
    interruption, leave out of `items` what `is_dumped` finds: the manifest is written first.

    Args:
        folder: made if it is not there.
        card: the tokenizer's declaration.
        identity: what `Tokenizer.weights_identity` says.
        items: utterance id, tokens, and decoded audio at `card.output_rate` (32-bit float WAV) or None.

    Raises:
        UserError: the folder holds a dump of another tokenizer, or of other weights.
    """
    record = {
        "format": _FORMAT,
        "tokbench": tokbench.__version__,
        "card": card.model_dump(mode="json"),
        "identity": identity,
    }
    manifest = folder / MANIFEST
    if manifest.is_file():
        old = _read_manifest(manifest)
        if (old["card"], old["identity"]) != (record["card"], record["identity"]):
            raise UserError(
                "holds a dump of another tokenizer or of other weights",
                where=str(folder),
                hint="Choose an empty folder",
            )
    else:
        replace_file(manifest, json.dumps(record, indent=1).encode())
    count = 0
    for utterance_id, encoded, wave in items:
        encoded.check(card.stream_specs, card.global_specs)
        if wave is not None:
            replace_file(folder / AUDIO_FOLDER / _relative(utterance_id, ".wav"), _float_wav(wave, card))
        replace_file(folder / _relative(utterance_id, ".npz"), encoded.to_npz(tokenizer=card.name))
        count += 1
    return count


def is_dumped(folder: Path, utterance_id: str, *, with_audio: bool) -> bool:
    """Whether `write_dump` has finished with an utterance."""
    audio = folder / AUDIO_FOLDER / _relative(utterance_id, ".wav")
    return (folder / _relative(utterance_id, ".npz")).is_file() and (audio.is_file() or not with_audio)


def _files(folder: Path) -> Iterator[Path]:
    """Token and audio files in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".npz", *SUFFIXES) and not path.name.startswith(".") and path.is_file():
            yield path


def _relative(utterance_id: str, suffix: str) -> PurePosixPath:
    path = PurePosixPath(utterance_id + suffix)
    if not utterance_id or "\0" in utterance_id or path.is_absolute() or ".." in path.parts:
        raise ItemError("the id cannot be the name of a file", where=f"utterance {utterance_id!r}")
    return path


def _declaration(folder: Path, audio: Path | None) -> tuple[TokenizerCard, dict[str, str]]:
    manifest = folder / MANIFEST
    if manifest.is_file():
        record = _read_manifest(manifest)
        return parse_card(record["card"], TokenizerCard, path=manifest), record["identity"]
    defaults: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._+-]+", "-", folder.resolve().name).lstrip("._+-") or "replay",
        "summary": "Audio or tokens from a folder; nothing says what made them.",
        "adapter": f"{__name__}:{Replay.__name__}",
        "family": "replay",
        "licence": "unknown",
        "streams": [],
        "capabilities": [],
    }
    if audio is not None:
        rate = read_audio(audio)[1]
        defaults |= {"input_rate": rate, "output_rate": rate, "capabilities": ["decode"]}
    path = folder / CARD
    if path.is_file():
        return load_card(path, TokenizerCard, defaults=defaults), {}
    if audio is None:
        raise CardError(
            "there is no such file, and tokens mean nothing without a declaration",
            where=str(path),
            hint="Write name, summary, capabilities, streams and input_rate into it",
        )
    return parse_card(defaults, TokenizerCard, path=path), {}


def _effective(card: TokenizerCard, *, tokens: bool, audio: bool) -> TokenizerCard:
    """The declaration without what a folder of these files cannot give, and with a note that says so."""
    notes = ["Replayed from files: tokbench did not run this tokenizer."]
    update: dict[str, Any] = {}
    capabilities = set(card.capabilities)
    if not tokens:
        capabilities -= _NEEDS_TOKENS
        update["streams"] = ()
        if card.streams:
            said = ", ".join(f"{s.name} at {s.rate_hz} Hz of {s.vocab or s.dim}" for s in card.streams)
            notes.append(f"Audio only; it declares the streams {said}.")
    if audio and card.output_rate is None:
        capabilities.add("decode")
        update["output_rate"] = card.input_rate
    if not audio:
        capabilities -= {"decode", "swap_global"}
        update["output_rate"] = None
    order = [*card.capabilities, "decode"]
    update["capabilities"] = tuple(c for i, c in enumerate(order) if c in capabilities and c not in order[:i])
    return card.model_copy(update=update | {"notes": (*card.notes, *notes)})


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CardError(f"is not JSON ({error})", where=str(path)) from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT or not {"card", "identity"} <= set(record):
        raise CardError(
            f"is not a manifest of format {_FORMAT}",
            where=str(path),
            hint="Make the dump again with this version of tokbench",
        )
    return record


def _read_tokens(path: Path, card: TokenizerCard) -> Encoded:
    """An `.npz` of `Encoded.to_npz`, or a plain one: an array for each stream and global, and `n_samples`."""
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            if "header" in archive.files:
                encoded, name = Encoded.from_npz(data)
                if name != card.name:
                    raise TokensError(f"was made by '{name}', the folder declares '{card.name}'")
                return encoded
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TokensError(f"is damaged or is no file of tokens ({error})") from error
    if "n_samples" not in arrays or arrays["n_samples"].size != 1:
        raise TokensError(f"needs 'n_samples', the utterance's length in samples at {card.input_rate} Hz")
    n_samples = int(arrays.pop("n_samples").item())
    coded, side_info = (_optional(arrays, name) for name in ("n_samples_coded", "side_info_bits"))
    if (coded is not None and coded < n_samples) or (side_info or 0) < 0:
        raise TokensError("'n_samples_coded' must be at least 'n_samples', and 'side_info_bits' at least 0")
    globals_ = {spec.name for spec in card.globals}
    streams = {key: value for key, value in arrays.items() if key not in globals_}
    return Encoded(
        {key: value.astype(np.int64 if value.dtype.kind in "iu" else np.float32) for key, value in streams.items()},
        n_samples=n_samples,
        globals={key: arrays[key].astype(np.float32) for key in globals_ & set(arrays)},
        n_samples_coded=coded,
        side_info_bits=side_info or 0,
    )


def _optional(arrays: dict[str, Any], name: str) -> int | None:
    if name not in arrays:
        return None
    value = arrays.pop(name)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise TokensError(f"'{name}' must be one integer, is {value.dtype} {value.shape}")
    return int(value.item())


def _float_wav(wave: Wave, card: TokenizerCard) -> bytes:
    """32-bit float, so that a replay scores exactly as the live tokenizer does; no time stamp in the header."""
    from scipy.io import wavfile

    buffer = io.BytesIO()
    wavfile.write(buffer, card.output_rate or card.input_rate, np.ascontiguousarray(wave, np.float32))
    return buffer.getvalue()
