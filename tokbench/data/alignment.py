"""Phone and word alignments: read TextGrid and CTM, write TextGrid, make them with pocketsphinx.

Phones are ARPAbet without stress digits; whatever is not speech (silence, breath, noise) carries the label "SIL".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.audio import check_wave
from tokbench.data.dataset import Segment
from tokbench.errors import DatasetError, MissingBackend
from tokbench.types import Wave

if TYPE_CHECKING:
    from pocketsphinx import Decoder

__all__ = ["PHONES", "SILENCE", "align", "arpabet", "check_segments", "read_ctm", "read_textgrid", "write_textgrid"]

SILENCE = "SIL"
"""Label of everything that is not speech."""

PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY",
    "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY",
    "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 phones of the CMU pronouncing dictionary, which `align` and most English aligners use."""

ALIGNER_RATE = 16000
"""Sampling rate in Hz of pocketsphinx's US English acoustic model."""

_FRAME = 0.01
_NOT_SPEECH = {"", "sil", "sp", "spn", "<eps>", "<sil>", "<s>", "</s>", "pau", "h#", "nsn", "<unk>"}
_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"'
    r"|(?<!\S)(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)"
    r"|<(?P<flag>exists|absent)>"
)
_Line = tuple[Segment, int]


def arpabet(label: str) -> str:
    """A phone label of another aligner in the form used here: upper case, no stress digit, "SIL" where not speech."""
    if label.lower() in _NOT_SPEECH or re.fullmatch(r"\+\w+\+|\[\w+\]", label):
        return SILENCE
    return label.upper().rstrip("012")


def check_segments(
    segments: Iterable[Segment], *, where: str, duration: float | None = None, tolerance: float = 1e-3
) -> None:
    """Refuse an alignment that cannot be true of its audio.

    Args:
        segments: phones or words of one utterance.
        where: file or utterance, for the message.
        duration: length of the audio in seconds; None where it is not known.
        tolerance: seconds by which rounding may make neighbours overlap or the last one exceed the audio.

    Raises:
        DatasetError: a time is negative or not finite, a segment has no length, overlaps the one before it, comes
            before it, or ends after the audio.
    """
    _check(((segment, None) for segment in segments), where, duration, tolerance)


def _check(
    segments: Iterable[tuple[Segment, int | None]], where: str, duration: float | None, tolerance: float
) -> None:
    previous: Segment | None = None
    for segment, line in segments:
        here = f"{where}:{line}" if line is not None else where
        name = f"'{segment.label}' ({segment.start:g} to {segment.end:g} s)"
        if not (np.isfinite(segment.start) and np.isfinite(segment.end)) or segment.start < 0:
            raise DatasetError(f"{name} has a negative or infinite time", where=here)
        if segment.end <= segment.start:
            raise DatasetError(f"{name} does not end after it starts", where=here)
        if previous is not None and segment.start < previous.start:
            raise DatasetError(f"{name} is out of order, it starts before '{previous.label}'", where=here)
        if previous is not None and segment.start < previous.end - tolerance:
            raise DatasetError(f"{name} overlaps '{previous.label}', which ends at {previous.end:g} s", where=here)
        if duration is not None and segment.end > duration + tolerance:
            raise DatasetError(f"{name} ends after the audio, which has {duration:g} s", where=here)
        previous = segment


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=str(path)) from None
    # Praat writes UTF-16 with a byte order mark as soon as a label is not ASCII.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DatasetError("is neither UTF-8 nor UTF-16 text", where=str(path)) from None


class _Tokens:
    """The values of a Praat text file in order; everything between them (field names, `item [1]:`) is free text."""

    def __init__(self, path: Path) -> None:
        text = _read_text(path)
        self.path = path
        self.values: list[tuple[str | float, int]] = []
        line, seen = 1, 0
        for match in _TOKEN.finditer(text):
            line += text.count("\n", seen, match.start())
            seen = match.start()
            if match["number"] is not None:
                self.values.append((float(match["number"]), line))
            else:
                label = match["flag"] if match["text"] is None else match["text"].replace('""', '"')
                self.values.append((label, line))
        self.lines = text.count("\n") + 1
        self.next = 0

    def take(self, kind: type[str] | type[float], what: str) -> Any:
        """The next value, which must be text or a number."""
        if self.next >= len(self.values):
            raise DatasetError(f"ends where {what} should be", where=f"{self.path}:{self.lines}")
        value, line = self.values[self.next]
        if not isinstance(value, kind):
            raise DatasetError(f"has {value!r} where {what} should be", where=f"{self.path}:{line}")
        self.next += 1
        return value

    @property
    def line(self) -> int:
        """Line of the value taken last."""
        return self.values[self.next - 1][1]


