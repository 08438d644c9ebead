"""Define the emulator's view of a venue, and the order book that both speak about.

A stream has the name under which a client subscribes to it, as text: `btcusdt@depth@100ms` where
the venue has such names, else channel and symbol joined by a colon. A frame is parsed with the
digits of its numbers kept: non-integer numbers are text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import msgspec
import orjson

from ingestor.adapter import FeedAdapter
from ingestor.adapter.addresses import markets_at

LevelTexts = Sequence[tuple[str, str]]  # price, size
Print = tuple[str, str, str]  # symbol, price, size: somewhere in a frame

parse: Final = msgspec.json.Decoder(float_hook=str).decode


@dataclass(slots=True)
class Change:
    """Describe what a frame does to one book.

    first, number: first and last update number, 0 = none. depth_max: levels a side beyond which
    the venue forgets, said by an image.
    """

    stream: str
    symbol: str
    is_image: bool
    bids: LevelTexts
    asks: LevelTexts
    first: int = 0
    number: int = 0
    depth_max: int | None = None
    details: Any = None  # the part of the frame that an image made of the book takes over


@dataclass(slots=True)
class Book:
    """A book at the current position of playback, with the texts of the venue."""

    symbol: str = ""
    number: int = 0
    depth_max: int | None = None
    details: Any = None
    _bids: dict[Decimal, tuple[str, str]] = field(default_factory=dict)
    _asks: dict[Decimal, tuple[str, str]] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Raises decimal.InvalidOperation for what is no number."""
        if change.is_image:
            self._bids.clear()
            self._asks.clear()
            self.depth_max = change.depth_max
        for side, levels in ((self._bids, change.bids), (self._asks, change.asks)):
            for price, size in levels:
                if Decimal(size):
                    side[Decimal(price)] = (price, size)
                else:
                    side.pop(Decimal(price), None)
        if self.depth_max is not None:
            for worst in sorted(self._bids)[: -self.depth_max]:
                del self._bids[worst]
            for worst in sorted(self._asks)[self.depth_max :]:
                del self._asks[worst]
        self.symbol, self.number, self.details = change.symbol, change.number, change.details

    def __len__(self) -> int:
        return len(self._bids) + len(self._asks)

    def bids(self, depth: int | None = None) -> list[tuple[str, str]]:
        """Best first."""
        return [self._bids[price] for price in sorted(self._bids, reverse=True)[:depth]]

    def asks(self, depth: int | None = None) -> list[tuple[str, str]]:
        """Best first."""
        return [self._asks[price] for price in sorted(self._asks)[:depth]]


@dataclass(frozen=True, slots=True)
class Listed:
    """Hold a list's entry of one instrument; increments are decimal text."""

    symbol: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    known: Mapping[str, Any]  # `Instrument.to_json`, empty where nothing but digits is known

    @property
    def price_decimals(self) -> int:
        """Return the decimals that a client must take: from our recorder, or from the digits."""
        return int(self.known.get("price_exponent", len(self.tick_size.partition(".")[2])))

    @property
    def size_decimals(self) -> int:
        return int(self.known.get("size_exponent", len(self.lot_size.partition(".")[2])))

    def of(self, name: str, default: str) -> str:
        return str(self.known.get(name) or default)


class RestReply(NamedTuple):
    """The answer to a GET request."""

    status: int
    body: bytes


class BookRequest(NamedTuple):
    """Describe a GET request for a book. depth: levels a side, None = not a valid number."""

    symbol: str
    depth: int | None


class PastTrade(NamedTuple):
    """A trade that playback has passed. trade: the venue's own fields."""

    symbol: str
    number: int
    ts_ns: int  # the venue's time, since the epoch
    trade: Mapping[str, Any]


PastTrades = Mapping[str, Collection[PastTrade]]  # by symbol, oldest first


class VenueConnection(Protocol):
    """One client, as a venue sees it."""

    name: str  # of the connection, as venues put it into their answers
    path: str  # of the address it connected to, query included

    @property
    def subscribed(self) -> Collection[str]:
        """Streams by the names that the client used, in order."""

    def subscribe(self, stream: str) -> bool:
        """Return False when the recording knows no such symbol or channel, or can't serve it."""

    def offers(self, stream: str) -> bool:
        """Return what `subscribe` would."""

    def depth_of(self, stream: str) -> int | None:
        """Return the only depth in which a book can be had; None: any."""

    def unsubscribe(self, stream: str) -> bool:
        """Return False when it was not subscribed."""

    def has_symbol(self, symbol: str) -> bool:
        """Return whether the recording has frames of the symbol, or lists it."""


