"""Past trades over REST."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ingestor.adapter import (
    SECOND,
    ColumnBuffer,
    LostTrades,
    RestRequest,
    Sequential,
    Side,
    VenueError,
    time_ns,
    whole_number,
)

from .instruments import REST_ASSETS

_AGGRESSOR: Final = {"b": int(Side.BID), "s": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_PAGE: Final = 1_000  # trades in one answer


class _PastTrade(msgspec.Struct, array_like=True, gc=False):
    """kind: market or limit."""

    price: Any
    qty: Any
    time: Any  # seconds
    side: str  # b or s: the taker's
    kind: str
    misc: str
    number: Sequential


class _History(msgspec.Struct):
    """The trades stand under the pair's name, with `last` beside it."""

    error: list[str]
    result: dict[str, Any] = {}


_parse: Final = msgspec.json.Decoder(_History, float_hook=str).decode


def request(symbol: str, lost: LostTrades) -> RestRequest:
    """Return the request for the trades from a time on."""
    base, _, quote = symbol.partition("/")
    pair = "".join(REST_ASSETS.get(asset, asset) for asset in (base, quote))
    query = {"pair": pair, "since": str(lost.after_ns - 1), "count": str(_PAGE)}
    return RestRequest("/0/public/Trades", query)


def append(venue: str, instrument: int, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
    """Append the trades of an answer, oldest first as the venue gives them.

    Args:
        venue: Name of the venue.
        instrument: Number of the instrument.
        body: Body of the answer.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    answer = _parse(body)
    if answer.error:
        raise VenueError(venue, answer.error[0], "", temporary=False)
    for name, trades in answer.result.items():
        if name != "last":
            for trade in msgspec.convert(trades, list[_PastTrade]):
                time, number = _seconds_ns(str(trade.time)), trade.number
                side = _AGGRESSOR.get(trade.side, _NO_SIDE)
                numbers = number, trade.price, trade.qty
                out.add_trade(instrument, time, ts_recv, *numbers, side, number)


def _seconds_ns(text: str) -> int:
    """Return a time in ns, as exact as those of the websocket: to a microsecond."""
    whole, _, fraction = text.partition(".")
    seconds, micros = whole_number(whole), whole_number(f"{fraction:0<6.6}")
    return time_ns(seconds * SECOND + micros * 1_000, 1)
