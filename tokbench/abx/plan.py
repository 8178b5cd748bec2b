"""What is compared with what: items sorted into context groups, and within a group by speaker and phone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tokbench.abx.items import Items
from tokbench.errors import NothingToCompare

__all__ = ["CONTEXTS", "SPEAKER_MODES", "Context", "Group", "Plan", "SpeakerMode", "make_plan"]

Int = npt.NDArray[np.int64]
SpeakerMode = Literal["within", "across"]
Context = Literal["within", "any"]
SPEAKER_MODES: tuple[str, ...] = get_args(SpeakerMode)
CONTEXTS: tuple[str, ...] = get_args(Context)


@dataclass(frozen=True)
class Group:
    """The items that share a context (and, within speakers, the speaker): all that may meet in a triplet.

    Attributes:
        class_of: int64 `[n]`, class of each item, rising.
        bounds: int64 `[classes + 1]`, first item of each class.
        speaker: int64 `[classes]`, speakers numbered from 0 in the group, rising.
        phone: int64 `[classes]`, numbers of `Items.phone`.
        speakers: int64, number in `Items.speaker` of each of the group's speakers.
        blocks: int64 `[speakers + 1]`, first class of each speaker.
        same: int64 `[classes, speakers]`, where A comes from for an X of the class when A and B are the speaker's:
            a class, or -1 where there is no such triplet.
    """

    class_of: Int
    bounds: Int
    speaker: Int
    phone: Int
    speakers: Int
    blocks: Int
    same: Int

    def sizes(self) -> Int:
        """Items of each class."""
        return np.diff(self.bounds)

    def triplets(self, mode: SpeakerMode, first: int = 0, last: int | None = None) -> Int:
        """Triplets of every cell, int64 `[classes of X first..last, classes of B]`, 0 where there is no cell."""
        n = self.sizes()
        chosen = self.same[first:last]
        a_class = chosen[:, self.speaker]
        n_a = np.where(a_class >= 0, n[a_class], 0)
        if mode == "within":
            n_a = n_a - (a_class >= 0)
        count = n[first:last, None] * n_a * n[None, :]
        count[self.phone[first:last, None] == self.phone[None, :]] = 0
        return np.asarray(count, np.int64)


@dataclass(frozen=True)
class Plan:
    """The items that meet in triplets, in the order of the groups.

    Attributes:
        order: int64, indices of items, sorted by group, speaker and phone.
        starts: int64 `[groups + 1]`, first place in `order` of each group.
    """

    items: Items
    mode: SpeakerMode
    context: Context
    order: Int
    starts: Int

    def group(self, index: int) -> Group:
        """The group's classes."""
        members = self.order[self.starts[index] : self.starts[index + 1]]
        speaker, phone = self.items.speaker.codes[members], self.items.phone.codes[members]
        change = np.flatnonzero((np.diff(speaker) != 0) | (np.diff(phone) != 0)) + 1
        bounds = np.concatenate([[0], change, [len(members)]])
        first = bounds[:-1]
        speakers, class_speaker = np.unique(speaker[first], return_inverse=True)
        class_phone = phone[first]
        sizes = np.diff(bounds)
        blocks = np.searchsorted(class_speaker, np.arange(len(speakers) + 1))
        count = len(first)
        same = np.full((count, len(speakers)), -1, np.int64)
        if self.mode == "within":
            usable = np.flatnonzero(sizes >= 2)
            same[usable, class_speaker[usable]] = usable
        else:
            phones, local = np.unique(class_phone, return_inverse=True)
            table = np.full((len(phones), len(speakers)), -1, np.int64)
            table[local, class_speaker] = np.arange(count)
            same = table[local]
            same[np.arange(count), class_speaker] = -1
        # A cell needs a B: another phone of A's speaker.
        same[:, np.diff(blocks) < 2] = -1
        class_of = np.repeat(np.arange(count), sizes)
        return Group(class_of, bounds, class_speaker.astype(np.int64), class_phone, speakers, blocks, same)


def make_plan(items: Items, *, speaker: SpeakerMode, context: Context) -> Plan:
    """Sort items into groups and leave out groups without a cell.

    Raises:
        NothingToCompare: there is no cell at all; the message says what is missing.
    """
    keys: list[Int] = []
    if context == "within":
        keys += [items.previous.codes, items.following.codes]
    if speaker == "within":
        keys.append(items.speaker.codes)
    group = np.zeros(len(items), np.int64)
    for key in keys:
        _, group = np.unique(group * (int(key.max(initial=0)) + 1) + key, return_inverse=True)
    order = np.lexsort((np.arange(len(items)), items.phone.codes, items.speaker.codes, group))
    g, s, p = group[order], items.speaker.codes[order], items.phone.codes[order]
    # A group needs two phones, and within speakers a phone that occurs twice, across speakers one of two speakers.
    by_phone = np.lexsort((s, p, g))
    gp, pp, sp = g[by_phone], p[by_phone], s[by_phone]
    next_group, next_phone = gp[1:] == gp[:-1], pp[1:] == pp[:-1]
    count = int(group.max(initial=-1)) + 1
    two_phones = np.zeros(count, np.bool_)
    two_phones[gp[1:][next_group & ~next_phone]] = True
    twice = np.zeros(count, np.bool_)
    pairs = next_group & next_phone
    if speaker == "across":
        pairs &= sp[1:] != sp[:-1]
    twice[gp[1:][pairs]] = True
    order = order[(two_phones & twice)[g]]
    if not len(order):
        raise NothingToCompare(_reason(items, speaker, context, bool(twice.any())), where=items.source)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(group[order])) + 1, [len(order)]])
    return Plan(items, speaker, context, order, starts)


def _reason(items: Items, speaker: SpeakerMode, context: Context, twice: bool) -> str:
    where = "in one context" if context == "within" else "at all"
    if speaker == "across" and len(items.speaker.names) < 2:
        return f"across speakers needs two speakers, all items are of '{items.speaker.names[0]}'"
    if len(items.phone.names) < 2:
        return f"needs two phones to tell apart, all items are '{items.phone.names[0]}'"
    if not twice:
        who = "by one speaker" if speaker == "within" else "by two speakers"
        return f"there is no pair of equal phones: none is spoken twice {where} {who}"
    return f"no phone that is spoken twice {where} has another one beside it to be told from"
