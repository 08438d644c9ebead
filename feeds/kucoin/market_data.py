"""Read KuCoin's candles, and what its futures say of an instrument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    SECOND,
    ColumnBuffer,
    add_candle,
    add_funding,
    add_mark_price,
    span_ns,
    time_ns,
)

INTERVAL: Final = "1min"  # of candles
_CANDLE_MEMBERS: Final = 7
_NS: Final = 1


class _Instrument(msgspec.Struct, rename="camel", gc=False):
    timestamp: Any
    mark_price: Any = None
    index_price: Any = None
    funding_rate: Any = None


class _Candle(msgspec.Struct, gc=False):
    """start (s), open, close, high, low, volume, turnover."""

    symbol: str
    candles: list[Any]
    time: Any  # ns


_parse_instrument: Final = msgspec.json.Decoder(_Instrument, float_hook=str).decode
_parse_candle: Final = msgspec.json.Decoder(_Candle, float_hook=str).decode


def instrument(number: int, data: msgspec.Raw, ts_recv: int, out: ColumnBuffer) -> None:
    """Append what a message of two kinds says: mark and index price, or the funding rate.

    Args:
        number: Number of the instrument.
        data: The message's content.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    told = _parse_instrument(data)
    time = time_ns(told.timestamp)
    if told.funding_rate is not None:
        add_funding(out, number, ts_recv, rate=told.funding_rate, ts_event=time)
    mark, index = told.mark_price, told.index_price
    if mark is not None or index is not None:
        add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index, ts_event=time)


def candle(
    symbols: Mapping[str, int], named: str, data: msgspec.Raw, ts_recv: int, out: ColumnBuffer
) -> None:
    """Append a candle.

    Args:
        symbols: Venue symbol -> instrument number.
        named: Symbol and length, as the topic has them: BTC-USDT_1min.
        data: The message's content.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    one = _parse_candle(data)
    start, opened, close, high, low, volume, turnover = one.candles[:_CANDLE_MEMBERS]
    add_candle(
        out,
        symbols[one.symbol],
        ts_recv,
        start_ns=time_ns(start, SECOND),
        interval_ns=span_ns(named.rpartition("_")[2]),
        prices=(opened, high, low, close),
        volume=volume,
        turnover=turnover,
        ts_event=time_ns(one.time, _NS),
    )