class Venue:
    """One exchange's manner of speaking. The defaults are what most of them do.

    name: the venue's, as in the configuration. adapter: its feed, which knows its addresses.
    shares_connection: all markets come on one connection, and are served as one, market "".
    recording_names: market by the name that recorders of others give it in their header.

    number: where the venue counts per connection, a pattern whose match is replaced by a client's
    own count. pads_digits: decimals are padded with zeros beyond the increment. refuses_unknown:
    a subscription to a symbol that doesn't exist is an error. always: streams that exist whatever
    was recorded. snapshots_by_rest: clients fetch the image of a book, it doesn't come on the
    socket. refused_book: the answer to a request for a book that can't be served.
    """

    name: str
    adapter: ClassVar[type[FeedAdapter] | None] = None
    shares_connection: ClassVar[bool] = False
    recording_names: ClassVar[Mapping[str, str]] = {}
    number: ClassVar[re.Pattern[bytes] | None] = None
    pads_digits: ClassVar[bool] = True
    refuses_unknown: ClassVar[bool] = True
    always: ClassVar[frozenset[str]] = frozenset()
    snapshots_by_rest: ClassVar[bool] = False
    refused_book: ClassVar[RestReply] = RestReply(HTTPStatus.NOT_FOUND, b"{}")

    # Recordings of others ------------------------------------------------------------------

    def market_at(self, url: str) -> str | None:
        """Return the market whose websocket host an address has; None: another venue's."""
        told = self.markets_at(url)
        if not told:
            return None
        return "" if self.shares_connection else told[0]

    def markets_at(self, url: str) -> list[str]:
        """Return the markets that an address may be of."""
        return markets_at(self.adapter, url) if self.adapter is not None else []

    def market_of_frame(self, message: Any) -> str | None:
        """Return the market that sends frames of this shape; None: the shape doesn't say."""
        return None

    # Recorded frames -----------------------------------------------------------------------

    def streams(self, message: Any) -> Iterable[str]:
        """Return the streams that a frame belongs to; none: it answers to a request, or beats.

        message: what the frame's JSON says, None where it is no JSON.
        """
        raise NotImplementedError

    def channel(self, stream: str) -> tuple[str, str]:
        """Return what a stream is, as (symbol, kind of channel).

        A subscription without a recorded stream of its name gets the one of equal symbol and kind.
        """
        kind, _, symbol = stream.partition(":")
        return symbol, kind

    def changes(self, message: Any) -> Iterator[Change]:
        """Yield what a frame does to books."""
        yield from ()

    def prints(self, message: Any) -> Iterator[Print]:
        """Yield prices and sizes whose digits tell an instrument's increments."""
        for change in self.changes(message):
            for price, size in (*change.bids, *change.asks):
                yield change.symbol, price, size

    def depths(self, message: Any) -> Iterator[tuple[str, int]]:
        """Yield books and the depth in which they were recorded, where a frame says it and the
        name of the stream doesn't.
        """
        yield from ()

    def trades(self, message: Any) -> Iterator[PastTrade]:
        """Yield the trades of a frame."""
        yield from ()

    def image(self, stream: str, book: Book) -> bytes | None:
        """Return the snapshot frame for who subscribes late; None: snapshots come by REST."""
        return None

    # Clients -------------------------------------------------------------------------------

    def opening(self, connection: VenueConnection, path: str) -> Iterator[bytes]:
        """Take the address a client connected to; yield what it hears at once."""
        yield from ()

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        """Take a client's frame; yield the answers."""
        raise NotImplementedError

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        """Return what a client that has heard nothing for a second hears."""
        return None

    def dress(self, payload: bytes, stream: str, connection: VenueConnection) -> bytes:
        """Return a recorded frame as this client's connection carries it.

        Args:
            payload: The frame's bytes.
            stream: Name of the stream.
            connection: The connection.
        """
        return payload

    # REST ----------------------------------------------------------------------------------

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        """Read a request for the image of a book; None: it asks for something else."""
        return None

    def rest_symbol(self, symbol: str) -> str:
        """Return a symbol of the socket as REST has it."""
        return symbol

    def read_book(self, symbol: str, body: bytes) -> Change | None:
        """Read a recorded answer to such a request; None: the venue refused."""
        return None

    def write_book(self, book: Book, depth: int) -> bytes:
        """Return the answer to such a request. depth: levels a side."""
        raise NotImplementedError

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin (times, currencies), as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: What the recording lists.

        Returns:
            None where no such thing is known.
        """
        return None

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON; None: it asks for something
        else.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        return None

    def lists_instruments_at(self, path: str) -> bool:
        """Return whether the feed asks this path for the instruments of some market."""
        return self.adapter is not None and any(
            request.path == path
            for market in self.adapter.markets
            for request in self.adapter.instrument_requests(market)
        )

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        raise NotImplementedError


class Verbatim(Venue):
    """A venue that the testbed has no module for: each client gets all frames as recorded.

    Answers of the venue are among the frames, so requests get no answer of their own.
    """

    refuses_unknown = False
    _EVERYTHING: Final = "*"

    def __init__(self, name: str) -> None:
        self.name = name

    def streams(self, message: Any) -> Iterable[str]:
        return (self._EVERYTHING,)

    def channel(self, stream: str) -> tuple[str, str]:
        return "", stream

    def opening(self, connection: VenueConnection, path: str) -> Iterator[bytes]:
        connection.subscribe(self._EVERYTHING)
        yield from ()

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        yield from ()


def request_of(text: bytes) -> dict[str, Any] | None:
    """Return what a text says when it is a JSON object."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) else None


def texts(value: Any) -> list[str] | None:
    """Return a list of texts when it is one and holds nothing else."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def pairs(levels: Any) -> list[tuple[str, str]]:
    """Return price and size of levels that may have more members."""
    return [(level[0], level[1]) for level in levels]


def now_ms() -> int:
    """Return the time as venues write it in REST answers, ms since the epoch."""
    return time.time_ns() // 1_000_000


def depth_asked(query: Mapping[str, str], name: str, default: int, largest: int) -> int | None:
    """Return the levels that a request for a book asks for; None where they are no number.

    Args:
        query: The request's parameters.
        name: Name of the parameter.
        default: Levels where it is absent.
        largest: Most levels.
    """
    text = query.get(name, str(default))
    return min(int(text), largest) if text.isdecimal() and text.isascii() else None


def now_text(timespec: str = "microseconds") -> str:
    """Return the time as venues write it: RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
