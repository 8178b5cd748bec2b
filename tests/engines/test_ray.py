"""The same run on this machine's processes and on a Ray cluster of one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (extra ray)")
def test_ray_gives_what_processes_give(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    t = np.arange(24000) / 16000
    for n in range(4):
        wave = sum(np.sin(2 * np.pi * (120 + 20 * n) * k * t) / k for k in range(1, 20))
        soundfile.write(audio / f"u{n}.wav", 0.2 * wave * np.clip(np.sin(2 * np.pi * 3 * t), 0, 1), 16000)
    made = []
    for engine in ("local", "ray"):
        arguments = ["-t", "codec2-1200", "--task", "reconstruction", "--data", f"folder:{audio}"]
        arguments += ["--judge", "praat-ac", "--engine", engine, "--workers", "2", "--shard-size", "2"]
        arguments += ["--store", str(tmp_path / engine), "--output", str(tmp_path / "out" / engine)]
        # A process of its own: Ray looks for the machine's address, which the tests' own process may not do.
        done = subprocess.run(
            [sys.executable, "-m", "tokbench", "run", *arguments, "--no-track", "--json", "--device", "cpu"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        made.append(json.loads(done.stdout)["results"][0])
    assert made[0]["estimates"] == made[1]["estimates"]
    assert made[0]["tables"] == made[1]["tables"]
