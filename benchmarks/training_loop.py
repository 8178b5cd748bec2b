"""The training loop beside transformers' Trainer: tokens a second, peak memory and loss on the same model and data.

    python benchmarks/training_loop.py                        # a small Llama on the CPU, about two minutes
    python benchmarks/training_loop.py --device cuda          # a larger one, bf16 and compiled on both sides

Needs transformers and accelerate (python -m pip install "tokbench[dev]"). Every run is a fresh process; the two take
turns, and the medians are compared. Both begin with the same weights and see the same batches in the same order, with
fused AdamW, the same clipping, a log every ten steps and no checkpoints; the Trainer's warm-up begins one step lower,
so the losses agree but for that. The first fifth of the steps warms up (compilation, caches) and is not timed. On the
CPU both have one thread, and seconds are the process's own CPU time, so that other work does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

VOCAB, LENGTH = 512, 256
SIZES = {"cpu": (4, 128, 4, 4, 60), "cuda": (12, 768, 12, 32, 300)}  # layers, width, heads, batch, steps


def clock(device: str) -> float:
    """Seconds: the process's own CPU time on one CPU thread, so that other work does not count; else of the wall."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def make_model(device: str):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width, heads, _, _ = SIZES[device]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=LENGTH, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def make_data(device: str):
    """Codes of a random first-order source, int64 `[steps * batch, LENGTH]`."""
    import numpy as np
    import torch

    _, _, _, batch, steps = SIZES[device]
    rng = np.random.default_rng(0)
    following = rng.integers(VOCAB, size=(VOCAB, 8))
    codes = np.empty((steps * batch, LENGTH), np.int64)
    codes[:, 0] = rng.integers(VOCAB, size=len(codes))
    for t in range(1, LENGTH):
        codes[:, t] = following[codes[:, t - 1], rng.integers(8, size=len(codes))]
    return torch.from_numpy(codes)


def with_tokbench(device: str) -> tuple[list[float], list[float]]:
    from torch import nn

    from tokbench.training.loop import Batch, fit
    from tokbench.training.recipe import Recipe

    _, _, _, batch, steps = SIZES[device]
    codes = make_data(device)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model(device)

        def forward(self, ids):
            return self.model(input_ids=ids, labels=ids).loss

    recipe = Recipe(
        steps=steps,
        batch=batch,
        lr=1e-3,
        warmup=steps // 10,
        schedule="cosine",
        weight_decay=0.01,
        clip=1.0,
        log_every=10,
    )
    times, losses = [clock(device)], []

    def log(point) -> None:
        times.append(clock(device))
        losses.append(point.values["loss"])

    fit(
        Loss(),
        lambda k: Batch({"ids": codes[k * batch : (k + 1) * batch]}, batch * LENGTH),
        recipe,
        device=device,
        log=log,
    )
    return times, losses


def with_trainer(device: str) -> tuple[list[float], list[float]]:
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments

    _, _, _, batch, steps = SIZES[device]
    codes = make_data(device)
    if device == "cpu":
        torch.set_num_threads(1)
    times, losses = [clock(device)], []

    class Watch(TrainerCallback):
        def on_log(self, _args, _state, _control, logs=None, **_) -> None:
            if logs and "loss" in logs:
                times.append(clock(device))
                losses.append(float(logs["loss"]))

    class Ordered(Trainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(rows)

    rows = [{"input_ids": row, "labels": row} for row in codes]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, learning_rate=1e-3,
            warmup_steps=steps // 10, lr_scheduler_type="cosine", weight_decay=0.01, adam_beta2=0.98, max_grad_norm=1.0,
            optim="adamw_torch_fused", logging_steps=10, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=device == "cpu", bf16=device == "cuda", torch_compile=device == "cuda", seed=0,
        )  # fmt: skip
        Ordered(model=make_model(device), args=arguments, train_dataset=rows, callbacks=[Watch()]).train()
    return times, losses


def child(which: str, device: str) -> None:
    import torch

    times, losses = {"tokbench": with_tokbench, "trainer": with_trainer}[which](device)
    _, _, _, batch, steps = SIZES[device]
    skipped = max(1, steps // 10 // 5)
    timed = (len(times) - 1 - skipped) * 10 * batch * LENGTH
    memory = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print("RESULT", json.dumps({"speed": timed / (times[-1] - times[skipped]), "memory": memory, "loss": losses[-1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["tokbench", "trainer"])
    args = parser.parse_args()
    if args.child:
        child(args.child, args.device)
        return
    found: dict[str, list[dict[str, float]]] = {"tokbench": [], "trainer": []}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for _ in range(args.rounds):
        for which, runs in found.items():
            command = [sys.executable, __file__, "--child", which, "--device", args.device]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            line = next((one for one in done.stdout.splitlines() if one.startswith("RESULT ")), None)
            if line is None:
                sys.exit(f"{which} failed:\n{done.stderr[-2000:]}")
            runs.append(json.loads(line[7:]))
    middle = {w: {k: statistics.median(r[k] for r in runs) for k in runs[0]} for w, runs in found.items()}
    for which, one in middle.items():
        print(f"{which:9} {one['speed']:10,.0f} tokens/s   {one['memory'] / 2**20:8,.0f} MiB   loss {one['loss']:.4f}")
    ours, theirs = middle["tokbench"], middle["trainer"]
    print(f"speed ratio (ours / theirs) {ours['speed'] / theirs['speed']:.3f}; ", end="")
    print(f"memory ratio (ours / theirs) {ours['memory'] / theirs['memory']:.3f}; {args.rounds} rounds, {args.device}")


if __name__ == "__main__":
    main()
