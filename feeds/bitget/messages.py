"""Messages of Bitget's API v3, and the same in those of API v2."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

# What messages of API v2 call it.
_CLASSIC: Final = {"trade": "publicTrade"}
_CLASSIC_TRADE: Final = {"i": "tradeId", "p": "price", "v": "size", "S": "side", "T": "ts"}
_CLASSIC_SIDES: Final = {"a": "asks", "b": "bids"}
CANDLE: Final = "candle"  # candle1m and so on


class Argument(msgspec.Struct, rename="camel", gc=False):
    """Name a stream; `channel` and `inst_id` do in the messages of API v2."""

    inst_type: str
    topic: str = ""
    symbol: str = ""
    interval: str = ""
    channel: str = ""
    inst_id: str = ""

    @property
    def names(self) -> tuple[str, str]:
        """Topic and symbol, as API v3 has them."""
        if self.topic:
            return self.topic, self.symbol
        if self.channel.startswith(CANDLE):
            return "kline", self.inst_id
        return _CLASSIC.get(self.channel, self.channel), self.inst_id

    @property
    def stream(self) -> str:
        topic, symbol = self.names
        return f"{topic}:{symbol}" if symbol else topic


class Trade(msgspec.Struct, gc=False):
    i: Any
    p: Any  # as text or bare: `float_hook` keeps the digits
    v: Any
    S: str
    T: Any
    isRPI: Any = None  # noqa: N815  # the venue's name


class ClassicTrade(msgspec.Struct, rename=_CLASSIC_TRADE, gc=False):
    """The same in API v2."""

    i: Any
    p: Any
    v: Any
    S: str
    T: Any
    isRPI: Any = None  # noqa: N815  # the venue's name


class Trades(msgspec.Struct, gc=False):
    action: Literal["snapshot", "update"]
    arg: Argument
    data: list[Trade]


class ClassicTrades(msgspec.Struct, gc=False):
    action: Literal["snapshot", "update"]
    arg: Argument
    data: list[ClassicTrade]


class Levels(msgspec.Struct, gc=False):
    a: msgspec.Raw
    b: msgspec.Raw
    ts: Any
    seq: Any = 0
    pseq: Any = 0


class ClassicLevels(msgspec.Struct, rename=_CLASSIC_SIDES, gc=False):
    """The same in API v2."""

    a: msgspec.Raw
    b: msgspec.Raw
    ts: Any
    seq: Any = 0
    pseq: Any = 0


class Book(msgspec.Struct, gc=False):
    action: Literal["snapshot", "update"]
    arg: Argument
    data: list[Levels]


class ClassicBook(msgspec.Struct, gc=False):
    action: Literal["snapshot", "update"]
    arg: Argument
    data: list[ClassicLevels]


class Best(msgspec.Struct, gc=False):
    a: list[list[Any]]
    b: list[list[Any]]
    ts: Any
    seq: Any = 0


class ClassicBest(msgspec.Struct, rename=_CLASSIC_SIDES, gc=False):
    """The same in API v2."""

    a: list[list[Any]]
    b: list[list[Any]]
    ts: Any
    seq: Any = 0


class Quotes(msgspec.Struct, gc=False):
    arg: Argument
    data: list[Best]


class ClassicQuotes(msgspec.Struct, gc=False):
    arg: Argument
    data: list[ClassicBest]


class Ticker(msgspec.Struct, rename="camel", gc=False):
    mark_price: Any = None
    index_price: Any = None
    funding_rate: Any = None
    next_funding_time: Any = None
    open_interest: Any = None
    holding_amount: Any = None  # the same in API v2


class Tickers(msgspec.Struct, gc=False):
    arg: Argument
    data: list[Ticker]
    ts: Any


class Candle(msgspec.Struct, gc=False):
    start: Any
    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    turnover: Any = None


class Candles(msgspec.Struct, gc=False):
    """Hold candles: objects, or arrays of the same in this order."""

    arg: Argument
    data: list[Any]
    ts: Any


class Liquidation(msgspec.Struct, gc=False):
    symbol: str
    side: str
    price: Any
    amount: Any
    ts: Any


class Liquidations(msgspec.Struct, gc=False):
    data: list[Liquidation]


class Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    arg: Argument | None = None
    event: str | None = None
    op: str | None = None
    action: str | None = None


parse_head: Final = msgspec.json.Decoder(Head).decode
parse_trades: Final = msgspec.json.Decoder(Trades, float_hook=str).decode
parse_book: Final = msgspec.json.Decoder(Book).decode
parse_tickers: Final = msgspec.json.Decoder(Tickers, float_hook=str).decode
parse_classic_trades: Final = msgspec.json.Decoder(ClassicTrades, float_hook=str).decode
parse_classic_book: Final = msgspec.json.Decoder(ClassicBook).decode
parse_classic_quotes: Final = msgspec.json.Decoder(ClassicQuotes, float_hook=str).decode
parse_candles: Final = msgspec.json.Decoder(Candles, float_hook=str).decode
parse_liquidations: Final = msgspec.json.Decoder(Liquidations, float_hook=str).decode
parse_quotes: Final = msgspec.json.Decoder(Quotes, float_hook=str).decode
