"""Reads the frames of one market of a foreign recording, with every symbol taken as known.

Frames are read many at once. Those that the compiled library takes with the digits that are usual
so far say nothing new but whose they are; the adapter decodes all others. A connection's frames go
through the adapter alone until the form of its books is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ingestor.adapter import FeedAdapter
from ingestor.adapter.shapes import shapes_of
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.narrowing import DEFERRED_WIDTH
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Flag, Rows
from ingestor.native import FrameTaker, Taken, TakenRows, as_printed, native
from ingestor.recording.format import Connection
from ingestor.sources.replay.book_forms import BookForms
from ingestor.sources.replay.column_digits import ColumnDigits
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.requests import readers_of_images

_ALONE_MAX: Final = 100  # frames without a book, after which a connection needs no more care
_PATIENCE: Final = 4  # frames for each symbol, until the library learns what changed

_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_HALF: Final = np.uint64(32)  # a connection and an instrument are joined in one word
_INSTRUMENT: Final = 2**32 - 1

Numbers = tuple[Digits, Digits]  # the digits of prices and sizes


class EverySymbol(Mapping[str, int]):
    """Numbers each symbol as it is asked for first: here every text is one that may be."""

    def __init__(self, may_be: Callable[[str], bool] | None = None) -> None:
        """may_be: says of a symbol whether it may be of the market; None = any may."""
        self._may_be = may_be
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def __getitem__(self, symbol: object) -> int:
        if not isinstance(symbol, str):
            raise KeyError(symbol)
        number = self._numbers.get(symbol)
        if number is None:
            if self._may_be is not None and not self._may_be(symbol):
                raise KeyError(symbol)
            number = self._numbers[symbol] = len(self.names)
            self.names.append(symbol)
        return number

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class Nobody:
    """A source of frames that carries nothing that is known."""

    def instruments(self, row_class: object) -> Sequence[int]:
        return ()

    def count_refused(self, reason: str) -> None:
        return


_NOBODY: Final = Nobody()


@dataclass(slots=True)
class Route:
    """One connection. adapter: its own. reading: of its market. number: of the connection there.

    take: takes a frame. alone: frames that were read alone.
    """

    connection: Connection
    adapter: FeedAdapter
    reading: MarketReading
    number: int
    take: Callable[[Frame], None]
    alone: int = 0


Frame = tuple[Route, bytes, int]  # payload, recorded time in ns


class MarketReading:
    """Keeps whose rows each connection brings, and their digits.

    readers: read images that came over REST. forms: the forms of books.
    """

    def __init__(
        self,
        adapter: type[FeedAdapter],
        market: str,
        may_be: Callable[[str], bool] | None = None,
    ) -> None:
        """Create the market reading.

        Args:
            adapter: Of the venue.
            market: Its name.
            may_be: As of `EverySymbol`.
        """
        self.forms = BookForms(adapter, market)
        self._symbols = EverySymbol(may_be)
        self._make = partial(adapter, market, self._symbols)
        self.readers = readers_of_images(adapter, market, self._symbols)
        self._buffer = ColumnBuffer()
        self._digits = ColumnDigits()
        self._taker: FrameTaker | None = None
        shapes, library = shapes_of(adapter, market), native().library
        if shapes and library is not None:
            self._taker = FrameTaker(library, as_printed(shapes), TakenRows())
        self._patience = 0  # frames, until the library learns what changed
        self._connections: dict[Connection, int] = {}
        self._carried: dict[tuple[int, str, int], None] = {}  # connection, channel, instrument
        self._waiting: list[Frame] = []
        self._doubtful: set[str] = set()  # came first in a frame that can't be decoded

    def route(self, connection: Connection) -> Route:
        """Return what takes a connection's frames from now on."""
        number = self._connections.setdefault(connection, len(self._connections))
        return Route(connection, self._make(), self, number, self._take_alone)

    def _take_alone(self, frame: Frame) -> None:
        """Read a frame of a connection whose books may have any form."""
        route = frame[0]
        self._read([frame])
        route.alone += 1
        if self.forms.is_settled(route.connection) or route.alone >= _ALONE_MAX:
            route.take = self._waiting.append

    def decode(self) -> None:
        """Read the frames that wait."""
        waiting = self._waiting[:]
        self._waiting.clear()
        if self.forms.offers:  # shapes are those of the first form
            plain = [frame for frame in waiting if self.forms.is_plain(frame[0].connection)]
            if plain:
                self._read(plain)
                waiting = [
                    frame for frame in waiting if not self.forms.is_plain(frame[0].connection)
                ]
        if waiting:
            self._read(waiting, self._taker)

    def take_snapshot(self, reader: FeedAdapter, symbol: str, body: bytes, ts_recv: int) -> None:
        """Take an answer to a request for a book.

        Args:
            reader: One of `readers`.
            symbol: Whose book.
            body: The answer.
            ts_recv: Recorded time in ns.
        """
        self._buffer.begin(_NOBODY, body)
        with suppress(Exception):  # the second pass refuses it, and says why
            reader.decode_snapshot(symbol, body, ts_recv, self._buffer)
        self._digits.take(self._buffer.take_out())

    @property
    def symbols(self) -> Sequence[str]:
        """Return the symbols that frames and answers named."""
        return self._symbols.names

    def digits(self) -> Iterator[tuple[str, Numbers]]:
        """Yield each symbol that has numbers, with their digits."""
        for number in self._digits.numbers:
            yield self._symbols.names[number], self._digits.of(number)

    def quiet(self) -> Iterator[str]:
        """Yield the symbols that frames and answers named, but for those in bad ones alone."""
        return (symbol for symbol in self.symbols if symbol not in self._doubtful)

    def carried(self) -> dict[Connection, list[tuple[str, str]]]:
        """Return symbols and channels by connection."""
        connections = list(self._connections)
        found: dict[Connection, list[tuple[str, str]]] = {}
        for number, channel, instrument in self._carried:
            pair = self._symbols.names[instrument], channel
            found.setdefault(connections[number], []).append(pair)
        return found

    def _read(self, frames: Sequence[Frame], taker: FrameTaker | None = None) -> None:
        """Read frames. taker: takes those with shapes."""
        routes, payloads, ts_recv = zip(*frames, strict=True)
        others: Iterable[int] = range(len(frames))
        if taker is not None:
            self._teach(taker, len(frames))
            others = [place for some in taker.take_each(payloads, ts_recv, 0) for place in some]
            self._note_taken(taker.rows.take_out(), routes)
        self._buffer.begin_many([_NOBODY] * len(frames), payloads)
        for place in others:
            self._decode(place, *frames[place])
        appended = self._buffer.take_out()
        self._digits.take(appended)
        for row_class, kept in appended.deferred:
            numbers, came_with = kept[2::DEFERRED_WIDTH], kept[4::DEFERRED_WIDTH]
            for instrument, frame in dict.fromkeys(zip(numbers, came_with, strict=True)):
                self._carried[routes[frame].number, row_class.channel, instrument] = None
        self._note_books(appended.updates, routes)

    def _decode(self, place: int, route: Route, payload: bytes, ts_recv: int) -> None:
        self._buffer.resume(place, payload)
        known = len(self._symbols)
        try:
            control = route.adapter.decode(payload, ts_recv, self._buffer)
            if control is not None and self.forms.answered(
                route.connection, route.adapter, payload, control
            ):
                route.adapter.decode(payload, ts_recv, self._buffer)
        except Exception:  # noqa: BLE001  # the second pass refuses the frame, and says why
            self._buffer.roll_back(place)
            self._doubtful.update(self.symbols[known:])

    def _teach(self, taker: FrameTaker, frames: int) -> None:
        """Let the library know what is usual now, but not for each of many symbols at once."""
        self._patience -= frames
        if self._digits.has_changed and self._patience <= 0:
            usual = self._digits.usual()
            names = self._symbols.names
            taker.set_symbols((names[known[0]], *known) for known in usual)
            self._patience = _PATIENCE * len(usual)

    def _note_taken(self, taken: Taken, routes: Sequence[Route]) -> None:
        self._digits.take_rows(taken)
        connections = np.array([route.number for route in routes], np.uint64)
        for row_class, rows, frames in (
            (RowClass.TRADE, taken.trades, taken.trade_frames),
            (RowClass.QUOTE, taken.quotes, taken.quote_frames),
        ):
            pairs = connections[frames] << _HALF | rows["instrument"]
            for pair in dict.fromkeys(pairs.tolist()):
                self._carried[pair >> 32, row_class.channel, pair & _INSTRUMENT] = None
        self._note_books(taken.updates, routes)

    def _note_books(self, updates: Rows, routes: Sequence[Route]) -> None:
        """Note whose books came, and how many levels a side their images have."""
        columns = (updates[name].tolist() for name in ("frame", "instrument", "flags"))
        levels = np.maximum(updates["bids"], updates["asks"]).tolist()
        largest: dict[Connection, int] = {}
        for frame, instrument, flags, count in zip(*columns, levels, strict=True):
            route = routes[frame]
            self._carried[route.number, RowClass.LEVEL.channel, instrument] = None
            size = count if flags & _SNAPSHOT else 0
            largest[route.connection] = max(largest.get(route.connection, 0), size)
        for connection, size in largest.items():
            self.forms.book(connection, size)
