"""Define the state of an order book, and the table of its transitions.

A book is EMPTY until something is heard of it. It is *valid*, which means that consumers may use
it, from its snapshot (SEEDED or LIVE) until it breaks; then a GAP stands in the stream, and the
next valid row is a RESET with a snapshot behind it.

- A socket snapshot (IMAGE) stands in order among the deltas of its stream: the book is LIVE.
- A REST snapshot (SEED) does not. Deltas are held from the first one on; the snapshot discards what
  it covers, and the first delta that it doesn't cover must continue it (SEEDED until then).
- While a connection is down (OFFLINE) nobody is asked for a snapshot: the first delta after it
  comes back does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ingestor.adapter import BookRule, Continuity, SnapshotSource
from ingestor.books.statistics import BookCounters
from ingestor.columns.sealed import Source
from ingestor.model.book_side import NOTHING, BookSide, ChecksumBookSide
from ingestor.model.rows import Cause, Flag

Levels = list[tuple[int, int]]  # (key, size), best first
BookState = tuple[int, Levels, Levels]  # mark or 0, bids, asks
BestBidAsk = tuple[int, int, int, int]  # bid price and size, ask price and size; 0, 0 = empty side
NO_QUOTE: Final[BestBidAsk] = (0, 0, 0, 0)  # what nobody needs to hear of a book at its beginning
Recent = list[tuple[int, BestBidAsk]]  # update number, what the quote or the book showed


class State(Enum):
    EMPTY = "empty"  # never heard of
    SYNCING = "syncing"  # waits for a snapshot; REST venues hold deltas meanwhile
    SEEDED = "seeded"  # valid: REST snapshot applied, the first delta must continue it
    LIVE = "live"  # valid: every delta continues the one before
    OFFLINE = "offline"  # the connection is down


class Event(Enum):
    DELTA = "delta"
    IMAGE = "image"  # a snapshot on the socket
    SEED = "seed"  # a REST snapshot
    BREAK = "break"  # a gap, a contradiction, a refused frame, rows that we shed
    DISCONNECT = "disconnect"


NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.EMPTY, Event.DELTA): State.SYNCING,
    (State.EMPTY, Event.IMAGE): State.LIVE,
    (State.EMPTY, Event.SEED): State.SEEDED,
    (State.EMPTY, Event.BREAK): State.SYNCING,
    (State.EMPTY, Event.DISCONNECT): State.OFFLINE,
    (State.SYNCING, Event.DELTA): State.SYNCING,
    (State.SYNCING, Event.IMAGE): State.LIVE,
    (State.SYNCING, Event.SEED): State.SEEDED,
    (State.SYNCING, Event.BREAK): State.SYNCING,
    (State.SYNCING, Event.DISCONNECT): State.OFFLINE,
    (State.SEEDED, Event.DELTA): State.LIVE,
    (State.SEEDED, Event.IMAGE): State.LIVE,
    (State.SEEDED, Event.SEED): State.SEEDED,  # not asked for: filtered
    (State.SEEDED, Event.BREAK): State.SYNCING,
    (State.SEEDED, Event.DISCONNECT): State.OFFLINE,
    (State.LIVE, Event.DELTA): State.LIVE,
    (State.LIVE, Event.IMAGE): State.LIVE,
    (State.LIVE, Event.SEED): State.LIVE,  # not asked for: filtered
    (State.LIVE, Event.BREAK): State.SYNCING,
    (State.LIVE, Event.DISCONNECT): State.OFFLINE,
    (State.OFFLINE, Event.DELTA): State.SYNCING,
    (State.OFFLINE, Event.IMAGE): State.LIVE,
    (State.OFFLINE, Event.SEED): State.OFFLINE,  # asked for before the connection ended: filtered
    (State.OFFLINE, Event.BREAK): State.OFFLINE,
    (State.OFFLINE, Event.DISCONNECT): State.OFFLINE,
}

_SEED_FLAGS: Final = {
    SnapshotSource.SOCKET: 0,
    SnapshotSource.REST: int(Flag.SNAPSHOT),
    SnapshotSource.EITHER: int(Flag.FETCHED),
    SnapshotSource.REQUEST: int(Flag.SNAPSHOT),
}
VALID: Final = frozenset({State.SEEDED, State.LIVE})


@dataclass(frozen=True, slots=True)
class Update:
    """One venue event.

    Keys as in `side`; bids before asks. at: index of its first level in the flush it came with, -1
    for one that was held.
    """

    ts_event: int
    ts_recv: int
    first: int
    last: int
    previous: int
    flags: int
    checksum: int
    bid_keys: list[int]
    bid_sizes: list[int]
    ask_keys: list[int]
    ask_sizes: list[int]
    at: int = -1

    @property
    def levels(self) -> int:
        return len(self.bid_keys) + len(self.ask_keys)


@dataclass(slots=True)
class StateHistory:
    """Remember the best levels of a book, update by update, while an audit goes on."""

    states: list[BookState] = field(default_factory=list)


@dataclass(slots=True)
class Book:
    """One instrument's book. last: the number of the newest update in it; 0 = not known.

    partial: the venue's snapshot was cut at its depth. limit: levels kept a side.
    trimmed: we cut it at `levels_max`.
    recent_quotes, recent_tops: what has no partner yet, in ascending order of update numbers.
    """

    instrument: int
    rule: BookRule
    counters: BookCounters
    own_bids: BookSide
    own_asks: BookSide
    limit: int
    continuity: Continuity
    holds_updates: bool  # until a snapshot comes: it may come over REST
    seed_flag: int  # of updates that are REST snapshots
    quotes_from_book: bool
    has_quote_check: bool
    is_provable: bool
    texts: tuple[ChecksumBookSide, ChecksumBookSide] | None
    state: State = State.EMPTY
    last: int = 0
    partial: bool = False
    trimmed: bool = False
    removed: tuple[list[int], list[int]] | None = None
    source: Source | None = None
    is_simple: bool = False  # see `settle`
    exponents: tuple[int, int] = (0, 0)  # of prices and sizes
    is_checked: bool = False  # its snapshot had a checksum of the texts
    remembers: bool = False  # its tops, for quotes that come later
    held: list[Update] = field(default_factory=list)
    held_levels: int = 0
    recent_quotes: Recent = field(default_factory=list)
    recent_tops: Recent = field(default_factory=list)
    history: StateHistory | None = None  # only while an audit goes on
    shown: BestBidAsk | None = NO_QUOTE  # the newest quote; None: whatever comes is new
    gap_open: bool = False  # consumers know that the book is invalid
    invalid_since_ns: int = 0
    valid_since_ns: int = 0
    attempts: int = 0
    repair_cause: Cause | None = None
    waits_ended: int = 0  # how often nobody waited for a snapshot any more
    deadline_ns: int = 0  # when a snapshot asked for is asked for again
    giver: Callable[[Book], None] | None = None  # gives the levels back: they are lent (`lending`)
    rests: int = 0  # how often it is not lent although it could be

    @property
    def bids(self) -> BookSide:
        """The bids, taken back where they are lent."""
        self.take_back()
        return self.own_bids

    @property
    def asks(self) -> BookSide:
        """The asks, taken back where they are lent."""
        self.take_back()
        return self.own_asks

    def take_back(self) -> None:
        """Take the levels back where they are lent."""
        giver, self.giver = self.giver, None
        if giver is not None:
            giver(self)

    @property
    def is_valid(self) -> bool:
        return self.state in VALID

    def top(self) -> BestBidAsk:
        """Return bid price and size, ask price and size; 0, 0 for an empty side."""
        bids, asks = self.bids, self.asks
        bid, ask = bids.best, asks.best
        if bid != NOTHING != ask:
            return bid, bids.top_levels[bid], -ask, asks.top_levels[ask]
        bid, bid_size = bids.first()
        ask, ask_size = asks.first()
        return bid, bid_size, -ask, ask_size

    def cut(self) -> None:
        """Cut both sides to the limit and note in `removed` what that cost."""
        sides = (self.bids, self.asks)
        self.removed = (self.bids.cut(), self.asks.cut())
        if self.limit != self.rule.depth_max:  # the venue's book is deeper than what we keep
            self.trimmed = True
            for side, keys in zip(sides, self.removed, strict=True):
                side.trimmed |= bool(keys)
        self.settle()

    def clear(self) -> None:
        self.bids.clear()
        self.asks.clear()
        self.recent_tops.clear()
        self.history = None
        self.last = 0
        self.partial = self.trimmed = False
        self.removed = None
        self.settle()

    def begin(self, flags: int) -> None:
        """Note what a snapshot says of the updates to come. flags: the snapshot's."""
        self.trimmed = False
        self.is_checked = bool(flags & Flag.CHECKSUM)
        self.settle()

    def settle(self) -> None:
        """Note whether an update needs nothing but a look at the best levels: no checksum, no
        quote of its own, no trail, no levels missing below a cut.
        """
        self.is_simple = not (
            self.quotes_from_book
            or self.trimmed
            or self.history is not None
            or self.rule.checksum is not None
            or self.is_checked
            or self.rule.checks_apart
        )


