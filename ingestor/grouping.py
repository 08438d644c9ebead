"""Entries of several kinds, taken apart by kind."""

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
