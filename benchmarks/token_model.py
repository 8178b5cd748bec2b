"""The probes' transformer beside transformers' Llama: training steps on the same packed documents.

    python benchmarks/token_model.py                        # a small one on the CPU, about a minute
    python benchmarks/token_model.py --device cuda          # 12 layers of 768; bf16, compiled on both sides

Both have the same geometry, tied embeddings and vocabulary, see the same rows of documents that do not attend to each
other (transformers' by a mask of its scaled dot-product attention), and take the same AdamW steps. They take turns in
this process; medians over rounds. On CUDA ours attends by flex_attention.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from fractions import Fraction

import numpy as np
import torch

from tokbench.probes.decoder import DecoderConfig, document_mask
from tokbench.probes.documents import pack, spoken
from tokbench.probes.layout import Layout
from tokbench.probes.token_model import TokenModel, inputs
from tokbench.streams import StreamSpec

VOCAB = 1000
# layers, width, heads, rows, steps a row, training steps a round
SIZES = {"cpu": (4, 128, 4, 4, 512, 4), "cuda": (12, 768, 12, 16, 2048, 20)}


def batches(device: str, layout: Layout):
    rng = np.random.default_rng(0)
    _, _, _, rows, steps, count = SIZES[device]
    made = []
    for _ in range(count):
        packed = []
        for _ in range(rows):
            row, left = [], steps
            while left > 60:
                size = int(rng.integers(50, min(400, left - 1)))
                codes = rng.integers(0, VOCAB, (size, 1)) + layout.slots[0].first
                row.append(spoken(layout, codes))
                left -= len(row[-1])
            packed.append(row)
        made.append(pack(packed, length=steps))
    return made


def ours(device: str, layout: Layout, data):
    layers, width, heads, *_ = SIZES[device]
    torch.manual_seed(0)
    model = TokenModel(layout, DecoderConfig(layers=layers, width=width, heads=heads, kv_heads=heads)).to(device)
    step = torch.compile(model) if device == "cuda" else model
    ready = [{k: v.to(device) for k, v in inputs(rows, layout).items()} for rows in data]
    return model, lambda k: step(**ready[k])["loss"]


def theirs(device: str, layout: Layout, data):
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width, heads, _, steps, _ = SIZES[device]
    torch.manual_seed(0)
    hidden = DecoderConfig(layers=layers, width=width, heads=heads).hidden_width
    config = LlamaConfig(
        vocab_size=layout.size, hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=steps, use_cache=False,
        tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device)
    step = torch.compile(model) if device == "cuda" else model
    ready = []
    for rows in data:
        ids = torch.from_numpy(rows.ids[..., 0]).to(device)
        documents = torch.from_numpy(rows.documents).to(device)
        labels = torch.where(torch.from_numpy(rows.slots[..., 0]).to(device) >= 0, ids, -100)
        ready.append((ids, document_mask(documents), torch.from_numpy(rows.positions).long().to(device), labels))

    def loss(k: int) -> torch.Tensor:
        ids, mask, positions, labels = ready[k]
        return step(input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels).loss

    return model, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    layout = Layout.of([StreamSpec("units", "codes", Fraction(50), VOCAB)])
    data = batches(args.device, layout)
    tokens = sum(int((rows.documents > 0).sum()) for rows in data)
    runs = {}
    for name, make in (("tokbench", ours), ("transformers", theirs)):
        model, loss = make(args.device, layout, data)
        runs[name] = (model, loss, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), [], [])
    for turn in range(args.rounds + 1):
        for _, loss, optimizer, times, peaks in runs.values():
            if args.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            for k in range(len(data)):
                half = torch.autocast("cuda", torch.bfloat16) if args.device == "cuda" else contextlib.nullcontext()
                with half:
                    made = loss(k)
                made.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if args.device == "cuda":
                torch.cuda.synchronize()
                peaks.append(torch.cuda.max_memory_allocated() / 2**20)
            if turn:  # the first round compiles and warms up
                times.append(time.perf_counter() - start)
    speed = {name: tokens / statistics.median(times) for name, (_, _, _, times, _) in runs.items()}
    for name, (model, _, _, _, peaks) in runs.items():
        count = sum(p.numel() for p in model.parameters())
        memory = f", peak {max(peaks):,.0f} MiB with both models held" if peaks else ""
        print(f"{name:12} {speed[name]:10,.0f} tokens/s, {count:,} parameters{memory}")
    ratio = speed["tokbench"] / speed["transformers"]
    print(f"speed ratio (ours / theirs) {ratio:.3f}, {args.rounds} rounds, {args.device}")


if __name__ == "__main__":
    main()
