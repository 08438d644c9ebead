"""How five exchanges say what happens in a market: frames and lists, for `tests.simulation.day`.

Requests are read by the emulator's venues (`ingestor.testbed.emulator.venues`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, ClassVar, Final
from uuid import UUID
from zlib import crc32

import orjson

from ingestor.adapter import FeedAdapter
from ingestor.testbed.emulator.registry import module_of
from ingestor.testbed.emulator.venue import Listed
from tests.simulation.market import ASK, BID, DECIMALS, Changes, Market, Quote, fingerprint, text

Levels = Iterable[tuple[str, str]]
LOT: Final = "0.0001"


class DayMarket(Market):
    """A market of an exchange that may number nothing. views: fingerprints of all its books."""

    def __init__(self, symbol: str, random: Random, dialect: Dialect) -> None:
        self.dialect = dialect
        self.views: set[int] = set()
        self.tops: set[Quote] = set()
        self.seen: Changes = {BID: {}, ASK: {}}  # what subscribers know of the best levels
        super().__init__(symbol, random)
        self.seen = self.view
        self.number += 10  # Bybit's number 1 is a reset
        self.trade += 1

    def _note(self) -> None:
        self.views.add(self.view_total)
        self.tops.add(self.quote)
        if self.dialect.is_numbered:
            super()._note()

    @property
    def view(self) -> Changes:
        """The levels that the venue tells of."""
        depth = self.dialect.depth
        bids = sorted(self.levels[BID], reverse=True)[:depth]
        asks = sorted(self.levels[ASK])[:depth]
        return {
            side: {price: self.levels[side][price] for price in prices}
            for side, prices in ((BID, bids), (ASK, asks))
        }

    @property
    def view_total(self) -> int:
        return sum(
            fingerprint(side, price, size)
            for side, levels in self.view.items()
            for price, size in levels.items()
        )

    def has_been(self, number: int, total: int) -> bool:
        return total in self.views

    def is_now(self, number: int, total: int) -> bool:
        return total == self.view_total

    def has_quoted(self, number: int, quote: Quote) -> bool:
        return (
            super().has_quoted(number, quote) if self.dialect.numbers_quotes else quote in self.tops
        )

    def skipped_quotes(self, before: int, number: int) -> bool:
        return self.dialect.numbers_quotes and super().skipped_quotes(before, number)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _now_text() -> str:
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC).isoformat().replace("+00:00", "Z")


def _levels(market: DayMarket, changes: Changes, side: int) -> list[tuple[str, str]]:
    levels = changes[side]
    decimals = market.decimals
    while any(price % 10 ** (DECIMALS - decimals) for price in levels):
        decimals += 1  # levels of the grid before go once more
    order = sorted(levels, reverse=side == BID)
    return [(text(price, decimals), text(levels[price], DECIMALS)) for price in order]


class Dialect:
    """One exchange's. depth: levels a side that it tells of. numbers_quotes: whether they have
    numbers of their own. farewell: what announces the end of a connection, None = nothing does."""

    name: ClassVar[str]
    market: ClassVar[str] = "spot"
    depth: ClassVar[int | None] = None
    is_numbered: ClassVar[bool] = True
    numbers_quotes: ClassVar[bool] = True
    sends_images: ClassVar[bool] = True
    farewell: ClassVar[bytes | None] = None

    def __init__(self) -> None:
        module = module_of(self.name)
        assert module is not None, self.name
        self.venue = module.venue

    @property
    def adapter(self) -> type[FeedAdapter]:
        found: type[FeedAdapter] = self.venue.adapter
        return found

    def symbol(self, number: int) -> str:
        raise NotImplementedError

    def stream(self, kind: str, symbol: str) -> str:
        """kind: trades, quotes, book."""
        raise NotImplementedError

    def parts(self, stream: str) -> tuple[str, str]:
        """Return symbol and kind of a stream."""
        raise NotImplementedError

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        raise NotImplementedError

    def quote(self, market: DayMarket) -> bytes | None:
        raise NotImplementedError

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        raise NotImplementedError

    def halt(self, entry: dict[str, Any]) -> None:
        """Let an entry of the list say that its symbol doesn't trade."""
        raise NotImplementedError

    def spoil(self, entry: dict[str, Any]) -> None:
        """Let an entry of the list be odd."""
        raise NotImplementedError

    def entries(self, body: Any) -> list[dict[str, Any]]:
        """Return the entries of a list's answer."""
        raise NotImplementedError

    def list_body(self, markets: Iterable[DayMarket], query: Mapping[str, str]) -> Any:
        listed = [self._listed(market) for market in markets]
        return self.venue.instrument_list(listed, query, self.market)

    def _listed(self, market: DayMarket) -> Listed:
        base, quote = self._assets(market.symbol)
        return Listed(market.symbol, base, quote, market.tick_text, LOT, self._known(market))

    def _assets(self, symbol: str) -> tuple[str, str]:
        for separator in ("-", "/"):
            if separator in symbol:
                base, quote = symbol.split(separator)
                return base, quote
        return symbol[:-4], symbol[-4:]

    def _known(self, market: DayMarket) -> dict[str, Any]:
        return {}


