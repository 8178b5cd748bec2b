"""Write what is generated in the documentation: metrics, tokenizers, judges, and the tables of data, tasks and suites.

    python scripts/make_docs.py            # write them into docs/
    python scripts/make_docs.py --check    # change nothing; exit 1 where a page is not what the code says

Everything on them comes from the catalogue of metrics and from the cards of this checkout; cards of other packages and
folders are not read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tokbench.card_files import load_card
from tokbench.config import Card, DatasetCard, JudgeCard, SuiteCard, TaskCard, TokenizerCard, Weights
from tokbench.data.load import EMBEDDED
from tokbench.data.mini_en import load_mini_en
from tokbench.leaderboard.board import load_board
from tokbench.metrics.base import Metric
from tokbench.metrics.catalogue import metrics
from tokbench.protocols.reconstruction import Reconstruction
from tokbench.registry import package_folder

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "none": "a description, no score"}
KINDS = {"asr": "words", "speaker": "voice", "pitch": "pitch", "mos": "opinion scores"}
NOTICE = "<!-- Written by scripts/make_docs.py from the code and the cards; do not edit. -->\n"
HUB_PAGES = "https://huggingface.co/"

METRICS_INTRO = """\
A metric is the components of one item, a reduce that makes one number of many items, a unit and a direction
([statistics](statistics.md)). `tokbench show NAME` prints what stands here.

A metric that rests on a judge carries its name in brackets: `wer[whisper-tiny.en]`. Numbers of different
[judges](judges.md) never share a column. Some statistics of tokens are also given by stream: `bps_h0[q0]`. Values are
stored unscaled; "printed times 100" says how tables show them.
"""
TOKENIZERS_INTRO = """\
What the cards in `configs/tokenizers/` declare. Measured rates are in the results, and differ: see
[bit rates](bitrates.md). `tokbench show NAME` prints a whole card.

A name with braces is a pattern: `resample-{rate}` answers to `resample-8000`. A stream is written as its rate times its
vocabulary, or times the floats of a frame. "Needs" names the extra of `python -m pip install "tokbench[EXTRA]"` and
where weights come from. An anchor frames a table and takes no part in the ranking.
"""
JUDGES_INTRO = """\
A judge is a pretrained scorer or a pitch tracker. It hears a wave and gives evidence: a transcript, an embedding, a
pitch track or opinion scores. Its name is the label in brackets in a metric's name, and its identity (library versions,
sha256 or revision of the weights) is in every result.

