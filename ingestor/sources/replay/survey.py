"""The first pass over a recording of others, which does not say what it carries.

Every frame is decoded with every symbol taken as known; what is kept is which symbols and channels
each connection carries, how many digits the numbers have, and the instruments that the recording's
own REST answers list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np

from ingestor.adapter import (
    BookOffer,
    FeedAdapter,
    TellsMarkets,
    parse_levels,
)
from ingestor.adapter.addresses import markets_at
from ingestor.adapter.instrument_list import read_list
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.narrowing import DEFERRED_WIDTH
from ingestor.columns.sealing import read_deferred
from ingestor.model.errors import ConfigError, DecodeError, VenueError
from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.model.row_classes import Exponent, RowClass
from ingestor.model.rows import Flag
from ingestor.recording.format import Connect, Connection, Http, Line, Recv, Send
from ingestor.recording.reader import Problems, SegmentChain, read_lines
from ingestor.sources.replay.book_forms import BookForms
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.requests import matches, snapshot_symbol

_UNREAD_MAX: Final = 2_000  # events whose digits are read together
_TEXTS_MAX: Final = 5_000  # distinct numbers of a column that wait to be looked at
_NAMED_MAX: Final = 12


class Finder(dict[str, int]):
    """A symbol table that knows every symbol, and keeps which were asked for."""

    def __init__(self, may_be: Callable[[str], bool] = lambda symbol: True) -> None:
        """may_be: says of a symbol whether it may be of the market."""
        super().__init__()
        self._may_be = may_be

    def __missing__(self, symbol: str) -> int:
        if not self._may_be(symbol):
            raise KeyError(symbol)
        self[symbol] = len(self)
        return self[symbol]

    def __contains__(self, symbol: object) -> bool:
        return isinstance(symbol, str) and self._may_be(symbol)

    def get(self, symbol: str, default: Any = None) -> Any:  # knows every symbol
        return self[symbol] if self._may_be(symbol) else default


@dataclass(slots=True)
class _Column:
    """The numbers of one symbol: their digits, and the texts that wait to be looked at."""

    digits: Digits = field(default_factory=Digits)
    texts: set[object] = field(default_factory=set)

    def look(self) -> None:
        self.digits.see_all(self.texts)
        self.texts.clear()


class Probe(ColumnBuffer):
    """A buffer that keeps no rows: only which channels an instrument has, and its digits.

    Read `prices` and `sizes` after `read`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[RowClass, list[Any]] = {}
        self._columns: dict[int, tuple[_Column, _Column]] = {}
        self.channels: dict[tuple[int, str], None] = {}
        self.image_levels = -1

    @property
    def prices(self) -> dict[int, Digits]:
        return {number: columns[0].digits for number, columns in self._columns.items()}

    @property
    def sizes(self) -> dict[int, Digits]:
        return {number: columns[1].digits for number, columns in self._columns.items()}

    def _see(self, number: int, prices: Iterable[object], sizes: Iterable[object]) -> None:
        columns = self._columns.get(number)
        if columns is None:
            columns = self._columns[number] = _Column(), _Column()
        for column, texts in zip(columns, (prices, sizes), strict=True):
            with suppress(TypeError):  # a number that is an array or an object
                column.texts.update(texts)
            if len(column.texts) > _TEXTS_MAX:
                column.look()

    def _see_book(
        self,
        number: int,
        bids: Sequence[Sequence[object]],
        asks: Sequence[Sequence[object]],
        flags: object,
    ) -> None:
        """Note a book's event. image_levels: levels a side of an image, 0 for none, -1 = no book
        yet in this frame."""
        is_image = isinstance(flags, int) and flags & Flag.SNAPSHOT
        levels = max(len(bids), len(asks)) if is_image else 0
        self.image_levels = max(self.image_levels, levels)
        self.channels[number, "book"] = None
        for side in (bids, asks):
            self._see(number, [pair[0] for pair in side], [pair[1] for pair in side])

    def levels(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        first: int,
        last: int,
        bids: Sequence[Sequence[object]],
        asks: Sequence[Sequence[object]],
        previous: int = 0,
        flags: int = 0,
        *_: object,
        **__: object,
    ) -> None:
        """Take note of the digits of a book event; the arguments are those of
        `ColumnBuffer.levels`.

        Args:
            instrument: Number of the instrument.
            ts_event: Not used.
            ts_recv: Not used.
            first: Not used.
            last: Not used.
            bids: Levels that begin with price text and size text.
            asks: As `bids`.
            previous: Not used.
            flags: Bits of `Flag`.
            *_: Not used.
            **__: Not used.
        """
        self._see_book(instrument, bids, asks, flags)

    def json_levels(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        first: int,
        last: int,
        bids: bytes,
        asks: bytes,
        previous: int = 0,
        flags: int = 0,
        *_: object,
        **__: object,
    ) -> bool:
        """Take note of the digits of a book event whose sides are JSON.

        Args:
            instrument: Number of the instrument.
            ts_event: Not used.
            ts_recv: Not used.
            first: Not used.
            last: Not used.
            bids: JSON array of pairs of plain decimal text.
            asks: As `bids`.
            previous: Not used.
            flags: Bits of `Flag`.
            *_: Not used.
            **__: Not used.
        """
        self._see_book(instrument, parse_levels(bids), parse_levels(asks), flags)
        return True

    def hole(self, *_: object, **__: object) -> None:
        return

    def settle(self) -> None:
        """A frame was decoded: note whose rows it brought. Their digits are read for
        many frames at once."""
        if self.kept_trades:
            self._keep(RowClass.TRADE, self.kept_trades)
            self.kept_trades = []
        if self.kept_quotes:
            self._keep(RowClass.QUOTE, self.kept_quotes)
            self.kept_quotes = []
        for row_class, kept in self.kept_rows.items():
            self._keep(row_class, kept)
        self.kept_rows.clear()

    def _keep(self, row_class: RowClass, kept: list[Any]) -> None:
        for number in kept[2::DEFERRED_WIDTH]:
            self.channels[number, row_class.channel] = None
        unread = self._unread.setdefault(row_class, [])
        unread += kept
        if len(unread) >= _UNREAD_MAX * DEFERRED_WIDTH:
            self._read(row_class, unread)

    def _read(self, row_class: RowClass, kept: list[Any]) -> None:
        """Read the numbers of kept rows."""
        part, texts, _ = read_deferred(row_class, kept, [])
        kept.clear()
        units = row_class.exponents
        numbers = part.rows["instrument"]
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number).tolist()
            of_unit: dict[Exponent, list[object]] = {unit: [] for unit in Exponent}
            for place, unit in enumerate(units):
                cells = [texts[row * len(units) + place] for row in rows]
                of_unit[unit] += [text for text in cells if text is not None]
            self._see(number, of_unit[Exponent.PRICE], of_unit[Exponent.SIZE])

    def read(self) -> None:
        """Read what was kept so far."""
        for row_class, kept in self._unread.items():
            if kept:
                self._read(row_class, kept)
        for columns in self._columns.values():
            for column in columns:
                column.look()


