"""The commands as a user types them: results on stdout, one line on stderr for every mistake, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tokbench.cli import main
from tokbench.commands.options import with_settings


class Terminal:
    """Types a command and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        self.out = self.err = ""

    def __call__(self, *words: str | Path) -> int:
        self.monkeypatch.setattr(sys, "argv", ["tokbench", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKBENCH_STORE", str(tmp_path / "cache" / "store"))
    return Terminal(capsys, monkeypatch)


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """A second and a half of something like speech."""
    t = np.arange(24000) / 16000
    wave = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20)) * np.clip(np.sin(2 * np.pi * 3 * t), 0, 1)
    path = tmp_path / "voice.wav"
    soundfile.write(path, 0.2 * wave, 16000)
    return path


def test_encode_and_decode_one_file(terminal: Terminal, voice: Path) -> None:
    assert terminal("encode", "--tokenizer", "codec2-1200", voice, "-o", "tokens.npz") == 0
    assert terminal.out.endswith("for 1.50 s\n")
    assert terminal("decode", "tokens.npz", "-o", "out.wav") == 0
    wave, rate = soundfile.read("out.wav")
    assert rate == 8000
    assert len(wave) == 12000
    assert np.abs(wave).max() > 0.01


def test_a_dump_is_replayed_with_the_same_numbers(terminal: Terminal, voice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for n in range(3):
        (folder / f"a{n}.wav").write_bytes(voice.read_bytes())
    common = ("--task", "reconstruction", "--data", f"folder:{folder}", "--judge", "praat-ac", "--no-track", "--json")
    assert terminal("encode", "-t", "codec2-1200", "--data", f"folder:{folder}", "--with-audio", "-o", "dump") == 0
    assert terminal("run", "-t", "codec2-1200", *common) == 0
    live = json.loads(terminal.out)["results"][0]
    assert terminal("run", "-t", "replay:dump", *common) == 0
    replayed = json.loads(terminal.out)["results"][0]
    values = [{e["metric"]: e["value"] for e in one["estimates"]} for one in (live, replayed)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert "bps_effective" in values[0]


def test_score_prints_a_result(terminal: Terminal, voice: Path, tmp_path: Path) -> None:
    for name in ("ref", "deg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "u1.wav").write_bytes(voice.read_bytes())
    text = tmp_path / "text.txt"
    text.write_text("u1 some words\n")
    arguments = ("score", "--reference", "ref", "--degraded", "deg", "--text", text, "--judge", "praat-ac", "--json")
    assert terminal(*arguments) == 0
    estimates = {e["metric"]: e["value"] for e in json.loads(terminal.out)["estimates"]}
    assert estimates["pesq_wb"] == pytest.approx(4.6439, abs=1e-3)
    text.write_text("u2 some words\n")
    assert terminal(*arguments) == 2
    assert "'u2'" in terminal.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--tokenizer", "codec2-120", "--task", "reconstruction"), "Did you mean codec2-1200"),
        (("run", "--tokenizer", "identity", "--task", "reconstructoin"), "Did you mean reconstruction"),
        (("run", "--tokenizer", "identity"), "tokbench list tasks"),
        (("run", "--task", "reconstruction"), "--all-tokenizers"),
        (("run", "-t", "identity", "--task", "reconstruction", "--data", "folder:nowhere"), "nowhere"),
        (("run", "-t", "identity", "--task", "reconstruction", "--set", "normaliser"), "--set name=value"),
        (("run", "-t", "identity", "--task", "reconstruction", "--set", "normalizer=none"), "Did you mean normaliser"),
        (("run", "-t", "identity", "--task", "vc", "--set", "steps=5"), "There are mode, normaliser, pairs"),
        (("run", "-t", "identity", "--task", "vc", "--set", "pairs.steps=5"), "Write --set pairs=VALUE"),
        (("decode", "nothing.npz", "-o", "x.wav"), "nothing.npz"),
        (("show", "codec2-1201"), "codec2-1200"),
        (("list", "tokenisers"), "tokenizers"),
        (("list", "ablations"), "There are datasets, judges, metrics, suites, tasks, tokenizers"),
        (("run", "-t", "identity", "--task", "vc", "--data", "mini-en:tst"), "There are all, heldout, test, train"),
        (("env", "make", "nemoo"), "`tokbench env list`"),
        (("compare", "a", "b"), "result.json"),
        (("audit", "empty"), "tokbench run"),
        (("cache", "gc", "--older-than", "soon"), "--older-than"),
        (("--path", "nowhere", "list"), "--path"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(terminal: Terminal, words: tuple[str, ...], expected: str) -> None:
    assert terminal(*words) == 2
    assert expected in terminal.err
    assert terminal.err.count("\n") == 1
    assert "Traceback" not in terminal.err


def test_bad_audio_makes_a_partial_run(terminal: Terminal, voice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "good.wav").write_bytes(voice.read_bytes())
    (folder / "cut.wav").write_bytes(voice.read_bytes()[:200])
    (folder / "words.wav").write_text("this is no audio")
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(folder / "one.wav", np.zeros(1), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "stereo96.wav", 0.3 * np.random.default_rng(0).normal(size=(96000, 2)), 96000)
    soundfile.write(folder / "eightbit.wav", soundfile.read(voice)[0], 16000, subtype="PCM_U8")
    arguments = ("run", "-t", "codec2-1200", "--task", "reconstruction", "--data", f"folder:{folder}")
    assert terminal(*arguments, "--judge", "praat-ac", "--no-track", "--json") == 3
    (result,) = json.loads(terminal.out)["results"]
    assert result["status"] == "partial"
    failed = {failure["id"]: failure["error"] for failure in result["coverage"]["failed"]}
    assert {"cut", "words", "nan"} <= set(failed)
    assert "good" not in failed
    assert "eightbit" not in failed
    assert "stereo96" not in failed
    pesq = next(e for e in result["estimates"] if e["metric"] == "pesq_wb")
    assert "the reference is silent" in pesq["reasons"]


def test_a_task_that_the_corpus_cannot_serve_leaves_the_others(terminal: Terminal) -> None:
    words = ("run", "-t", "kmeans-mfcc-500", "--data", "mini-en", "--limit", "2", "--no-track", "--workers", "1")
    assert terminal(*words, "--task", "speaker") == 2
    assert "no same-speaker trial" in terminal.err
    assert terminal(*words, "--task", "pnmi", "--task", "speaker", "--output", "out") == 0
    status = {path.parent.parent.name: json.loads(path.read_text()) for path in Path("out").rglob("result.json")}
    assert status["pnmi"]["status"] == "complete"
    assert status["speaker"]["status"] == "not_applicable"
    assert "no same-speaker trial" in status["speaker"]["reason"]


def test_cache_commands(terminal: Terminal, voice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "good.wav").write_bytes(voice.read_bytes())
    terminal(
        "run",
        "-t",
        "codec2-1200",
        "--task",
        "reconstruction",
        "--data",
        f"folder:{folder}",
        "--judge",
        "praat-ac",
        "--no-track",
    )
    assert "codec2-1200" in terminal.out
    assert terminal("cache", "ls") == 0
    assert "encode" in terminal.out
    assert terminal("cache", "verify") == 0
    unit = next((tmp_path / "cache" / "store" / "decode").rglob("*.unit"))
    unit.write_bytes(unit.read_bytes()[:-1])
    assert terminal("cache", "verify") == 1
    assert unit.name in terminal.out
    assert terminal("cache", "gc", "--stage", "judge") == 0
    assert terminal("cache", "ls") == 0
    assert "judge" not in terminal.out
    assert terminal("audit", "tokbench-results") == 0
    assert "0 findings" in terminal.out


def test_lists_and_shows(terminal: Terminal) -> None:
    assert terminal("list", "tokenizers") == 0
    assert "codec2-1200" in terminal.out
    assert terminal("list", "metrics") == 0
    assert "pesq_wb" in terminal.out
    assert terminal("show", "codec2-1200") == 0
    assert "input_rate: 8000" in terminal.out
    assert terminal("show", "wer") == 0
    assert "lower is better" in terminal.out
    assert terminal("data", "list") == 0
    assert "librispeech" in terminal.out


def test_a_setting_reaches_a_field_and_leaves_the_card_alone() -> None:
    params = {"recipe": {"steps": 200, "lr": 0.01}, "beam": 16}
    made = with_settings(params, {"recipe.steps": 400, "beam": 4})
    assert made == {"recipe": {"steps": 400, "lr": 0.01}, "beam": 4}
    assert params == {"recipe": {"steps": 200, "lr": 0.01}, "beam": 16}
