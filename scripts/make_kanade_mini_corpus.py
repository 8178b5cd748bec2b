"""Make the speech that kanade-mini is trained on: many voices, a wide vocabulary, nothing that mini-en tests.

    python scripts/make_kanade_mini_corpus.py --out DIR --kokoro-voices kokoro-js-1.2.1.tgz --librispeech DIR

Voices are those of mini-en that may be trained on and the extra ones of `make_mini_en.py`, mixtures of all of
Kokoro's voice vectors (each utterance of `mixtures` is a speaker of its own), and pseudo-speakers: the voices of the
fast engines with pitch and formants moved by WORLD. The evaluated voices and sentences of mini-en are refused by name
and by text. `pack` codes everything as Opus for a small archive.
A broken run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
from kanade_mini_text import WORDNET, normal, utterances, wordnet_examples
from make_mini_en import RATE, tidy
from mini_en_voices import EXTRA_VOICES, KOKORO_LICENCE, VOICES, Kokoro, Missing, Voice, kokoro_vectors, open_engine

from tokbench.audio import read_audio
from tokbench.types import Wave

UNSEEN = tuple(voice for voice in VOICES if not voice.seen)
ALLOWED = tuple(voice for voice in (*VOICES, *EXTRA_VOICES) if voice.seen)
MIXTURES = "mixtures"
"""A source that is no engine: Kokoro with mixtures of all its voice vectors, those of other languages among them."""
MINUTES = {"flite": 36.0, "pico": 24.0, "festival": 12.0, "kokoro": 20.0, MIXTURES: 90.0}
"""Speech a source gives where `--minutes` does not say."""
SHIFTED = 0.6
"""Share of the fast engines' utterances whose voice is moved."""
FIELDS = ("id", "path", "speaker", "engine", "seconds", "text")


@dataclass(frozen=True)
class Plan:
    """One utterance to make.

    Attributes:
        id: its name, also what its random numbers are seeded with.
        voice: who speaks.
        weights: mixture of Kokoro voice vectors, by name; None for the voice's own.
        shift: factors of pitch and of formants; None for neither.
        speed: of speaking.
        text: what is said.
    """

    id: str
    voice: Voice
    weights: dict[str, float] | None
    shift: tuple[float, float] | None
    speed: float
    text: str