@dataclass(slots=True)
class Survey:
    """Hold the findings of the first pass. markets: of each connection; "" where it is not wanted.

    subscriptions: (symbol, channel) by connection. digits: by (market, symbol). listed: instruments
    by (market, symbol), from the recording's own REST answers. offers: the form of books, by
    connection, where it isn't the venue's first.
    """

    markets: dict[Connection, str] = field(default_factory=dict)
    subscriptions: dict[Connection, list[tuple[str, str]]] = field(default_factory=dict)
    digits: dict[tuple[str, str], tuple[Digits, Digits]] = field(default_factory=dict)
    listed: dict[tuple[str, str], Instrument] = field(default_factory=dict)
    offers: dict[Connection, BookOffer] = field(default_factory=dict)

    @property
    def found(self) -> list[str]:
        """The markets that have frames."""
        return list(dict.fromkeys(market for market, _ in self.digits))


class UntoldMarket(ConfigError):
    """Nothing says of which market a connection is."""


def survey(
    chain: SegmentChain, adapter: type[FeedAdapter], market: str, *, is_shared: bool = False
) -> Survey:
    """Read a foreign recording once. Frames that can't be decoded are passed over.

    Args:
        chain: the recording.
        adapter: of its venue.
        market: of connections whose addresses don't say theirs; those of other markets are left
            out. "" = all, and every address must say.
        is_shared: symbols of other markets of the address are left out, else they are taken for the
        market's.

    Raises:
        UntoldMarket: where a connection's market can't be told.
    """
    surveyor = _Surveyor(chain, adapter, market, is_shared=is_shared)
    for path in chain.files:
        for lines in read_lines(path, Problems()):
            for line in lines:
                surveyor.take(line)
    return surveyor.finish()


@dataclass(slots=True)
class _Reading:
    """One market of a recording: its symbols, their numbers, and a reader of its REST answers.

    doubtful: symbols that came first in a frame that can't be decoded.
    """

    finder: Finder
    probe: Probe
    reader: FeedAdapter
    forms: BookForms
    doubtful: set[str] = field(default_factory=set)


