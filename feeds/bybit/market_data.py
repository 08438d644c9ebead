"""Tickers, candles, liquidations and maintenance: what isn't trades, quotes and books.

A ticker's first message has all fields, later ones those that changed: what a row needs besides is
kept from the messages before. In the futures' dated contracts the funding fields are empty. The
side of a liquidation is the position's: Buy means that a long position was liquidated. Open
interest is in base coins on linear contracts, in USD on inverse ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    INT64_MAX,
    SECOND,
    CandleState,
    ColumnBuffer,
    Control,
    Filtered,
    InstrumentState,
    InterestUnit,
    Position,
    PriceKind,
    StatusScope,
    add_candle,
    add_funding,
    add_instrument_status,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    check_together,
    stated,
    time_ns,
)

CANDLES: Final = "kline.1"
STATUS: Final = "system.status"

_parse: Final = msgspec.json.Decoder(float_hook=str).decode
_MINUTE: Final = 60 * SECOND
_DAY: Final = 1_440 * _MINUTE
_LETTERS: Final = {"D": _DAY, "W": 7 * _DAY, "M": 30 * _DAY}
_INTERVALS: Final = {
    **{str(item): item * _MINUTE for item in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
    **_LETTERS,
}
_HOUR: Final = 60 * _MINUTE
_POSITIONS: Final = {"Buy": Position.LONG, "Sell": Position.SHORT}
_UNITS: Final = {"linear": InterestUnit.BASE, "inverse": InterestUnit.USD}
_PRODUCTS: Final = {"linear": 1, "inverse": 1, "spot": 2}
_STATES: Final = {
    "scheduled": InstrumentState.MAINTENANCE,
    "ongoing": InstrumentState.MAINTENANCE,
    "completed": InstrumentState.TRADING,
    "canceled": InstrumentState.TRADING,
}
_PRICES: Final = {
    "mark_price": "markPrice",
    "index_price": "indexPrice",
    "settle_price": "predictedDeliveryPrice",
}
_KEPT: Final = (*_PRICES.values(), "fundingRate", "nextFundingTime", "fundingIntervalHour")


class MarketData:
    """The messages of one connection beside trades, quotes and books."""

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._tickers: dict[str, dict[str, Any]] = {}  # the last value of each field, by symbol
        self._append: dict[str, Callable[[Any, int, ColumnBuffer], None]] = {
            "tickers": self._ticker,
            "kline": self._candles,
            "allLiquidation": self._liquidations,
            "system": self._status,
        }

    def takes(self, name: str) -> bool:
        """Return whether a topic that begins with this name is one of these."""
        return name in self._append and (name != "tickers" or self._market in _UNITS)

    def append(self, name: str, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a message, as `FeedAdapter.decode` does.

        Args:
            name: how its topic begins.
            payload: the message.
            ts_recv: ns.
            out: takes the rows.
        """
        before = out.rows
        self._append[name](_parse(payload), ts_recv, out)
        return None if out.rows > before else Filtered(name)

    def forget(self, symbol: str) -> None:
        """Expect a whole ticker of a symbol, since it is subscribed to again."""
        self._tickers.pop(symbol, None)

    def _ticker(self, message: Any, ts_recv: int, out: ColumnBuffer) -> None:
        data, ts_event = message["data"], time_ns(message["ts"])
        symbol = data["symbol"]
        number, sequence = self._symbols[symbol], message.get("cs", 0)
        if type(sequence) is not int or not 0 <= sequence <= INT64_MAX:
            raise ValueError(f"cs is {sequence!r:.40}")
        known = {} if message["type"] == "snapshot" else self._tickers.get(symbol, {})
        named = {field for field in _KEPT if field in data}
        kept = {**known, **{field: _kept(field, data[field]) for field in named}}
        prices = {name: kept.get(field) for name, field in _PRICES.items()}
        check_together(*prices.values())
        interest = stated(data.get("openInterest"))
        if named.intersection(_PRICES.values()) and any(prices.values()):
            mark, index, settle = prices.values()
            add_mark_price(
                out,
                number,
                ts_recv,
                mark_price=mark,
                index_price=index,
                settle_price=settle,
                ts_event=ts_event,
                sequence=sequence,
            )
        hours = kept.get("fundingIntervalHour")
        rate = kept.get("fundingRate")
        if named.intersection({"fundingRate", "nextFundingTime"}) and rate is not None:
            add_funding(
                out,
                number,
                ts_recv,
                rate=rate,
                due_ns=kept.get("nextFundingTime"),
                interval_ns=None if hours is None else hours * _HOUR,
                ts_event=ts_event,
                sequence=sequence,
            )
        if interest is not None:
            unit = _UNITS[self._market]
            add_open_interest(
                out,
                number,
                ts_recv,
                value=interest,
                unit=unit,
                ts_event=ts_event,
                sequence=sequence,
            )
        self._tickers[symbol] = kept

    def _candles(self, message: Any, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message["topic"].split(".", 2)[2]]
        for item in message["data"]:
            add_candle(
                out,
                number,
                ts_recv,
                start_ns=time_ns(item["start"]),
                interval_ns=_INTERVALS[item["interval"]],
                end_ns=time_ns(item["end"] + 1),
                prices=(item["open"], item["high"], item["low"], item["close"]),
                volume=item["volume"],
                turnover=item["turnover"],
                state=_closed(item["confirm"]),
                ts_event=time_ns(item["timestamp"]),
            )

    def _liquidations(self, message: Any, ts_recv: int, out: ColumnBuffer) -> None:
        for item in message["data"]:
            add_liquidation(
                out,
                self._symbols[item["s"]],
                ts_recv,
                position=_POSITIONS[item["S"]],
                size=item["v"],
                price=item["p"],
                price_kind=PriceKind.BANKRUPTCY,
                ts_event=time_ns(item["T"]),
            )

    def _status(self, message: Any, ts_recv: int, out: ColumnBuffer) -> None:
        """A maintenance is of whole products: each instrument of the market has a row."""
        ts_event = time_ns(message["ts"])
        for item in message["data"]:
            if _PRODUCTS[self._market] not in item["product"]:
                continue
            begin, end = time_ns(item["begin"]), time_ns(item["end"])
            for number in self._symbols.values():
                add_instrument_status(
                    out,
                    number,
                    ts_recv,
                    state=_STATES[item["state"]],
                    scope=StatusScope.MARKET,
                    effective_ns=begin,
                    until_ns=end,
                    ts_event=ts_event,
                )


def _kept(field: str, value: object) -> Any:
    """Return a value as it may be kept: checked, since later rows repeat it."""
    if field == "nextFundingTime":
        return None if value in {"", "0"} else time_ns(value)
    if field == "fundingIntervalHour":
        if value in {"", None}:
            return None
        text = str(value)
        if not text.isdigit() or not 0 < int(text) <= 24 * 7:
            raise ValueError(f"a funding interval of {value!r:.40} hours")
        return int(text)
    if field == "fundingRate" and value not in {"", None}:
        stated(value)  # 0 is a rate
        return value
    return stated(value)


def _closed(confirm: object) -> CandleState:
    if confirm is True:
        return CandleState.CLOSED
    if confirm is False:
        return CandleState.OPEN
    raise ValueError(f"confirm is {confirm!r:.40}")
