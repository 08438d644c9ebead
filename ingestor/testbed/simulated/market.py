"""Make the events of the simulated venue, and frames encoded beforehand, all but a few fields.

A walk is a seeded random market of n states that are gone through forward and back, so that it
repeats without a seam: numbers go up for ever, the book returns to where it began, and it is never
crossed. Sending an event is one `bytes.join` around symbol, number and time, all of fixed width;
the websocket header is part of the first piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from random import Random
from typing import Final

Level = tuple[str, str]
Levels = Sequence[Level]

NUMBER_FIRST: Final = 1_000_000_000  # ten digits, and so they stay
_LOT: Final = 4  # decimals of a size
# As recorded: one in seven to one in thirteen book updates moves the best price (four recordings of
# one venue, spot and futures); of their levels 3 to 86 % come or go, fewer where they are few.
_MOVES: Final = 0.1
_RENEWED: Final = 0.3
TICK_SIZE: Final = "0.01"
LOT_SIZE: Final = "0.0001"


@dataclass(frozen=True, slots=True)
class Shape:
    """levels: price levels in an update. depth: price levels on each side of a book. states: of a
    walk, before it turns back. walks: different ones, shared by all symbols.
    """

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
        bids = [
            (_price(level), _size(self.bids[level])) for level in sorted(self.bids, reverse=True)
        ]
        asks = [(_price(level), _size(self.asks[level])) for level in sorted(self.asks)]
        return bids, asks


@dataclass(slots=True)
class Event:
    """Describe how one state follows another: the book's delta, its best levels after it, and a
    print.
    """

    bids: Levels
    asks: Levels
    quote: tuple[str, str, str, str]
    price: str
    size: str
    is_buy: bool


@dataclass(slots=True)
class PriceWalk:
    """states[k] is the book after events[k]; events[0] follows the last one."""

    states: list[State]
    events: list[Event]

    def __len__(self) -> int:
        return len(self.events)


def make_walk(seed: int, shape: Shape) -> PriceWalk:
    """Return the same walk for the same arguments."""
    random = Random(seed)
    middle = random.randrange(5_000, 900_000)
    window = range(2 * shape.depth)  # every other tick has a level, on average
    state = State(
        {middle - 1 - place: _lots(random) for place in random.sample(window, shape.depth)},
        {middle + place: _lots(random) for place in random.sample(window, shape.depth)},
    )
    forward = [state]
    for _ in range(shape.states - 1):
        state = _next(state, shape, random)
        forward.append(state)
    states = forward + forward[-2:0:-1]
    return PriceWalk(states, [_event(states[k - 1], states[k], random) for k in range(len(states))])


def _next(state: State, shape: Shape, random: Random) -> State:
    """Move the best price, sometimes; let some levels come and go, change the sizes of others."""
    bids, asks = dict(state.bids), dict(state.asks)
    moves = random.random() < _MOVES
    if moves and random.random() < 0.5:
        price = min(asks)
        del asks[price], bids[min(bids)]
        bids[price] = _lots(random)
        asks[max(asks) + 1] = _lots(random)
    elif moves:
        price = max(bids)
        del bids[price], asks[max(asks)]
        asks[price] = _lots(random)
        bids[min(bids) - 1] = _lots(random)
    changes = max(1, (shape.levels - 4 * moves) // 2)
    for side in (bids, asks):
        _change(side, max(side) if side is bids else min(side), changes, random)
    return State(bids, asks)


def _change(side: dict[int, int], best: int, changes: int, random: Random) -> None:
    """Change so many levels of a side, which keeps its best price and its depth."""
    gaps = sorted({*range(min(side), max(side))} - side.keys())
    worse = sorted(side.keys() - {best})
    renewed = min(round(changes * _RENEWED / 2), len(gaps), len(worse))
    gone = random.sample(worse, renewed)
    kept = sorted(side.keys() - {*gone})
    for price in random.sample(kept, min(changes - 2 * renewed, len(kept))):
        side[price] = _lots(random)
    for price in gone:
        del side[price]
    for price in random.sample(gaps, renewed):
        side[price] = _lots(random)


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
    return [(_price(level), _size(after.get(level, 0))) for level in (*gone, *changed)]


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

    __slots__ = ("_pick", "_row")

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
        self._pick = _picker(places)
        self._row: list[bytes] = [b""] * (2 * len(pieces) - 1)
        self._row[0::2] = [piece.encode() for piece in pieces]
        if framed:
            self._row[0] = header(size) + self._row[0]

    def encode(self, fields: Fields) -> bytes:
        row = self._row
        row[1::2] = self._pick(fields)
        return b"".join(row)


def _picker(places: Sequence[int]) -> Callable[[Fields], Sequence[bytes]]:
    """Return what takes the fields at these places; an itemgetter of one has no sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda fields: [fields[place] for place in places]


def header(size: int) -> bytes:
    """Return the header of an unmasked, final text frame (RFC 6455 section 5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")
