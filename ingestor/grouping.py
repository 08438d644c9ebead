"""Entries that are taken apart by kind, and groups of entries that become single ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, TypeVar

_Kind = TypeVar("_Kind")
_Entry = TypeVar("_Entry")


def by_kind(
    kinds: Sequence[_Kind], *columns: Sequence[Any]
) -> Iterator[tuple[_Kind, tuple[Sequence[Any], ...]]]:
    """Yield each kind with its entries of the columns, in order. kinds: one for each entry."""
    if kinds.count(kinds[0]) == len(kinds):
        yield kinds[0], columns
        return
    places: dict[_Kind, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    for kind, at in places.items():
        yield kind, tuple([column[place] for place in at] for column in columns)


def flat(
    groups: Sequence[Sequence[_Entry]], *columns: Sequence[Any]
) -> tuple[Sequence[_Entry], tuple[Sequence[Any], ...]]:
    """Return the entries of all groups, in order, and for each of them what the columns have for
    its group."""
    sizes = list(map(len, groups))
    if sizes.count(1) == len(sizes):
        return [entry for (entry,) in groups], columns
    spread = (chain.from_iterable(map(repeat, column, sizes)) for column in columns)
    return list(chain.from_iterable(groups)), tuple(map(list, spread))