def test_texts() -> set[str]:
    """Every text of mini-en that an unseen voice says or that is in the test split, by `normal`."""
    with (Path(str(files("tokbench.data"))) / "corpora/mini_en/manifest.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        return {normal(row["text"]) for row in csv.DictReader(file) if row["split"] == "test" or row["seen"] == "false"}


def plans(engine: str, examples: list[str]) -> Iterator[Plan]:
    """Endless utterances of one engine; the engine's name decides them."""
    generator = np.random.default_rng(zlib.crc32(engine.encode()))
    voices = [voice for voice in ALLOWED if voice.engine == engine]
    for number, text in enumerate(utterances(examples, seed=engine)):
        voice = voices[number % len(voices)]
        weights, shift = None, None
        speed = float(generator.uniform(0.88, 1.15))
        if engine == "kokoro" and generator.random() < 0.6:
            parts = [voice, *(voices[i] for i in generator.choice(len(voices), 2, replace=False))]
            shares = generator.dirichlet([1.2, 1.0, 0.6])
            weights = {part.name: float(share) for part, share in zip(parts, shares, strict=True)}
            largest = parts[int(np.argmax(shares))]
            voice = Voice(f"mix{number:05d}", engine, f"mix{number}", largest.gender, largest.accent, largest.licence)
        elif engine != "kokoro" and generator.random() < SHIFTED:
            low, high = (0.75, 1.7) if voice.gender == "m" else (0.55, 1.25)
            pitch = float(np.exp(generator.uniform(np.log(low), np.log(high))))
            # Formants follow pitch in part, as they do between people.
            formants = float(np.clip(pitch**0.35 * np.exp(generator.normal(0, 0.06)), 0.82, 1.24))
            shift = (pitch, formants)
        yield Plan(f"{engine}{number:05d}", voice, weights, shift, speed, text)


def mixed_voices(kokoro: Path) -> list[str]:
    """Kokoro's voice vectors but those of the evaluated voices, by name."""
    heard = {voice.name for voice in UNSEEN}
    return sorted(name for name in kokoro_vectors(kokoro) if name not in heard)


def mixtures(names: list[str], examples: list[str]) -> Iterator[Plan]:
    """Endless utterances, each by a new speaker: three voice vectors in shares that range from pure to even.

    Args:
        names: voice vectors to mix; English is spoken with all of them.
        examples: sentences.
    """
    generator = np.random.default_rng(zlib.crc32(MIXTURES.encode()))
    for number, text in enumerate(utterances(examples, seed=MIXTURES)):
        parts = [names[i] for i in generator.choice(len(names), 3, replace=False)]
        shares = generator.dirichlet([0.8, 0.8, 0.8])
        name = parts[int(np.argmax(shares))]
        accent = "British" if name.startswith("b") or generator.random() < 0.15 else "US"
        speaker = f"{MIXTURES}{number:05d}"
        voice = Voice(speaker, "kokoro", speaker, "f" if name[1] == "f" else "m", accent, KOKORO_LICENCE)
        weights = {part: float(share) for part, share in zip(parts, shares, strict=True)}
        yield Plan(speaker, voice, weights, None, float(generator.uniform(0.88, 1.15)), text)


def shift_voice(wave: Wave, pitch: float, formants: float) -> Wave:
    """Multiply pitch and formants by WORLD (Morise et al. 2016): F0 is scaled, the envelope's frequencies stretched."""
    import pyworld

    x = wave.astype(np.float64)
    f0, times = pyworld.dio(x, RATE)
    f0 = pyworld.stonemask(x, f0, times, RATE)
    envelope = pyworld.cheaptrick(x, f0, times, RATE)
    noise = pyworld.d4c(x, f0, times, RATE)
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / formants, bins[-1])
    low = source.astype(int)
    high, share = np.minimum(low + 1, bins[-1]), source - low
    warp = [np.exp((1 - share) * np.log(part[:, low]) + share * np.log(part[:, high])) for part in (envelope, noise)]
    spectrum, aperiodicity = (np.ascontiguousarray(part) for part in warp)
    made = pyworld.synthesize(f0 * pitch, spectrum, np.clip(aperiodicity, 1e-6, 1 - 1e-6), RATE)
    return np.asarray(made, np.float32)


def check(plan: Plan, banned: set[str]) -> None:
    """Refuse an evaluated voice or sentence.

    Raises:
        ValueError: names it.
    """
    names = {plan.voice.name, plan.voice.speaker, *(plan.weights or ())}
    heard = names & {name for voice in UNSEEN for name in (voice.name, voice.speaker)}
    if heard:
        raise ValueError(f"{plan.id}: {heard.pop()} is an evaluated voice")
    spoken = f" {normal(plan.text)} "
    for text in banned:
        if f" {text} " in spoken:
            raise ValueError(f"{plan.id}: says the evaluated sentence '{text}'")


def speak(
    engine: str, folder: Path, minutes: float, examples: list[str], banned: set[str], kokoro: Path | None
) -> None:
    """Let one source speak until `minutes` are full."""
    tts = open_engine("kokoro" if engine == MIXTURES else engine, kokoro_voices=kokoro)
    if engine == MIXTURES:
        assert kokoro is not None
        planned = mixtures(mixed_voices(kokoro), examples)
    else:
        planned = plans(engine, examples)
    done = {row["id"]: float(row["seconds"]) for row in read_rows(folder / f"{engine}.csv")}
    made = sum(done.values())
    for plan in planned:
        if made >= minutes * 60:
            break
        if plan.id in done:
            continue
        check(plan, banned)
        if plan.weights is not None:
            assert isinstance(tts, Kokoro)
            tts.vectors[plan.voice.name] = np.asarray(
                sum(share * tts.vectors[name] for name, share in plan.weights.items()), np.float32
            )
        wave = tidy(*tts.say(plan.voice, plan.text, speed=plan.speed))
        speaker = plan.voice.speaker
        if plan.shift is not None:
            wave = tidy(shift_voice(wave, *plan.shift), RATE)
            speaker = f"{speaker}-p{plan.shift[0]:.2f}-f{plan.shift[1]:.2f}"
        made += keep(folder, engine, plan.id, speaker, plan.text, wave)
    print(f"{engine}: {made / 60:.1f} minutes", flush=True)


