"""Books of `order_book_update`, which begin with an image over REST.

Updates of spot cover the whole book, those of futures the best `l` levels. A level is a pair, or an
object of futures: `p` and `s`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Flag,
    Milliseconds,
    RestRequest,
    Sequential,
    SnapshotSource,
    decimal_ns,
)

CHANNEL: Final = "order_book_update"
DEPTH: Final = 100
_SPEED_MS: Final = 100
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)


class _Update(msgspec.Struct, gc=False):
    t: Milliseconds
    s: str
    U: Sequential
    u: Sequential
    b: list[Any] = []
    a: list[Any] = []
    l: str = ""  # noqa: E741  # the venue's name


class _Updates(msgspec.Struct, gc=False):
    result: _Update


class _Image(msgspec.Struct, gc=False):
    id: Sequential
    asks: list[Any]
    bids: list[Any]
    update: Any


_parse: Final = msgspec.json.Decoder(_Updates, float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Image, float_hook=str).decode


def offer(market: str) -> BookOffer:
    """Return the form of books; those of futures know no levels beyond their depth."""
    depth = None if market == "spot" else DEPTH
    rule = BookRule(Continuity.RANGE, SnapshotSource.REST, depth_max=depth)
    return BookOffer(DEPTH, _SPEED_MS, rule, is_plain=True)


def payload_of(symbol: str, market: str) -> list[str]:
    """Return what a subscription says."""
    depth = [] if market == "spot" else [str(DEPTH)]
    return [symbol, f"{_SPEED_MS}ms", *depth]


def parse(payload: bytes) -> _Update | None:
    """Return an update; None for one of another depth."""
    update = _parse(payload).result
    return update if update.l in {"", str(DEPTH)} else None


def append(update: _Update, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append an update.

    Args:
        update: The update.
        number: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    sides = _pairs(update.b), _pairs(update.a)
    time = update.t * MILLISECOND
    out.add_book_update(
        number, time, ts_recv, *sides, first=update.U, last=update.u, are_pairs=True
    )


def request(symbol: str, market: str) -> RestRequest:
    """Return the request for an image."""
    path, name = (
        ("/api/v4/spot/order_book", "currency_pair")
        if market == "spot"
        else (f"/api/v4/futures/{market}/order_book", "contract")
    )
    return RestRequest(path, {name: symbol, "limit": str(DEPTH), "with_id": "true"})


def append_image(body: bytes, market: str, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append an image.

    Args:
        body: Body of the answer; the time of spot's is in ms, that of futures' in seconds.
        market: Its market.
        number: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    image = _parse_image(body)
    time = decimal_ns(image.update, MILLISECOND if market == "spot" else SECOND)
    sides = _pairs(image.bids), _pairs(image.asks)
    out.add_book_update(
        number, time, ts_recv, *sides, first=image.id, last=image.id, flags=_IMAGE, are_pairs=True
    )


def _pairs(levels: list[Any]) -> list[tuple[Any, Any]]:
    return [
        (level["p"], level["s"]) if isinstance(level, dict) else (level[0], level[1])
        for level in levels
    ]
