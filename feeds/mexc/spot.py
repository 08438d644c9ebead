"""Read MEXC's protobuf messages, whose fields have the numbers of its `websocket-proto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    Control,
    DecodeError,
    Filtered,
    Message,
    Side,
    UnknownMessage,
    integer_of,
    message_of,
    messages_of,
    parse_message,
    text_of,
    time_ns,
    whole_number,
)

_CHANNEL, _SYMBOL, _CREATED, _SENT = 1, 3, 5, 6
_DEPTHS, _DEALS, _BOOK_TICKER = 313, 314, 315
_SIDES: Final = {1: int(Side.BID), 2: int(Side.ASK)}
_LEFT_OUT: Final = (
    *("public.deals", "public.increase.depth", "public.limit.depth", "public.bookTicker"),
    *("public.kline", "public.miniTicker", "public.miniTickers"),
)


def append(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append what a message holds.

    Args:
        payload: a PushDataV3ApiWrapper.
        symbols: venue symbol -> instrument number.
        ts_recv: ns since the epoch.
        out: takes the rows.
    """
    message = parse_message(payload)
    channel = text_of(message, _CHANNEL)
    if _DEPTHS in message:
        _depths(message, _instrument(message, channel, symbols), ts_recv, out)
    elif _DEALS in message:
        _deals(message, _instrument(message, channel, symbols), ts_recv, out)
    elif _BOOK_TICKER in message:
        _ticker(message, _instrument(message, channel, symbols), ts_recv, out)
    else:
        return _left_out(channel, message)
    return None


def stream_of(payload: bytes) -> str:
    """Return the stream that a message names."""
    message = parse_message(payload)
    return text_of(message, _CHANNEL)


def _left_out(channel: str, message: Message) -> Control:
    kind = channel.partition("@")[2].partition(".v3.api")[0]
    if not any(number > _SENT for number in message):
        raise DecodeError("mexc", f"{channel:.60} without a body")
    if kind not in _LEFT_OUT:
        raise UnknownMessage("mexc", f"channel {channel!r:.60}")
    return Filtered(kind)


def _instrument(message: Message, channel: str, symbols: Mapping[str, int]) -> int:
    if _SYMBOL in message:
        return symbols[text_of(message, _SYMBOL)]
    return symbols[channel.rpartition("@")[2]]


def _time(message: Message) -> int:
    number = _SENT if _SENT in message else _CREATED
    return time_ns(integer_of(message, number))


def _depths(message: Message, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    depths = message_of(message, _DEPTHS)
    asks, bids = (
        [(text_of(level, 1), text_of(level, 2)) for level in messages_of(depths, side)]
        for side in (1, 2)
    )
    first, last = (whole_number(text_of(depths, field)) for field in (4, 5))
    out.add_book_update(
        number, _time(message), ts_recv, bids, asks, first=first, last=last, are_pairs=True
    )


def _deals(message: Message, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    for deal in messages_of(message_of(message, _DEALS), 1):
        identifier = _trade_id(deal)
        out.add_trade(
            number,
            time_ns(integer_of(deal, 4), MILLISECOND),
            ts_recv,
            identifier,
            text_of(deal, 1),
            text_of(deal, 2),
            _SIDES[integer_of(deal, 3)],
            identifier,
        )


def _trade_id(deal: Message) -> int:
    """Return the number that a trade has since 2026; 0 where it has none, or one with letters."""
    text = text_of(deal, 5) if 5 in deal else ""
    return whole_number(text) if text.isdecimal() else 0


def _ticker(message: Message, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append best bid and ask. An empty text is left out by the venue's encoder."""
    ticker = message_of(message, _BOOK_TICKER)
    best: list[Any] = [text_of(ticker, field) if field in ticker else "0" for field in range(1, 5)]
    if ticker.keys().isdisjoint(range(1, 5)):
        raise DecodeError("mexc", "a quote without sides")
    out.add_quote(number, _time(message), ts_recv, 0, best[0], best[1], best[2], best[3])
