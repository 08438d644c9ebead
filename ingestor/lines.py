"""Frames parsed together: one call of the parser for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

_Event = TypeVar("_Event")
_Kind = TypeVar("_Kind")


def parse_lines(decoder: msgspec.json.Decoder[_Event], payloads: Sequence[bytes]) -> list[_Event]:
    """Parse frames that hold one JSON object each, into as many events.

    Raises ValueError (msgspec's errors among them) when any of them is anything else. No frame can
    take part of its neighbour: each begins and ends with a brace, and no JSON goes on with a brace
    after a closing one. A frame with two objects makes one event too many.
    """
    text = b"\n".join(payloads)
    if text.count(b"}\n{") != len(payloads) - 1:
        raise ValueError("a frame that is no object")
    events = decoder.decode_lines(text)
    if len(events) != len(payloads):
        raise ValueError("a frame that is no single object")
    return events


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
