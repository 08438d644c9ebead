"""The contract between the program and a venue.

A venue is one module in `feeds/` (or of a third party, through the entry-point group
`ingestor.feeds`) whose name `adapter` is bound to a class that satisfies `FeedAdapter`. One object
serves one connection. Adapters are names and translations: what a venue calls things, what it
sends, what it wants to hear. They do no I/O, read no clock, and know nothing of Kafka, of queues or
of each other. docs/adding-a-feed.md leads through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.instruments import Instrument


class Continuity(Enum):
    """Name a venue's numbering of book updates (docs/semantics.md has each rule in words)."""

    NONE = "none"  # no numbers at all; nothing to check but checksum and oracle
    RANGE = "range"  # first == last of the event before + 1
    PREVIOUS = "previous"  # previous == last of the event before
    INCREMENT = "increment"  # last == last of the event before + 1
    CONNECTION = "connection"  # counted over the connection; the adapter calls `out.hole`


class SnapshotSource(Enum):
    SOCKET = "socket"  # the venue sends the snapshot on subscribe
    REST = "rest"  # fetched with `snapshot_request`, deltas held meanwhile
    # On the socket, as most say; where none comes, or a book broke, in turn over REST and by
    # subscribing again. `decode_snapshot` sets Flag.FETCHED.
    EITHER = "either"
    # On the socket too, but asked for apart from the subscription and not in order among the
    # updates: these are held meanwhile. `subscribe` asks for both.
    REQUEST = "request"


DecimalLevels = Sequence[tuple[str, str]]  # price, size; best first


@dataclass(frozen=True, slots=True)
class BookRule:
    """A venue's book rules as data; `ingestor.books.manager` applies them.

    depth_max: levels a side that the venue keeps; deeper ones are cut after each update.
    checksum: called with the book's best levels as scaled integers, [(price, size), ...] best
    first, bids then asks; returns what `ColumnBuffer.add_book_update(checksum=...)` carried.
    checksum_text: where `checksum` is the CRC32 of one text per level, asks then bids: what makes
    that text of (price, size). Unchanged levels then keep theirs, which is several times faster.
    checksum_of_decimals: instead of `checksum`, where the texts of the venue's frames count: called
    with decimals without trailing zeros. Only books whose snapshot has a checksum are compared.
    checks_apart: checksums come in messages of their own, which have no levels.
    verify_with_quotes: a quote whose sequence equals a book update's `last` must show its best
    levels.
    may_cross: the best ask may be lower than the best bid while the venue matches nothing, as
    before an auction. Such a book is published as it is; elsewhere it is broken.
    quotes_from_book: the venue has no stream of best bid and ask. The channel "quotes" is then the
    stream of "book", and the books derive QUOTE rows from what changes at the top.
    images_only: every message is the whole book. After the first, what differs from the one before
    is published, not a RESET and all levels again.
    A book whose snapshot is SOCKET is repaired by unsubscribe and subscribe, with REST by another
    snapshot, with EITHER by both in turn.
    """

    continuity: Continuity
    snapshot: SnapshotSource = SnapshotSource.SOCKET
    depth_max: int | None = None
    checksum: Callable[[Sequence[tuple[int, int]], Sequence[tuple[int, int]]], int] | None = None
    checksum_depth: int = 10
    checksum_text: Callable[[int, int], str] | None = None
    checksum_of_decimals: Callable[[DecimalLevels, DecimalLevels], int] | None = None
    checks_apart: bool = False
    verify_with_quotes: bool = False
    may_cross: bool = False
    quotes_from_book: bool = False
    images_only: bool = False

    @property
    def has_checksum(self) -> bool:
        """Return True if the venue's frames may have a checksum of the book."""
        return self.checksum is not None or self.checksum_of_decimals is not None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels whose rows are made of the book: who wants one of them needs the book."""
        return ("quotes", "book") if self.quotes_from_book else ("book",)


class TradeNumbers(Enum):
    """Name the meaning of the numbers of an instrument's trades (`sequence` of a trade's row).

    SPANS: as CONSECUTIVE, for a venue that joins fills. The reader leaves in `trade_id_high` how
    many numbers below its own a row stands for; it is 0 in what is published.
    """

    NONE = "none"  # nothing: there are none, or they say nothing of each other
    ASCENDING = "ascending"  # later trades have higher ones: what a hole lost lies between two
    CONSECUTIVE = "consecutive"  # each is one higher than the one before
    SPANS = "spans"


@dataclass(frozen=True, slots=True)
class LostTrades:
    """Trades of one instrument that didn't come: numbers first..last.

    after_ns, before_ns: venue times of the trades around them, ns since the epoch.
    """

    first: int
    last: int
    after_ns: int
    before_ns: int

    @property
    def count(self) -> int:
        """Return how many numbers that is."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class BookOffer:
    """One form in which a venue has books.

    depth: levels a side: of the stream, or of the snapshot where that comes over REST.
    speed_ms: between two updates; 0 = each change at once.
    rule: of such a book; None = the market's, with this depth where the venue keeps that many.
    is_plain: its frames go to `decode` alone, since the shapes know the first form.
    url: of the endpoint that carries it; "" = the one whose channels have `book`.
    is_recorded: it is of an address that nothing connects to, and comes from recordings alone.
    """

    depth: int
    speed_ms: int = 0
    rule: BookRule | None = None
    is_plain: bool = False
    url: str = ""
    is_recorded: bool = False


