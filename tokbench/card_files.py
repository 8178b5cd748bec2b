"""Cards read from YAML files.

`extends: NAME` starts from another card of the same folder; mappings are merged, everything else is replaced. A mistake
is reported as `file:line: field`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tokbench.config import AnyCard
from tokbench.errors import CardError

__all__ = ["load_card", "merge_fields", "nested_fields", "parse_card"]

_Lines = dict[tuple[str | int, ...], int]


def load_card(
    path: Path,
    kind: type[AnyCard],
    *,
    values: dict[str, str] | None = None,
    defaults: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> AnyCard:
    """Read, extend and validate one card.

    Args:
        path: the YAML file; `extends: NAME` is looked up as `NAME.yaml` beside it.
        kind: the card model.
        values: replacements for `${key}` in a pattern card's strings.
        defaults: what fields are where the file does not give them.
        settings: what replaces the file's fields, by dotted name (`losses.ssl`); an error there says `--set`.

    Raises:
        CardError: with `file:line: field`, or `--set field`, and the reason.
    """
    data, lines = _read(path, values or {}, seen=())
    merged = merge_fields(defaults or {}, data)
    for name, value in (settings or {}).items():
        merged = merge_fields(merged, nested_fields(name.split("."), value))
    return parse_card(merged, kind, path=path, lines=lines, typed=settings or ())


def nested_fields(names: list[str], value: object) -> dict[str, Any]:
    """`["losses", "ssl"]` and 0 give `{"losses": {"ssl": 0}}`."""
    inner: Any = value
    for name in reversed(names):
        inner = {name: inner}
    assert isinstance(inner, dict)
    return inner


def parse_card(
    data: dict[str, Any],
    kind: type[AnyCard],
    *,
    path: Path,
    lines: _Lines | None = None,
    typed: Iterable[str] = (),
) -> AnyCard:
    """Validate a mapping as a card; `path`, `lines` and `typed` (what `--set` gave) serve the error message."""
    data = {key: value for key, value in data.items() if key not in ("extends", "pattern")}
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        # A misspelt field also leaves the right one missing: the misspelling is the news.
        first = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
        field = tuple(part for part in first["loc"] if isinstance(part, str | int))
        line = _nearest_line(field, lines or {})
        message = str(first["msg"]).removeprefix("Value error, ")
        name = ".".join(str(part) for part in field) or "card"
        hint = None
        if first["type"] == "extra_forbidden":
            from difflib import get_close_matches

            known = sorted(_model_of(kind, field[:-1]).model_fields)
            close = get_close_matches(str(field[-1]), known, n=1)
            message = "is not a field of this card"
            hint = f"Did you mean '{close[0]}'?" if close else f"Fields: {', '.join(known)}"
        given = any(f"{name}.".startswith(f"{one}.") for one in typed)
        where = f"--set {name}" if given else f"{path}:{line}: {name}"
        if not field and typed:  # fields that contradict each other, from the file or typed
            where = f"{path} with --set {', '.join(typed)}"
        raise CardError(message, where=where, hint=hint) from None


def _model_of(kind: type[BaseModel], field: tuple[str | int, ...]) -> type[BaseModel]:
    """The model behind a dotted name; its card where the name leads through no other model."""
    for part in field:
        if part not in kind.model_fields:  # a place in a list, or a key of a mapping
            continue
        annotation = kind.model_fields[str(part)].annotation
        inner = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        kind = next((one for one in inner if issubclass(one, BaseModel)), kind)
    return kind


def _nearest_line(field: tuple[str | int, ...], lines: _Lines) -> int:
    while field:
        if field in lines:
            return lines[field]
        field = field[:-1]
    return 1


def _read(path: Path, values: dict[str, str], *, seen: tuple[Path, ...]) -> tuple[dict[str, Any], _Lines]:
    if path in seen:
        raise CardError("extends itself", where=f"{path}:1: extends")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CardError(f"cannot be read ({error.strerror})", where=str(path)) from None
    for key, value in values.items():
        text = text.replace("${" + key + "}", value)
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        data = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise CardError(f"is not YAML ({getattr(error, 'problem', error)})", where=f"{path}:{line}") from None
    if not isinstance(data, dict) or node is None:
        raise CardError("must be a mapping of fields", where=f"{path}:1")
    lines: _Lines = {}
    _collect_lines(node, (), lines)
    parent_name = data.get("extends")
    if parent_name is None:
        return data, lines
    parent_path = path.with_name(f"{parent_name}.yaml")
    if not parent_path.is_file():
        names = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml") if p != path))
        raise CardError(
            f"there is no '{parent_name}.yaml' beside this card",
            where=f"{path}:{lines.get(('extends',), 1)}: extends",
            hint=f"There are {names}",
        )
    parent, _ = _read(parent_path, values, seen=(*seen, path))
    return merge_fields(parent, data), lines


def merge_fields(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The mapping with another one over it, field by field at every depth; anything but a mapping is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge_fields(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _collect_lines(node: yaml.Node, prefix: tuple[str | int, ...], lines: _Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*prefix, str(key.value))
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*prefix, index)] = value.start_mark.line + 1
            _collect_lines(value, (*prefix, index), lines)
