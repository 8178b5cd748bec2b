"""Isolated tokenizers in full size: through the worker, beside the authors' own calls in the same environment.

    TOKBENCH_ENVS=FOLDER python benchmarks/isolated.py                    # every environment that is there
    python benchmarks/isolated.py bigcodec facodec --turns 5 --keep FOLDER

For each card random weights of the published geometry are made in its environment and loaded twice, by the tokenizer's
worker and by `benchmarks/authors.py` in a second process of the same environment. Both encode and decode the same
utterance in turns; tokens and samples are compared first. The ratio of the best times is what protocol and checks cost;
`peak` is the most memory that the worker, or the authors' process, held during the calls, weights and
imports included. NeMo's cards are measured beside our port of the same archive, too. A card whose environment is not
there is skipped in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.config import TokenizerCard
from tokbench.errors import TokbenchError
from tokbench.isolated.environments import Environment, find_environment
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer

NAMES = (
    "bigcodec", "wavtokenizer-75hz", "wavtokenizer-40hz", "facodec", "facodec-redecoder",
    "fairseq2-wav2vec2-base-l12", "fairseq2-wav2vec2-large-lv60k-l24",
    "nemo-nanocodec-0.6k", "nemo-nanocodec-1.78k", "nemo-nanocodec-1.89k",
)  # fmt: skip
AUTHORS = Path(__file__).with_name("authors.py")


def authors(verb: str, card: TokenizerCard, environment: Environment, folder: Path) -> list[str]:
    """The command that runs the authors' code of a card."""
    assert card.environment is not None and card.weights is not None, "an isolated card declares both"  # noqa: PT018
    settings = {"source": environment.source, "params": card.params, "files": [*card.weights.files]}
    said = json.dumps(settings, default=str)
    return [str(environment.python), "-B", "-s", str(AUTHORS), verb, card.environment.name, str(folder), said]


def make_weights(card: TokenizerCard, environment: Environment, folder: Path) -> Path:
    """What `--weights` takes."""
    if environment.name == "nemo":
        from random_checkpoints import write_checkpoint

        return write_checkpoint(card.name.removeprefix("nemo-"), folder)
    subprocess.run(authors("make", card, environment, folder), check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder


class Authors:
    """The authors' process: `ask` returns the seconds of one call."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=folder
        )
        self._until(lambda line: line == "ready")

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None, "it was asked for a pipe"
        print(what, file=self.process.stdin, flush=True)
        return float(self._until(lambda line: line.replace(".", "").replace("e-", "").isdigit()))

    def _until(self, wanted: Callable[[str], bool]) -> str:
        """The next line that is wanted; libraries print others."""
        assert self.process.stdout is not None, "it was asked for a pipe"
        for line in self.process.stdout:
            if wanted(line.strip()):
                return line
        raise SystemExit(f"the authors' process ended with {self.process.wait()}")

    def close(self) -> None:
        assert self.process.stdin is not None, "it was asked for a pipe"
        self.process.stdin.close()
        self.process.wait(60)


class Peak:
    """The most resident memory of a process since `reset`, in MiB."""

    def __init__(self, pid: int) -> None:
        self.place = Path("/proc") / str(pid)

    def reset(self) -> None:
        (self.place / "clear_refs").write_text("5")

    def read(self) -> int:
        lines = (self.place / "status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)


def compare(tokenizer: IsolatedTokenizer, wave: Any, folder: Path) -> tuple[Any, str]:
    """The tokenizer's item, and how it differs from what the authors' calls gave."""
    item = tokenizer.encode([wave])[0]
    with np.load(folder / "out.npz") as found:
        expected = dict(found)
    if "frames" in expected:
        return item, f"frames within {np.abs(item.streams['frames'] - expected['frames']).max():.1e}"
    mine = np.stack([item.streams[spec.name] for spec in tokenizer.card.stream_specs])
    theirs = np.atleast_2d(expected["codes"])[: len(mine)]
    made = tokenizer.decode([item])[0]
    audio = expected["wave"][: len(made)]
    far, loud = np.abs(made - audio).max(), np.abs(audio).max()
    return item, f"{(mine == theirs).mean():.2%} of tokens equal, samples of up to {loud:.2g} within {far:.1e}"


def measure(card: TokenizerCard, environment: Environment, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    wave = speech_like(options.seconds, card.input_rate)
    np.save(folder / "wave.npy", wave)
    weights = next(folder.glob("*.nemo"), folder) if (folder / "made").exists() else None
    if weights is None:
        weights = make_weights(card, environment, folder)
        (folder / "made").touch()
    subprocess.run(authors("out", card, environment, folder), check=True, cwd=folder, stdout=subprocess.DEVNULL)
    tokenizer, theirs = IsolatedTokenizer(card, weights=weights), None
    try:
        item, same = compare(tokenizer, wave, folder)
        theirs = Authors(authors("serve", card, environment, folder), folder)
        works: dict[str, Callable[[], object]] = {"encode": lambda: tokenizer.encode([wave])}
        if card.output_rate is not None:
            works["decode"] = lambda: tokenizer.decode([item])
        child = tokenizer.worker._child
        assert child is not None, "it has just answered"
        peaks = {"worker": Peak(child._process.pid), "authors": Peak(theirs.process.pid)}
        row: dict[str, Any] = {"name": card.name, "threads": options.threads, "same": same}
        port = ported(card, weights, wave) if environment.name == "nemo" else {}
        for kind, work in works.items():
            for peak in peaks.values():
                peak.reset()
            work()
            theirs.ask(kind)
            times: dict[str, list[float]] = {"worker": [], "authors": []}
            for _ in range(options.turns):
                times["worker"].append(timed(work))
                times["authors"].append(theirs.ask(kind))
                if kind in port:
                    times.setdefault("port", []).append(timed(port[kind]))
            best = {who: min(spent) for who, spent in times.items()}
            row |= {f"{kind}_rtf": round(best["worker"] / float(options.seconds), 4)}
            row |= {f"{kind}_{who}_peak_mib": peak.read() for who, peak in peaks.items()}
            row[f"{kind}_adapter_to_authors"] = round(best["worker"] / best["authors"], 3)
            if kind in port:
                row[f"{kind}_port_to_authors"] = round(best["port"] / best["authors"], 3)
        return row
    finally:
        tokenizer.close()
        if theirs is not None:
            theirs.close()


def ported(card: TokenizerCard, weights: Path, wave: Any) -> dict[str, Callable[[], object]]:
    """Encode and decode by our port of the same archive, in this process; both have run once."""
    from tokbench.tokenizers.load import load_tokenizer

    port = load_tokenizer(card.name.removeprefix("nemo-"), weights=weights)
    item = port.encode([wave])[0]
    port.decode([item])
    return {"encode": lambda: port.encode([wave]), "decode": lambda: port.decode([item])}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help="cards of isolated tokenizers")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(4))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder where weights are kept, and found the next time")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    for name in options.names:
        card = find_card(TokenizerCard, name)
        try:
            environment = find_environment(card)
        except TokbenchError as error:
            print(f"{name}: skipped, {error}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = (options.keep or Path(place)).absolute() / name
            folder.mkdir(parents=True, exist_ok=True)
            print(json.dumps(measure(card, environment, folder, options)), flush=True)


if __name__ == "__main__":
    main()