"Offline" says whether it works without a network once its extra is installed. Where weights come from a hub or an
address, `--judge-weights NAME=FOLDER` reads them from a folder instead. A file with a sha256 on the card is compared
with it before a model reads it; a file without one is identified by repository and revision, or, read from a folder, by
its own sha256.
"""

AnyCard = TypeVar("AnyCard", bound=Card)


def cards(kind: type[AnyCard], folder: str) -> dict[str, tuple[AnyCard, dict[str, Any]]]:
    """Name -> (card, its own fields as written); the holes of a pattern card stand as `{hole}` in the latter."""
    place = package_folder("tasks") if folder == "tasks" else package_folder("configs") / folder
    found: dict[str, tuple[AnyCard, dict[str, Any]]] = {}
    for path in sorted(place.glob("*.yaml")):
        if path.stem.startswith("_"):
            continue
        holes = re.findall(r"\{(\w+)\}", path.stem)
        card = load_card(path, kind, values=dict.fromkeys(holes, "1"))
        text = re.sub(r"\$\{(\w+)\}", r"HOLE_\1_HOLE", path.read_text(encoding="utf-8"))
        found[path.stem] = (card, _with_holes(yaml.safe_load(text)))
    return found


def _with_holes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_holes(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_holes(inner) for inner in value]
    return re.sub(r"HOLE_(\w+?)_HOLE", r"{\1}", value) if isinstance(value, str) else value


def escape(text: object) -> str:
    """Text of a card as Markdown that is safe in a table cell too."""
    return " ".join(str(text).split()).replace("<", "&lt;").replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A Markdown table."""
    rule = ["---:" if index in right else "---" for index in range(len(heads))]
    lines = [heads, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


# -- metrics -------------------------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every metric of the catalogue, grouped as the board groups them."""
    known = metrics()
    board = load_board("main")
    tasks = cards(TaskCard, "tasks")
    judged = _judged(tasks["reconstruction"][0])
    headline = {name: [task for task, (card, _) in tasks.items() if name in card.headline] for name in known}
    groups = [(group.title, [name for name in group.metrics if name in known]) for group in board.groups]
    placed = {name for _, names in groups for name in names}
    groups.append(("Other", [name for name in known if name not in placed]))
    parts = [
        NOTICE,
        "# Metrics\n",
        METRICS_INTRO,
    ]
    for title, names in groups:
        if not names:
            continue
        parts.append(f"## {title}\n")
        parts += [_metric(known[name], judged.get(name), headline[name]) for name in names]
    return "\n".join(parts)


def _metric(one: Metric, judge: str | None, headline: Sequence[str]) -> str:
    unit = f"Unit {escape(one.unit)}" if one.unit else "No unit"
    facts = [unit, DIRECTIONS[one.direction]]
    if one.scale != 1.0:
        facts.append(f"printed times {one.scale:g}")
    if judge:
        facts.append(f"named with a judge of {KINDS[judge]}")
    if headline:
        facts.append(f"headline of {', '.join(headline)}")
    name = getattr(one.reduce, "__name__", None) or str(one.reduce)
    lines = [f"### `{one.name}`: {escape(one.title)}\n", f"{'; '.join(facts)}.\n", f"{escape(one.description)}\n"]
    lines.append(f"- Reduce: `{name}`")
    if one.source:
        lines.append(f"- Source: {escape(one.source)}")
    return "\n".join(lines) + "\n"


def _judged(task: TaskCard) -> dict[str, str]:
    """Metric -> kind of the judge that stands in its name."""
    judges: dict[str, JudgeCard] = {card.kind: card for card, _ in cards(JudgeCard, "judges").values()}
    protocol = Reconstruction(task, judges, {}, 0)
    split = [metric.name.removesuffix("]").partition("[") for metric in protocol.metrics()]
    return {name: kind for name, _, kind in split if kind}


# -- tokenizers ----------------------------------------------------------------------------------------------------


def tokenizers_page() -> str:
    """Every tokenizer card, by family."""
    found = cards(TokenizerCard, "tokenizers")
    families: dict[str, list[str]] = {}
    for name, (card, _) in found.items():
        families.setdefault(card.family, []).append(name)
    parts = [
        NOTICE,
        "# Tokenizers\n",
        TOKENIZERS_INTRO,
    ]
    order = sorted(families, key=lambda f: (found[families[f][0]][0].anchor != "ceiling", f))
    parts += [_family(family, {name: found[name] for name in families[family]}) for family in order]
    return "\n".join(parts)


def _family(family: str, found: dict[str, tuple[TokenizerCard, dict[str, Any]]]) -> str:
    rows = []
    for name, (card, own) in found.items():
        globals_ = ", ".join(f"{g.name}: {g.dim} x {g.bits_per_dim} bit" for g in card.globals) or "none"
        rates = f"{card.input_rate} / {card.output_rate or 'none'}"
        rows.append([f"`{name}`", _streams(card, own), _nominal(card, own), globals_, rates, _needs(card),
                     escape(card.licence)])  # fmt: skip
    heads = ["Name", "Streams", "Nominal bit/s", "Globals", "Hz in / out", "Needs", "Licence"]
    if all(row[3] == "none" for row in rows):
        rows, heads = [[*row[:3], *row[4:]] for row in rows], [*heads[:3], *heads[4:]]
    lines = [f"## {family[0].upper()}{family[1:]}\n", table(heads, rows, right=[2])]
    every = list(found)
    summaries = [f"- `{name}`: {escape(own.get('summary', card.summary))}" for name, (card, own) in found.items()]
    lines += ["\n".join(summaries) + "\n"]
    facts: dict[str, list[str]] = {}
    for name, (card, own) in found.items():
        told = [f"Anchor: {card.anchor}."] if card.anchor else []
        told += [f"Decoder: {own.get('decoder', card.decoder)}"] if card.decoder else []
        told += [f"Trained on {', '.join(card.trained_on)}."] if card.trained_on else []
        told += [*own.get("notes", card.notes)]
        told += [f"Proven: {card.proven}"] if card.proven else []
        told += [f"{card.parameters / 1e6:.1f} million weights."] if card.parameters else []
        for fact in told:
            facts.setdefault(escape(fact), []).append(name)
    for fact, names in facts.items():
        whom = "" if names == every else f" ({', '.join(f'`{name}`' for name in names)})"
        lines.append(f"- {fact}{whom}")
    return "\n".join(lines) + "\n"


def _streams(card: TokenizerCard, own: dict[str, Any]) -> str:
    declared = own.get("streams")
    stack = _stack_of_holes(declared)
    if stack is not None:
        return escape(f"{stack['books']} of {card.streams[0].rate_hz} Hz x {card.streams[0].vocab}")
    if declared and len(declared) != len(card.streams):
        declared = None
    told: list[tuple[str, list[str]]] = []
    for index, stream in enumerate(card.streams):
        raw = declared[index] if declared else {}
        rate = raw.get("rate_hz", stream.rate_hz)
        size = raw.get("vocab", stream.vocab) if stream.kind == "codes" else f"{raw.get('dim', stream.dim)} floats"
        what = f"{rate} Hz x {size}"
        if told and told[-1][0] == what:
            told[-1][1].append(stream.name)
        else:
            told.append((what, [stream.name]))
    shown = [f"{names[0]}: {what}" if len(names) == 1 else f"{names[0]} to {names[-1]}: {len(names)} of {what}"
             for what, names in told]  # fmt: skip
    return "<br>".join(escape(one) for one in shown) or "none"


def _stack_of_holes(declared: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The one entry that stands for as many books as the name of a pattern card says; None where there is none."""
    stacks = [raw for raw in declared or [] if "{" in str(raw.get("books", ""))]
    return stacks[0] if len(stacks) == len(declared or []) == 1 else None


def _nominal(card: TokenizerCard, own: dict[str, Any]) -> str:
    declared = own.get("streams") or []
    stack = _stack_of_holes(declared)
    if stack is not None:
        return f"{stack['books']} x {card.streams[0].spec.nominal_bps or 0:.5g}"
    if any(isinstance(raw.get(key), str) and "{" in raw[key] for raw in declared for key in ("rate_hz", "vocab")):
        return " + ".join(f"{raw['rate_hz']} log2({raw['vocab']})" for raw in declared)
    rates = [stream.spec.nominal_bps for stream in card.streams]
    if not rates or None in rates:
        return "no finite rate"
    total = sum(rate for rate in rates if rate is not None)
    return f"{total:.1f}".removesuffix(".0")


def _needs(card: TokenizerCard | JudgeCard) -> str:
    extra = f"`{card.requires}`" if card.requires else "core"
    if isinstance(card, TokenizerCard) and card.environment is not None:
        extra = f"`tokbench env make {card.environment.name}`"
    return extra + (f"; {_where(card.weights)}" if card.weights else "")


def _where(weights: Weights) -> str:
    return {
        "package": f"weights in the package `{weights.location}`",
        "hub": f"weights from the hub, `{weights.location}`",
        "file": f"weights from <{weights.location}>",
        "repository": "weights in tokbench",
    }[weights.source]


# -- judges --------------------------------------------------------------------------------------------------------


def judges_page() -> str:
    """Every judge card, with its weights."""
    found = cards(JudgeCard, "judges")
    order = sorted(found, key=lambda name: (list(KINDS).index(found[name][0].kind), name))
    parts = [
        NOTICE,
        "# Judges\n",
        JUDGES_INTRO,
        table(
            ["Name", "Hears", "Extra", "Offline", "Licence"],
            [[f"[`{name}`](#{_anchor(name)})", KINDS[card.kind], f"`{card.requires}`" if card.requires else "core",
              "yes" if _offline(card) else "no", escape(card.licence)]
             for name in order for card in [found[name][0]]],
        ),
    ]  # fmt: skip
    parts += [_judge(name, found[name][0]) for name in order]
    return "\n".join(parts)


def _judge(name: str, card: JudgeCard) -> str:
    lines = [f"## {name} {{ #{_anchor(name)} }}\n", f"{escape(card.summary)}\n"]
    lines.append(f"- Input: {card.input_rate} Hz")
    if card.params:
        lines.append(f"- Parameters: {', '.join(f'`{key}: {value}`' for key, value in card.params.items())}")
    if card.citation:
        lines.append(f"- Source: {escape(card.citation)}")
    if card.url and not card.url.startswith(HUB_PAGES):
        lines.append(f"- Home: <{card.url}>")
    lines += [f"- {escape(note)}" for note in card.notes]
    weights = card.weights
    if weights is None:
        return "\n".join([*lines, "- Weights: none"]) + "\n"
    revision = f", revision `{weights.revision}`" if weights.revision else ""
    fallback = f"; without the package, the hub's `{weights.fallback}`" if weights.fallback else ""
    lines.append(
        f"- Weights: {_where(weights).removeprefix('weights ')}{revision}{fallback}; licence {escape(weights.licence)}"
    )
    rows = [[f"`{file}`", f"`{digest}`" if digest else "not declared"] for file, digest in weights.files.items()]
    return "\n".join([*lines, "", table(["File", "sha256"], rows)])


def _offline(card: JudgeCard) -> bool:
    return card.weights is None or card.weights.source in ("package", "repository")


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower())


# -- data ----------------------------------------------------------------------------------------------------------


def data_tables() -> str:
    """Every dataset card, and the archives that `tokbench data get` fetches."""
    found = cards(DatasetCard, "datasets")
    rows = [
        [f"`{name}`", escape(card.summary), ", ".join(f"`{split}`" for split in card.splits),
         "yes" if card.synthetic else "no", "in the package" if card.location else f"`tokbench data get {name}`",
         escape(card.licence)]
        for name, (card, _) in found.items()
    ]  # fmt: skip
    parts = [table(["Name", "What", "Splits", "Synthetic", "Where from", "Licence"], rows)]
    for name, (card, _) in found.items():
        parts.append(f"### {name}\n")
        if card.citation:
            parts.append(f"{escape(card.citation)}\n")
        parts.append("\n".join(f"- {escape(note)}" for note in card.notes) + "\n")
        if name == EMBEDDED:
            parts.append(_embedded(card))
        if card.archives:
            archives = [
                [
                    f"`{one.split}`",
                    f"<{one.url}>",
                    *(f"`{value}`" if value else "none" for value in (one.sha256, one.md5)),
                ]
                for one in card.archives
            ]
            parts.append(table(["Split", "Archive", "sha256", "md5"], archives))
    return "\n".join(parts)


def _embedded(card: DatasetCard) -> str:
    rows = []
    for split in card.splits:
        utterances = load_mini_en(split).utterances
        minutes = sum(one.duration or 0.0 for one in utterances) / 60
        rows.append(
            [f"`{split}`", str(len(utterances)), str(len({one.speaker for one in utterances})), f"{minutes:.1f}"]
        )
    told = f"`{card.location}/README.md` tells of every voice, its licence and how the corpus was made.\n"
    return table(["Split", "Utterances", "Voices", "Minutes"], rows, right=[1, 2, 3]) + "\n" + told


# -- tasks and suites ----------------------------------------------------------------------------------------------


def what_there_is() -> str:
    """Every task, with its page where it has one, and every suite."""
    tasks = []
    for name, (card, _) in cards(TaskCard, "tasks").items():
        page = f"tasks/{name}.md"
        label = f"[`{name}`]({page})" if (DOCS / page).is_file() else f"`{name}`"
        tasks.append([label, str(card.version), escape(card.summary)])
    suites = [
        [f"`{name}`", escape(card.summary), ", ".join(f"`{task}`" for task in card.tasks), str(len(card.tokenizers))]
        for name, (card, _) in cards(SuiteCard, "suites").items()
    ]
    heads = ["Suite", "What", "Tasks", "Tokenizers"]
    return table(["Task", "Version", "What"], tasks) + "\n" + table(heads, suites, right=[3])


def judges_of(task: str) -> str:
    """Judges of a task by kind, for the task card and for every suite that runs it."""
    kinds = {name: card.kind for name, (card, _) in cards(JudgeCard, "judges").items()}
    own = cards(TaskCard, "tasks")[task][0]
    chosen = {"the task card": (own.data, own.judges)}
    for name, (suite, _) in cards(SuiteCard, "suites").items():
        if task in suite.tasks:
            chosen[f"`{name}`"] = (suite.data.get(task, own.data), suite.judges.get(task, own.judges))
    rows = [
        [where, *(", ".join(f"`{one}`" for one in found) for found in
                  (data, *([name for name in judges if kinds[name] == kind] for kind in KINDS)))]
        for where, (data, judges) in chosen.items()
    ]  # fmt: skip
    return table(["Suite", "Data", *(what.capitalize() for what in KINDS.values())], rows)


# -- writing -------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Callable[[], str]] = {
    "metrics.md": metrics_page,
    "tokenizers.md": tokenizers_page,
    "judges.md": judges_page,
}
PARTS: dict[str, Callable[[], str]] = {
    "data.md": data_tables,
    "index.md": what_there_is,
    "tasks/reconstruction.md": partial(judges_of, "reconstruction"),
}
BEGIN, END = "<!-- begin: written by scripts/make_docs.py -->", "<!-- end -->"


def pages() -> dict[Path, str]:
    """File -> what it must hold."""
    made = {DOCS / name: make().rstrip() + "\n" for name, make in WHOLE.items()}
    for name, make in PARTS.items():
        path = DOCS / name
        head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{path}: the lines '{BEGIN}' and '{END}' must be there once each")
        made[path] = f"{head}{BEGIN}\n\n{make().rstrip()}\n\n{END}{tail}"
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page differs")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"not what the code says: {', '.join(stale)}. Type: python scripts/make_docs.py")
    print(f"{'wrote' if stale else 'up to date:'} {', '.join(stale or [p.name for p in pages()])}")


if __name__ == "__main__":
    main()
