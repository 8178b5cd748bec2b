"""Put a trained kanade-mini into the package: released layout, what it was trained on, how, and its losses.

    python scripts/ship_kanade_mini.py RUN --archive corpus.tar --commit HASH

RUN is the folder that `train_kanade_mini.py` wrote. `training.json` counts the corpus by engine and voice, and the
script refuses a corpus with an evaluated voice or sentence of mini-en.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from kanade_mini_text import normal
from make_kanade_mini_corpus import ALLOWED, UNSEEN, plans, test_texts
from safetensors.torch import load_file

from tokbench.kanade.config import KANADE_MINI
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.training.export import export_released

FOLDER = Path(__file__).parents[1] / "tokbench" / "tokenizers" / "weights" / "kanade-mini"
LICENCES = {
    "librispeech": "CC BY 4.0",
    **{engine: ", ".join(sorted({v.licence for v in ALLOWED if v.engine == engine})) for engine in
       ("festival", "flite", "kokoro", "pico")},
}  # fmt: skip


def corpus(archive: Path) -> dict[str, Any]:
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
        engines[engine] = {
            "utterances": len(mine),
            "hours": round(sum(float(row["seconds"]) for row in mine) / 3600, 4),
            "licence": LICENCES[engine],
            "moved by WORLD": sum("-p" in row["speaker"] for row in mine),
        } | ({"speakers": len(voices)} if engine == "librispeech" else {"voices": dict(sorted(voices.items()))})
        if engine == "kokoro":
            engines[engine] |= mixtures({row["id"]: row["speaker"] for row in mine})
    return {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "engines": engines}


def mixtures(speakers: dict[str, str]) -> dict[str, Any]:
    """How often each Kokoro voice vector is part of a mixture, from the plan that made the utterances (`id: speaker`).

    The plan's random numbers do not depend on the texts, which need WordNet; so any sentences serve.
    """
    parts: dict[str, int] = defaultdict(int)
    missing = dict(speakers)
    for plan in plans("kokoro", ["Any sentence that is long enough to stand for an utterance"]):
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


def main() -> None:
    """Parse the command line, write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder of train_kanade_mini.py")
    parser.add_argument("--archive", type=Path, required=True, help="the corpus that it was trained on")
    parser.add_argument("--phase", choices=["pretrain", "adversarial"], default="adversarial")
    parser.add_argument("--commit", required=True, help="of the training script")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    report = json.loads((options.run / "run.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in report.items() if key not in ("archive", "whisper", "out", "start")}
    model = KanadeModel(KANADE_MINI, feature_decoder=True)
    model.load_state_dict(load_file(options.run / f"{options.phase}.safetensors"))
    record = {"script": "scripts/train_kanade_mini.py", "commit": options.commit, "phase": options.phase}
    record |= settings | {"corpus": corpus(options.archive)}
    export_released(model, options.out)
    (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(options.run / "losses.csv", options.out / "losses.csv")
    for path in options.out.iterdir():
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size} bytes, {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