class _Surveyor:
    """The first pass, line by line."""

    def __init__(
        self, chain: SegmentChain, adapter: type[FeedAdapter], market: str, *, is_shared: bool
    ) -> None:
        self._is_shared = is_shared
        self._chain = chain
        self._adapter = adapter
        self._market = market
        self._survey = Survey()
        self._readings: dict[str, _Reading] = {}
        self._adapters: dict[Connection, FeedAdapter] = {}
        self._carried: dict[Connection, set[tuple[int, str]]] = {}  # numbers and channels
        self._untold: dict[Connection, list[str]] = {}  # what their addresses leave open
        self._answers: dict[str, Http] = {}  # the last one to each request
        self._requests = [
            (name, request)
            for name in adapter.markets
            for request in adapter.instrument_requests(name)
        ]
        if not market and len(adapter.markets) == 1:
            self._market = next(iter(adapter.markets))

    def take(self, line: Line) -> None:
        match line:
            case Recv():
                self._frame(line)
            case Send():
                self._sent(line)
            case Connect():
                self._connect(line)
            case Http():
                self._answers[line.url] = line

    def finish(self) -> Survey:
        found = self._survey
        for line in self._answers.values():
            self._answer(line)
        for market, reading in self._readings.items():
            reading.probe.read()
            names = {number: symbol for symbol, number in reading.finder.items()}
            prices, sizes = reading.probe.prices, reading.probe.sizes
            for number, digits in prices.items():
                found.digits[market, names[number]] = digits, sizes[number]
            if found.found:
                for symbol in reading.finder.keys() - reading.doubtful:  # quiet ones too
                    found.digits.setdefault((market, symbol), (Digits(8), Digits(8)))
            found.offers |= reading.forms.finish()
        self._add_book_channels()
        if self._untold:
            self._complain()
        return found

    def _add_book_channels(self) -> None:
        """Let who has a book have all that is made of it."""
        for connection, subscriptions in self._survey.subscriptions.items():
            rule = self._adapter.markets[self._survey.markets[connection]].book
            books = [symbol for symbol, channel in subscriptions if channel == "book"]
            made = [(symbol, channel) for symbol in books for channel in rule.channels]
            subscriptions[:] = dict.fromkeys([*subscriptions, *made])

    def _connect(self, line: Connect) -> None:
        told = markets_at(self._adapter, line.url)
        self._adapters.pop(line.conn, None)
        if len(told) == 1 and not self._market:
            self._survey.markets[line.conn] = told[0]
        elif self._market:
            self._survey.markets[line.conn] = (
                self._market if self._market in told or not told else ""
            )
        else:
            self._untold[line.conn] = told or list(self._adapter.markets)

    def _frame(self, line: Recv) -> None:
        reading, adapter = self._reader_of(line.conn)
        if reading is None or adapter is None:
            return
        probe, payload = reading.probe, line.payload
        probe.begin(_NOBODY, b"")
        probe.image_levels = -1
        known = len(reading.finder)
        try:
            control = adapter.decode(payload, line.ts_ns, probe)
            if control is not None and reading.forms.answered(line.conn, adapter, payload, control):
                adapter.decode(payload, line.ts_ns, probe)
        except Exception:  # noqa: BLE001  # the second pass refuses the frame, and says why
            reading.doubtful.update(islice(reading.finder, known, None))
        if probe.image_levels >= 0:
            reading.forms.book(line.conn, probe.image_levels)
        probe.settle()
        if probe.channels:
            self._subscribe(line.conn, reading)

    def _sent(self, line: Send) -> None:
        reading, adapter = self._reader_of(line.conn)
        if reading is not None and adapter is not None:
            reading.forms.asked(line.conn, adapter, line.payload)

    def _reader_of(self, connection: Connection) -> tuple[_Reading | None, FeedAdapter | None]:
        """Return what reads a connection's frames; None where its market is not wanted."""
        market = self._survey.markets.get(connection)
        if market is None:
            market = self._survey.markets[connection] = self._market_of(connection)
        if not market:
            return None, None
        reading = self._reading(market)
        adapter = self._adapters.get(connection)
        if adapter is None:
            adapter = self._adapters[connection] = self._adapter(market, reading.finder)
        return reading, adapter

    def _market_of(self, connection: Connection) -> str:
        """Return the market of a connection that no address told."""
        if self._market:
            return self._market
        return self._untold.setdefault(connection, list(self._adapter.markets))[0]

    def _reading(self, market: str) -> _Reading:
        reading = self._readings.get(market)
        if reading is None:
            finder = Finder()
            if self._is_shared:
                finder = Finder(partial(may_be_of, self._adapter, market))
            forms = BookForms(self._adapter, market)
            reading = _Reading(finder, Probe(), self._adapter(market, finder), forms)
            self._readings[market] = reading
        return reading

    def _subscribe(self, connection: Connection, reading: _Reading) -> None:
        channels = reading.probe.channels
        known = self._carried.setdefault(connection, set())
        if not known.issuperset(channels):
            known.update(channels)
            symbols = list(reading.finder)
            subscriptions = self._survey.subscriptions.setdefault(connection, [])
            found = [(symbols[number], channel) for number, channel in channels]
            subscriptions += [pair for pair in found if pair not in subscriptions]
        channels.clear()

    def _answer(self, line: Http) -> None:
        told = markets_at(self._adapter, line.url)
        for market, request in self._requests:
            if (not told or market in told) and matches(line.url, request):
                with suppress(VenueError, DecodeError):
                    for listed in read_list(self._adapter, market, [line.payload]).instruments:
                        self._survey.listed[market, listed.symbol] = listed
        for market, reading in self._readings.items():
            symbol = snapshot_symbol(reading.reader, line.url)
            if symbol and (not told or market in told):
                reading.probe.begin(_NOBODY, b"")
                with suppress(Exception):
                    reading.reader.decode_snapshot(symbol, line.payload, line.ts_ns, reading.probe)
                reading.probe.channels.clear()

    def _complain(self) -> None:
        """Raises UntoldMarket, which names what was found."""
        carried: dict[str, None] = {}
        for connection in self._untold:
            for symbol, _ in self._survey.subscriptions.get(connection, ()):
                carried[symbol] = None
        if not carried and self._survey.found:
            return  # those that have data are told
        symbols = list(carried) or ["nothing that is known"]
        names = ", ".join(symbols[:_NAMED_MAX]) + (", ..." if symbols[_NAMED_MAX:] else "")
        choices = dict.fromkeys(name for open_ in self._untold.values() for name in open_)
        raise UntoldMarket(
            f"the recording does not say its market; it holds {names}",
            where=str(self._chain.files[0]),
            hint=f"say --market {' or '.join(choices)}",
        )


