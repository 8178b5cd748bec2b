"""The conformance suite: does a tokenizer keep the contract that its card and `tokenizers.base` declare?

`conformance` runs it on a loaded tokenizer and returns data; nothing is printed and nothing is raised for a failure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from tokbench.config import TokenizerCard
from tokbench.errors import AudioError, NotApplicable, TokbenchError
from tokbench.tokenizers.base import Tokenizer
from tokbench.types import Encoded, StreamSpec, Wave

__all__ = ["LONG_SECONDS", "Check", "conformance", "decode_elsewhere", "speech_like"]

LONG_SECONDS = (Fraction(35), Fraction(262, 5))
"""35 s passes the windows of common models; at 52.4 s a published tokenizer was found to lose frames."""

_LATENT_TOLERANCE = 1e-4
_CHILD = "from tokbench.tokenizers.conformance import _child; _child()"


@dataclass(frozen=True)
class Check:
    """One finding: what was checked, whether it holds, and the numbers behind it."""

    name: str
    passed: bool
    detail: str


class _Broken(Exception):
    """A check does not hold; the message is its detail."""


def conformance(tokenizer: Tokenizer, *, long_seconds: Sequence[Fraction] = LONG_SECONDS) -> list[Check]:
    """Run every check; a few seconds for a classical coder, about two minutes of audio encoded and decoded.

    Args:
        tokenizer: loaded.
        long_seconds: lengths of the long inputs; where `card.max_seconds` is shorter, they must be refused.

    Returns:
        One `Check` a property, in a fixed order. A card may loosen the count law by `params.symbols_per_frame`
        (symbols that one packed frame of a classical coder is cut into) and `params.lookahead_samples` (samples that
        are coded after the end).
    """
    suite = _Suite(tokenizer, tuple(long_seconds))
    return [_run(name, check) for name, check in suite.checks()]


def speech_like(seconds: Fraction, rate: int, *, seed: int = 0) -> Wave:
    """A voiced, noisy and pausing signal, float32 `[seconds * rate]`, peak 0.5: harmonics under moving formants."""
    n = int(seconds * rate)
    t = np.arange(n) / rate
    generator = np.random.default_rng(seed)
    pitch = (110 + 70 * seed) * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = [(500 + 250 * np.sin(2 * np.pi * 2.1 * t), 120.0), (1500 + 600 * np.sin(2 * np.pi * 1.3 * t), 200.0)]
    wave = np.zeros(n)
    for k in range(1, 20):
        gain = sum(1 / (1 + ((k * pitch - centre) / width) ** 2) for centre, width in formants)
        wave += np.where(k * pitch < 0.45 * rate, gain, 0.0) * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t + seed), 0, None)
    wave = wave * syllables + 0.05 * generator.standard_normal(n) * (1 - syllables)
    scaled: Wave = (0.5 * wave / max(1e-9, float(np.abs(wave).max()))).astype(np.float32)
    return scaled


def decode_elsewhere(tokenizer: Tokenizer, encoded: Encoded) -> Wave:
    """Decode in a new process from the tokens' file alone: what no hidden state can survive.

    Raises:
        TokbenchError: the other process failed; carries the last line it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokens, out, card = (Path(folder) / name for name in ("tokens.npz", "wave.npy", "card.json"))
        tokens.write_bytes(encoded.to_npz(tokenizer=tokenizer.card.name))
        card.write_text(tokenizer.card.model_dump_json(), encoding="utf-8")
        weights = str(tokenizer.weights) if tokenizer.weights else ""
        pickle = "pickle" if tokenizer.allow_pickle else ""
        arguments = [str(tokens), str(out), str(card), tokenizer.device, weights, pickle]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise TokbenchError(f"decoding in a new process failed: {last}")
        wave: Wave = np.load(out, allow_pickle=False)
        return wave


def _child() -> None:
    from tokbench.tokenizers.load import load_tokenizer

    tokens, out, card, device, weights, pickle = sys.argv[1:]
    tokenizer = load_tokenizer(
        TokenizerCard.model_validate_json(Path(card).read_text(encoding="utf-8")),
        device=device,
        weights=Path(weights) if weights else None,
        allow_pickle=bool(pickle),
    )
    encoded, _ = Encoded.from_npz(Path(tokens).read_bytes())
    np.save(out, tokenizer.decode([encoded])[0], allow_pickle=False)


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, passed=True, detail=check())
    except _Broken as broken:
        return Check(name, passed=False, detail=str(broken))
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises is the finding
        return Check(name, passed=False, detail=f"{type(error).__name__}: {error}")