class Binance(Dialect):
    name = "binance"
    sends_images = False
    farewell = b'{"e":"serverShutdown","E":1767225600123}'
    _KINDS: ClassVar = {"trades": "trade", "quotes": "bookTicker", "book": "depth@100ms"}

    def symbol(self, number: int) -> str:
        return f"BN{number:03}USDT"

    def stream(self, kind: str, symbol: str) -> str:
        return f"{symbol.lower()}@{self._KINDS[kind]}"

    def parts(self, stream: str) -> tuple[str, str]:
        symbol, _, name = stream.partition("@")
        return symbol.upper(), {name: kind for kind, name in self._KINDS.items()}.get(name, "")

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        levels = {"b": _levels(market, changes, BID), "a": _levels(market, changes, ASK)}
        number = market.number
        if is_image:
            image = {"lastUpdateId": number, "bids": levels["b"], "asks": levels["a"]}
            return orjson.dumps(image)
        head = {"e": "depthUpdate", "E": _now_ms(), "s": market.symbol, "U": number, "u": number}
        return orjson.dumps(head | levels)

    def quote(self, market: DayMarket) -> bytes | None:
        bid, bid_size, ask, ask_size = (text(one, DECIMALS) for one in market.quote)
        head = {"u": market.number, "s": market.symbol}
        return orjson.dumps(head | {"b": bid, "B": bid_size, "a": ask, "A": ask_size})

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        return orjson.dumps(
            {
                "e": "trade", "E": _now_ms(), "s": market.symbol, "t": market.trade,
                "p": text(price, DECIMALS), "q": text(size, DECIMALS), "T": _now_ms(),
                "m": side == ASK, "M": True,
            }
        )  # fmt: skip

    def halt(self, entry: dict[str, Any]) -> None:
        entry["status"] = "BREAK"

    def spoil(self, entry: dict[str, Any]) -> None:
        entry["filters"] = []

    def entries(self, body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = body["symbols"]
        return found

    def _known(self, market: DayMarket) -> dict[str, Any]:
        return {"price_exponent": DECIMALS, "size_exponent": DECIMALS, "contract": "spot"}


class Bybit(Dialect):
    name = "bybit"
    market = "linear"
    _KINDS: ClassVar = {"trades": "publicTrade", "quotes": "orderbook.1", "book": "orderbook.200"}

    def symbol(self, number: int) -> str:
        return f"BY{number:03}USDT"

    def stream(self, kind: str, symbol: str) -> str:
        return f"{self._KINDS[kind]}.{symbol}"

    def parts(self, stream: str) -> tuple[str, str]:
        name, _, symbol = stream.rpartition(".")
        return symbol, {name: kind for kind, name in self._KINDS.items()}.get(name, "")

    def _frame(self, topic: str, symbol: str, bids: Levels, asks: Levels, number: int,
               kind: str) -> bytes:  # fmt: skip
        data = {"s": symbol, "b": bids, "a": asks, "u": number, "seq": number}
        now_ms = _now_ms()
        return orjson.dumps(
            {"topic": topic, "type": kind, "ts": now_ms, "data": data, "cts": now_ms}
        )

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        topic = self.stream("book", market.symbol)
        levels = (_levels(market, changes, BID), _levels(market, changes, ASK))
        kind = "snapshot" if is_image else "delta"
        return self._frame(topic, market.symbol, *levels, market.number, kind)

    def quote(self, market: DayMarket) -> bytes | None:
        bid, bid_size, ask, ask_size = (text(one, DECIMALS) for one in market.quote)
        topic = self.stream("quotes", market.symbol)
        levels = ([(bid, bid_size)], [(ask, ask_size)])
        return self._frame(topic, market.symbol, *levels, market.number, "snapshot")

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        row = {
            "T": _now_ms(), "s": market.symbol, "S": "Buy" if side == BID else "Sell",
            "v": text(size, DECIMALS), "p": text(price, DECIMALS), "L": "PlusTick",
            "i": str(UUID(int=market.trade)), "BT": False, "seq": market.trade,
        }  # fmt: skip
        topic = self.stream("trades", market.symbol)
        return orjson.dumps({"topic": topic, "type": "snapshot", "ts": _now_ms(), "data": [row]})

    def halt(self, entry: dict[str, Any]) -> None:
        entry["status"] = "Settling"

    def spoil(self, entry: dict[str, Any]) -> None:
        entry["priceFilter"] = None

    def entries(self, body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = body["result"]["list"]
        return found


class Okx(Dialect):
    name = "okx"
    farewell = b'{"event":"notice","code":"64008","msg":"The connection will soon be closed."}'
    _KINDS: ClassVar = {"trades": "trades", "quotes": "bbo-tbt", "book": "books"}

    def symbol(self, number: int) -> str:
        return f"OK{number:03}-USDT"

    def stream(self, kind: str, symbol: str) -> str:
        return f"{self._KINDS[kind]}:{symbol}"

    def parts(self, stream: str) -> tuple[str, str]:
        name, _, symbol = stream.partition(":")
        return symbol, {name: kind for kind, name in self._KINDS.items()}.get(name, "")

    def _frame(self, market: DayMarket, kind: str, data: dict[str, Any], action: str = "") -> bytes:
        message: dict[str, Any] = {"arg": {"channel": self._KINDS[kind], "instId": market.symbol}}
        if action:
            message["action"] = action
        return orjson.dumps(message | {"data": [data]})

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        bids, asks = (
            [[*level, "0", "1"] for level in _levels(market, changes, side)] for side in (BID, ASK)
        )
        data = {
            "asks": asks, "bids": bids, "ts": str(_now_ms()), "checksum": 0,
            "seqId": market.number, "prevSeqId": -1 if is_image else market.number - 1,
        }  # fmt: skip
        return self._frame(market, "book", data, "snapshot" if is_image else "update")

    def quote(self, market: DayMarket) -> bytes | None:
        bid, bid_size, ask, ask_size = (text(one, DECIMALS) for one in market.quote)
        sides = {"asks": [[ask, ask_size, "0", "1"]], "bids": [[bid, bid_size, "0", "1"]]}
        return self._frame(market, "quotes", sides | {"ts": str(_now_ms()), "seqId": market.number})

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        data = {
            "instId": market.symbol, "tradeId": str(market.trade), "px": text(price, DECIMALS),
            "sz": text(size, DECIMALS), "side": "buy" if side == BID else "sell",
            "ts": str(_now_ms()), "count": "1", "source": "0", "seqId": market.trade,
        }  # fmt: skip
        return self._frame(market, "trades", data)

    def halt(self, entry: dict[str, Any]) -> None:
        entry["state"] = "suspend"

    def spoil(self, entry: dict[str, Any]) -> None:
        entry["tickSz"] = ""

    def entries(self, body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = body["data"]
        return found


class Kraken(Dialect):
    """Its updates have no numbers, but checksums over the ten best levels, which are all it tells
    of. Numbers are bare JSON numbers."""

    name = "kraken"
    depth = 10
    is_numbered = numbers_quotes = False
    _KINDS: ClassVar = {"trades": "trade", "quotes": "ticker", "book": "book"}

    def symbol(self, number: int) -> str:
        return f"KR{number:03}/USD"

    def stream(self, kind: str, symbol: str) -> str:
        return f"{self._KINDS[kind]}:{symbol}"

    def parts(self, stream: str) -> tuple[str, str]:
        name, _, symbol = stream.partition(":")
        return symbol, {name: kind for kind, name in self._KINDS.items()}.get(name, "")

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        view = market.view
        told = view if is_image else self._news(market, view)
        sides = ",".join(
            f'"{name}":[' + ",".join(
                f'{{"price":{price},"qty":{size}}}' for price, size in _levels(market, told, side)
            ) + "]"
            for name, side in (("bids", BID), ("asks", ASK))
        )  # fmt: skip
        kind = "snapshot" if is_image else "update"
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{market.symbol}",{sides},'
            f'"checksum":{self._checksum(market, view)},"timestamp":"{_now_text()}"}}]}}'
        ).encode()

    def _news(self, market: DayMarket, view: Changes) -> Changes:
        """Return what changes the levels that were told into those that are told now."""
        news: Changes = {}
        for side, levels in view.items():
            known = market.seen[side]
            gone = {price: 0 for price in known if price not in market.levels[side]}
            news[side] = gone | {
                price: size for price, size in levels.items() if known.get(price) != size
            }
        return news

    def _checksum(self, market: DayMarket, view: Changes) -> int:
        def digits(levels: Levels) -> str:
            return "".join(part.replace(".", "").lstrip("0") for level in levels for part in level)

        sides = (digits(_levels(market, view, side)) for side in (ASK, BID))
        return crc32("".join(sides).encode())

    def quote(self, market: DayMarket) -> bytes | None:
        bid, ask = (text(market.quote[place], market.decimals) for place in (0, 2))
        bid_size, ask_size = (text(market.quote[place], DECIMALS) for place in (1, 3))
        return (
            f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{market.symbol}",'
            f'"bid":{bid},"bid_qty":{bid_size},"ask":{ask},"ask_qty":{ask_size},"last":{bid},'
            f'"volume":1,"vwap":1,"low":1,"high":1,"change":0,"change_pct":0,'
            f'"timestamp":"{_now_text()}"}}]}}'
        ).encode()

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        return (
            f'{{"channel":"trade","type":"update","data":[{{"symbol":"{market.symbol}",'
            f'"side":"{"buy" if side == BID else "sell"}","price":{text(price, market.decimals)},'
            f'"qty":{text(size, DECIMALS)},"ord_type":"limit","trade_id":{market.trade},'
            f'"timestamp":"{_now_text()}"}}]}}'
        ).encode()

    def halt(self, entry: dict[str, Any]) -> None:
        entry["status"] = "cancel_only"

    def spoil(self, entry: dict[str, Any]) -> None:
        entry["pair_decimals"] = "x"

    def entries(self, body: Any) -> list[dict[str, Any]]:
        return list(body["result"].values())


class Coinbase(Dialect):
    """All messages of a connection are numbered together; quotes are made of the book."""

    name = "coinbase"
    is_numbered = numbers_quotes = False
    _KINDS: ClassVar = {"trades": "market_trades", "book": "level2"}

    def symbol(self, number: int) -> str:
        return f"CB{number:03}-USD"

    def stream(self, kind: str, symbol: str) -> str:
        return f"{self._KINDS.get(kind, 'level2')}:{symbol}"

    def parts(self, stream: str) -> tuple[str, str]:
        name, _, symbol = stream.partition(":")
        return symbol, {name: kind for kind, name in self._KINDS.items()}.get(name, "")

    def _frame(self, channel: str, event: dict[str, Any]) -> bytes:
        head = {"channel": channel, "client_id": "", "timestamp": _now_text(), "sequence_num": 0}
        return orjson.dumps(head | {"events": [event]})

    def book(self, market: DayMarket, changes: Changes, *, is_image: bool) -> bytes:
        now = _now_text()
        updates = [
            {"side": name, "event_time": now, "price_level": price, "new_quantity": size}
            for side, name in ((BID, "bid"), (ASK, "offer"))
            for price, size in _levels(market, changes, side)
        ]
        kind = "snapshot" if is_image else "update"
        event = {"type": kind, "product_id": market.symbol, "updates": updates}
        return self._frame("l2_data", event)

    def quote(self, market: DayMarket) -> bytes | None:
        return None

    def trade(self, market: DayMarket, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        row = {
            "trade_id": str(market.trade), "product_id": market.symbol,
            "price": text(price, DECIMALS), "size": text(size, DECIMALS),
            "side": "SELL" if side == BID else "BUY", "time": _now_text(),
        }  # fmt: skip
        return self._frame("market_trades", {"type": "update", "trades": [row]})

    def halt(self, entry: dict[str, Any]) -> None:
        entry["trading_disabled"] = True

    def spoil(self, entry: dict[str, Any]) -> None:
        entry["price_increment"] = None

    def entries(self, body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = body["products"]
        return found


DIALECTS: Final = (Binance, Bybit, Coinbase, Kraken, Okx)
