"""Training Kanade in full size: seconds a step, memory and the wait for data, for each attention backend.

    python benchmarks/kanade_training.py                     # GPU: batch 32; CPU: batch 2; every backend there is
    python benchmarks/kanade_training.py --batch 128 --gan   # the published batch, and phase 2
    python benchmarks/kanade_training.py --compile           # every case compiled as well
    python benchmarks/kanade_training.py --write FILE        # also as YAML for reproduce/step_times/measured.yaml

The real Lightning module, data module and trainer run the 25 Hz recipe on a corpus of noise that is written first.
WavLM has random weights (time does not depend on them), every step runs it, and audio is read from files by workers, as
in training. The wait is the time between the end of a step, the GPU idle, and the next batch at hand; the first step
compiles, where nets are compiled, and is not timed with the others.
Needs torch, lightning, transformers, pydantic and numpy; no network. Where soundfile is not installed, the standard
library reads the files.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
import wave
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from tokbench.data.dataset import Dataset, Utterance
from tokbench.kanade.training import crops, data
from tokbench.kanade.training.data import CropData
from tokbench.kanade.training.module import KanadeTraining
from tokbench.kanade.training.recipe import Recipe, load_recipe
from tokbench.kanade.training.released import ReleasedParts
from tokbench.kanade.training.run import quiet_lightning

RATE = 24000
RECIPES = Path(__file__).resolve().parents[1] / "reproduce" / "kanade"
NETS = ("local_encoder", "feature_decoder", "mel_prenet", "mel_decoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch", type=int, help="items a step; default 32 on a GPU, 2 on a CPU")
    parser.add_argument("--steps", type=int, help="timed steps; default 8 on a GPU, 2 on a CPU")
    parser.add_argument("--workers", type=int, default=4, help="processes that read audio")
    parser.add_argument("--gan", action="store_true", help="also phase 2")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--limit", type=float, default=0.05, help="share of waiting above which it exits with 1")
    parser.add_argument("--write", type=Path, help="write the measurements as YAML")
    args = parser.parse_args()
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    cuda = device == "cuda"
    batch, steps = args.batch or (32 if cuda else 2), args.steps or (8 if cuda else 2)
    name = torch.cuda.get_device_name() if cuda else "cpu"
    if find_spec("soundfile") is None:
        crops._read_part = read_by_standard_library
        crops.utterance_samples = data.utterance_samples = lambda *_: 20 * RATE
    print(f"kanade-25hz, batches of {batch} x 5.76 s, {'bf16' if cuda else 'fp32'}, {name}, torch {torch.__version__}")
    print(
        f"{'phase':6} {'attention':27} {'s/step':>8} {'s audio/s':>10} {'memory GB':>10} {'waiting':>8} {'first s':>8}"
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = noise(Path(folder), files=max(8, min(64, batch)))
        for phase, backend, dropout in cases(cuda=cuda, gan=args.gan):
            recipe = make_recipe(phase, backend, dropout, batch=batch, workers=args.workers, cuda=cuda)
            for compiled in (False, True) if args.compile else (False,):
                parts = ReleasedParts(recipe.model.config, device=device, ssl_weights="random")
                row = measure(recipe, parts, corpus, device=device, steps=steps, compiled=compiled)
                label = f"{backend}, dropout {dropout:g}{', compiled' if compiled else ''}"
                if "error" in row:
                    print(f"{phase:6} {label:27} {row['error'][:90]}", flush=True)
                    continue
                rows.append(row | {"phase": phase, "attention": label, "batch_size": batch})
                print(
                    f"{phase:6} {label:27} {row['seconds']:8.3f} {batch * 5.76 / row['seconds']:10.0f} "
                    f"{row['memory_gb']:10.2f} {row['wait']:8.2%} {row['first']:8.1f}",
                    flush=True,
                )
    print(json.dumps({"device": name, "rows": rows}))
    if args.write:
        write(args.write, rows, name)
    if any(row["wait"] > args.limit for row in rows):
        sys.exit(f"a step waits for data for more than {args.limit:.0%} of its time")


def cases(*, cuda: bool, gan: bool) -> list[tuple[str, str, float]]:
    """Phase, backend, attention dropout; flex_attention knows no dropout."""
    found = [("1", "sdpa", 0.1)]
    if cuda:
        found += [("1", "sdpa", 0.0), ("1", "flex", 0.0)]
        if find_spec("flash_attn") is not None:
            found += [("1", "flash", 0.1)]
    if gan:
        found += [("2", "sdpa", 0.1)]
    return found


def make_recipe(phase: str, backend: str, dropout: float, *, batch: int, workers: int, cuda: bool) -> Recipe:
    path = RECIPES / f"25hz_{'pretrain' if phase == '1' else 'gan'}.yaml"
    nets = {f"model.overrides.{net}.dropout": dropout for net in NETS}
    settings = {
        "attention": backend,
        "data.batch_size": batch,
        "data.workers": workers,
        "data.held_out_speakers": 0,
        "precision": "bf16" if cuda else "fp32",
        **nets,
    }
    return load_recipe(path, settings=settings)


def noise(folder: Path, *, files: int) -> Dataset:
    """Files of 20 s, 16 bit, at 24 kHz, so that nothing is resampled."""
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(files):
        path = folder / f"{number}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(rng.integers(-8000, 8000, 20 * RATE, dtype=np.int16).tobytes())
        utterances.append(Utterance(path.stem, path, f"s{number % 8}"))
    return Dataset("noise", tuple(utterances))


def read_by_standard_library(utterance: Utterance, start: int, size: int, rate: int) -> np.ndarray[Any, Any]:  # noqa: ARG001
    """What `crops._read_part` does, for 16-bit files at the model's rate."""
    with wave.open(str(utterance.path)) as file:
        file.setpos(start)
        samples = np.frombuffer(file.readframes(size), np.int16)
    return samples.astype(np.float32) / 32768