class _Suite:
    """The checks over one tokenizer; inputs and tokens that several checks share are made once."""

    def __init__(self, tokenizer: Tokenizer, long_seconds: tuple[Fraction, ...]) -> None:
        self.tokenizer = tokenizer
        self.card = tokenizer.card
        self.rate = tokenizer.card.input_rate
        self.long_seconds = long_seconds
        self.decodes = "decode" in self.card.capabilities
        limit = self.card.max_seconds
        short = Fraction(2) if limit is None else min(Fraction(2), Fraction(limit).limit_denominator(1000))
        self.wave = speech_like(short, self.rate)
        self.other = speech_like(short * 7 / 10, self.rate, seed=1)
        self._tokens: Encoded | None = None

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Names and checks, cheap ones first."""
        yield "declared streams, dtypes and id range", self.declared
        yield "token count law on short input", self.short_lengths
        for seconds in self.long_seconds:
            yield f"{float(seconds):g} s", partial(self.long_length, seconds)
        yield "silence and clipping", self.extremes
        yield "NaN and empty input are refused", self.refusals
        yield "determinism", self.determinism
        yield "batch effect", self.batches
        yield "measured against declared bit rate", self.bit_rate
        yield "decoding", self.decoding
        yield "round trip through disk in a new process", self.round_trip
        yield "swapping globals", self.swapping

    def encode(self, wave: Wave) -> Encoded:
        """Tokens of one utterance, checked against the card."""
        made = self.tokenizer.encode([wave])
        _hold(len(made) == 1, f"{len(made)} results for one utterance")
        made[0].check(self.card.stream_specs, self.card.global_specs)
        _hold(made[0].n_samples == wave.size, f"n_samples is {made[0].n_samples}, the input has {wave.size}")
        coded = made[0].n_samples_coded
        _hold(coded is None or coded >= wave.size, f"n_samples_coded {coded} is less than the input's {wave.size}")
        return made[0]

    @property
    def tokens(self) -> Encoded:
        """Tokens of the common input."""
        if self._tokens is None:
            self._tokens = self.encode(self.wave)
        return self._tokens

    def excess(self, encoded: Encoded, spec: StreamSpec) -> tuple[float, float]:
        """How many frames a stream has beyond `rate * duration`, and how many the law allows."""
        padded = max(encoded.n_samples, self.card.min_samples)
        found = len(encoded.streams[spec.name]) - float(spec.rate_hz * padded / self.rate)
        frame = int(self.card.params.get("symbols_per_frame", 1))
        ahead = int(self.card.params.get("lookahead_samples", 0))
        return found, frame + float(spec.rate_hz * ahead / self.rate)

    def count_law(self, encoded: Encoded) -> str:
        """Hold `|T - rate * duration| <= 1 frame` for every stream."""
        worst = 0.0
        for spec in self.card.stream_specs:
            found, allowed = self.excess(encoded, spec)
            _hold(
                abs(found) <= allowed + 1e-6,
                f"stream '{spec.name}' is {found:+.2f} tokens off after {encoded.n_samples / self.rate:.3f} s, "
                f"{allowed:g} are allowed",
            )
            worst = max(worst, abs(found) / allowed)
        return f"off by at most {worst:.2f} of a frame"

    def declared(self) -> str:
        """What `encode` gives is what the card declares."""
        sizes = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in self.tokens.streams.items())
        return f"{sizes} for {self.wave.size / self.rate:g} s"

    def short_lengths(self) -> str:
        """One sample, the minimum, and one hop with its neighbours."""
        frame = int(self.card.params.get("symbols_per_frame", 1))
        hops = {round(frame * self.rate / spec.rate_hz) for spec in self.card.stream_specs}
        lengths = {1, self.card.min_samples, self.rate // 10 + 1} | {hop + step for hop in hops for step in (-1, 0, 1)}
        usable = sorted(n for n in lengths if 0 < n <= self.wave.size)
        for n in usable:
            encoded = self.encode(self.wave[:n])
            self.count_law(encoded)
            if self.decodes:
                self.check_wave(self.tokenizer.decode([encoded])[0], encoded)
        return f"{', '.join(map(str, usable))} samples"

    def long_length(self, seconds: Fraction) -> str:
        """A long input obeys the law, or is refused where the card sets a limit."""
        # A repeated signal is as long, and cheaper to make.
        piece = speech_like(Fraction(5), self.rate)
        n = int(seconds * self.rate)
        wave = np.tile(piece, -(-n // piece.size))[:n]
        if self.card.max_seconds is not None and seconds > Fraction(self.card.max_seconds):
            try:
                self.tokenizer.encode([wave])
            except TokbenchError as error:
                return f"refused, as declared ({type(error).__name__})"
            raise _Broken(f"accepted, though max_seconds is {self.card.max_seconds:g}")
        encoded = self.encode(wave)
        detail = self.count_law(encoded)
        if self.decodes:
            self.check_wave(self.tokenizer.decode([encoded])[0], encoded)
        return detail

    def extremes(self) -> str:
        """Silence, and a square wave at full scale and beyond."""
        n = self.wave.size
        for wave in (np.zeros(n, np.float32), (1.5 * np.sign(self.wave)).astype(np.float32)):
            encoded = self.encode(wave)
            self.count_law(encoded)
            if self.decodes:
                self.check_wave(self.tokenizer.decode([encoded])[0], encoded)
        return f"{n / self.rate:g} s each"

    def refusals(self) -> str:
        """Input without a meaning raises `AudioError`, whatever is beside it."""
        bad = {"NaN": np.float32(np.nan), "infinite": np.float32(np.inf)}
        inputs: dict[str, Wave] = {name: np.full_like(self.wave, value) for name, value in bad.items()}
        one = self.wave.copy()
        one[one.size // 2] = np.nan
        for name, wave in (inputs | {"one NaN": one, "empty": np.zeros(0, np.float32)}).items():
            try:
                self.tokenizer.encode([wave])
            except AudioError:
                continue
            except Exception as error:
                raise _Broken(f"{name}: {type(error).__name__} instead of AudioError") from error
            raise _Broken(f"{name} input was encoded")
        return f"AudioError for {', '.join(inputs)}, one NaN, empty"

    def determinism(self) -> str:
        """The same input gives the same tokens, and the same tokens the same samples, after other work."""
        self.tokenizer.encode([self.other])
        share = _changed(self.tokens, self.encode(self.wave))
        _hold(share == 0 or not self.card.deterministic, f"{share:.2%} of the values change between two runs")
        detail = f"tokens: {share:.2%} of the values change"
        if self.decodes:
            first, _, second = (self.tokenizer.decode([item])[0] for item in (self.tokens, *self.pair()))
            same = np.array_equal(first, second)
            _hold(same or not self.card.deterministic, "decoding the same tokens again gives other samples")
            detail += f"; samples: {'equal' if same else 'differ'}"
        return detail

    def pair(self) -> tuple[Encoded, Encoded]:
        """Another utterance's tokens and the common ones."""
        return self.encode(self.other), self.tokens

    def batches(self) -> str:
        """Utterances of different length encoded together give the tokens they give alone."""
        waves = [self.other, self.wave, self.wave[: self.wave.size // 2]]
        together = self.tokenizer.encode(waves)
        _hold(len(together) == len(waves), f"{len(together)} results for {len(waves)} utterances")
        shares = [_changed(self.encode(wave), item) for wave, item in zip(waves, together, strict=True)]
        _hold(max(shares) == 0, f"{max(shares):.2%} of the codes change in a batch (batching: {self.card.batching})")
        return f"0.00 % of the codes change among {len(waves)} (batching: {self.card.batching})"

    def bit_rate(self) -> str:
        """Bits of codes over coded time are those declared; side information is told."""
        specs = [spec for spec in self.card.stream_specs if spec.kind == "codes"]
        if not specs:
            return "no codes"
        seconds = (self.tokens.n_samples_coded or max(self.tokens.n_samples, self.card.min_samples)) / self.rate
        nominal = sum(spec.nominal_bps or 0.0 for spec in specs)
        bits = [len(self.tokens.streams[spec.name]) * float(np.log2(spec.vocab or 1)) for spec in specs]
        slack = sum(
            (spec.nominal_bps or 0.0) / float(spec.rate_hz) * self.excess(self.tokens, spec)[1] for spec in specs
        )
        difference = abs(sum(bits) - nominal * seconds)
        measured = sum(bits) / seconds
        _hold(difference <= slack + 1e-6, f"{measured:.1f} bit/s are measured, {nominal:.1f} declared")
        side = f", {self.tokens.side_info_bits} bits of side information" if self.tokens.side_info_bits else ""
        return f"{measured:.1f} bit/s measured over the coded time, {nominal:.1f} declared{side}"

    def check_wave(self, wave: Wave, encoded: Encoded) -> None:
        """Hold that decoded audio is finite float32 of the length that the input had."""
        n = round(encoded.n_samples * Fraction(self.card.output_rate or 0, self.rate))
        shape = f"{wave.dtype} {list(wave.shape)}"
        _hold(wave.dtype == np.float32 and wave.ndim == 1, f"audio is {shape}, must be float32 [n]")
        _hold(abs(wave.size - n) <= 1, f"{wave.size} samples come out, {n} are expected")
        _hold(bool(np.isfinite(wave).all()), "audio has NaN or infinite samples")

    def decoding(self) -> str:
        """Speech comes out at the right length, or decoding is declined in a typed way."""
        if not self.decodes:
            try:
                self.tokenizer.decode([self.tokens])
            except NotApplicable:
                return "declined, as declared"
            raise _Broken("decodes, though 'decode' is not among the capabilities")
        wave = self.tokenizer.decode([self.tokens])[0]
        self.check_wave(wave, self.tokens)
        level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        _hold(level > 1e-4, "a loud input comes back as silence")
        return f"{wave.size} samples at {self.card.output_rate} Hz, level {level:.3f}"

    def round_trip(self) -> str:
        """Saved, read and decoded by a new process, tokens give the same samples."""
        again, _ = Encoded.from_npz(self.tokens.to_npz(tokenizer=self.card.name))
        _hold(_changed(self.tokens, again) == 0, "tokens change on disk")
        if not self.decodes:
            return "tokens are equal; there is no decoder"
        here = self.tokenizer.decode([self.tokens])[0]
        there = decode_elsewhere(self.tokenizer, self.tokens)
        _hold(here.shape == there.shape, f"{here.size} samples here, {there.size} in a new process")
        difference = float(np.abs(here - there).max())
        _hold(difference == 0 or not self.card.deterministic, f"samples differ by up to {difference:.2e}")
        return f"samples differ by at most {difference:g}"

    def swapping(self) -> str:
        """Own globals change nothing, others' globals change the voice; without the capability it is declined."""
        if not self.decodes:
            return "no decoder"
        other, mine = self.pair()
        if "swap_global" not in self.card.capabilities:
            try:
                self.tokenizer.decode([mine], globals_from=[other])
            except NotApplicable:
                return "declined, as declared"
            raise _Broken("globals_from is accepted, though 'swap_global' is not among the capabilities")
        plain = self.tokenizer.decode([mine])[0]
        own = self.tokenizer.decode([mine], globals_from=[mine])[0]
        _hold(np.array_equal(plain, own), "its own globals, passed as globals_from, change the samples")
        swapped = self.tokenizer.decode([mine], globals_from=[other])[0]
        same = swapped.shape == plain.shape and np.allclose(swapped, plain, atol=1e-6)
        _hold(not same, "another utterance's globals change nothing")
        return "own globals: equal samples; another's: other samples"


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise _Broken(message)


def _changed(first: Encoded, second: Encoded) -> float:
    """Largest share, over streams and globals, of values that differ; 1.0 where lengths do."""
    shares = [0.0 if first.n_samples == second.n_samples else 1.0]
    for mine, theirs in ((first.streams, second.streams), (first.globals, second.globals)):
        for name, array in mine.items():
            if theirs[name].shape != array.shape:
                shares.append(1.0)
            elif array.size:
                exact = array.dtype.kind in "iu"
                equal = array == theirs[name] if exact else np.isclose(array, theirs[name], atol=_LATENT_TOLERANCE)
                shares.append(1.0 - float(np.mean(equal)))
    return max(shares)