@dataclass(frozen=True, slots=True)
class RestLimit:
    """Bound the requests to a venue over REST.

    pool: the venue's name of what is counted together; markets that name the same one share it,
    whatever their origins. "" = each origin counts for itself.
    weight_per_s, weight_burst: of the requests' weights, for a source address.
    used_header: a header of the answers that says the weight used in this minute, by every program
    on the address. used_max: beyond it nothing is sent until the minute is over.
    """

    pool: str = ""
    weight_per_s: float = 5.0
    weight_burst: int = 20
    used_header: str = ""
    used_max: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """List a venue's limits, from its documents. Rates are per second and source address.

    streams_of_channel: the most streams on a connection of channels that are heavier than others.
    requests_per_hour: of a connection; 0 = no limit. Before it is used up the connection is opened
    anew. address_requests_per_s: client messages of all connections of a source address together;
    0 = no limit. connections_per_address: open at a time; 0 = no limit.
    """

    streams_per_connection: int = 200
    streams_of_channel: Mapping[str, int] = field(default_factory=dict)
    streams_per_subscribe: int = 50
    connects_per_s: float = 1.0
    connects_burst: int = 5
    requests_per_s: float = 5.0  # client messages per connection
    requests_per_hour: int = 0
    address_requests_per_s: float = 0.0
    connections_per_address: int = 0
    rest: RestLimit = RestLimit()
    frame_bytes_max: int = 1 << 20
    ping_interval_s: float | None = None  # application ping, where the venue wants one
    # A request replaces those before it, so each names all that the connection is to carry.
    replaces_subscriptions: bool = False
    lifetime_s: float | None = None  # the venue cuts connections of this age


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A websocket address and the channels it carries. Config may replace scheme and host.

    headers: name and value of what the handshake's request carries besides.
    """

    url: str
    channels: frozenset[str] = frozenset({"trades", "quotes", "book"})
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Market:
    """One market of a venue (spot, linear, ...): where it is and what it allows.

    books: the forms in which it has books, for adapters that are `OffersBooks`; the first is what
    an adapter has without being told, and what `book` is the rule of.
    recorded: the recorded traffic of the venue that the adapter was tried with, and its year; "" =
    it was written from documents and never saw any.
    other_hosts: where the same is to be had: other regions, former names, newer forms. Recordings
    of those are known by them; nothing connects there unless the configuration says so.
    """

    endpoints: tuple[Endpoint, ...]
    rest_url: str  # scheme and host
    limits: Limits
    book: BookRule
    books: tuple[BookOffer, ...] = ()
    trade_numbers: TradeNumbers = TradeNumbers.NONE
    recorded: str = ""
    other_hosts: tuple[str, ...] = ()

    def rule_of(self, offer: BookOffer | None) -> BookRule:
        """Return the rule of books in a form; None = the first one."""
        if offer is None:
            return self.book
        if offer.rule is not None:
            return offer.rule
        if self.book.depth_max is None:
            return self.book
        return replace(self.book, depth_max=offer.depth)


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A GET. `path` begins with "/"; query values are text; weight counts against a rate limit.

    body: JSON that is sent as a POST instead; b"" = a POST of nothing.

    cursor: where a paged answer says which page comes next, as keys into its JSON. While a text
    stands there, the request is repeated with it as the query value `cursor`. more: where it says
    that there is one; it may have a cursor without. total: where it says how many entries all pages
    have together.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    cursor: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold what an entry of a venue's list says first: its symbol, and whether it trades now.

    symbol: as the websocket has it. status: the venue's own word, such as "BREAK" or "preopen".
    """

    symbol: str
    trading: bool
    status: str