class Clock(Callback):
    """Times steps after the first ones, waiting apart from working, with the GPU idle at the end of each step."""

    def __init__(self, warmup: int, steps: int, *, cuda: bool) -> None:
        self.warmup, self.steps, self.cuda = warmup, steps, cuda
        self.done = 0
        self.waited = self.total = 0.0
        self.ended = time.perf_counter()
        self.began = self.ended
        self.first = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """The wait is over."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """A step is over."""
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.done == 0:
            self.first = now - self.began
        if self.done >= self.warmup:
            self.waited += self.began - self.ended
            self.total += now - self.ended
        self.done += 1
        self.ended = now
        if self.done == self.warmup + self.steps:
            trainer.should_stop = True


def measure(
    recipe: Recipe, parts: ReleasedParts, corpus: Dataset, *, device: str, steps: int, compiled: bool
) -> dict[str, Any]:
    cuda = device == "cuda"
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.set_float32_matmul_precision("high")
    module = KanadeTraining(recipe, parts)
    if compiled:
        module.compile_nets()
    clock = Clock(3 if cuda else 1, steps, cuda=cuda)
    try:
        with quiet_lightning():
            trainer = Trainer(
                accelerator="gpu" if cuda else "cpu",
                devices=1,
                precision="bf16-mixed" if cuda else "32-true",
                max_epochs=-1,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                logger=False,
                callbacks=[clock],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(module, datamodule=CropData(recipe, parts, corpus))
    except torch.OutOfMemoryError:
        return {"error": "out of memory"}
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": clock.total / steps,
        "wait": clock.waited / clock.total,
        "memory_gb": peak / 1e9,
        "first": clock.first,
    }


def write(path: Path, rows: list[dict[str, Any]], device: str) -> None:
    lines = [
        "- {"
        f"model: 25hz, adversarial: {str(row['phase'] == '2').lower()}, batch_size: {row['batch_size']}, "
        f"seconds: {row['seconds']:.4f}, device: {device}, attention: '{row['attention']}', "
        f"measured: '{date.today()}'"
        "}\n"
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
