"""Fit the codebooks that ship in the package, on their cards' own corpora and seeds.

    python scripts/fit_kmeans.py                          # all cards with `params.centroids`
    python scripts/fit_kmeans.py kmeans-mfcc-500

Writes `tokbench/tokenizers/weights/NAME.safetensors`; equal data, seed and libraries give equal files.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tokbench.audio import resample
from tokbench.config import TokenizerCard
from tokbench.data.fingerprint import dataset_fingerprint, dataset_hashes
from tokbench.data.load import load_dataset
from tokbench.data.places import cache_folder
from tokbench.registry import find_card, names
from tokbench.tokenizers.kmeans import KMeansUnits

WEIGHTS = Path(__file__).resolve().parents[1] / "tokbench" / "tokenizers" / "weights"


def main(wanted: list[str]) -> None:
    cards = [
        find_card(TokenizerCard, name)
        for name in names(TokenizerCard)
        if name.startswith("kmeans-") and "{" not in name
    ]
    for card in cards:
        if "centroids" not in card.params or (wanted and card.name not in wanted):
            continue
        started = time.perf_counter()
        # A fresh fit, whatever file is already there.
        recipe = card.model_copy(update={"params": {**card.params, "centroids": None}})
        tokenizer = KMeansUnits(recipe)
        dataset = load_dataset(card.params["corpus"])
        fingerprint = dataset_fingerprint(dataset, dataset_hashes(dataset, cache_folder()))
        waves = (resample(*utterance.read(), card.input_rate) for utterance in dataset.utterances)
        report = tokenizer.fit(waves, seed=card.params["seed"], corpus=card.params["corpus"], fingerprint=fingerprint)
        path = WEIGHTS / card.params["centroids"]
        tokenizer.save(path)
        numbers = ", ".join(f"{key} {value:.6g}" for key, value in report.items())
        print(f"{card.name}: {numbers}; {path.stat().st_size} bytes; {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
