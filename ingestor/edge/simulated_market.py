"""What the simulated venue sends: frames encoded beforehand, all but symbol, number and time.

A walk is a seeded random market of n states that are gone through forward and back, so that it
repeats without a seam: numbers go up for ever, the book returns to where it began, and it is never
crossed. Symbols share a few walks. Sending an event is one `bytes.join` around three fields of
fixed width; the websocket header is part of the first piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal, Protocol

import orjson

Level = tuple[str, str]
Levels = Sequence[Level]
Kind = Literal["trade", "quote", "book"]
DialectName = Literal["simulated", "binance"]

NUMBER_FIRST: Final = 1_000_000_000  # ten digits, and so they stay
_TICK: Final = 2  # decimals of a price
_LOT: Final = 4  # decimals of a size
TICK_SIZE: Final = "0.01"
LOT_SIZE: Final = "0.0001"


@dataclass(frozen=True, slots=True)
class Shape:
    """levels: price levels in an update. depth: price levels on each side of a book. states: of a
    walk, before it turns back. walks: different ones, shared by all symbols."""

    levels: int = 20
    depth: int = 50
    states: int = 32
    walks: int = 8


@dataclass(slots=True)
class State:
    """A moment of a market. Prices in ticks, sizes in lots; best first where it matters."""

    bids: dict[int, int]
    asks: dict[int, int]

    @property
    def best(self) -> tuple[int, int, int, int]:
        """Bid price and size, ask price and size."""
        bid, ask = max(self.bids), min(self.asks)
        return bid, self.bids[bid], ask, self.asks[ask]

    def levels(self) -> tuple[Levels, Levels]:
        bids = [(_price(one), _size(self.bids[one])) for one in sorted(self.bids, reverse=True)]
        asks = [(_price(one), _size(self.asks[one])) for one in sorted(self.asks)]
        return bids, asks


@dataclass(slots=True)
class Event:
    """How one state follows another: the book's delta, its best levels after it, and a print."""

    bids: Levels
    asks: Levels
    quote: tuple[str, str, str, str]
    price: str
    size: str
    is_buy: bool


@dataclass(slots=True)
class Walk:
    """states[k] is the book after events[k]; events[0] follows the last one."""

    states: list[State]
    events: list[Event]

    def __len__(self) -> int:
        return len(self.events)


def make_walk(seed: int, shape: Shape) -> Walk:
    """Return the same walk for the same arguments."""
    random = Random(seed)
    middle = random.randrange(5_000, 900_000)
    state = State(
        {middle - 1 - place: _lots(random) for place in range(shape.depth)},
        {middle + place: _lots(random) for place in range(shape.depth)},
    )
    forward = [state]
    for _ in range(shape.states - 1):
        state = _next(state, shape, random)
        forward.append(state)
    states = forward + forward[-2:0:-1]
    return Walk(states, [_event(states[k - 1], states[k], random) for k in range(len(states))])


