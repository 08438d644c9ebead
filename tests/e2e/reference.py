"""What a capture holds, counted independently: raw frames, `json`, `Decimal`, and nothing of ours.

`read(path)` gives the trades, quotes and book updates of one file in the order of its frames, as
the venues' documents define them. Nothing of the project is imported here, so that an error there
can't hide here too.

Sides of trades are the aggressor's. Times are ns since the epoch, None where the venue gives none.
What is no trade, no quote source and no book (candles, liquidations, one-sided tickers) is left
out. A book update lists its bids before its asks, each in the order of the frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import zstandard

# file -> venue and market as the project calls them; `Capture.market_of` knows better for OKX
CAPTURES = {
    "binance.jsonl.zst": ("binance", "spot"),
    "binance_futures.jsonl.zst": ("binance", "usdm"),
    "binance_spot_btcusdt_20240808.jsonl.zst": ("binance", "spot"),
    "binance_usdm_btcusdt_20240808.jsonl.zst": ("binance", "usdm"),
    "bybit.jsonl.zst": ("bybit", "linear"),
    "coinbase.jsonl.zst": ("coinbase", "spot"),
    "kraken_v2_btcusd_book.jsonl.zst": ("kraken", "spot"),
    "okx.jsonl.zst": ("okx", "spot"),
}


class Trade(NamedTuple):
    symbol: str
    side: str  # "buy" or "sell": who took
    price: Decimal
    size: Decimal
    trade_id: int  # a UUID as its 128 bits
    sequence: int
    ts_event: int


class Quote(NamedTuple):
    symbol: str
    bid_price: Decimal
    bid_size: Decimal
    ask_price: Decimal
    ask_size: Decimal
    sequence: int
    ts_event: int | None


class Level(NamedTuple):
    side: str  # "bid" or "ask"
    price: Decimal
    size: Decimal  # 0 removes


class Update(NamedTuple):
    """One book event. first, last, previous: update numbers as the venue gives them, 0 = none."""

    symbol: str
    levels: tuple[Level, ...]
    is_snapshot: bool
    first: int
    last: int
    previous: int
    ts_event: int | None


Event = Trade | Quote | Update
One = TypeVar("One", Trade, Quote, Update)


@dataclass
class Capture:
    """snapshots: REST answers of order books, by symbol; not among the updates."""

    venue: str
    market: str
    frames: int = 0
    trades: list[Trade] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    snapshots: dict[str, Update] = field(default_factory=dict)

    @property
    def symbols(self) -> list[str]:
        """Every symbol with an event, in the order of its first."""
        every: tuple[Event, ...] = (*self.updates, *self.quotes, *self.trades)
        return list(dict.fromkeys(one.symbol for one in every))

    @property
    def levels(self) -> int:
        """Price levels in all updates, REST snapshots not counted."""
        return sum(len(update.levels) for update in self.updates)

    def market_of(self, symbol: str) -> str:
        """OKX carries its markets on one connection; the symbol tells them apart."""
        if self.venue != "okx":
            return self.market
        parts = symbol.split("-")
        return "spot" if len(parts) == 2 else "swap" if parts[2] == "SWAP" else "futures"

    def book(self, symbol: str) -> list[Update]:
        """A consumer's book: the first snapshot, then what the venue's rule applies to it."""
        updates = [one for one in self.updates if one.symbol == symbol]
        snapshot = self.snapshots.get(symbol)
        if snapshot is None:
            first = next(n for n, one in enumerate(updates) if one.is_snapshot)
            return updates[first:]
        return [snapshot, *(one for one in updates if one.last > snapshot.last)]


def of(rows: Iterable[One], symbol: str) -> list[One]:
    """The rows of one symbol, order kept."""
    return [one for one in rows if one.symbol == symbol]


def expected_levels(updates: Iterable[Update], depth_max: int | None) -> list[Level]:
    """The levels of some updates, and those removed where a venue forgets without saying so."""
    found: list[Level] = []
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}
    for update in updates:
        found += update.levels
        if depth_max is None:
            continue
        if update.is_snapshot:
            book = {"bid": {}, "ask": {}}
        for level in update.levels:
            book[level.side][level.price] = level.size
        for side, levels in book.items():
            alive = sorted((p for p, s in levels.items() if s), reverse=side == "bid")
            for price in alive[depth_max:]:
                found.append(Level(side, price, Decimal(0)))
            book[side] = {price: levels[price] for price in alive[:depth_max]}
    return found


def tops(updates: Iterable[Update]) -> list[tuple[Decimal, ...]]:
    """Return (bid price, bid size, ask price, ask size) at each change of a book's best levels."""
    found: list[tuple[Decimal, ...]] = []
    book: dict[str, dict[Decimal, Decimal]] = {}
    for update in updates:
        if update.is_snapshot:
            book = {"bid": {}, "ask": {}}
        for level in update.levels:
            book[level.side][level.price] = level.size
        top: list[Decimal] = []
        for side, best in (("bid", max), ("ask", min)):
            price = best(price for price, size in book[side].items() if size)
            top += [price, book[side][price]]
        if not found or tuple(top) != found[-1]:
            found.append(tuple(top))
    return found


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a capture as they stand."""
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        for line in TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def read(path: Path) -> Capture:
    """Count one capture. Symbols are the venue's own."""
    venue, market = CAPTURES[path.name]
    capture = Capture(venue, market)
    decode = _DECODERS[venue]
    for line in lines(path):
        if line["t"] == "recv":
            capture.frames += 1
            message = json.loads(line["data"], parse_float=Decimal)
            for event in decode(message):
                _rows_of(capture, event).append(event)
        elif line["t"] == "http" and "/depth" in line["url"]:
            answer = json.loads(line["data"], parse_float=Decimal)
            symbol = _query(line["url"]).get("symbol", "BTCUSDT")
            capture.snapshots[symbol] = _binance_snapshot(symbol, answer)
    return capture


