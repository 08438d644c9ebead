"""Read what KuCoin sends on the addresses of its unified account: x-push-spot, x-push-futures.

Their messages name the channel and the market in `T`, the time of the push in `P`, ns, and have the
content in `d`. `obu` is a book of the best 500 levels: an image, then changes that cover `O` to
`C`. A price or a size is text. Nothing connects there: recordings of others have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    NO_SIDE,
    OTHER_BOOK,
    OTHER_MARKET,
    SECOND,
    TAKER_SIDES,
    BookOffer,
    BookRule,
    CandleState,
    ColumnBuffer,
    Continuity,
    Control,
    Filtered,
    Flag,
    Nanoseconds,
    Sequential,
    UnknownMessage,
    add_candle,
    pairs_of,
    span_ns,
    time_ns,
    whole_number,
)

DEPTH: Final = 500
BOOK: Final = "obu"
OFFER: Final = BookOffer(
    DEPTH, 10, BookRule(Continuity.RANGE, depth_max=DEPTH), is_plain=True, is_recorded=True
)
_INCREMENT: Final = "increment"  # and @10ms; other forms are images of few levels
_CHANNELS: Final = {"trade": "trades", "ticker": "quotes", BOOK: "book", "kline": "candles"}
_STATES: Final = {None: CandleState.UNKNOWN, True: CandleState.CLOSED, False: CandleState.OPEN}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("mark-price", "index-price", "funding-fee", "funding-rate", "mark-index-price"),
        *("call-auction-info", "call-auction-obu", "contract-announcement", "announcement"),
    )
}
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT | Flag.PARTIAL), "delta": 0}


class _Trade(msgspec.Struct, gc=False):
    s: str
    S: str
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    ti: Any
    M: Nanoseconds


class _Ticker(msgspec.Struct, gc=False):
    s: str
    M: Nanoseconds
    b: Any = None
    B: Any = None
    a: Any = None
    A: Any = None
    E: Sequential = 0


class _Book(msgspec.Struct, gc=False):
    s: str
    M: Nanoseconds
    O: Sequential  # noqa: E741  # the venue's name
    C: Sequential
    a: list[list[Any]] = []
    b: list[list[Any]] = []


class _Candle(msgspec.Struct, gc=False):
    s: str
    i: str
    O: int  # noqa: E741  # the start, s; the venue's name
    o: Any
    h: Any
    l: Any  # noqa: E741  # the venue's name
    c: Any
    v: Any
    a: Any = None
    S: bool | None = None


class _Symbol(msgspec.Struct, gc=False):
    s: str


_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_parse_candle: Final = msgspec.json.Decoder(_Candle, float_hook=str).decode
_parse_symbol: Final = msgspec.json.Decoder(_Symbol).decode


class Push(msgspec.Struct, gc=False):
    """One message. T: channel and market, such as trade.SPOT; dp: the form of a book."""

    T: str
    d: msgspec.Raw
    P: Nanoseconds | None = None
    t: str = "delta"
    dp: str = ""


parse: Final = msgspec.json.Decoder(Push).decode


def channel_of(push: Push) -> str:
    """Return a message's channel in our words; "" for one that is no data here."""
    name, _, _ = push.T.partition(".")
    if name == BOOK and not push.dp.startswith(_INCREMENT):
        return ""
    return _CHANNELS.get(name, "")


def symbol_of(push: Push) -> str:
    return _parse_symbol(push.d).s


def take(
    push: Push,
    market: str,
    symbols: Mapping[str, int],
    ts_recv: int,
    out: ColumnBuffer,
    *,
    has_book: bool,
) -> Control | None:
    """Append the rows of a message, or return what else it was.

    Args:
        push: The message.
        market: Of the connection.
        symbols: Venue symbol -> instrument number.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
        has_book: Whether the connection's books have this form.
    """
    name, _, of = push.T.partition(".")
    if of.lower() != market:
        return OTHER_MARKET
    match channel_of(push):
        case "trades":
            trade = _parse_trade(push.d)
            identifier = whole_number(trade.ti)
            side = TAKER_SIDES.get(trade.S.lower(), NO_SIDE)
            row = (identifier, trade.p, trade.q, side, identifier)
            out.add_trade(symbols[trade.s], trade.M, ts_recv, *row)
        case "quotes":
            best = _parse_ticker(push.d)
            bid, ask = (best.b or "0", best.B or "0"), (best.a or "0", best.A or "0")
            out.add_quote(symbols[best.s], best.M, ts_recv, best.E, *bid, *ask)
        case "candles":
            candle = _parse_candle(push.d)
            add_candle(
                out,
                symbols[candle.s],
                ts_recv,
                start_ns=time_ns(candle.O, SECOND),
                interval_ns=span_ns(candle.i),
                prices=(candle.o, candle.h, candle.l, candle.c),
                volume=candle.v,
                turnover=candle.a,
                state=_STATES[candle.S],
                ts_event=push.P,
            )
        case "book" if has_book:
            book = _parse_book(push.d)
            flags = _FLAGS[push.t]
            first = book.C if flags else book.O
            sides = pairs_of(book.b), pairs_of(book.a)
            number = symbols[book.s]
            out.add_book_update(
                number,
                book.M,
                ts_recv,
                *sides,
                first=first,
                last=book.C,
                flags=flags,
                are_pairs=True,
            )
        case _ if name == BOOK:
            return OTHER_BOOK
        case _ if name in _LEFT_OUT:
            return _LEFT_OUT[name]
        case _:
            raise UnknownMessage("kucoin", f"channel {push.T!r:.60}")
    return None
