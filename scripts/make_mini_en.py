"""Make the corpus mini-en: short English sentences spoken by open text-to-speech voices.

    python scripts/make_mini_en.py --out tokbench/data/corpora/mini_en --kokoro-voices kokoro-js-1.2.1.tgz

writes the corpus that tokbench ships; `--hours 2` adds template sentences of the voices that may be trained on. What it
needs beyond tokbench's extra `mini` is told in mini_en_voices.py; voices of a missing engine are left out with a line.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from mini_en_grammar import sentences as template_sentences
from mini_en_readme import write_readme
from mini_en_report import Listener, voice_numbers
from mini_en_voices import EXTRA_VOICES, VOICES, Engine, Missing, Voice, open_engine

from tokbench.audio import pcm_sha256, read_audio, resample
from tokbench.data.alignment import align
from tokbench.data.dataset import Segment
from tokbench.errors import DatasetError
from tokbench.types import Wave

RATE = 16000
LEVEL_DB = -28.0
"""Active speech level in dB relative to full scale; each 6 dB more cost one bit a sample of FLAC."""
MARGIN = 0.1
"""Seconds kept before and after the speech."""
OWN, SPARE = 10, 2
"""Sentences of its own that a voice gets, and more that step in where Whisper does not understand one."""
TEST_SHARED = 1
TEST_OWN = {True: 2, False: 4}
"""Test sentences among a voice's own, by whether it may be trained on."""
SPEEDS = (1.0, 0.9, 0.8, 1.1)
"""Tried in turn until Whisper understands."""
MAX_WER = 0.5


@dataclass(frozen=True)
class Sentence:
    """A text with an id and the split that a voice which may be trained on says it in."""

    id: str
    text: str
    split: str


@dataclass(frozen=True)
class Spoken:
    """One finished utterance."""

    row: dict[str, str]
    words: tuple[Segment, ...]
    phones: tuple[Segment, ...]
    errors: int = 0
    reference_words: int = 0


def read_sentences(path: Path) -> tuple[list[Sentence], list[str]]:
    """The shared sentences and the pool of own ones."""
    sections: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            sections[line.strip("[]")] = current = []
        elif line and not line.startswith("#"):
            current.append(line)
    shared = [
        Sentence(f"s{number:02d}", text, "test" if number <= TEST_SHARED else "train")
        for number, text in enumerate(sections["shared"], 1)
    ]
    return shared, sections["own"]


def own_sentences(pool: list[str], voice: Voice) -> list[Sentence]:
    """The voice's block of the pool: its test sentences, its training sentences, its spare ones."""
    first = (OWN + SPARE) * VOICES.index(voice)
    block = pool[first : first + OWN + SPARE]
    return [
        Sentence(f"o{first + number:03d}", text, "test" if number <= TEST_OWN[voice.seen] else "train")
        for number, text in enumerate(block, 1)
    ]


