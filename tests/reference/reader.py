"""What recordings hold, read independently: raw frames, `json`, `Decimal`, and nothing of ours.

`read(path)` gives the trades, quotes and book updates of one file in the order of its frames, as
the venues' documents define them; a `Reader` gives those of single frames. Nothing of the project
is imported here, so that an error there can't hide here too.

Sides of trades are the aggressor's. Times are ns since the epoch, None where the venue gives none.
What is no trade, no quote source and no book (candles, liquidations, one-sided tickers) is left
out. A book update lists its bids before its asks, each in the order of the frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from io import TextIOWrapper
from itertools import islice
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
    """One recording. events: with the time of receipt, ns.

    snapshots: REST answers of order books, by symbol, and `fetched`, when they came; not among the
    events. depths: levels a side that the venue keeps of a book, where it forgets the others.
    """

    venue: str
    market: str
    frames: int = 0
    events: list[tuple[int, Event]] = field(default_factory=list)
    snapshots: dict[str, Update] = field(default_factory=dict)
    fetched: dict[str, int] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)

    @cached_property
    def trades(self) -> list[Trade]:
        return [one for _, one in self.events if isinstance(one, Trade)]

    @cached_property
    def quotes(self) -> list[Quote]:
        return [one for _, one in self.events if isinstance(one, Quote)]

    @cached_property
    def updates(self) -> list[Update]:
        return [one for _, one in self.events if isinstance(one, Update)]

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

    def received(self, symbol: str, kind: type[Event]) -> list[int]:
        """When the events of a kind came."""
        return [time for time, one in self.events if isinstance(one, kind) and one.symbol == symbol]

    def book(self, symbol: str) -> list[Update]:
        """A consumer's book: the first snapshot, then what the venue's rule applies to it."""
        return [update for _, update in self.timed_book(symbol)]

    def timed_book(self, symbol: str) -> list[tuple[int, Update]]:
        """The same, with the times of receipt."""
        updates = [
            (time, one)
            for time, one in self.events
            if isinstance(one, Update) and one.symbol == symbol
        ]
        snapshot = self.snapshots.get(symbol)
        if snapshot is None:
            first = next((n for n, (_, one) in enumerate(updates) if one.is_snapshot), len(updates))
            return updates[first:]
        later = (pair for pair in updates if pair[1].last > snapshot.last)
        return [(self.fetched[symbol], snapshot), *later]


def of(rows: Iterable[One], symbol: str) -> list[One]:
    """The rows of one symbol, order kept."""
    return [one for one in rows if one.symbol == symbol]


class Book:
    """One book as two plain dicts of price and size; levels of size 0 are not in them."""

    def __init__(self, depth_max: int | None = None) -> None:
        """depth_max: levels a side beyond which the venue forgets without saying so."""
        self.sides: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}
        self._depth_max = depth_max

    def apply(self, update: Update) -> list[Level]:
        """Take an update; return its levels, and those removed that the venue forgets."""
        if update.is_snapshot:
            self.sides = {"bid": {}, "ask": {}}
        for level in update.levels:
            side = self.sides[level.side]
            if level.size:
                side[level.price] = level.size
            else:
                side.pop(level.price, None)
        return [*update.levels, *self._forgotten()]

    def _forgotten(self) -> Iterator[Level]:
        if self._depth_max is None:
            return
        for name, side in self.sides.items():
            for price in sorted(side, reverse=name == "bid")[self._depth_max :]:
                del side[price]
                yield Level(name, price, Decimal(0))

    def top(self) -> tuple[Decimal, ...]:
        """Return bid price, bid size, ask price, ask size; zeros for an empty side."""
        found: list[Decimal] = []
        for side, best in (("bid", max), ("ask", min)):
            levels = self.sides[side]
            price = best(levels) if levels else Decimal(0)
            found += [price, levels.get(price, Decimal(0))]
        return tuple(found)


def expected_levels(updates: Iterable[Update], depth_max: int | None) -> list[Level]:
    """The levels of some updates, and those removed where a venue forgets without saying so."""
    book = Book(depth_max)
    return [level for update in updates for level in book.apply(update)]


def tops(updates: Iterable[Update]) -> list[tuple[Decimal, ...]]:
    """Return (bid price, bid size, ask price, ask size) at each change of a book's best levels."""
    found: list[tuple[Decimal, ...]] = []
    book = Book()
    for update in updates:
        book.apply(update)
        top = book.top()
        if not found or top != found[-1]:
            found.append(top)
    return found


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a capture as they stand."""
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        for line in TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def read(path: Path, lines_max: int | None = None) -> Capture:
    """Count one capture, or its first lines. Symbols are the venue's own."""
    venue, market = CAPTURES[path.name]
    capture = Capture(venue, market)
    reader = Reader(venue)
    for line in islice(lines(path), lines_max):
        if line["t"] == "recv":
            capture.frames += 1
            message = parse(line["data"])
            capture.events += [(line["ts_ns"], event) for event in reader.events(message)]
            if venue == "kraken":
                capture.depths |= _kraken_depth(message)
        elif line["t"] == "http" and "/depth" in line["url"]:
            symbol = _query(line["url"]).get("symbol", "BTCUSDT")
            capture.snapshots[symbol] = rest_book(symbol, parse(line["data"]))
            capture.fetched[symbol] = line["ts_ns"]
    return capture


def parse(text: str) -> Any:
    """Parse a frame without letting a number pass a float."""
    return json.loads(text, parse_float=Decimal)