def read_librispeech(folder: Path, source: Path) -> None:
    """Real speech: every file of a LibriSpeech folder, levelled and cut as the rest."""
    done = {row["id"] for row in read_rows(folder / "librispeech.csv")}
    for path in sorted(source.rglob("*.flac")):
        if path.stem not in done:
            speaker = f"libri{path.stem.split('-')[0]}"
            keep(folder, "librispeech", path.stem, speaker, "", tidy(*read_audio(path)))


def keep(folder: Path, engine: str, name: str, speaker: str, text: str, wave: Wave) -> float:
    """Write one utterance and its row; returns its seconds."""
    path = Path("audio") / engine / f"{name}.flac"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / path, wave, RATE, subtype="PCM_16")
    table = folder / f"{engine}.csv"
    new = not table.exists()
    seconds = len(wave) / RATE
    with table.open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        if new:
            rows.writerow(FIELDS)
        rows.writerow([name, path.as_posix(), speaker, engine, f"{seconds:.4f}", text])
    return seconds


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of one engine's table; none where it is not there yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pack(folder: Path, archive: Path, *, rate: int) -> None:
    """Code all utterances as Ogg Opus into one tar, manifest.csv first.

    Args:
        folder: the corpus.
        archive: tar to write.
        rate: bit/s of Opus.
    """
    rows = [row for table in sorted(folder.glob("*.csv")) for row in read_rows(table)]
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"path": f"{row['id']}.opus"})
    with tarfile.open(archive, "w") as tar:
        add(tar, "manifest.csv", text.getvalue().encode())
        for row in rows:
            add(tar, f"{row['id']}.opus", opus(folder, row, rate).read_bytes())
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    print(f"{archive}: {len(rows)} utterances, {hours:.2f} h, {archive.stat().st_size / 2**20:.1f} MiB")


def opus(folder: Path, row: dict[str, str], rate: int) -> Path:
    """The utterance as Ogg Opus at about `rate` bit/s, coded once and kept beside the corpus."""
    import av

    path = folder / f"opus-{rate}" / f"{row['id']}.opus"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        wave, _ = read_audio(folder / row["path"])
        coded = io.BytesIO()
        options = {"compression_level": "5", "application": "audio", "vbr": "on", "frame_duration": "40"}
        with av.open(coded, "w", format="ogg") as container:
            stream = container.add_stream("libopus", rate=RATE, layout="mono", options=options)
            stream.bit_rate = rate
            pcm = np.round(wave.clip(-1, 1) * 32767).astype("<i2")
            frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
            frame.sample_rate = RATE
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(coded.getvalue())
        unfinished.replace(path)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def main() -> int:
    """Parse the command line, speak or pack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus; a broken run's is completed")
    parser.add_argument("--kokoro-voices", type=Path, help="kokoro-js-1.2.1.tgz, from: npm pack kokoro-js@1.2.1")
    parser.add_argument("--librispeech", type=Path, help="LibriSpeech folder to add, such as train-clean-100")
    parser.add_argument("--wordnet", type=Path, default=WORDNET, help="WordNet's database (Debian: wordnet-base)")
    parser.add_argument("--minutes", default="", help="engine=minutes,...: instead of the defaults")
    parser.add_argument("--pack", type=Path, help="write this tar of Opus files from what is in --out, and stop")
    parser.add_argument("--bit-rate", type=int, default=20000, help="of Opus in --pack, bit/s")
    options = parser.parse_args()
    folder: Path = options.out
    if options.pack:
        pack(folder, options.pack, rate=options.bit_rate)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    banned = test_texts()
    examples = wordnet_examples(options.wordnet, without=banned)
    print(f"{len(examples)} sentences, {len({w for e in examples for w in normal(e).split()})} words", flush=True)
    if options.librispeech:
        read_librispeech(folder, options.librispeech)
    wanted = MINUTES | {k: float(v) for k, v in (part.split("=") for part in options.minutes.split(",") if part)}
    for engine, minutes in wanted.items():
        try:
            speak(engine, folder, minutes, examples, banned, options.kokoro_voices)
        except Missing as error:
            print(f"{engine}: {error}; left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