def _next(state: State, shape: Shape, random: Random) -> State:
    """Move the market by at most one tick, and change the sizes of some levels."""
    bids, asks = dict(state.bids), dict(state.asks)
    move = random.choice((-1, 0, 0, 1))
    if move > 0:
        price = min(asks)
        del asks[price]
        bids[price] = _lots(random)
        del bids[min(bids)]
        asks[max(asks) + 1] = _lots(random)
    elif move < 0:
        price = max(bids)
        del bids[price]
        asks[price] = _lots(random)
        del asks[max(asks)]
        bids[min(bids) - 1] = _lots(random)
    changes = max(1, (shape.levels - 4 * abs(move)) // 2)
    for side in (bids, asks):
        for price in random.sample(sorted(side), min(changes, len(side))):
            side[price] = _lots(random)
    return State(bids, asks)


def _event(before: State, after: State, random: Random) -> Event:
    bid, bid_size, ask, ask_size = after.best
    is_buy = random.random() < 0.5
    return Event(
        bids=_delta(before.bids, after.bids),
        asks=_delta(before.asks, after.asks),
        quote=(_price(bid), _size(bid_size), _price(ask), _size(ask_size)),
        price=_price(ask if is_buy else bid),
        size=_size(_lots(random)),
        is_buy=is_buy,
    )


def _delta(before: dict[int, int], after: dict[int, int]) -> Levels:
    changed = [price for price, size in after.items() if before.get(price) != size]
    gone = [price for price in before if price not in after]
    return [(_price(one), _size(after.get(one, 0))) for one in (*gone, *changed)]


def _lots(random: Random) -> int:
    return random.randrange(1, 500_000)


def _price(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02}"


def _size(lots: int) -> str:
    return f"{lots // 10**_LOT}.{lots % 10**_LOT:0{_LOT}}"


# ---------------------------------------------------------------------- encoding

_SYMBOL, _LOWER, _NUMBER, _TIME, _MILLIS = "@S", "@L", "@N", "@T", "@M"
# What each mark is replaced by: a place in the fields (symbol, lower, number, time, milliseconds).
_FIELDS: Final = (_SYMBOL, _LOWER, _NUMBER, _TIME, _MILLIS)
_WIDTHS: Final = {_NUMBER: 10, _TIME: 19, _MILLIS: 13}

Fields = tuple[bytes, bytes, bytes, bytes, bytes]


class Encoded:
    """One frame but for its fields. `encode` gives the bytes that go on the wire."""

    __slots__ = ("_places", "_row")

    def __init__(self, text: str, symbol_bytes: int, *, framed: bool = True) -> None:
        """text: with marks. symbol_bytes: length of every symbol. framed: with websocket header."""
        pieces: list[str] = [""]
        places: list[int] = []
        widths = {**_WIDTHS, _SYMBOL: symbol_bytes, _LOWER: symbol_bytes}
        size = 0
        rest = text
        while rest:
            at = rest.find("@")
            mark = rest[at : at + 2]
            if at < 0:
                pieces[-1] += rest
                break
            if mark not in widths:  # an @ of the venue's own
                pieces[-1] += rest[: at + 1]
                rest = rest[at + 1 :]
                continue
            pieces[-1] += rest[:at]
            pieces.append("")
            places.append(_FIELDS.index(mark))
            size += widths[mark]
            rest = rest[at + 2 :]
        size += sum(map(len, pieces))
        self._places = places
        self._row: list[bytes] = [b""] * (2 * len(pieces) - 1)
        self._row[0::2] = [piece.encode() for piece in pieces]
        if framed:
            self._row[0] = header(size) + self._row[0]

    def encode(self, fields: Fields) -> bytes:
        row = self._row
        row[1::2] = [fields[place] for place in self._places]
        return b"".join(row)


def header(size: int) -> bytes:
    """Return the header of an unmasked, final text frame (RFC 6455 section 5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


class Dialect(Protocol):
    """A venue's way of saying what happens."""

    def symbol(self, number: int) -> str: ...
    def split(self, stream: str) -> tuple[Kind, str] | None:
        """Return kind and symbol of a stream's name, None when it is none."""

    def event(self, kind: Kind, event: Event) -> str: ...
    def snapshot(self, state: State) -> str | None:
        """What the venue sends on subscribing to a book; None = nothing."""

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        """Return path and body of the REST answer that lists the instruments."""

    def depth(self, state: State) -> tuple[str, str] | None:
        """Return path and body (with marks) of the REST book snapshot, None = it has none."""

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        """Return (subscribe?, streams) of a client's message, None for anything else."""

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]: ...


class SimulatedDialect:
    """feeds/simulated.py documents it."""

    def symbol(self, number: int) -> str:
        return f"S{number:05}-USD"

    def split(self, stream: str) -> tuple[Kind, str] | None:
        kind, _, symbol = stream.partition(":")
        match kind:
            case "trade" | "quote" | "book":
                return kind, symbol
        return None

    def event(self, kind: Kind, event: Event) -> str:
        if kind == "trade":
            side = "buy" if event.is_buy else "sell"
            return (
                f'{{"ch":"trade","s":"@S","t":@T,"i":@N,"p":"{event.price}","q":"{event.size}",'
                f'"m":"{side}"}}'
            )
        if kind == "quote":
            bid, bid_size, ask, ask_size = event.quote
            return (
                f'{{"ch":"quote","s":"@S","t":@T,"u":@N,"b":["{bid}","{bid_size}"],'
                f'"a":["{ask}","{ask_size}"]}}'
            )
        return (
            f'{{"ch":"book","s":"@S","t":@T,"U":@N,"u":@N,"b":{_json(event.bids)},'
            f'"a":{_json(event.asks)}}}'
        )

    def snapshot(self, state: State) -> str | None:
        bids, asks = state.levels()
        return f'{{"ch":"snapshot","s":"@S","t":@T,"u":@N,"b":{_json(bids)},"a":{_json(asks)}}}'

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        listed = [
            {
                "symbol": symbol,
                "base": symbol.partition("-")[0],
                "quote": symbol.partition("-")[2],
                "tick_size": TICK_SIZE,
                "lot_size": LOT_SIZE,
                "trading": True,
            }
            for symbol in symbols
        ]
        return "/instruments", orjson.dumps({"instruments": listed})

    def depth(self, state: State) -> tuple[str, str] | None:
        return None

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        match message:
            case {"op": "subscribe" | "unsubscribe" as operation, "streams": [*streams]}:
                return operation == "subscribe", streams
        return None

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]:
        answers = [orjson.dumps({"op": "ack", "streams": good})] if good else []
        if bad:
            text = "no such stream"
            answers.append(orjson.dumps({"op": "error", "streams": bad, "text": text}))
        return answers