def read_textgrid(
    path: Path, *, duration: float | None = None, tolerance: float = 1e-3
) -> dict[str, tuple[Segment, ...]]:
    """Interval tiers of a Praat TextGrid, long or short text format, UTF-8 or UTF-16.

    Intervals without text are gaps and are left out, as are point tiers, which have no segments.

    Args:
        path: the file.
        duration: length of the audio in seconds; None leaves only the file's own end to check against.
        tolerance: as in `check_segments`.

    Returns:
        Tier name -> segments in order.

    Raises:
        DatasetError: not a TextGrid, cut short, two tiers of one name, or impossible times; with file and line.
    """
    tokens = _Tokens(path)
    if [value for value, _ in tokens.values[:2]] != ["ooTextFile", "TextGrid"]:
        raise DatasetError("is not a TextGrid in a text format", where=f"{path}:1")
    tokens.next = 2
    tokens.take(float, "the start time")
    end = tokens.take(float, "the end time")
    if tokens.take(str, "'<exists>'") != "exists":
        return {}
    tiers: dict[str, tuple[Segment, ...]] = {}
    for _ in range(int(tokens.take(float, "the number of tiers"))):
        kind = tokens.take(str, "the class of a tier")
        name = tokens.take(str, "the name of a tier")
        if name in tiers:
            raise DatasetError(f"has two tiers called '{name}'", where=f"{path}:{tokens.line}")
        tokens.take(float, "the tier's start")
        tokens.take(float, "the tier's end")
        size = int(tokens.take(float, "the number of intervals"))
        if kind == "TextTier":
            for _ in range(size):
                tokens.take(float, "the time of a point")
                tokens.take(str, "the mark of a point")
        elif kind == "IntervalTier":
            tiers[name] = _interval_tier(tokens, size, end if duration is None else duration, tolerance)
        else:
            raise DatasetError(f"has a tier of the unknown class '{kind}'", where=f"{path}:{tokens.line}")
    return tiers


def _interval_tier(tokens: _Tokens, size: int, duration: float, tolerance: float) -> tuple[Segment, ...]:
    found: list[_Line] = []
    for _ in range(size):
        start = tokens.take(float, "the start of an interval")
        line = tokens.line
        end = tokens.take(float, "the end of an interval")
        label = tokens.take(str, "the text of an interval").strip()
        if label:
            found.append((Segment(label, start, end), line))
    _check(found, str(tokens.path), duration, tolerance)
    return tuple(segment for segment, _ in found)


