"""Messages of Crypto.com's Exchange API v1."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ingestor.adapter import Counted, Milliseconds, Sequential

UPDATES: Final = -1  # the id of messages that answer no request


class Trade(msgspec.Struct, gc=False):
    d: Any
    t: Milliseconds
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    s: str
    tn: Any = None


class TradeResult(msgspec.Struct, gc=False):
    instrument_name: str
    data: list[Trade]


class Trades(msgspec.Struct, gc=False):
    result: TradeResult
    id: int = UPDATES


class Sides(msgspec.Struct, gc=False):
    bids: list[list[Any]] = []
    asks: list[list[Any]] = []


class Image(msgspec.Struct, gc=False):
    bids: list[list[Any]]
    asks: list[list[Any]]
    t: Milliseconds
    u: Counted
    tt: Milliseconds | None = None


class Update(msgspec.Struct, gc=False):
    update: Sides
    t: Milliseconds
    u: Counted
    pu: Sequential
    tt: Milliseconds | None = None


class ImageResult(msgspec.Struct, gc=False):
    instrument_name: str
    data: list[Image]


class UpdateResult(msgspec.Struct, gc=False):
    instrument_name: str
    data: list[Update]


class Images(msgspec.Struct, gc=False):
    result: ImageResult


class Updates(msgspec.Struct, gc=False):
    result: UpdateResult


class Value(msgspec.Struct, gc=False):
    v: Any
    t: Milliseconds


class ValueResult(msgspec.Struct, gc=False):
    instrument_name: str
    data: list[Value]


class Values(msgspec.Struct, gc=False):
    result: ValueResult


class Ticker(msgspec.Struct, gc=False):
    t: Milliseconds
    oi: Any = None


class TickerResult(msgspec.Struct, gc=False):
    instrument_name: str
    data: list[Ticker]


class Tickers(msgspec.Struct, gc=False):
    result: TickerResult


class Candle(msgspec.Struct, gc=False):
    t: Milliseconds
    o: Any
    h: Any
    l: Any  # noqa: E741  # the venue's name
    c: Any
    v: Any
    ut: Any = None


class CandleResult(msgspec.Struct, gc=False):
    instrument_name: str
    interval: str
    data: list[Candle]


class Candles(msgspec.Struct, gc=False):
    result: CandleResult


class Channel(msgspec.Struct, gc=False):
    channel: str
    subscription: str = ""


class Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    method: str = ""
    id: Any = None
    code: Any = 0
    message: Any = None
    channel: Any = None
    result: Channel | None = None


parse_head: Final = msgspec.json.Decoder(Head).decode
parse_trades: Final = msgspec.json.Decoder(Trades, float_hook=str).decode
parse_values: Final = msgspec.json.Decoder(Values, float_hook=str).decode
parse_tickers: Final = msgspec.json.Decoder(Tickers, float_hook=str).decode
parse_candles: Final = msgspec.json.Decoder(Candles, float_hook=str).decode
parse_images: Final = msgspec.json.Decoder(Images, float_hook=str).decode
parse_updates: Final = msgspec.json.Decoder(Updates, float_hook=str).decode