def open_book(
    instrument: int, rule: BookRule, counters: BookCounters, levels_max: int, now_ns: int
) -> Book:
    """Return an EMPTY book whose sides suit the rule.

    Args:
        instrument: Number of the instrument.
        rule: The venue's rule for its books.
        counters: Shared by all books of the market.
        levels_max: Levels kept per side.
        now_ns: Monotonic time in ns.
    """
    limit = min(rule.depth_max or levels_max, levels_max)
    bids, asks = BookSide(limit), BookSide(limit)
    texts: tuple[ChecksumBookSide, ChecksumBookSide] | None = None
    if rule.checksum_text is not None:
        bids, asks = texts = (
            ChecksumBookSide(limit, 1, rule.checksum_depth, rule.checksum_text),
            ChecksumBookSide(limit, -1, rule.checksum_depth, rule.checksum_text),
        )
    book = Book(
        instrument,
        rule,
        counters,
        bids,
        asks,
        limit,
        continuity=rule.continuity,
        holds_updates=rule.snapshot is not SnapshotSource.SOCKET,
        seed_flag=_SEED_FLAGS[rule.snapshot],
        quotes_from_book=rule.quotes_from_book,
        has_quote_check=rule.verify_with_quotes,
        is_provable=rule.verify_with_quotes or rule.has_checksum,
        texts=texts,
        invalid_since_ns=now_ns,
    )
    book.settle()
    return book
