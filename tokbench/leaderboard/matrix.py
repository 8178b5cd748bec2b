"""The picture of phones by codes: how sure each frequent code is of its phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokbench.leaderboard.drawing import key, svg, text, whisker
from tokbench.leaderboard.numbers import format_number

__all__ = ["CLASSES", "PhoneCodes", "matrix_keys", "matrix_plot", "phone_codes"]

Float = npt.NDArray[np.float64]

CLASSES: dict[str, tuple[str, ...]] = {
    "silence": ("SIL",),
    "vowels": ("IY", "IH", "EH", "EY", "AE", "AA", "AW", "AY", "AH", "AO", "OY", "OW", "UH", "UW", "ER"),
    "glides": ("Y", "W", "R", "L"),
    "nasals": ("M", "N", "NG"),
    "fricatives": ("V", "DH", "Z", "ZH", "F", "TH", "S", "SH", "HH"),
    "stops": ("JH", "CH", "B", "D", "G", "P", "T", "K"),
}
"""Phones of the CMU dictionary by manner (affricates among the stops), from open to closed; the order of the rows."""
LEVELS = 8
ROW = 11.5


@dataclass(frozen=True)
class PhoneCodes:
    """What is drawn.

    Attributes:
        phones: that occur, in the order of `CLASSES`, others after them.
        codes: int64 `[C]`, the most frequent ones, ordered by their commonest phone and how sure they are of it.
        share: float64 `[P, C]`, P(phone | code).
        frames: float64 `[P]`, frames of each phone with any code.
        covered: share of all frames that have one of `codes`.
        used: how many codes occur at all.
        best: per phone its most frequent code and the share of the phone's frames that have it.
        owned: int64 `[P]`, how many of all codes have the phone as their commonest.
    """

    phones: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    share: Float
    frames: Float
    covered: float
    used: int
    best: tuple[tuple[int, float], ...]
    owned: npt.NDArray[np.int64]


def phone_codes(labels: Sequence[str], units: npt.ArrayLike, frames: npt.ArrayLike, *, most: int) -> PhoneCodes:
    """Order joint counts for the picture.

    Args:
        labels: a phone for each row of counts; a pair of phone and unit may come several times (speakers).
        units: whole numbers `[rows]`, the codes.
        frames: counts `[rows]`.
        most: how many codes are kept, the most frequent ones.
    """
    order = [phone for group in CLASSES.values() for phone in group]
    present = set(labels)
    phones = [p for p in order if p in present] + sorted(present - set(order))
    place = {phone: index for index, phone in enumerate(phones)}
    codes, column = np.unique(np.asarray(units, np.float64).astype(np.int64), return_inverse=True)
    joint = np.zeros((len(phones), len(codes)))
    np.add.at(joint, (np.array([place[label] for label in labels]), column), np.asarray(frames, np.float64))
    by_code, by_phone = joint.sum(axis=0), joint.sum(axis=1)
    commonest = joint.argmax(axis=0)
    kept = np.sort(np.argsort(-by_code, kind="stable")[:most])
    share = joint / by_code
    kept = kept[np.lexsort((-share.max(axis=0)[kept], commonest[kept]))]
    return PhoneCodes(
        phones=tuple(phones),
        codes=codes[kept],
        share=share[:, kept],
        frames=by_phone,
        covered=float(by_code[kept].sum() / by_code.sum()),
        used=len(codes),
        best=tuple((int(codes[i]), float(row[i] / row.sum())) for row in joint for i in [int(row.argmax())]),
        owned=np.bincount(commonest, minlength=len(phones)),
    )


def matrix_plot(found: PhoneCodes, *, identifier: str, title: str, description: str, width: int = 640) -> str:
    """A cell is darker the surer a code (column) is of a phone (row); cells under 1/16 stay empty."""
    left, right, top = 42.0, width - (76.0 if width >= 500 else 10.0), 6.0
    bottom = top + ROW * len(found.phones)
    wide = (right - left) / len(found.codes)
    parts: list[str] = []
    for name, members in CLASSES.items():
        rows = [i for i, phone in enumerate(found.phones) if phone in members]
        if not rows:
            continue
        first, last = top + ROW * rows[0], top + ROW * (rows[-1] + 1)
        parts.append(whisker((left, right), (last, last), "grid"))
        if width >= 500:
            parts.append(text(right + 6, (first + last) / 2 + 4, name, "tiny"))
    parts += [text(left - 5, top + ROW * (i + 0.5) + 3.5, phone, "tiny", "end") for i, phone in enumerate(found.phones)]
    level = np.minimum((found.share * LEVELS + 0.5).astype(np.int64), LEVELS)
    cells = []
    for value in range(1, LEVELS + 1):
        where = np.argwhere(level == value)
        if len(where):
            path = "".join(f"M{x} {y}h1v1h-1z" for y, x in where.tolist())
            cells.append(f'<path class="cell" opacity="{value / LEVELS:g}" d="{path}"/>')
    parts.append(f'<g transform="translate({left:g} {top:g}) scale({wide:.4g} {ROW:g})">{"".join(cells)}</g>')
    parts.append(whisker((left, right), (bottom, bottom), "base"))
    parts.append(whisker((left, left), (top, bottom), "base"))
    count = len(found.codes)
    words = f"{count} commonest of {format_number(found.used, 0)} codes" if count < found.used else f"all {count} codes"
    words += f", {found.covered:.0%} of the frames"
    parts.append(text((left + right) / 2, bottom + 18, words, "axis", "middle"))
    return svg(parts, identifier, title, description, (width, round(bottom + 28)))


def matrix_keys() -> list[tuple[str, str]]:
    """Legend of the shades."""
    return [
        (
            key(f'<rect class="cell" x="1" y="2" width="14" height="12" opacity="{share:g}"/>'),
            f"{share:.0%}" if share < 1 else "100% of a code's frames",
        )
        for share in (0.125, 0.25, 0.5, 0.75, 1.0)
    ]
