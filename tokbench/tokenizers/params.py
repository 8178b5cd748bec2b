"""A card's `params` as the family's own model of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from tokbench.errors import CardError

if TYPE_CHECKING:
    from tokbench.config import TokenizerCard

__all__ = ["read_params"]

Params = TypeVar("Params", bound=BaseModel)


def read_params(card: TokenizerCard, model: type[Params]) -> Params:
    """`card.params`, checked.

    Raises:
        CardError: the first thing that is wrong, with the card's name and the field.
    """
    try:
        return model.model_validate(card.params)
    except ValidationError as error:
        first = error.errors()[0]
        raise CardError(first["msg"], where=f"{card.name}: params.{'.'.join(map(str, first['loc']))}") from None