class Reader:
    """What the frames of one connection mean, one after the other."""

    def __init__(self, venue: str) -> None:
        self._decode: Callable[[Any], Iterator[Event]] = (
            _Bybit() if venue == "bybit" else _DECODERS[venue]
        )

    def events(self, message: Any) -> Iterator[Event]:
        """Yield the trades, quotes and book updates of a parsed frame; none of any other."""
        return self._decode(message)


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
    data = message.get("data", message)  # a connection to one stream has no wrapper
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
        case "bookTicker" | None if "B" in data:  # spot quotes carry neither type nor time
            yield Quote(
                data["s"],
                bid_price=Decimal(data["b"]),
                bid_size=Decimal(data["B"]),
                ask_price=Decimal(data["a"]),
                ask_size=Decimal(data["A"]),
                sequence=data["u"],
                ts_event=_ms(data["T"]) if "T" in data else None,
            )


def rest_book(symbol: str, answer: Any) -> Update:
    """Read a REST answer of a book: Binance's, or OKX's."""
    if "data" in answer:
        [book] = answer["data"]
        return Update(
            symbol,
            _levels(book["bids"], book["asks"]),
            is_snapshot=True,
            first=book["seqId"],
            last=book["seqId"],
            previous=0,
            ts_event=_ms(int(book["ts"])),
        )
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
    number = message.get("sequence_num", 0)
    for event in message.get("events", ()):
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
                ts_event=_coinbase_time(message, event["updates"]),
            )


def _coinbase_time(message: Any, updates: Any) -> int:
    """The matching engine's time of an update; an image says 1970: then when it was sent."""
    latest = max((_iso(one["event_time"]) for one in updates), default=0)
    return latest or _iso(message["timestamp"])


class _Bybit:
    """Quotes come from orderbook.1, whose deltas leave out the side that did not change; `tickers`
    are one-sided. An update with `u` 1 is an image, whatever its type says."""

    def __init__(self) -> None:
        self._best: dict[str, Book] = {}

    def __call__(self, message: Any) -> Iterator[Event]:
        topic = message.get("topic", "")
        if topic.startswith("publicTrade."):
            for one in message["data"]:
                side, price, size = one["S"].lower(), Decimal(one["p"]), Decimal(one["v"])
                trade_id = _trade_id(one["i"])
                yield Trade(one["s"], side, price, size, trade_id, one["seq"], _ms(one["T"]))
        elif topic.startswith("orderbook."):
            data = message["data"]
            update = Update(
                data["s"],
                _levels(data["b"], data["a"]),
                is_snapshot=message["type"] == "snapshot" or data["u"] == 1,
                first=data["u"],
                last=data["u"],
                previous=0,
                ts_event=_ms(message["cts"]),
            )
            yield self._quote(update) if topic.startswith("orderbook.1.") else update

    def _quote(self, update: Update) -> Quote:
        book = self._best.setdefault(update.symbol, Book())
        book.apply(update)
        bid, bid_size, ask, ask_size = book.top()
        return Quote(update.symbol, bid, bid_size, ask, ask_size, update.last, update.ts_event)


def _trade_id(text: str) -> int:
    """A UUID as its 128 bits, or a number."""
    return int(text.replace("-", ""), 16) if "-" in text else int(text)


def _kraken(message: Any) -> Iterator[Event]:
    data = message.get("data", ())
    match message.get("channel"):
        case "trade":
            for one in data:
                price, size = Decimal(one["price"]), Decimal(one["qty"])
                number, time = one["trade_id"], _iso(one["timestamp"])
                yield Trade(one["symbol"], one["side"], price, size, number, number, time)
        case "ticker":
            for one in data:
                bid, bid_size, ask, ask_size = (
                    Decimal(one[name]) for name in ("bid", "bid_qty", "ask", "ask_qty")
                )
                yield Quote(one["symbol"], bid, bid_size, ask, ask_size, 0, _kraken_time(one))
        case "book":
            for one in data:
                sides = ([(level["price"], level["qty"]) for level in one[name]] for name in _SIDES)
                yield Update(
                    one["symbol"],
                    _levels(*sides),
                    is_snapshot=message["type"] == "snapshot",
                    first=0,
                    last=0,
                    previous=0,
                    ts_event=_kraken_time(one),
                )


def _kraken_time(one: Any) -> int | None:
    """Frames of before 2025 have none, and a quote of 1970 has none either."""
    return (_iso(one["timestamp"]) if "timestamp" in one else 0) or None


def _kraken_depth(message: Any) -> dict[str, int]:
    """What an answer to a subscription says of a book's depth."""
    match message:
        case {"result": {"channel": "book", "symbol": symbol, "depth": depth}}:
            return {symbol: depth}
    return {}


_SIDES = ("bids", "asks")


def _okx(message: Any) -> Iterator[Event]:
    """Quotes come from bbo-tbt: `tickers` fire at most ten times a second."""
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
                    first=one.get("seqId", 0),
                    last=one.get("seqId", 0),
                    previous=max(one.get("prevSeqId", 0), 0),  # -1: there is none
                    ts_event=_ms(one["ts"]),
                )
        case {"arg": {"channel": "bbo-tbt", "instId": symbol}, "data": quotes}:
            for one in quotes:
                book = Book()
                levels = _levels(one["bids"], one["asks"])
                book.apply(Update(symbol, levels, is_snapshot=True, first=0, last=0, previous=0,
                                  ts_event=None))  # fmt: skip
                bid, bid_size, ask, ask_size = book.top()
                number, time = one["seqId"], _ms(one["ts"])
                yield Quote(symbol, bid, bid_size, ask, ask_size, number, time)


_DECODERS = {
    "binance": _binance,
    "coinbase": _coinbase,
    "kraken": _kraken,
    "okx": _okx,
}
READ = frozenset(_DECODERS) | {"bybit"}  # the venues that it reads
