"""Listen to the shipped mini-en once more, every utterance of it, and write the table of its README anew.

    python scripts/judge_mini_en.py

Prints the utterances that Whisper gets more wrong than right. Needs `tokbench[mini]`.
"""

from __future__ import annotations

from collections import defaultdict

from mini_en_readme import write_readme
from mini_en_report import Listener, voice_numbers
from mini_en_voices import VOICES

from tokbench.data.mini_en import FOLDER, load_mini_en

UNCLEAR = 0.5


def main() -> None:
    utterances = load_mini_en("all").utterances
    listener = Listener()
    waves = [utterance.read()[0] for utterance in utterances]
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for utterance, wave in zip(utterances, waves, strict=True):
        errors, words = listener.errors(wave, utterance.text or "")
        own = counts[utterance.speaker]
        own["utterances"] += 1
        own["judged"] += 1
        own["seconds"] += len(wave) / 16000
        own["errors"] += errors
        own["words"] += words
        own["unclear"] += errors > UNCLEAR * words
        if errors > UNCLEAR * words:
            print(f"{utterance.id}: {errors} errors in {words} words: {utterance.text}")
    for speaker, numbers in voice_numbers([u.speaker for u in utterances], waves).items():
        counts[speaker] |= numbers
        for name in ("utterances", "judged", "unclear"):
            counts[speaker][name] = int(counts[speaker][name])
    rows = [
        {"split": u.extra["split"], "speaker": u.speaker, "duration": str(len(w) / 16000)}
        for u, w in zip(utterances, waves, strict=True)
    ]
    write_readme(FOLDER, [v for v in VOICES if v.speaker in counts], rows, counts)
    print(f"{len(utterances)} utterances judged; README.md of {FOLDER.name} written")


if __name__ == "__main__":
    main()
