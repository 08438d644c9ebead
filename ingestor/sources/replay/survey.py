"""The first pass over a recording of others, which does not say what it carries.

What is kept is which symbols and channels each connection carries, how many digits the numbers
have, and the instruments that the recording's own REST answers list.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ingestor.adapter import BookOffer, FeedAdapter, TellsMarkets
from ingestor.adapter.addresses import markets_at
from ingestor.adapter.instrument_list import entries_of, read_entries
from ingestor.model.errors import ConfigError, DecodeError, VenueError
from ingestor.model.instruments import Instrument
from ingestor.recording.format import Connect, Connection, Http, Line, Recv, Send
from ingestor.recording.reader import KeptLines, Problems, SegmentChain, read_lines
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.market_reading import MarketReading, Route
from ingestor.sources.replay.requests import matches, snapshot_symbol

_NAMED_MAX: Final = 12


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
    chain: SegmentChain,
    adapter: type[FeedAdapter],
    market: str,
    kept: KeptLines | None = None,
    *,
    is_shared: bool = False,
) -> Survey:
    """Read a foreign recording once. Frames that can't be decoded are passed over.

    Args:
        chain: the recording.
        adapter: of its venue.
        market: of connections whose addresses don't say theirs; those of other markets are left
            out. "" = all, and every address must say.
        kept: keeps lines for whoever reads them next.
        is_shared: symbols of other markets of the address are left out, else they are taken for the
            market's.

    Raises:
        UntoldMarket: where a connection's market can't be told.
    """
    surveyor = _Surveyor(chain, adapter, market, is_shared=is_shared)
    for path in chain.files:
        for lines in kept.read(path) if kept is not None else read_lines(path, Problems()):
            surveyor.take(lines)
    return surveyor.finish()


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
        self._readings: dict[str, MarketReading] = {}
        self._routes: dict[Connection, Route | None] = {}
        self._untold: dict[Connection, list[str]] = {}  # what their addresses leave open
        self._answers: dict[str, Http] = {}  # the last one to each request
        self._requests = [
            (name, request)
            for name in adapter.markets
            for request in adapter.instrument_requests(name)
        ]
        if not market and len(adapter.markets) == 1:
            self._market = next(iter(adapter.markets))

    def take(self, lines: Sequence[Line]) -> None:
        """Take the lines that follow."""
        routes = self._routes
        for line in lines:
            if type(line) is Recv:
                route = routes.get(line.conn) or self._route(line.conn)
                if route is not None:
                    data = line.data
                    payload = data.encode() if data is not None else line.payload
                    route.take((route, payload, line.ts_ns))
                continue
            match line:
                case Send():
                    self._sent(line)
                case Connect():
                    self._connect(line)
                case Http():
                    self._answers[line.url] = line
        for reading in self._readings.values():
            reading.decode()

    def finish(self) -> Survey:
        found = self._survey
        for line in self._answers.values():
            self._take_snapshot(line)
        symbols = {symbol for reading in self._readings.values() for symbol in reading.symbols}
        for line in self._answers.values():
            self._take_list(line, symbols)
        for market, reading in self._readings.items():
            for symbol, digits in reading.digits():
                found.digits[market, symbol] = digits
            if found.found:
                for symbol in reading.quiet():
                    found.digits.setdefault((market, symbol), (Digits(8), Digits(8)))
            for connection, pairs in reading.carried().items():
                subscriptions = found.subscriptions.setdefault(connection, [])
                subscriptions += [pair for pair in pairs if pair not in subscriptions]
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
        self._routes.pop(line.conn, None)
        if len(told) == 1 and not self._market:
            self._survey.markets[line.conn] = told[0]
        elif self._market:
            self._survey.markets[line.conn] = (
                self._market if self._market in told or not told else ""
            )
        else:
            self._untold[line.conn] = told or list(self._adapter.markets)

    def _sent(self, line: Send) -> None:
        route = self._route(line.conn)
        if route is not None:
            route.reading.decode()
            route.reading.forms.asked(line.conn, route.adapter, line.payload)

    def _route(self, connection: Connection) -> Route | None:
        """Return what takes a connection's frames; None where its market is not wanted."""
        if connection in self._routes:
            return self._routes[connection]
        market = self._survey.markets.get(connection)
        if market is None:
            market = self._survey.markets[connection] = self._market_of(connection)
        route = self._reading(market).route(connection) if market else None
        self._routes[connection] = route
        return route

    def _market_of(self, connection: Connection) -> str:
        """Return the market of a connection that no address told."""
        if self._market:
            return self._market
        return self._untold.setdefault(connection, list(self._adapter.markets))[0]

    def _reading(self, market: str) -> MarketReading:
        reading = self._readings.get(market)
        if reading is None:
            may_be = partial(may_be_of, self._adapter, market) if self._is_shared else None
            reading = self._readings[market] = MarketReading(self._adapter, market, may_be)
        return reading

    def _take_list(self, line: Http, symbols: Container[str]) -> None:
        """Take an answer, if it is a list of instruments. symbols: those that are wanted."""
        told = markets_at(self._adapter, line.url)
        for market, request in self._requests:
            if (not told or market in told) and matches(line.url, request):
                with suppress(VenueError, DecodeError):
                    entries = entries_of(self._adapter, market, line.payload)
                    wanted = (entry for entry in entries if self._is_of(market, entry, symbols))
                    listed = read_entries(self._adapter, market, wanted).instruments
                    for instrument in listed:
                        self._survey.listed[market, instrument.symbol] = instrument

    def _is_of(self, market: str, entry: object, symbols: Container[str]) -> bool:
        """Say whether an entry of a market's list is of one of these symbols."""
        with suppress(Exception):  # an entry that can't be read lists nothing
            listing = self._adapter.listing(market, entry)
            return listing is not None and listing.symbol in symbols
        return False

    def _take_snapshot(self, line: Http) -> None:
        """Take an answer, if it is a book."""
        told = markets_at(self._adapter, line.url)
        for market, reading in self._readings.items():
            if told and market not in told:
                continue
            for reader in reading.readers:
                if symbol := snapshot_symbol(reader, line.url):
                    reading.take_snapshot(reader, symbol, line.payload, line.ts_ns)
                    break

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


def may_be_of(adapter: type[FeedAdapter], market: str, symbol: str) -> bool:
    """Return False if a symbol is of another market than a connection's.

    Args:
        adapter: Its venue.
        market: The connection's.
        symbol: The venue's own name.
    """
    return not issubclass(adapter, TellsMarkets) or adapter.is_of_market(market, symbol)
