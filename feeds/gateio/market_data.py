"""Read Gate's tickers, liquidations and candles: what isn't trades, quotes and books.

A candle of spot has its volume in base (`a`) and its turnover in quote (`v`), one of futures its
volume in contracts (`v`). `w` says that it is closed; older messages have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
    CandleState,
    ColumnBuffer,
    FundingState,
    InterestUnit,
    Milliseconds,
    Position,
    PriceKind,
    add_candle,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    decimal_ns,
    said,
    span_ns,
    time_ns,
    unsigned,
)

INTERVAL: Final = "1m"
_STATES: Final = {None: CandleState.UNKNOWN, True: CandleState.CLOSED, False: CandleState.OPEN}


class _Ticker(msgspec.Struct, gc=False):
    contract: str
    mark_price: Any = None
    index_price: Any = None
    funding_rate: Any = None
    total_size: Any = None


class _Tickers(msgspec.Struct, gc=False):
    result: list[_Ticker]
    time_ms: Milliseconds


class _Liquidation(msgspec.Struct, gc=False):
    contract: str
    size: Any
    price: Any
    time: Any
    time_ms: Any = None


class _Liquidations(msgspec.Struct, gc=False):
    result: list[_Liquidation]


class _Candle(msgspec.Struct, gc=False):
    t: Any
    n: str  # 1m_BTC_USDT
    o: Any
    h: Any
    l: Any  # noqa: E741  # the venue's name
    c: Any
    v: Any
    a: Any = None
    w: bool | None = None


class _Candles(msgspec.Struct, gc=False):
    result: _Candle | list[_Candle]
    time_ms: Milliseconds | None = None


_parse_tickers: Final = msgspec.json.Decoder(_Tickers, float_hook=str).decode
_parse_liquidations: Final = msgspec.json.Decoder(_Liquidations, float_hook=str).decode
_parse_candles: Final = msgspec.json.Decoder(_Candles, float_hook=str).decode


def candle_symbol(name: str) -> str:
    """Return the symbol in a candle's name, 1m_BTC_USDT. Raises ValueError for another text."""
    _, _, symbol = name.partition("_")
    if not symbol:
        raise ValueError(f"{name!r:.60} names no candle")
    return symbol


def append(
    channel: str,
    market: str,
    payload: bytes,
    symbols: Mapping[str, int],
    ts_recv: int,
    out: ColumnBuffer,
) -> None:
    """Append the rows of a message.

    Args:
        channel: Tickers, public_liquidates or candlesticks.
        market: Of the connection.
        payload: The frame's bytes.
        symbols: Venue symbol -> instrument number.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    match channel:
        case "tickers":
            _tickers(_parse_tickers(payload), symbols, ts_recv, out)
        case "public_liquidates":
            for item in _parse_liquidations(payload).result:
                _liquidation(item, symbols[item.contract], ts_recv, out)
        case _:
            candles = _parse_candles(payload)
            found = candles.result if isinstance(candles.result, list) else [candles.result]
            time = None if candles.time_ms is None else candles.time_ms * MILLISECOND
            for candle in found:
                _candle(candle, market, (time, ts_recv), symbols, out)


def _tickers(
    message: _Tickers, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    time = message.time_ms * MILLISECOND
    for item in message.result:
        number = symbols[item.contract]
        rate, interest = said(item.funding_rate), said(item.total_size)
        prices = {"mark_price": said(item.mark_price), "index_price": said(item.index_price)}
        if rate is not None:
            state = FundingState.PREDICTED
            add_funding(out, number, ts_recv, rate=rate, ts_event=time, state=state)
        if any(price is not None for price in prices.values()):
            add_mark_price(out, number, ts_recv, ts_event=time, **prices)
        if interest is not None:
            unit = InterestUnit.CONTRACT
            add_open_interest(out, number, ts_recv, value=interest, unit=unit, ts_event=time)


def _liquidation(item: _Liquidation, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    size, is_sale = unsigned(item.size)
    is_fine = item.time_ms is not None
    time = time_ns(item.time_ms) if is_fine else decimal_ns(item.time, SECOND)
    add_liquidation(
        out,
        number,
        ts_recv,
        position=Position.LONG if is_sale else Position.SHORT,
        size=size,
        price=item.price,
        price_kind=PriceKind.ORDER,
        ts_event=time,
    )


def _candle(
    candle: _Candle,
    market: str,
    times: tuple[int | None, int],
    symbols: Mapping[str, int],
    out: ColumnBuffer,
) -> None:
    """times: of the event (None where the message says none) and of its receipt, ns."""
    is_spot = market == "spot"
    add_candle(
        out,
        symbols[candle_symbol(candle.n)],
        times[1],
        start_ns=time_ns(candle.t, SECOND),
        interval_ns=span_ns(candle.n.partition("_")[0]),
        prices=(candle.o, candle.h, candle.l, candle.c),
        volume=candle.a if is_spot else candle.v,
        turnover=candle.v if is_spot else None,
        state=_STATES[candle.w],
        ts_event=times[0],
    )
