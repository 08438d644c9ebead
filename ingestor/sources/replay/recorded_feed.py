"""Make sessions of the instruments and connections that a recording names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ingestor.adapter import OTHER_MARKET, BookOffer, BookRule, FeedAdapter
from ingestor.adapter.addresses import markets_at
from ingestor.adapter.book_offers import adapter_with, choose, offer_named
from ingestor.adapter.contract import Subscription
from ingestor.decode.frame_queue import Arrive, FrameQueues
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.errors import MALFORMED, ConfigError, UnknownInstrument
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.recording.format import Connection, Header, Http, SubscriptionText
from ingestor.recording.reader import SegmentChain
from ingestor.sources.replay.requests import history_symbol, readers_of_images, snapshot_symbol
from ingestor.sources.replay.survey import Survey, may_be_of


class _Surveyed(Session):
    """A connection of others: its data said what it carries, and its requests had other numbers
    than an adapter gives them, so a refusal is of none of its streams.
    """

    __slots__ = ()

    def _refused(self, text: str, streams: Sequence[str]) -> None:
        self.pending.difference_update(streams)

    def _reject(self, payload: bytes, failure: Exception, ts_recv: int) -> None:
        """Refuse the current frame, or leave it out where it is of another market that shares the
        address.
        """
        is_other = isinstance(failure, UnknownInstrument) and not may_be_of(
            type(self.adapter), self.market, failure.symbol
        )
        if not is_other:
            super()._reject(payload, failure, ts_recv)
            return
        self._buffer.roll_back(self._buffer.frame)
        self.counts.leave_out(OTHER_MARKET)


class RecordedFeed:
    """One chain's sessions: made from its lines, or from a survey, as the lines come."""

    def __init__(
        self,
        chain: SegmentChain,
        adapter: type[FeedAdapter],
        market: str,
        table: InstrumentTable,
        frame_queues: FrameQueues,
    ) -> None:
        """market: of connections that don't say theirs; "" in a recording of several markets."""
        self.chain = chain
        self.adapter = adapter
        self.venue = adapter.venue
        self.market = market
        self.survey: Survey | None = None
        self.sessions: dict[Connection, Session] = {}
        self.receivers: dict[Connection, tuple[Arrive, Session]] = {}
        self._table = table
        self._frame_queues = frame_queues
        # Snapshots that came before a session: market, symbol, body, time.
        self._waiting: list[tuple[str, str, bytes, int]] = []
        self.changed_books: list[int] = []  # instruments whose books have another form now
        self._offers: dict[tuple[str, str], BookOffer | None] = {}  # by market and symbol

    def open(
        self,
        connection: Connection,
        market: str,
        ts_ns: int,
        subscriptions: Iterable[SubscriptionText],
        offer: BookOffer | None = None,
        lines: int = 1,
    ) -> Session:
        """Begin a connection; one of the same number that is still open ends.

        Args:
            connection: as the recording names it.
            market: "" for the feed's.
            ts_ns: when it began.
            subscriptions: what it carries.
            offer: the form of its books; None = as the streams have it.
            lines: how many connections carry its streams.
        """
        if connection in self.sessions:
            self.close(connection, ts_ns)
        market = market or self.market
        symbols = self._table.symbols(self.venue, market)
        subscriptions = list(subscriptions)
        offer = offer or self._offer_of(market, subscriptions)
        self._note_books(market, subscriptions, offer)
        adapter = adapter_with(self.adapter, market, symbols, offer)
        frame_queue = self._frame_queues.of(self.adapter, market, offer)
        session = (_Surveyed if self.chain.is_foreign else Session)(
            len(self.sessions),
            adapter,
            self._subscriptions(market, subscriptions),
            frame_queue.buffer,
            frame_queue.counts,
            SessionEvents(),
            market,
            frame_queue.decode,
            self._frame_queues.lines if lines > 1 else None,
        )
        for _ in session.opened():  # an adapter may count what it asks for
            pass
        self.sessions[connection] = session
        self.receivers[connection] = frame_queue.arrive, session
        for waiting in list(self._waiting):
            if waiting[0] == market and _carries(session, waiting[1]):
                session.snapshot(*waiting[1:])
                self._waiting.remove(waiting)
        return session

    def _subscriptions(self, market: str, texts: Iterable[SubscriptionText]) -> list[Subscription]:
        symbols = self._table.symbols(self.venue, market)
        return [
            Subscription(symbols[symbol], symbol, channel, stream)
            for symbol, channel, stream in texts
            if symbol in symbols
        ]

    def change_streams(
        self, connection: Connection, subscriptions: Iterable[SubscriptionText], ts_ns: int
    ) -> None:
        """Let an open connection carry other streams.

        Args:
            connection: The connection.
            subscriptions: Its streams from now on.
            ts_ns: Recorded time of the change.
        """
        session = self.sessions.get(connection)
        if session is not None:
            subscriptions = list(subscriptions)
            offer = self._offer_of(session.market, subscriptions)
            choose(session.adapter, offer)
            frame_queue = self._frame_queues.of(self.adapter, session.market, offer)
            self.receivers[connection] = frame_queue.arrive, session
            self._note_books(session.market, subscriptions, offer)
            session.change(self._subscriptions(session.market, subscriptions), ts_ns)

    def interrupt(self, connection: Connection, streams: Iterable[str], ts_ns: int) -> None:
        """Take note that streams of an open connection are subscribed to again.

        Args:
            connection: The connection.
            streams: Names of the streams.
            ts_ns: Recorded time of the subscription.
        """
        session = self.sessions.get(connection)
        if session is not None:
            session.interrupt(
                [stream for stream in session.streams if stream in set(streams)], ts_ns
            )

    def open_surveyed(self, connection: Connection, ts_ns: int) -> Session | None:
        """Begin a connection of a recording that does not say what it carries; return None where
        its market isn't wanted, or not known as it has no data.
        """
        market, pairs, offer = self.market, list[tuple[str, str]](), None
        if self.survey is not None:
            market = self.survey.markets.get(connection, market)
            pairs = self.survey.subscriptions.get(connection, [])
            offer = self.survey.offers.get(connection)
        if not market:
            return None
        names = adapter_with(self.adapter, market, {}, offer)
        subscriptions = [(one, channel, names.stream(channel, one)) for one, channel in pairs]
        return self.open(connection, market, ts_ns, subscriptions, offer)

    def rule_of(self, market: str, symbol: str) -> BookRule | None:
        """Return the rule of a symbol's book, by the newest connection that carries it."""
        key = market, symbol
        if key not in self._offers:
            return None
        return self.adapter.markets[market].rule_of(self._offers[key])

    def _offer_of(self, market: str, subscriptions: Iterable[SubscriptionText]) -> BookOffer | None:
        streams = [stream for _, channel, stream in subscriptions if channel == "book"]
        return offer_named(self.adapter, market, streams, are_books=True)

    def _note_books(
        self, market: str, subscriptions: Iterable[SubscriptionText], offer: BookOffer | None
    ) -> None:
        """Note the form of books; those that had another one must begin anew."""
        symbols = self._table.symbols(self.venue, market)
        for symbol, channel, _ in subscriptions:
            if channel == "book" and symbol in symbols:
                if self._offers.get((market, symbol), offer) != offer:
                    self.changed_books.append(symbols[symbol])
                self._offers[market, symbol] = offer

    def close(self, connection: Connection, ts_ns: int) -> None:
        session = self.sessions.pop(connection, None)
        self.receivers.pop(connection, None)
        if session is not None:
            session.closed(ts_ns)

    def header(self, header: Header) -> None:
        """A segment begins: bring the connections to what it says was open."""
        for item in header.connections:
            if item.conn not in self.sessions:
                self.open(
                    item.conn, item.market, header.ts_ns, item.subscriptions, lines=item.lines
                )
        open_now = {connection.conn for connection in header.connections}
        for connection in [session for session in self.sessions if session not in open_now]:
            self.close(connection, header.ts_ns)

    def add_instruments(self, rows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
        """Return the numbers of those that are new revisions, old -> new.

        Raises ValueError for what is no instrument.
        """
        try:
            instruments = [Instrument.from_json(row) for row in rows]
        except (LookupError, TypeError) as failure:
            raise ValueError(f"no instrument: {failure}") from None
        numbers = {}
        for instrument in instruments:
            old = self._table.symbols(instrument.venue, instrument.market).get(instrument.symbol)
            new = self._table.add(instrument)
            if old is not None and old != new:
                numbers[old] = new
        return numbers

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Some instruments have a new revision. numbers: old -> new."""
        for session in self.sessions.values():
            session.replace_instruments(numbers)

    def fetched(self, line: Http) -> bool:
        """A REST answer: a book snapshot, or lost trades; return whether it is that.

        Of ours, an answer to no connection is a list of instruments; those in force are said by
        headers, connects and decisions.
        """
        if not self.chain.is_foreign and line.conn is None:
            return False
        found = self._snapshot(line)
        if found is None:
            return self._history(line)
        self._seed(line, *found)
        return False

    def _history(self, line: Http) -> bool:
        session = self.sessions.get(line.conn) if line.conn is not None else None
        if session is None or self.chain.is_foreign:
            return False
        traded = [
            subscription.symbol
            for subscription in session.subscriptions
            if subscription.channel == "trades"
        ]
        symbol = history_symbol(session.adapter, line.url, traded)
        return symbol is not None and session.history(symbol, line.payload, line.ts_ns)

    def _seed(self, line: Http, market: str, symbol: str) -> None:
        session = self.sessions.get(line.conn) if line.conn is not None else None
        if session is None:
            taking = (session for session in self.sessions.values() if session.market == market)
            session = next(
                (connection for connection in taking if _carries(connection, symbol)), None
            )
        if session is not None:
            session.snapshot(symbol, line.payload, line.ts_ns)
        elif self.chain.is_foreign:
            self._waiting.append((market, symbol, line.payload, line.ts_ns))

    def _snapshot(self, line: Http) -> tuple[str, str] | None:
        """Return whose snapshot it is, as market and symbol; None when it is none."""
        session = self.sessions.get(line.conn) if line.conn is not None else None
        for market in [session.market] if session is not None else self._markets_of(line.url):
            for reader in readers_of_images(self.adapter, market, {}):
                symbol = snapshot_symbol(reader, line.url)
                if symbol is not None and (symbol := symbol or self._only_symbol(market)):
                    return market, symbol
        return None

    def _markets_of(self, url: str) -> list[str]:
        """Return the markets here that an address of REST may be of."""
        markets = [self.market]
        if self.survey is not None:
            markets = self.survey.found
        told = markets_at(self.adapter, url)
        return [market for market in markets if market and (not told or market in told)]

    def _only_symbol(self, market: str) -> str:
        carried = self.survey.digits if self.survey is not None else ()
        symbols = [symbol for of, symbol in carried if of == market]
        return symbols[0] if len(symbols) == 1 else ""


def _carries(session: Session, symbol: str) -> bool:
    channels = session.adapter.markets[session.market].book.channels
    return any(
        subscription.symbol == symbol and subscription.channel in channels
        for subscription in session.subscriptions
    )


def load_instruments(path: Path) -> list[Instrument]:
    """Read `Instrument.to_json` objects: a JSON array, or one a line. Raises ConfigError."""
    try:
        text = path.read_bytes()
        rows: list[dict[str, Any]] = (
            msgspec.json.decode(text)
            if text.lstrip().startswith(b"[")
            else msgspec.json.Decoder().decode_lines(text)
        )
        return [Instrument.from_json(row) for row in rows]
    except OSError as failure:
        raise ConfigError("can't be read", where=str(path), hint=str(failure)) from failure
    except (msgspec.MsgspecError, *MALFORMED) as failure:
        raise ConfigError("is no list of instruments", where=str(path), hint=str(failure)) from (
            failure
        )
