"""Put a trained kanade-mini into the package: released layout, what it was trained on, how, and its losses.

    python scripts/ship_kanade_mini.py RUN [RUN ...] --archive corpus.tar --commits HASH [HASH ...] \
        --kokoro-voices kokoro-js-1.2.1.tgz

RUN is a folder that `train_kanade_mini.py` wrote. `training.json` counts the corpus by engine and voice, and the
script refuses a corpus with an evaluated voice or sentence of mini-en.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kanade_mini_text import normal
from make_kanade_mini_corpus import ALLOWED, MIXTURES, UNSEEN, Plan, mixed_voices, mixtures, plans, test_texts
from mini_en_voices import KOKORO_LICENCE
from safetensors.torch import load_file

from tokbench.kanade.config import KANADE_MINI
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.training.export import export_released

FOLDER = Path(__file__).parents[1] / "tokbench" / "tokenizers" / "weights" / "kanade-mini"
LICENCES = {
    "librispeech": "CC BY 4.0",
    MIXTURES: KOKORO_LICENCE,
    **{engine: ", ".join(sorted({v.licence for v in ALLOWED if v.engine == engine})) for engine in
       ("festival", "flite", "kokoro", "pico")},
}  # fmt: skip
ANY_SENTENCE = ["Any sentence that is long enough to stand for an utterance"]


def corpus(archive: Path, kokoro_voices: Path) -> dict[str, Any]:
    """What the archive holds, by engine.

    Raises:
        SystemExit: it holds an evaluated voice or sentence, or a Kokoro mixture of one.
    """
    with tarfile.open(archive) as tar:
        file = tar.extractfile("manifest.csv")
        assert file is not None
        rows = list(csv.DictReader(io.StringIO(file.read().decode())))
    heard = {row["speaker"].split("-p")[0] for row in rows} & {voice.speaker for voice in UNSEEN}
    if heard:
        raise SystemExit(f"{archive}: the evaluated voices {sorted(heard)} are in it")
    banned = test_texts()
    said = [row["id"] for row in rows if any(f" {text} " in f" {normal(row['text'])} " for text in banned)]
    if said:
        raise SystemExit(f"{archive}: {said[:5]} say evaluated sentences")
    engines: dict[str, Any] = {}
    for engine in sorted({row["engine"] for row in rows}):
        mine = [row for row in rows if row["engine"] == engine]
        voices = Counter(row["speaker"].split("-p")[0] for row in mine if not row["speaker"].startswith("mix"))
        speakers = {row["id"]: row["speaker"] for row in mine}
        engines[engine] = {
            "utterances": len(mine),
            "hours": round(sum(float(row["seconds"]) for row in mine) / 3600, 4),
            "licence": LICENCES[engine],
            "moved by WORLD": sum("-p" in row["speaker"] for row in mine),
        } | ({"speakers": len(voices)} if engine == "librispeech" else {"voices": dict(sorted(voices.items()))})
        if engine == "kokoro":
            engines[engine] |= vectors(speakers, plans("kokoro", ANY_SENTENCE))
        if engine == MIXTURES:
            engines[engine] |= vectors(speakers, mixtures(mixed_voices(kokoro_voices), ANY_SENTENCE))
    return {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "engines": engines}


def vectors(speakers: dict[str, str], planned: Iterable[Plan]) -> dict[str, Any]:
    """How often each Kokoro voice vector is part of a mixture, from the plan that made the utterances (`id: speaker`).

    A plan's random numbers do not depend on the texts, which need WordNet; so any sentence serves.
    """
    parts: dict[str, int] = defaultdict(int)
    missing = dict(speakers)
    for plan in planned:
        if plan.id in missing:
            if missing.pop(plan.id) != plan.voice.speaker:
                raise SystemExit(f"{plan.id} is spoken by {speakers[plan.id]}, the plan says {plan.voice.speaker}")
            for name in plan.weights or ():
                parts[name] += 1
        if not missing:
            break
    evaluated = {voice.name for voice in UNSEEN} & set(parts)
    if evaluated:
        raise SystemExit(f"mixtures hold the evaluated voices {sorted(evaluated)}")
    return {"mixtures of voice vectors": dict(sorted(parts.items()))}


def settings(run: Path, commit: str) -> dict[str, Any]:
    """Commit, options, hardware and steps of a run; of paths, only the name of the weights that it began with."""
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    start = {"start": Path(report["start"]).name} if report["start"] else {}
    return {"commit": commit} | {k: v for k, v in report.items() if k not in ("archive", "whisper", "out")} | start


def losses(runs: list[Path]) -> str:
    """All runs' losses in one table."""
    rows = []
    for number, run in enumerate(runs):
        with (run / "losses.csv").open(encoding="utf-8", newline="") as file:
            rows += [{"run": str(number)} | row for row in csv.DictReader(file)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> None:
    """Parse the command line, write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of train_kanade_mini.py; each began with the last")
    parser.add_argument("--archive", type=Path, required=True, help="the corpus that it was trained on")
    parser.add_argument("--kokoro-voices", type=Path, required=True, help="kokoro-js-1.2.1.tgz, for the mixtures' plan")
    parser.add_argument("--phase", choices=["pretrain", "adversarial"], default="adversarial", help="of the last run")
    parser.add_argument("--commits", nargs="+", required=True, help="of the training script, by run")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    runs = [settings(run, commit) for run, commit in zip(options.runs, options.commits, strict=True)]
    model = KanadeModel(KANADE_MINI, feature_decoder=True)
    model.load_state_dict(load_file(options.runs[-1] / f"{options.phase}.safetensors"))
    record = {"script": "scripts/train_kanade_mini.py", "shipped": f"{options.phase} of the last run", "runs": runs}
    export_released(model, options.out)
    record["corpus"] = corpus(options.archive, options.kokoro_voices)
    (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.out / "losses.csv").write_text(losses(options.runs), encoding="utf-8")
    for path in options.out.iterdir():
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size} bytes, {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