@dataclass(frozen=True, slots=True)
class RestSnapshot:
    """The best levels of a book as a venue's REST endpoint gives them, to compare a book with.

    number: the `check_value` of the update after which the book must look like this, or where it
    has none its `last`; 0 = the venue doesn't say.
    bids, asks: price text and size text, best first.
    """

    number: int
    bids: Sequence[tuple[str, str]]
    asks: Sequence[tuple[str, str]]


# What a frame was, when it was not data. `decode` returns None for data that went into `out`.


@dataclass(frozen=True, slots=True)
class Ack:
    """The venue confirms these streams (empty: it doesn't say which, all that are pending)."""

    streams: tuple[str, ...] = ()


class Acks(Enum):
    """Name a venue's way to confirm subscriptions."""

    ANSWERED = "answered"  # `decode` returns an Ack
    BY_DATA = "by_data"  # the first data of a stream say it; `streams_of` names the stream
    NEVER = "never"  # not at all: what is quiet may be missing


@runtime_checkable
class SaysHowItAcks(Protocol):
    """Say how the venue confirms: an adapter does, if its venue confirms otherwise than by an
    answer.
    """

    acks: ClassVar[Acks]


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue refuses these streams (empty: it doesn't say which)."""

    text: str
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A control frame that wants this text frame as an answer (ping -> pong)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The venue announces that it will close this connection, or asks to reconnect."""

    text: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """A data message that we leave out by a named rule (candles nobody asked for, a one-sided
    ticker). `duplicate`: it repeats what was sent before.
    """

    rule: str
    duplicate: bool = False


# A message of a book in another form than the connection's, such as another depth.
OTHER_BOOK: Final = Filtered("other_book")
# A message of another market that shares the address.
OTHER_MARKET: Final = Filtered("other_market")


class Notice(Enum):
    """Control frames that need nothing."""

    HEARTBEAT = "heartbeat"
    INFO = "info"


Control = Ack | Refused | Reply | Reconnect | Filtered | Notice


class FeedAdapter(Protocol):
    """One venue, on one connection.

    Required keys are indexed plainly: the session refuses the frame, whatever `decode` raises, and
    rolls it back. What is neither a DecodeError nor of `ingestor.model.errors.MALFORMED` counts as
    a bug. State that follows the data (a connection's sequence number) is written last in `decode`,
    so that it is committed only with the frame.
    """

    venue: ClassVar[str]
    reference: ClassVar[str]  # the venue's document and the day it was read
    markets: ClassVar[Mapping[str, Market]]

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        """symbols: venue symbol -> instrument number, live (InstrumentTable.symbols)."""

    def stream(self, channel: str, symbol: str) -> str:
        """Return the venue's name of a stream: the unit of subscribing, acks and staleness.

        channel: "trades", "quotes" or "book". Two channels may share a stream, such as
        quotes taken from the book (BookRule.quotes_from_book).
        """

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        """Yield the text frames that subscribe, at most Limits.streams_per_subscribe in each."""

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        """Yield the text frames that unsubscribe."""

    def ping(self) -> bytes | None:
        """Return the application ping, sent every Limits.ping_interval_s; None = none wanted."""

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append one frame's rows to `out` and return None, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.

        Returns:
            None for rows, else a control.

        Raises:
            UnknownMessage: A kind of message that nobody subscribed to; it costs no rows.
            DecodeError: Anything else that is wrong, or what reading plain keys raises.
        """

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        """Return the REST requests that list the market's instruments."""

    # The list is read entry by entry, so that an odd one costs itself alone: whatever `listing` or
    # `parse_instrument` raises is reported with the symbol, and the others stand.

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        """Return the entries of one answer of `instrument_requests`.

        Raises VenueError for an error of the venue's inside the answer; anything else for an answer
        that has no list.
        """

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        """Return an entry's symbol and status; None for one that is not of this market."""

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        """Read the metadata of an entry that has a listing."""

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        """Return the request for a book snapshot where BookRule.snapshot is REST, else None."""

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the snapshot to `out`: one `levels` call with Flag.SNAPSHOT.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """


@runtime_checkable
class Audited(Protocol):
    """Show books over REST: an adapter may do that too, if its venue does.

    They are compared with books on demand (`ingestor books verify`), and at times where nothing on
    the sockets proves a book: no checksum, no quotes with the numbers of book updates.
    """

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        """Return the request for the best `depth` levels of each side."""

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """Read its answer. Raises as `decode` does."""


@runtime_checkable
class OffersBooks(Protocol):
    """Offer books in several forms: an adapter may do that too, if its markets have them."""

    def choose_book(self, offer: BookOffer) -> None:
        """Have books in this form, one of `Market.books`, from now on: `stream` names it, and
        `decode` leaves others out as OTHER_BOOK. Called before anything else, if at all.
        """


@runtime_checkable
class ReadsRequests(Protocol):
    """Read what a client asked for: an adapter may do that too, for recordings whose messages don't
    say which form a book has.
    """

    def streams_asked(self, payload: bytes) -> Sequence[str]:
        """Return the streams of books that a frame from a client subscribes to, as `stream` gives
        them. May raise anything for what is no such frame.
        """


@runtime_checkable
class HasTradeHistory(Protocol):
    """Ask for past trades: an adapter may do that too, if its venue gives them over REST.

    Lost ones are then fetched.
    """

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        """Return the request for these trades, or for some of them: it is asked again for what is
        still missing. None: the venue doesn't give them.
        """

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the trades of an answer, oldest first.

        It may hold more than was asked for, but no trade between two of them is left out. Raises as
        `decode` does.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """


@dataclass(frozen=True, slots=True)
class Handshake:
    """Say where a connection is to be opened, as the venue answered over REST.

    url: scheme, host and path; "" = the endpoint's. secret: a query that is appended to it, with a
    token: no record, recording or log has it. valid_s: how long it opens new connections.
    """

    url: str = ""
    secret: str = field(default="", repr=False)
    valid_s: float = 60.0


@runtime_checkable
class HasHandshake(Protocol):
    """Ask for a handshake: an adapter does, if its venue must be asked over REST before a
    connection.
    """

    @classmethod
    def handshake_request(cls, market: str) -> RestRequest:
        """Return the request."""

    @classmethod
    def read_handshake(cls, market: str, body: bytes) -> Handshake:
        """Read its answer.

        Raises VenueError for a refusal inside it, anything else for an answer that can't be read.
        """


@runtime_checkable
class NamesStreams(Protocol):
    """Name the streams of a frame that can't be read: an adapter may do that too.

    Such a frame then costs these streams, and not all of its connection.
    """

    def streams_of(self, payload: bytes) -> Sequence[str]:
        """Return the streams, as `stream` gives them, that a refused frame names; empty where it
        names none. May raise anything for what is no message at all.
        """


@runtime_checkable
class TellsMarkets(Protocol):
    """Tell symbols of markets apart that share an address: an adapter may do that too.

    A recording of such an address may hold several markets. Where frames say theirs, `decode`
    leaves out those of others (OTHER_MARKET).
    """

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        """Return False if a symbol can't be of a market, by its name alone."""


@runtime_checkable
class CountsFrames(Protocol):
    """Follow the numbers that a venue gives to the frames of a connection: an adapter does, whose
    shapes have `<next>`.
    """

    next_number: int
    """The number that the next frame should have. `decode` declares what was skipped, and goes on
    with the number behind the one that it found; a frame that a shape takes moves it by one."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One channel of one instrument. `stream` is the adapter's name for it."""

    instrument: int
    symbol: str
    channel: str
    stream: str