def write_textgrid(path: Path, tiers: Mapping[str, Sequence[Segment]], *, duration: float) -> None:
    """Write interval tiers as a TextGrid in the long text format, UTF-8; gaps become intervals without text.

    Args:
        path: the file.
        tiers: name -> segments in order, without overlap; `read_textgrid` gives the same back.
        duration: length of the audio in seconds.

    Raises:
        DatasetError: the segments are impossible (see `check_segments`), or the file cannot be written.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {duration!r}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, segments) in enumerate(tiers.items(), 1):
        check_segments(segments, where=f"{path}: tier '{name}'", duration=duration, tolerance=0.0)
        intervals = _filled(segments, duration)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {duration!r}", f"        intervals: size = {len(intervals)}"]
        for index, segment in enumerate(intervals, 1):
            lines += [f"        intervals [{index}]:", f"            xmin = {segment.start!r}"]
            lines += [f"            xmax = {segment.end!r}", f"            text = {_quoted(segment.label)}"]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"cannot be written ({error.strerror})", where=str(path)) from None


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _filled(segments: Sequence[Segment], duration: float) -> list[Segment]:
    filled: list[Segment] = []
    at = 0.0
    for segment in segments:
        if segment.start > at:
            filled.append(Segment("", at, segment.start))
        filled.append(segment)
        at = segment.end
    if at < duration:
        filled.append(Segment("", at, duration))
    return filled


def read_ctm(
    path: Path, *, durations: Mapping[str, float] | None = None, tolerance: float = 0.011
) -> dict[str, tuple[Segment, ...]]:
    """Segments of a CTM file (NIST): `recording channel start length label [confidence]`, `;;` begins a comment.

    Args:
        path: the file.
        durations: recording -> length of its audio in seconds; recordings that it lacks are not checked for it.
        tolerance: as in `check_segments`; by default one step of the usual rounding to 0.01 s.

    Returns:
        Recording -> segments in order; the channel is not kept, and a recording with several is refused.

    Raises:
        DatasetError: a line that is not CTM, or impossible times; with file and line.
    """
    found: dict[str, list[_Line]] = {}
    channels: dict[str, str] = {}
    for line, text in enumerate(_read_text(path).splitlines(), 1):
        fields = text.split(";;", 1)[0].split()
        if not fields:
            continue
        where = f"{path}:{line}"
        if len(fields) not in (5, 6):
            raise DatasetError(
                f"has {len(fields)} fields, CTM has 5 or 6", where=where, hint="recording channel start length label"
            )
        recording, channel, label = fields[0], fields[1], fields[4]
        try:
            start, length = float(fields[2]), float(fields[3])
        except ValueError:
            raise DatasetError(f"'{fields[2]} {fields[3]}' are not two numbers of seconds", where=where) from None
        if channels.setdefault(recording, channel) != channel:
            raise DatasetError(f"recording '{recording}' has more than one channel", where=where)
        found.setdefault(recording, []).append((Segment(label, start, round(start + length, 9)), line))
    for recording, segments in found.items():
        _check(segments, str(path), (durations or {}).get(recording), tolerance)
    return {recording: tuple(segment for segment, _ in segments) for recording, segments in found.items()}


def align(
    wave: Wave, text: str, *, pronunciations: Mapping[str, Sequence[str]] | None = None, name: str = "audio"
) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Force-align text with speech by pocketsphinx and the US English model and dictionary inside its wheel.

    Two Viterbi passes in frames of 10 ms: words, which choose among pronunciations, then the phones of those. Cepstral
    means are taken over the whole utterance, so that a result does not depend on what was aligned before.

    Args:
        wave: float32 `[n]` at 16 kHz.
        text: what is said, in words; punctuation is ignored, digits are not expanded.
        pronunciations: lower-case word -> phones of `PHONES`, for words that the dictionary lacks.
        name: what to call the utterance in errors.

    Returns:
        Words (lower case, no silences) and phones (ARPAbet and "SIL", without gaps from 0 to the last frame).

    Raises:
        AudioError: the wave is empty or not finite.
        DatasetError: no words, a word without a pronunciation, or audio that does not fit the text.
        MissingBackend: pocketsphinx is not installed.
    """
    wave = check_wave(wave, name=name)
    words = re.findall(r"[\w'.]*\w[\w']*", text.lower().replace("’", "'"))
    if not words:
        raise DatasetError("has no words to align", where=name)
    decoder = _decoder()
    for word, phones in (pronunciations or {}).items():
        unknown = set(phones) - set(PHONES)
        if unknown or not phones:
            raise DatasetError(f"pronunciation of '{word}' has other phones than ARPAbet's: {sorted(unknown)}")
        decoder.add_word(word.lower(), " ".join(phones), update=True)
    for word in words:
        if decoder.lookup_word(word) is None:
            raise DatasetError(
                f"the word '{word}' is not in the pronouncing dictionary",
                where=name,
                hint="Give its phones with pronunciations={'" + word + "': ['...']}",
            )
    duration = len(wave) / ALIGNER_RATE
    pcm = np.round(np.clip(wave, -1.0, 1.0) * 32767).astype("<i2").tobytes()
    misfit = DatasetError(f"the speech cannot be aligned with the text '{text}'", where=name)
    decoder.set_align_text(" ".join(words))
    try:
        _decode(decoder, pcm)
        if decoder.seg() is None:
            raise misfit
        decoder.set_alignment()
        _decode(decoder, pcm)
    except RuntimeError as error:  # pocketsphinx's only class of error
        raise misfit from error
    spoken: list[Segment] = []
    segments: list[Segment] = []
    for entry in decoder.get_alignment() or ():
        word = re.sub(r"\(\d+\)$", "", entry.name)
        if arpabet(word) != SILENCE:
            spoken.append(_segment(word, entry, duration))
        segments += [_segment(arpabet(phone.name), phone, duration) for phone in entry]
    if [segment.label for segment in spoken] != words:
        raise misfit
    check_segments(segments, where=name, duration=duration)
    return tuple(spoken), tuple(segments)


def _segment(label: str, entry: Any, duration: float) -> Segment:
    start, end = entry.start * _FRAME, (entry.start + entry.duration) * _FRAME
    return Segment(label, round(start, 2), min(round(end, 2), duration))


def _decode(decoder: Decoder, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()


def _decoder() -> Decoder:
    # A new one for every utterance, in 0.1 s: a used one keeps added words and cannot align a second time.
    try:
        from pocketsphinx import Decoder
    except ModuleNotFoundError:
        raise MissingBackend("pocketsphinx", extra="mini", needed_by="forced alignment") from None
    # Wide beams keep the only path that forced alignment has and cost little on a linear graph. `bestpath` would take
    # the words' times from the lattice, with empty sentence marks that the second pass cannot align.
    return Decoder(
        lm=None,
        loglevel="FATAL",
        samprate=ALIGNER_RATE,
        cmn="batch",
        bestpath=False,
        beam=1e-100,
        pbeam=1e-100,
        wbeam=1e-80,
    )