class _Nobody:
    def instruments(self, row_class: object) -> Sequence[int]:
        return ()

    def count_refused(self, reason: str) -> None:
        return


_NOBODY: Final = _Nobody()


def may_be_of(adapter: type[FeedAdapter], market: str, symbol: str) -> bool:
    """Return False if a symbol is of another market than a connection's.

    Args:
        adapter: Its venue.
        market: The connection's.
        symbol: The venue's own name.
    """
    return not issubclass(adapter, TellsMarkets) or adapter.is_of_market(market, symbol)


def inferred(
    venue: str, market: str, symbol: str, digits: tuple[Digits, Digits] | None
) -> Instrument:
    """Return an instrument of which only the digits of its numbers are known.

    Args:
        venue: Name of the venue.
        market: Name of the market.
        symbol: The venue's own name of it.
        digits: Those of prices and of sizes, None if it has shown none.
    """
    prices, sizes = digits or (Digits(8), Digits(8))
    tick, lot = (f"0.{'1':0>{of.exponent}}" if of.exponent else "1" for of in (prices, sizes))
    return instrument(venue, market, symbol, symbol, symbol, "", tick, lot)


def add_surveyed(found: Survey, venue: str, table: InstrumentTable) -> dict[str, list[str]]:
    """Give every symbol of a survey an instrument.

    Args:
        found: The survey.
        venue: Name of the venue.
        table: Takes the instruments.

    Returns:
        The symbols by their origin: "given" (in the table already), "recorded" (listed in the
        recording) or "inferred".
    """
    origins: dict[str, list[str]] = {"given": [], "recorded": [], "inferred": []}
    for (market, symbol), digits in found.digits.items():
        if symbol in table.symbols(venue, market):
            origins["given"].append(symbol)
            continue
        listed = found.listed.get((market, symbol)) or next(
            (one for (_, other), one in found.listed.items() if other == symbol), None
        )
        if listed is not None:
            table.add(_fitted(replace(listed, market=market), digits))
            origins["recorded"].append(symbol)
        else:
            table.add(inferred(venue, market, symbol, digits))
            origins["inferred"].append(symbol)
    return origins


def _fitted(one: Instrument, digits: tuple[Digits, Digits]) -> Instrument:
    """Give room for the digits seen."""
    return replace(
        one,
        price_exponent=digits[0].fitted(one.price_exponent),
        size_exponent=digits[1].fitted(one.size_exponent),
    )
