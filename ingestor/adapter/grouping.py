"""Entries that are taken apart by kind, and groups of entries that become single ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

_Kind = TypeVar("_Kind")


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


def flat(groups: Sequence[Sequence[Any]], *columns: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """Return the entries of all groups, in order, and columns that have for each of them what the
    given ones have for its group."""
    sizes = list(map(len, groups))
    if sizes.count(1) == len(sizes):
        return [entry for (entry,) in groups], *columns
    entries = [entry for group in groups for entry in group]
    return entries, *(
        [value for group, value in zip(groups, column, strict=True) for _ in group]
        for column in columns
    )