def _rows_of(capture: Capture, event: Event) -> list[Any]:
    match event:
        case Trade():
            return capture.trades
        case Quote():
            return capture.quotes
        case Update():
            return capture.updates


def _query(url: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in url.partition("?")[2].split("&") if "=" in pair)


def _ms(text: str | int) -> int:
    return int(text) * 1_000_000


def _iso(text: str) -> int:
    """RFC 3339 in UTC with up to nine decimals, exactly."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    since = datetime.fromisoformat(seconds).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(seconds=1) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _levels(bids: Iterable[Any], asks: Iterable[Any]) -> tuple[Level, ...]:
    """bids, asks: sequences that begin with price and size."""
    sides = (("bid", bids), ("ask", asks))
    return tuple(
        Level(side, Decimal(level[0]), Decimal(level[1]))
        for side, levels in sides
        for level in levels
    )


def _binance(message: Any) -> Iterator[Event]:
    data = message["data"]
    match data.get("e"):
        case "trade" | "aggTrade":
            number = data["t" if data["e"] == "trade" else "a"]
            side = "sell" if data["m"] else "buy"  # m: the buyer was the maker
            price, size = Decimal(data["p"]), Decimal(data["q"])
            yield Trade(data["s"], side, price, size, number, number, _ms(data["T"]))
        case "depthUpdate":
            yield Update(
                data["s"],
                _levels(data["b"], data["a"]),
                is_snapshot=False,
                first=data["U"],
                last=data["u"],
                previous=data.get("pu", 0),
                ts_event=_ms(data.get("T", data["E"])),
            )
        case "bookTicker" | None:  # spot quotes carry neither a type nor a time
            yield Quote(
                data["s"],
                bid_price=Decimal(data["b"]),
                bid_size=Decimal(data["B"]),
                ask_price=Decimal(data["a"]),
                ask_size=Decimal(data["A"]),
                sequence=data["u"],
                ts_event=_ms(data["T"]) if "T" in data else None,
            )


def _binance_snapshot(symbol: str, answer: Any) -> Update:
    return Update(
        symbol,
        _levels(answer["bids"], answer["asks"]),
        is_snapshot=True,
        first=answer["lastUpdateId"],
        last=answer["lastUpdateId"],
        previous=0,
        ts_event=_ms(answer["T"]) if "T" in answer else None,
    )


def _coinbase(message: Any) -> Iterator[Event]:
    """A trade's `side` is the maker's. Trades stand newest first, in snapshots and updates.

    Updates are numbered per connection, over everything that it carries.
    """
    number = message["sequence_num"]
    for event in message["events"]:
        for one in reversed(event.get("trades", ())):
            side = "buy" if one["side"] == "SELL" else "sell"
            price, size, trade_id = (
                Decimal(one["price"]),
                Decimal(one["size"]),
                int(one["trade_id"]),
            )
            yield Trade(one["product_id"], side, price, size, trade_id, trade_id, _iso(one["time"]))
        if message["channel"] == "l2_data":
            levels: dict[str, list[tuple[str, str]]] = {"bid": [], "offer": []}
            for one in event["updates"]:
                levels[one["side"]].append((one["price_level"], one["new_quantity"]))
            yield Update(
                event["product_id"],
                _levels(levels["bid"], levels["offer"]),
                is_snapshot=event["type"] == "snapshot",
                first=number,
                last=number,
                previous=0,
                ts_event=_iso(message["timestamp"]),
            )


def _bybit(message: Any) -> Iterator[Event]:
    """Quotes come from orderbook.1, which no capture has: `tickers` are one-sided deltas."""
    topic = message.get("topic", "")
    if topic.startswith("publicTrade."):
        for one in message["data"]:
            side, price, size = one["S"].lower(), Decimal(one["p"]), Decimal(one["v"])
            trade_id = int(one["i"].replace("-", ""), 16)
            yield Trade(one["s"], side, price, size, trade_id, one["seq"], _ms(one["T"]))
    elif topic.startswith("orderbook."):
        data = message["data"]
        yield Update(
            data["s"],
            _levels(data["b"], data["a"]),
            is_snapshot=message["type"] == "snapshot",
            first=data["u"],
            last=data["u"],
            previous=0,
            ts_event=_ms(message["cts"]),
        )


def _kraken(message: Any) -> Iterator[Event]:
    if message.get("channel") == "book":
        for one in message["data"]:
            sides = ([(level["price"], level["qty"]) for level in one[name]] for name in _SIDES)
            yield Update(
                one["symbol"],
                _levels(*sides),
                is_snapshot=message["type"] == "snapshot",
                first=0,
                last=0,
                previous=0,
                ts_event=_iso(one["timestamp"]) if "timestamp" in one else None,
            )


_SIDES = ("bids", "asks")


def _okx(message: Any) -> Iterator[Event]:
    """Quotes come from bbo-tbt, which no capture has: `tickers` fire at most ten times a second."""
    match message:
        case {"arg": {"channel": "trades", "instId": symbol}, "data": trades}:
            for one in trades:
                number, price, size = int(one["tradeId"]), Decimal(one["px"]), Decimal(one["sz"])
                yield Trade(symbol, one["side"], price, size, number, number, _ms(one["ts"]))
        case {"arg": {"channel": "books", "instId": symbol}, "action": action, "data": books}:
            for one in books:
                yield Update(
                    symbol,
                    _levels(one["bids"], one["asks"]),
                    is_snapshot=action == "snapshot",
                    first=0,
                    last=one.get("seqId", 0),
                    previous=one.get("prevSeqId", 0),
                    ts_event=_ms(one["ts"]),
                )


_DECODERS = {
    "binance": _binance,
    "bybit": _bybit,
    "coinbase": _coinbase,
    "kraken": _kraken,
    "okx": _okx,
}
