"""The one exception hierarchy: what is wrong, where, and what to type next.

Every class below prints as one line. The command line turns a `UserError` into that line and exit code 2;
`ItemError` never leaves a run: it becomes a typed row, and the run is reported as partial (exit code 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AudioError",
    "CardError",
    "DatasetError",
    "DependencyError",
    "ItemError",
    "MissingBackend",
    "MissingWeights",
    "NotApplicable",
    "NothingToCompare",
    "StoreError",
    "TokbenchError",
    "TokenizerUnavailable",
    "TokensError",
    "TrackingError",
    "TrainingError",
    "UndefinedMetric",
    "UnknownName",
    "UserError",
]


class TokbenchError(Exception):
    """Base of everything tokbench raises on purpose.

    Args:
        what: what is wrong, as a sentence without a final full stop.
        where: the file, line, field, utterance or unit it is about.
        hint: what to type or change next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}. {self.hint}" if self.hint else line

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes, keyword arguments included."""
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(cls: type[TokbenchError], what: str, where: str | None, hint: str | None) -> TokbenchError:
    error = cls.__new__(cls)
    TokbenchError.__init__(error, what, where=where, hint=hint)
    return error


class UserError(TokbenchError):
    """The input, the card or the command line is wrong, and the user can put it right."""

    exit_code = 2


class CardError(UserError):
    """A card does not satisfy its schema; `where` is `file:line: field`."""


class UnknownName(UserError):
    """No card, judge, metric or dataset of that name; lists the closest ones.

    Args:
        kind: the noun, for instance "tokenizer".
        name: what was asked for.
        known: the names there are.
        listed_by: the command that lists them; None for names that are few enough to be written out.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, listed_by: str | None = None) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=4, cutoff=0.45)
        nearest = f"Did you mean {', '.join(close)}? " if close else ""
        every = f"All {len(names)} are listed by `{listed_by}`" if listed_by else f"There are {', '.join(names)}"
        super().__init__(f"no {kind} is called '{name}'", hint=nearest + every)


class DependencyError(UserError):
    """An optional library or outside resource is missing."""


class MissingBackend(DependencyError):
    """A Python package is not installed; `hint` is the command that installs it."""

    def __init__(self, package: str, *, extra: str, needed_by: str) -> None:
        super().__init__(
            f"{needed_by} needs the package '{package}', which is not installed",
            hint=f'Type: python -m pip install "tokbench[{extra}]"',
        )


class TokenizerUnavailable(DependencyError):
    """A library or the weights of the tokenizer itself are missing; a suite goes on with the others."""


class MissingWeights(DependencyError):
    """Weights are neither in a package, nor in the local folder, nor reachable on the hub."""


class DatasetError(UserError):
    """A corpus, manifest or alignment is not what it claims to be."""


class NothingToCompare(DatasetError):
    """A sound corpus that lacks what a measure compares, such as two speakers or a phone that is spoken twice."""


class StoreError(TokbenchError):
    """The artefact store cannot be read or written (a full disk, a damaged file that cannot be remade)."""


class TrackingError(TokbenchError):
    """MLflow could not be reached; never costs a result."""


class ItemError(TokbenchError):
    """One utterance cannot be processed; becomes a failed row and makes the run partial."""

    stage: str | None = None
    """Where it happened: "read", "encode", "decode", "judge", "score"; filled in by the workbench."""


class AudioError(ItemError, UserError):
    """Audio that cannot be used: empty, truncated, not audio, or with NaN or infinite samples."""


class TokensError(ItemError):
    """Tokens that break the tokenizer's own declaration: wrong dtype, id out of range, wrong length."""


class TrainingError(ItemError):
    """A probe cannot be trained, or its loss is no number any more; its items become failed rows."""

    stage = "train"


class UndefinedMetric(TokbenchError):
    """A metric has no value for this item, for a reason that belongs to the item and not to a fault.

    A silent reference has no PESQ; two tracks without common voiced frames have no F0 correlation. The row
    keeps the reason, the estimate counts the item as undefined, and the run stays publishable.
    """


class NotApplicable(TokbenchError):
    """The tokenizer lacks a capability that the task needs; tables print the reason."""
