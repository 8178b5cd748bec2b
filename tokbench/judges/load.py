"""From a judge's name to a judge that can be called."""

from __future__ import annotations

from pathlib import Path

from tokbench.config import JudgeCard
from tokbench.judges.base import Judge
from tokbench.registry import find_card, import_object

__all__ = ["judge_class", "load_judge"]


def judge_class(card: JudgeCard) -> type[Judge]:
    """The adapter class that the card names; imports the adapter's module, which imports no model library.

    Raises:
        CardError: there is no such class, or it is no judge.
    """
    return import_object(
        card.adapter,
        Judge,  # type: ignore[type-abstract]  # only concrete subclasses are named on cards
        needed_by=f"judge '{card.name}'",
        extra=card.requires,
    )


def load_judge(name: str, *, device: str = "cpu", weights: Path | None = None) -> Judge:
    """Build the judge called `name`, weights loaded and verified.

    Args:
        name: of a card in `configs/judges`, in a folder of `--path`, or in an outside package.
        device: torch device string; judges that know only the CPU ignore it.
        weights: local folder (or file) that replaces the package or the hub.

    Raises:
        UnknownName, CardError: no such card, or a wrong one.
        MissingBackend, MissingWeights, WeightsMismatch: a library or weights are absent, or not the declared ones.
    """
    card = find_card(JudgeCard, name)
    return judge_class(card)(card, device=device, weights=weights)