_BINANCE_KINDS: Final[dict[str, Kind]] = {"trade": "trade", "bookTicker": "quote", "depth": "book"}


class BinanceDialect:
    """The shapes of Binance spot's combined streams, for benchmarks."""

    def symbol(self, number: int) -> str:
        return f"S{number:05}USD"

    def split(self, stream: str) -> tuple[Kind, str] | None:
        symbol, _, name = stream.partition("@")
        kind = _BINANCE_KINDS.get(name.partition("@")[0])
        return None if kind is None else (kind, symbol.upper())

    def event(self, kind: Kind, event: Event) -> str:
        if kind == "trade":
            maker = "false" if event.is_buy else "true"
            return (
                '{"stream":"@L@trade","data":{"e":"trade","E":@M,"s":"@S","t":@N,'
                f'"p":"{event.price}000000","q":"{event.size}0000","T":@M,"m":{maker},"M":true}}}}'
            )
        if kind == "quote":
            bid, bid_size, ask, ask_size = event.quote
            return (
                '{"stream":"@L@bookTicker","data":{"u":@N,"s":"@S",'
                f'"b":"{bid}000000","B":"{bid_size}0000",'
                f'"a":"{ask}000000","A":"{ask_size}0000"}}}}'
            )
        return (
            '{"stream":"@L@depth@100ms","data":{"e":"depthUpdate","E":@M,"s":"@S","U":@N,"u":@N,'
            f'"b":{_json(event.bids)},"a":{_json(event.asks)}}}}}'
        )

    def snapshot(self, state: State) -> str | None:
        return None

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": TICK_SIZE},
            {"filterType": "LOT_SIZE", "stepSize": LOT_SIZE, "maxQty": "9000.0000"},
        ]
        listed = [
            {
                "symbol": symbol,
                "status": "TRADING",
                "baseAsset": symbol[:-3],
                "baseAssetPrecision": 8,
                "quoteAsset": symbol[-3:],
                "quotePrecision": 8,
                "quoteAssetPrecision": 8,
                "filters": filters,
            }
            for symbol in symbols
        ]
        return "/api/v3/exchangeInfo", orjson.dumps({"symbols": listed})

    def depth(self, state: State) -> tuple[str, str] | None:
        bids, asks = state.levels()
        body = f'{{"lastUpdateId":@N,"bids":{_json(bids)},"asks":{_json(asks)}}}'
        return "/api/v3/depth", body

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        match message:
            case {"method": "SUBSCRIBE" | "UNSUBSCRIBE" as method, "params": [*streams]}:
                return method == "SUBSCRIBE", streams
        return None

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]:
        if bad:
            error = {"code": 2, "msg": f"Invalid request: unknown stream {bad[0]}"}
            return [orjson.dumps({"error": error, "id": message.get("id")})]
        return [orjson.dumps({"result": None, "id": message.get("id")})]


DIALECTS: Final[dict[DialectName, Callable[[], Dialect]]] = {
    "simulated": SimulatedDialect,
    "binance": BinanceDialect,
}


@dataclass(slots=True)
class Book:
    """Walks of one dialect, encoded when they are first needed."""

    dialect: Dialect
    shape: Shape
    symbol_bytes: int
    walks: list[Walk]
    _events: dict[tuple[int, Kind], list[Encoded]] = field(default_factory=dict)
    _snapshots: dict[tuple[int, int], Encoded | None] = field(default_factory=dict)

    def events(self, walk: int, kind: Kind) -> list[Encoded]:
        """Return the encoded events of one kind, in order."""
        found = self._events.get((walk, kind))
        if found is None:
            found = self._events[walk, kind] = [
                Encoded(self.dialect.event(kind, event), self.symbol_bytes)
                for event in self.walks[walk].events
            ]
        return found

    def snapshot(self, walk: int, place: int) -> Encoded | None:
        """Return the encoded snapshot of the state after event `place`."""
        if (walk, place) not in self._snapshots:
            text = self.dialect.snapshot(self.walks[walk].states[place])
            self._snapshots[walk, place] = (text and Encoded(text, self.symbol_bytes)) or None
        return self._snapshots[walk, place]


def make_book(name: DialectName, shape: Shape, seed: int) -> Book:
    """Return the walks of a dialect. seed: the same gives the same."""
    dialect = DIALECTS[name]()
    walks = [make_walk(seed * 1_000 + number, shape) for number in range(shape.walks)]
    return Book(dialect, shape, len(dialect.symbol(0)), walks)
