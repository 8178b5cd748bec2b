"""Our metrics beside the packages and rules they must agree with, and beside values of published audio.

Run: `python benchmarks/metrics_reference.py [--shared ../shared]`
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokbench.audio import read_audio, resample
from tokbench.metrics.catalogue import metric
from tokbench.metrics.eer import eer
from tokbench.metrics.intelligibility import estoi, stoi
from tokbench.metrics.pesq import pesq_nb, pesq_wb
from tokbench.metrics.pitch import f0_corr, f0_rmse, gpe, vuv_error
from tokbench.metrics.wer import character_errors, normalise, word_errors
from tokbench.types import Wave

RATE = 16_000
AUDIO = Path("data/published-audio/reconstruction")
NAMES = ("pesq_wb", "stoi", "estoi", "f0_corr", "vuv_error", "gpe", "f0_rmse")
PUBLISHED = {
    "kanade_25hz": (1.7016, 0.8539, 0.7537, 0.7494, 0.1352, 0.0282, 278.57),
    "mimi": (2.3007, 0.9105, 0.8144, 0.9106, 0.0758, 0.0199, 177.35),
}
TEXTS = [
    ("I'VE GOT TWENTY FIVE", "i have got 25 of them"),
    ("Mr. Quilter is the apostle of the middle classes", "mister quilter is an apostle of middle classes"),
    ("the colour of the grey centre", "the color of a gray center"),
    ("nothing at all", "something else entirely, and more"),
]


def line(what: str, ours: float, theirs: float, tolerance: float) -> bool:
    """Print one comparison; returns whether it agrees."""
    gap = abs(ours - theirs)
    good = gap <= tolerance
    print(f"{what:<44}{ours:>14.6f}{theirs:>14.6f}{gap:>11.1e}  {'ok' if good else f'NOT within {tolerance:g}'}")
    return good


def head(title: str, ours: str, theirs: str) -> None:
    print(f"\n{title:<44}{ours:>14}{theirs:>14}{'gap':>11}")


def pairs(folder: Path, system: str) -> Iterator[tuple[str, Wave, Wave]]:
    """Original and decoded wave of every utterance, as published."""
    for path in sorted((folder / "orig").glob("*.wav")):
        original, _ = read_audio(path)
        decoded, _ = read_audio(folder / system / path.name)
        yield path.stem, original, decoded


def packages(folder: Path) -> bool:
    import pesq
    import pystoi

    head("against the packages", "tokbench", "package")
    good = True
    for system in PUBLISHED:
        for name, long_a, long_b in pairs(folder, system):
            n = min(len(long_a), len(long_b))
            a, b = long_a[:n], long_b[:n]
            narrow = [resample(wave, RATE, 8_000) for wave in (a, b)]
            for key, ours, theirs in (
                ("pesq_wb", pesq_wb(long_a, long_b), pesq.pesq(RATE, a, b, "wb")),
                ("pesq_nb", pesq_nb(long_a, long_b), pesq.pesq(8_000, *narrow, "nb")),
                ("stoi", stoi(long_a, long_b), pystoi.stoi(a, b, RATE)),
                ("estoi", estoi(long_a, long_b), pystoi.stoi(a, b, RATE, extended=True)),
            ):
                good &= line(f"{key} {system} {name}", ours[key], theirs, 1e-6)
    return good


def texts() -> bool:
    import jiwer

    said, heard = ([normalise(text) for text in side] for side in zip(*TEXTS, strict=True))
    head("corpus error rates against jiwer", "tokbench", "jiwer")
    good = True
    for name, function, theirs in (
        ("wer", word_errors, jiwer.wer(said, heard)),
        ("cer", character_errors, jiwer.cer(said, heard)),
    ):
        rows = [function(reference, hypothesis) for reference, hypothesis in TEXTS]
        columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        good &= line(name, metric(name).value(columns), float(theirs), 1e-6)
    return good


def speechbrain_rule(target: npt.NDArray[np.float64], nontarget: npt.NDArray[np.float64]) -> float:
    """SpeechBrain's own function where it is installed, else its rule written out."""
    try:
        import torch
        from speechbrain.utils.metric_stats import EER
    except ImportError:
        distinct = np.unique(np.concatenate([target, nontarget]))
        thresholds = np.sort(np.concatenate([distinct, (distinct[1:] + distinct[:-1]) / 2]))
        frr = np.array([(target <= t).mean() for t in thresholds])
        far = np.array([(nontarget > t).mean() for t in thresholds])
        best = int(np.argmin(np.abs(far - frr)))
        return float(far[best] + frr[best]) / 2
    return float(EER(torch.from_numpy(target), torch.from_numpy(nontarget))[0])


def equal_error_rates() -> bool:
    head("equal error rate against SpeechBrain's rule", "tokbench", "rule")
    rng = np.random.default_rng(0)
    cases = {
        "separate": ([0.6, 0.7, 0.8, 0.5], [0.4, 0.3, 0.2, 0.1]),
        "one in four": ([0.9, 0.8, 0.4, 0.7], [0.5, 0.3, 0.2, 0.6]),
        "uneven": ([0.9, 0.8, 0.3], [0.5, 0.4, 0.1, 0.2]),
        "all equal": ([0.5, 0.5], [0.5, 0.5, 0.5]),
        "normal, 300 and 701": (rng.normal(1, 1, 300), rng.normal(0, 1, 701)),
        "inverted": (rng.normal(-1, 1, 200), rng.normal(0, 1, 200)),
    }
    good = True
    for name, (target, nontarget) in cases.items():
        t, n = np.asarray(target, np.float64), np.asarray(nontarget, np.float64)
        good &= line(name, eer(t, n).value, speechbrain_rule(t, n), 1e-6)
    return good


def praat_f0(wave: Wave) -> npt.NDArray[np.float64]:
    """Praat's autocorrelation over the whole wave: 10 ms, 50 to 550 Hz."""
    import parselmouth

    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=50.0, pitch_ceiling=550.0)
    return np.asarray(pitch.selected_array["frequency"], np.float64)


def published(folder: Path) -> bool:
    head("means over published audio", "tokbench", "expected")
    good = True
    for system, expected in PUBLISHED.items():
        rows = []
        for _, a, b in pairs(folder, system):
            tracks = praat_f0(a), praat_f0(b)
            row = pesq_wb(a, b) | stoi(a, b) | estoi(a, b)
            for function in (f0_corr, vuv_error, gpe, f0_rmse):
                row |= function(*tracks)
            rows.append(row)
        for name, value in zip(NAMES, expected, strict=True):
            # Cents are given with two decimals.
            tolerance = 0.005 if name == "f0_rmse" else 0.002
            good &= line(f"{name} {system}, n = {len(rows)}", float(np.mean([r[name] for r in rows])), value, tolerance)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the development data")
    folder = parser.parse_args().shared / AUDIO
    good = texts() & equal_error_rates()
    if folder.is_dir():
        good &= packages(folder) & published(folder)
    else:
        print(f"\nno published audio at {folder}: PESQ, STOI and pitch are not compared (--shared DIR)")
    print("\nall agree" if good else "\nNOT all agree")
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
