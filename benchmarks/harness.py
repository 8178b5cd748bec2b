"""What the harness adds: the same encode, decode and judge calls, bare and inside `tokbench run`, in one process.

Both ways read the same audio and compute the same metrics; the harness also hashes, stores, makes rows, bootstraps and
writes the result. Order alternates; the medians and their ratio are printed. Models are loaded before the clock starts.

    python benchmarks/harness.py --tokenizer kmeans-whisper-tiny-500 --limit 8 --rounds 3
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from tokbench.audio import resample
from tokbench.bench import Bench
from tokbench.clip import Clip
from tokbench.config import JudgeCard, TaskCard
from tokbench.data.load import load_dataset
from tokbench.engines.local import LocalEngine
from tokbench.handle import TokenizerHandle
from tokbench.judges.load import load_judge
from tokbench.protocols.reconstruction import METRIC_RATE, Reconstruction
from tokbench.registry import find_card
from tokbench.runner import Cell, Options, prepare_dataset, run
from tokbench.tokenizers.load import load_tokenizer

JUDGES = ("whisper-tiny.en", "resemblyzer", "praat-ac", "dnsmos-single")
"""Those of the embedded suite."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", default="kmeans-whisper-tiny-500")
    parser.add_argument("--data", default="mini-en")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    task = find_card(TaskCard, "reconstruction")
    dataset = load_dataset(arguments.data, limit=arguments.limit)
    judge_cards = {name: find_card(JudgeCard, name) for name in JUDGES}
    model = load_tokenizer(arguments.tokenizer)
    judges = {name: load_judge(name) for name in JUDGES}

    def bare() -> float:
        """Read, encode, decode, judge both sides, compare: the calls alone, in the harness's batches of eight."""
        start = time.perf_counter()
        protocol = Reconstruction(task, judge_cards, dict(task.params), 0)
        for first in range(0, len(dataset), 8):
            utterances = dataset.utterances[first : first + 8]
            audio = [u.read() for u in utterances]
            tokens = model.encode([resample(wave, rate, model.card.input_rate) for wave, rate in audio])
            decoded = model.decode(tokens)
            rate_out = model.card.output_rate or METRIC_RATE
            before = [Clip(resample(wave, rate, METRIC_RATE), METRIC_RATE) for wave, rate in audio]
            after = [Clip(resample(wave, rate_out, METRIC_RATE), METRIC_RATE) for wave in decoded]
            heard = {
                name: (
                    judge([clip.at(judge.card.input_rate).wave for clip in before]),
                    judge([clip.at(judge.card.input_rate).wave for clip in after]),
                )
                for name, judge in judges.items()
            }
            for index, item in enumerate(protocol.items(dataset)[first : first + 8]):
                evidence = {name: (one[index], two[index]) for name, (one, two) in heard.items()}
                protocol._measure_pair(item, before[index], after[index], evidence)
        return time.perf_counter() - start

    folder = Path(tempfile.mkdtemp())
    handle = TokenizerHandle(arguments.tokenizer)
    handle.__dict__["live"] = model  # loaded already, as in the bare calls
    import tokbench.jobs as jobs

    def harness() -> float:
        store = Path(tempfile.mkdtemp(dir=folder))
        from tokbench.store.store import Store

        bench = Bench(Store(store), handle, dict(judge_cards), _loaded=dict(judges))
        jobs._benches[(store, "cpu")] = bench
        start = time.perf_counter()
        cell = Cell(handle, task, prepare_dataset(dataset, store), judge_cards, dict(task.params))
        options = Options(store=store, output=store / "out")
        list(run([cell], options, LocalEngine(1)))
        return time.perf_counter() - start

    bare()  # caches of the libraries
    times: dict[str, list[float]] = {"bare": [], "harness": []}
    for round_ in range(arguments.rounds):
        order = (("bare", bare), ("harness", harness))
        for name, measure in order if round_ % 2 == 0 else reversed(order):
            times[name].append(measure())
    shutil.rmtree(folder)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{arguments.tokenizer}, {len(dataset)} utterances of {dataset.name}, {arguments.rounds} rounds, one process")
    for name, values in times.items():
        print(f"  {name:<8} median {medians[name]:7.2f} s  of {', '.join(f'{v:.2f}' for v in values)}")
    print(f"  the harness adds {100 * (medians['harness'] / medians['bare'] - 1):.1f} %")


if __name__ == "__main__":
    main()