def tidy(wave: Wave, rate: int) -> Wave:
    """16 kHz, no offset, 0.1 s around the speech, active level -28 dBFS, peaks below full scale."""
    wave = resample(wave, rate, RATE)
    wave = wave - wave.mean()
    step = RATE // 100
    frames = wave[: len(wave) // step * step].reshape(-1, step)
    power = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    active = np.flatnonzero(power > power.max() - 38)
    margin = round(MARGIN * RATE)
    start, end = active[0] * step - margin, (active[-1] + 1) * step + margin
    before, after = max(0, -start), max(0, end - len(wave))
    cut = wave[max(0, start) : end].copy()
    fade = min(step, len(cut) // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    cut[:fade] *= ramp
    cut[-fade:] *= ramp[::-1]
    level = 10 * np.log10(np.mean(10 ** (power[active] / 10)))
    gain = min(10 ** ((LEVEL_DB - level) / 20), 0.98 / np.abs(cut).max())
    return np.pad(cut * np.float32(gain), (before, after)).astype(np.float32)


def speak(engine: Engine, voice: Voice, sentence: Sentence, folder: Path, speed: float) -> tuple[Spoken, Wave]:
    """Synthesise, write and align one utterance.

    Raises:
        DatasetError: the speech does not fit its text.
    """
    wave = tidy(*engine.say(voice, sentence.text, speed=speed))
    utterance = f"{voice.speaker}_{sentence.id}"
    path = Path("audio") / voice.speaker / f"{utterance}.flac"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / path, wave, RATE, subtype="PCM_16", compression_level=1.0)
    wave, _ = read_audio(folder / path)
    words, phones = align(wave, sentence.text, name=f"{voice.speaker}: {sentence.text}")
    split = "heldout" if sentence.split == "train" and not voice.seen else sentence.split
    row = {"id": utterance, "path": path.as_posix(), "speaker": voice.speaker, "gender": voice.gender}
    row |= {"text": sentence.text, "split": split, "seen": str(voice.seen).lower()}
    row |= {"voice_engine": voice.engine, "duration": f"{len(wave) / RATE:.4f}"}
    row |= {"pcm_sha256": pcm_sha256(wave, RATE), "sentence_id": sentence.id}
    return Spoken(row, words, phones), wave


def speak_understood(
    engine: Engine, listener: Listener, voice: Voice, sentence: Sentence, folder: Path
) -> Spoken | None:
    """Speak at the first speed at which Whisper gets at least half of the words; None where there is none."""
    for speed in SPEEDS:
        try:
            spoken, wave = speak(engine, voice, sentence, folder, speed)
        except DatasetError as error:
            (folder / "audio" / voice.speaker / f"{voice.speaker}_{sentence.id}.flac").unlink()
            print(f"again, slower: {error}", flush=True)
            continue
        errors, words = listener.errors(wave, sentence.text)
        if errors <= MAX_WER * words:
            return Spoken(spoken.row, spoken.words, spoken.phones, errors, words)
        (folder / spoken.row["path"]).unlink()
    print(f"left out, Whisper does not understand it: {voice.speaker}: {sentence.text}", flush=True)
    return None


def make_voice(
    voice: Voice,
    fixed: list[Sentence],
    spare: list[Sentence],
    seconds: float,
    folder: Path,
    kokoro: Path | None,
) -> list[Spoken]:
    """All utterances of one voice: the fixed sentences, then templates until `seconds` are full.

    The finished voice is kept in `parts/` until the corpus is complete, so that a broken run goes on where it was.
    """
    part = folder / "parts" / f"{voice.speaker}.json"
    if part.exists():
        return load_part(part)
    engine = open_engine(voice.engine, kokoro_voices=kokoro)
    listener = Listener()
    done: list[Spoken] = []
    spares = iter(spare)
    for sentence in fixed:
        spoken = speak_understood(engine, listener, voice, sentence, folder)
        while spoken is None and sentence.id.startswith("o"):
            other = next(spares, None)
            if other is None:
                break
            spoken = speak_understood(engine, listener, voice, replace(other, split=sentence.split), folder)
        done += [spoken] if spoken is not None else []
    made = sum(float(spoken.row["duration"]) for spoken in done)
    for sentence, speed in extra_sentences(voice, {sentence.text for sentence in fixed}):
        if made >= seconds:
            break
        try:
            spoken, _ = speak(engine, voice, sentence, folder, speed)
        except DatasetError as error:
            print(f"left out: {error}", flush=True)
            continue
        done.append(spoken)
        made += float(spoken.row["duration"])
    print(f"{voice.speaker}: {len(done)} utterances, {made / 60:.1f} minutes", flush=True)
    part.parent.mkdir(exist_ok=True)
    part.write_text(json.dumps([asdict(spoken) for spoken in done]), encoding="utf-8")
    return done


def load_part(path: Path) -> list[Spoken]:
    """A voice that an earlier run finished."""
    found = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        for kind in ("words", "phones"):
            entry[kind] = tuple(Segment(**segment) for segment in entry[kind])
        found.append(Spoken(**entry))
    return found


def extra_sentences(voice: Voice, without: set[str]) -> Iterator[tuple[Sentence, float]]:
    """Template sentences for training, each with a speed, other ones for every voice."""
    seed = zlib.crc32(voice.speaker.encode())
    speeds = np.random.default_rng(seed)
    for number, text in enumerate(template_sentences(seed), 1):
        if text not in without:
            yield Sentence(f"t{seed:08x}{number:05d}", text, "train"), float(speeds.uniform(0.85, 1.15))


def usable_voices(names: Iterable[str], kokoro: Path | None) -> list[Voice]:
    """The wanted voices whose engine runs here; the others are told in one line an engine."""
    wanted = set(names)
    voices = [voice for voice in (*VOICES, *EXTRA_VOICES) if voice.speaker in wanted]
    for engine in dict.fromkeys(voice.engine for voice in voices):
        try:
            open_engine(engine, kokoro_voices=kokoro)
        except Missing as error:
            lost = ", ".join(voice.speaker for voice in voices if voice.engine == engine)
            print(f"{engine}: {error}; left out: {lost}", file=sys.stderr)
            voices = [voice for voice in voices if voice.engine != engine]
    return voices


def write_tables(folder: Path, spoken: list[Spoken]) -> None:
    """manifest.csv, words.csv and phones.csv."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(spoken[0].row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(item.row for item in spoken)
    for name in ("words", "phones"):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["id", "label", "start", "end"])
            for item in spoken:
                segments: tuple[Segment, ...] = getattr(item, name)
                rows.writerows([item.row["id"], s.label, f"{s.start:.2f}", f"{s.end:.2f}"] for s in segments)


def finish(folder: Path, voices: list[Voice], by_voice: list[list[Spoken]]) -> None:
    """Write the tables, listen to what the corpus itself has (templates are not judged), and write the README."""
    spoken = [item for items in by_voice for item in items]
    write_tables(folder, spoken)
    fixed = [item for item in spoken if not item.row["sentence_id"].startswith("t")]
    waves = [read_audio(folder / item.row["path"])[0] for item in fixed]
    numbers = voice_numbers([item.row["speaker"] for item in fixed], waves)
    for voice, items in zip(voices, by_voice, strict=True):
        if voice.speaker in numbers:
            numbers[voice.speaker] |= {
                "errors": sum(item.errors for item in items),
                "words": sum(item.reference_words for item in items),
                "judged": sum(item.reference_words > 0 for item in items),
                "unclear": sum(item.errors > MAX_WER * item.reference_words for item in items if item.reference_words),
                "seconds": sum(float(item.row["duration"]) for item in items),
                "utterances": len(items),
            }
    write_readme(folder, voices, [item.row for item in spoken], numbers)


def main() -> int:
    """Parse the command line, speak, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write; new, empty, or of a broken run, which is completed"
    )
    parser.add_argument("--kokoro-voices", type=Path, help="kokoro-js-1.2.1.tgz, from: npm pack kokoro-js@1.2.1")
    parser.add_argument("--voices", help="comma-separated speakers; all by default, the extra ones only with --hours")
    parser.add_argument("--hours", type=float, default=0.0, help="training speech to reach with template sentences")
    parser.add_argument("--jobs", type=int, default=1, help="voices made at the same time")
    options = parser.parse_args()
    folder: Path = options.out
    if folder.exists() and any(folder.iterdir()) and not (folder / "parts").is_dir():
        parser.error(f"{folder} holds something else")
    known = [voice.speaker for voice in ((*VOICES, *EXTRA_VOICES) if options.hours else VOICES)]
    wanted = options.voices.split(",") if options.voices else known
    unknown = set(wanted) - set(known)
    if unknown:
        parser.error(f"no such voice: {', '.join(sorted(unknown))}")
    voices = usable_voices(wanted, options.kokoro_voices)
    if not voices:
        parser.error("no engine is installed")
    folder.mkdir(parents=True, exist_ok=True)
    shared, pool = read_sentences(Path(__file__).with_name("mini_en_sentences.txt"))
    seconds = options.hours * 3600 / max(1, sum(voice.seen for voice in voices))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as workers:
        futures = []
        for voice in voices:
            own = own_sentences(pool, voice) if voice in VOICES else []
            fixed = [*shared, *own[:OWN]] if voice in VOICES else []
            length = seconds if voice.seen else 0.0
            futures.append(workers.submit(make_voice, voice, fixed, own[OWN:], length, folder, options.kokoro_voices))
        by_voice = [future.result() for future in futures]
    finish(folder, voices, by_voice)
    shutil.rmtree(folder / "parts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
