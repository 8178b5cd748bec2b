"""`tokbench list`, `show` and `doctor`: what there is, and what works here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.commands.options import Device, Json, StorePath, Weights, store_path
from tokbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from tokbench.config import Card

__all__ = ["doctor", "list_", "show"]


def _kinds() -> dict[str, type[Card]]:
    from tokbench.registry import KINDS

    return {word: kind for kind, word in KINDS.items()}


def list_(
    kind: Annotated[str | None, typer.Argument(help="tokenizers, tasks, judges, datasets, suites or metrics.")] = None,
    json: Json = False,
) -> None:
    """List what can be named on the command line."""
    from tokbench.registry import names, template_card

    wanted = (kind or "").removesuffix("s")
    kinds = _kinds()
    if wanted == "metric":
        from tokbench.metrics.catalogue import metrics

        for metric in metrics().values():
            sys.stdout.write(f"{metric.name:<26} {metric.title}{f' ({metric.unit})' if metric.unit else ''}\n")
        return
    if wanted and wanted not in kinds:
        raise UnknownName("kind of thing", kind or "", [f"{word}s" for word in kinds] + ["metrics"])
    rows = [
        (word, name, template_card(card_type, name))
        for word, card_type in kinds.items()
        if wanted in ("", word)
        for name in names(card_type)
    ]
    if json:
        import json as json_module

        found = [{"kind": word, "name": name, "summary": card.summary} for word, name, card in rows]
        sys.stdout.write(json_module.dumps(found, indent=1) + "\n")
        return
    last, width = "", max((len(name) for _, name, _ in rows), default=0)
    for word, name, card in rows:
        if not wanted and word != last:
            sys.stdout.write(f"{word}s\n")
            last = word
        needs = f"  [{card.requires}]" if card.requires else ""
        sys.stdout.write(f"  {name:<{width}}  {card.summary}{needs}\n")


def show(
    name: Annotated[str, typer.Argument(help="Name of a tokenizer, task, judge, dataset, suite or metric.")],
    json: Json = False,
) -> None:
    """Show everything a card says."""
    from tokbench.registry import find_card, names

    known: list[str] = []
    for word, kind in _kinds().items():
        known += names(kind)
        try:
            card = find_card(kind, name)
        except UnknownName:
            continue
        if json:
            sys.stdout.write(card.model_dump_json(indent=1, exclude_defaults=True) + "\n")
            return
        import yaml

        plain = card.model_dump(mode="json", exclude_defaults=True)
        sys.stdout.write(f"# {word}\n" + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))
        return
    from tokbench.metrics.catalogue import metric, metrics

    if name.partition("[")[0] not in metrics():
        raise UnknownName("card", name, [*known, *metrics()], listed_by="tokbench list` and `tokbench list metrics")
    one = metric(name)
    better = {"higher": "higher is better", "lower": "lower is better", "none": "a description"}[one.direction]
    unit = f", {one.unit}" if one.unit else ""
    sys.stdout.write(f"# metric\n{one.name}: {one.title}{unit}; {better}\n{one.description}\nFormula: {one.source}\n")


def doctor(
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", "-t", help="Run the conformance suite on this tokenizer.")
    ] = None,
    weights: Weights = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights.")] = False,
    device: Device = "auto",
    store: StorePath = None,
) -> None:
    """Say what works on this machine and what to type for the rest."""
    if tokenizer:
        from tokbench.manifest import resolve_device
        from tokbench.tokenizers.conformance import conformance
        from tokbench.tokenizers.load import load_tokenizer

        loaded = load_tokenizer(tokenizer, device=resolve_device(device), weights=weights, allow_pickle=allow_pickle)
        checks = conformance(loaded)
        for check in checks:
            sys.stdout.write(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}\n")
        if not all(check.passed for check in checks):
            raise typer.Exit(1)
        return
    from tokbench.doctor import diagnose

    findings = diagnose(store_path(store), device)
    for finding in findings:
        sys.stdout.write(f"{finding.mark} {finding.what}\n")
    if any(finding.fatal for finding in findings):
        raise UserError("this machine cannot run tokbench as it is", hint="See the lines marked ✗ above")
