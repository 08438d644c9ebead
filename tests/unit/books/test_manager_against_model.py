"""Books and a strategy's OrderBook against a plain dict, over random histories with losses.

The model is the venue: two dicts and an update number; what it sends is on the wire for a while,
and a REST snapshot overtakes the wire or is late, as REST snapshots are. Whatever is lost, doubled,
refused or broken on the way, a consumer that gets an answer gets the venue's book as of an update
that it had, and after a repair it gets an answer again.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ingestor.adapter import BookRule, SnapshotSource
from ingestor.books.settings import BookSettings
from ingestor.consumer.orderbook import BookInvalid
from ingestor.model.rows import Cause
from tests.effort import tried
from tests.fakes.books import FUTURES, OKX, SOCKET, SPOT, UNNUMBERED, BookHarness

LEVELS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=5)
Sides = tuple[dict[int, int], dict[int, int]]


class BookMachine(RuleBasedStateMachine):
    """One instrument of one venue; bids are 1 to 40, asks 41 to 80."""

    def __init__(self) -> None:
        super().__init__()
        self.bids: dict[int, int] = {5: 1}
        self.asks: dict[int, int] = {45: 1}
        self.number = 100
        self.history: dict[int, Sides] = {}
        self.asked = False
        self.online = True
        self.wire: list[Callable[[], None]] = []

    @initialize(venue_rule=st.sampled_from([SPOT, FUTURES, SOCKET, OKX, UNNUMBERED]))
    def start(self, venue_rule: BookRule) -> None:
        self.rule = venue_rule
        self.harness = BookHarness(
            venue_rule, BookSettings(repairs_per_s=1_000, snapshot_timeout_s=5)
        )
        self.remember()
        if venue_rule.snapshot is SnapshotSource.SOCKET:
            self.send_snapshot()

    def remember(self) -> None:
        self.history[self.number] = (dict(self.bids), dict(self.asks))

    def send_snapshot(self, age: int = 0) -> None:
        number = max(self.number - age, 100)
        bids, asks = self.history[number]
        image = (number, list(bids.items()), list(asks.items()))
        if self.rule.snapshot is SnapshotSource.REST:
            self.harness.snapshot(*image)
        else:
            self.wire.append(lambda: self.harness.snapshot(*image))
        self.asked = False

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for arrive in self.wire[:count]:
            arrive()
        del self.wire[:count]

    @rule(
        bids=LEVELS,
        asks=LEVELS,
        fate=st.sampled_from(["arrives"] * 6 + ["doubled", "lost", "refused"]),
        with_quote=st.booleans(),
    )
    def update(
        self,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        fate: str,
        with_quote: bool,
    ) -> None:
        asks = [(40 + price, size) for price, size in asks]
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                side[price] = size
                if not size:
                    del side[price]
        previous = self.number
        self.number += 1
        self.remember()
        if fate == "lost" and self.rule is UNNUMBERED:
            fate = "refused"  # a silent loss without numbers is nobody's to find
        if not self.online or fate == "lost":
            return
        if fate == "refused":
            self.wire.append(lambda: self.harness.hole(Cause.REJECTED, [0]))
            return
        number = self.number
        for _ in range(2 if fate == "doubled" else 1):
            self.wire.append(
                lambda: self.harness.delta(number, number, bids, asks, previous=previous)
            )
        if with_quote and self.rule.verify_with_quotes:
            bid, ask = max(self.bids, default=0), min(self.asks, default=0)
            best = ((bid, self.bids.get(bid, 0)), (ask, self.asks.get(ask, 0)))
            self.wire.append(lambda: self.harness.quote(number, *best))

    @rule(seconds=st.sampled_from([0.0, 0.1, 10.0, 100.0]), at_once=st.booleans())
    def flush(self, seconds: float, at_once: bool) -> None:
        """at_once: what the flush asks for is answered by the venue as it is now."""
        output = self.harness.flush(seconds)
        self.asked |= any(repair.instrument == 0 for repair in output.repairs)
        if at_once:
            self.answer(0)
            self.harness.flush()

    @rule(age=st.integers(0, 3))
    def answer(self, age: int) -> None:
        """The snapshot that was asked for comes; by REST it may show the book of a while ago."""
        if self.asked and self.online:
            self.send_snapshot(age if self.rule.snapshot is SnapshotSource.REST else 0)

    @rule()
    def reconnect(self) -> None:
        if self.online:
            self.wire.clear()
            self.harness.hole(Cause.DISCONNECT)
        elif self.rule.snapshot is SnapshotSource.SOCKET:
            self.send_snapshot()
        self.online = not self.online

    @rule(cause=st.sampled_from([Cause.SHED, Cause.STALE]))
    def invalidate(self, cause: Cause) -> None:
        self.harness.books.invalidate(0, cause, self.harness.now)

    @rule()
    def image(self) -> None:
        """What goes to the compacted topic is what a consumer of the stream has."""
        self.harness.flush()
        rows = self.harness.books.snapshots([0]).rows
        valid = self.harness.books.is_valid(0)
        assert (len(rows) > 0) == valid
        if valid:
            bids, asks = self.harness.book()
            assert (rows["side"] == 1).sum() == len(bids)
            assert (rows["side"] == 2).sum() == len(asks)

    @invariant()
    def never_a_wrong_answer(self) -> None:
        if not hasattr(self, "harness") or not len(self.harness.consumer):
            return
        key = self.harness.table[0].key
        book = self.harness.consumer.get(key)
        if book is None:
            return
        try:
            answer = self.harness.book()
        except BookInvalid:
            assert not book.is_valid
            return
        assert answer == self.history[book.sequence]

    def teardown(self) -> None:
        """With an honest connection the book is right again, and up to date."""
        if not hasattr(self, "harness"):
            return
        if not self.online:
            self.reconnect()
        for _ in range(6):
            self.update([(3, 3)], [], "arrives", with_quote=True)
            self.deliver(1_000)
            self.flush(100.0, at_once=False)
            self.answer(0)
            self.deliver(1_000)
            self.flush(0.1, at_once=False)
        assert self.harness.books.is_valid(0)
        assert self.harness.book() == (self.bids, self.asks)


TestBooks = BookMachine.TestCase
TestBooks.settings = tried(60, 1_000, steps=50)
