"""Share what most adapters have in common: books that begin on the socket, and no ping of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from ingestor.adapter.contract import RestRequest
from ingestor.adapter.numbers import parse_levels
from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.errors import UnknownMessage
from ingestor.model.rows import Side
from ingestor.model.timestamps import SECOND

TAKER_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
NO_SIDE: Final = int(Side.NONE)
_SPAN_UNITS: Final = {
    **dict.fromkeys(("s", "sec"), 1),
    **dict.fromkeys(("m", "min", "minute"), 60),
    **dict.fromkeys(("h", "hour"), 3_600),
    **dict.fromkeys(("d", "day"), 86_400),
    **dict.fromkeys(("w", "week"), 7 * 86_400),
    **dict.fromkeys(("M", "mon", "month"), 30 * 86_400),
}
_SPAN: Final = re.compile(r"(\d{1,3})(M|(?i:s|sec|m|min|minute|h|hour|d|day|w|week|mon|month))")
_UUID_LENGTH: Final = 36
_UUID_PARTS: Final = [8, 4, 4, 4, 12]


class PlainFeed:
    """The members of an adapter whose books begin on the socket and which sends no ping."""

    venue: ClassVar[str]

    def ping(self) -> bytes | None:
        return None

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        raise UnknownMessage(self.venue, "books are seeded on the socket")


def uuid_halves(text: str) -> tuple[int, int]:
    """Return the high and the low 64 bits of a UUID. Raises ValueError for what is none."""
    parts = text.split("-")
    if len(text) != _UUID_LENGTH or [len(part) for part in parts] != _UUID_PARTS:
        raise ValueError(f"{text!r:.60} is no UUID")
    value = int.from_bytes(bytes.fromhex("".join(parts)))
    return value >> 64, value & (2**64 - 1)


def append_pairs(
    out: ColumnBuffer,
    instrument: int,
    times: tuple[int, int],
    numbers: tuple[int, int, int],
    sides: tuple[msgspec.Raw, msgspec.Raw],
    flags: int = 0,
    checksum: int | None = None,
) -> None:
    """Append one book event whose sides are JSON arrays of pairs, in any form of a number.

    Args:
        out: takes it.
        instrument: its number.
        times: of the event and of its receipt, ns.
        numbers: `first`, `last` and `previous` of `ColumnBuffer.add_book_update`.
        sides: bids and asks.
        flags: as in `ColumnBuffer.add_book_update`.
        checksum: as in `ColumnBuffer.add_book_update`.
    """
    first, last, previous = numbers
    levels = parse_levels(bytes(sides[0])), parse_levels(bytes(sides[1]))
    out.add_book_update(
        instrument,
        *times,
        *levels,
        first=first,
        last=last,
        previous=previous,
        flags=flags,
        checksum=checksum,
    )


def said(value: Any) -> Any:
    """Return a number that a venue may leave out as null or as empty text; None for these."""
    return None if value == "" else value


def span_ns(text: str) -> int:
    """Return the length of a candle, as most venues write it: 1m, 15min, 1H, 4hour, 1D, 1week, 1M.

    A month has 30 days. Raises ValueError for another text.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is no length of a candle")
    unit = found[2] if found[2] in _SPAN_UNITS else found[2].lower()
    return int(found[1]) * _SPAN_UNITS[unit] * SECOND


def pairs_of(levels: Sequence[Sequence[Any]]) -> list[tuple[Any, Any]]:
    """Return price and size of levels that have more members. Raises IndexError for fewer."""
    return [(level[0], level[1]) for level in levels]


def best_of(levels: Sequence[Sequence[Any]]) -> tuple[Any, Any]:
    """Return price and size of the first level; zeros for an empty side."""
    return (levels[0][0], levels[0][1]) if levels else ("0", "0")
