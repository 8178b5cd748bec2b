"""Cards, identities, weights: found, verified, and explained when they are not there."""

from __future__ import annotations

import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tokbench.config import JudgeCard, Weights
from tokbench.errors import CardError, MissingBackend, MissingWeights, UnknownName
from tokbench.judges.base import Judge
from tokbench.judges.load import judge_class, load_judge
from tokbench.judges.weights import WeightsMismatch, find_files, sha256_file, weights_identity
from tokbench.registry import find_card, names

NEEDS_FILES = ["whisper-large-v3", "faster-whisper-large-v3", "hubert-large-ls960-ft", "ecapa-voxceleb"]
NEEDS_FILES += ["wavlm-base-plus-sv", "utmos22-strong"]
OFFLINE = ["whisper-tiny.en", "resemblyzer", "dnsmos", "dnsmos-single", "praat-ac", "world-harvest", "crepe"]


def card_for(files: dict[str, str], source: str = "hub", location: str = "nobody/nothing") -> JudgeCard:
    weights = Weights.model_validate({"source": source, "location": location, "files": files, "licence": "MIT"})
    return JudgeCard(
        name="probe", summary="a card", kind="asr", adapter="m:C", input_rate=16000, licence="MIT", weights=weights
    )


def test_every_card_is_listed_here() -> None:
    assert sorted(NEEDS_FILES + OFFLINE) == names(JudgeCard)


@pytest.mark.parametrize("name", NEEDS_FILES + OFFLINE)
def test_card_names_a_judge_and_has_an_identity(name: str) -> None:
    card = find_card(JudgeCard, name)
    cls = judge_class(card)
    identity = cls.identity(card)
    assert issubclass(cls, Judge)
    assert identity
    assert all(isinstance(value, str) and value not in ("", "absent") for value in identity.values())
    if card.weights is not None:
        assert set(card.weights.files) <= set(identity)


def test_identities_need_no_model_library() -> None:
    code = (
        "import sys; from tokbench.config import JudgeCard; from tokbench.registry import find_card, names\n"
        "from tokbench.judges.load import judge_class\n"
        "for n in names(JudgeCard): c = find_card(JudgeCard, n); judge_class(c).identity(c)\n"
        "heavy = {'torch','transformers','faster_whisper','whisper','onnxruntime','librosa','speechbrain','scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_absent_weights_are_one_quick_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(MissingWeights) as caught:
        find_files(find_card(JudgeCard, name))
    assert time.perf_counter() - start < 10
    line = str(caught.value)
    assert "\n" not in line
    assert name in line
    card = find_card(JudgeCard, name)
    assert card.weights is not None
    assert all(file in line for file in card.weights.files)


def test_an_unknown_judge_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"whisper-tiny\.en"):
        load_judge("whisper-tiny")


def test_local_folder_lacks_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"no pretrained\.pt for judge 'resemblyzer'.*must hold: pretrained\.pt"):
        load_judge("resemblyzer", weights=tmp_path)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pretrained.pt").write_bytes(b"not the published weights")
    with pytest.raises(WeightsMismatch, match=r"pretrained\.pt: its sha256 is .* declares 39373b86598f"):
        load_judge("resemblyzer", weights=tmp_path)


def test_local_files_without_declared_hash_are_identified_by_their_own(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"one")
    card = card_for({"sub/model.bin": ""})
    first = weights_identity(card, tmp_path)
    assert first == {"sub/model.bin": f"sha256:{sha256_file(file)}"}
    assert find_files(card, tmp_path) == {"sub/model.bin": file}
    file.write_bytes(b"other")
    assert weights_identity(card, tmp_path) != first
    assert weights_identity(card) == {"sub/model.bin": "nobody/nothing@main"}


def test_absent_package() -> None:
    with pytest.raises(MissingBackend, match="no_such_package_at_all"):
        find_files(card_for({"a": ""}, "package", "no_such_package_at_all"))


def test_a_card_without_files_cannot_load() -> None:
    with pytest.raises(MissingWeights, match=r"lists no weights file"):
        find_files(card_for({}))


def test_an_unknown_parameter_is_a_card_error(monkeypatch: pytest.MonkeyPatch) -> None:
    card = find_card(JudgeCard, "praat-ac").model_copy(update={"params": {"flor_hz": 60}})
    with pytest.raises(CardError, match="'flor_hz' is no parameter"):
        judge_class(card)(card)


@pytest.mark.parametrize("declared", ["right", "wrong"])
def test_download_is_verified(declared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"weights" * 1000

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "same").write_bytes(body)
    digest = sha256_file(tmp_path / "same") if declared == "right" else "0" * 64
    card = card_for({"w.pt": digest}, "file", f"http://127.0.0.1:{server.server_port}/w.pt")
    try:
        if declared == "right":
            path = find_files(card)["w.pt"]
            assert path.read_bytes() == body
            server.shutdown()
            assert find_files(card)["w.pt"] == path  # from the cache, with the server gone
        else:
            with pytest.raises(WeightsMismatch):
                find_files(card)
            assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    finally:
        server.shutdown()
        server.server_close()
