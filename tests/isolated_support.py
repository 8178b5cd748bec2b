"""The authors' own calls of isolated families, on random weights in full size, run in a family's environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokbench.config import TokenizerCard
from tokbench.isolated.environments import Environment
from tokbench.types import Wave

AUTHORS = Path(__file__).resolve().parents[1] / "benchmarks" / "authors.py"


@dataclass(frozen=True)
class Reference:
    """A folder of weights for `--weights`, waves, and what the authors' calls make of the first one."""

    card: TokenizerCard
    weights: Path
    waves: tuple[Wave, ...]
    expected: dict[str, np.ndarray]


def call_authors(card: TokenizerCard, environment: Environment, folder: Path, waves: Sequence[Wave]) -> Reference:
    """Make weights in `folder`, and let the authors' code encode and decode there, in the voice of the last wave."""
    assert card.environment is not None
    assert card.weights is not None
    for number, wave in enumerate(waves):
        np.save(folder / f"wave{number}.npy", wave)
    settings = {"source": str(environment.source), "params": card.params, "files": [*card.weights.files]}
    for verb in ("make", "out"):
        command = [str(environment.python), "-B", str(AUTHORS), verb, card.environment.name, str(folder)]
        subprocess.run([*command, json.dumps(settings)], check=True, cwd=folder)
    with np.load(folder / "out.npz") as found:
        return Reference(card, folder, tuple(waves), dict(found))
