"""Data as venues send them in bad moments, and clocks that are wrong: rows D of the matrix."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from feeds.simulated import Simulated
from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import TRADE, Kind, Rows
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.pipeline import Pipeline
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.row_lags import Stage
from tests.faults.results import RowRecorder

SYMBOLS = 50
LATE_MAX = 64  # messages that may pass a late one
T0 = 1_800_000_000 * SECOND
LEVELS = 2  # of an update: one a side
SNAPSHOT_LEVELS = 4


@dataclass
class Generator:
    """Book messages of one connection, and how many of each kind it made.

    A lost update is followed by another one, which shows the hole, and by a snapshot; what follows
    a snapshot is one plain update, so that the book is live when something is repeated. A late
    update makes two holes: where it is missing, and where it comes: an older number may also mean
    that the venue began to count anew.
    """

    messages_min: int
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    last: list[int] = field(default_factory=lambda: [1_000] * SYMBOLS)
    late: list[tuple[int, int, int]] = field(default_factory=list)
    made: int = 0

    def messages(self) -> Iterator[bytes]:
        for symbol in range(SYMBOLS):
            yield from self._snapshot(symbol)
        while self.made < self.messages_min:
            while self.late and self.late[0][0] <= self.made:
                yield from self._late_one()
            yield from self._next(self.rng.randrange(SYMBOLS))
        while self.late:
            yield from self._late_one()

    def _next(self, symbol: int) -> Iterator[bytes]:
        kind = self.rng.random()
        if kind < 0.05:
            yield self._count("repeated", self._update(symbol, self.last[symbol]))
        elif kind < 0.051:
            yield from self._hole(symbol, missing=self.rng.randint(1, 5))
        elif kind < 0.061:
            due = self.made + self.rng.randint(3, LATE_MAX)
            heapq.heappush(self.late, (due, symbol, self.last[symbol] + 1))
            yield from self._hole(symbol, missing=1)
        elif kind < 0.0612:
            self.last[symbol] += 1 << 32  # the venue began to count anew, far away
            yield from self._snapshot(symbol)
        else:
            yield self._applied(symbol)

    def _late_one(self) -> Iterator[bytes]:
        _, symbol, number = heapq.heappop(self.late)
        self.counts["late"] += 1
        yield self._count("holes", self._update(symbol, number))
        yield from self._snapshot(symbol)

    def _hole(self, symbol: int, missing: int) -> Iterator[bytes]:
        self.last[symbol] += missing + 1
        yield self._count("holes", self._update(symbol, self.last[symbol]))
        yield from self._snapshot(symbol)

    def _snapshot(self, symbol: int) -> Iterator[bytes]:
        yield self._count(
            "snapshots",
            b'{"ch":"snapshot","s":"S%d","t":%d,"u":%d,"b":[["10.0","1"],["9.0","2"]],'
            b'"a":[["11.0","1"],["12.0","2"]]}' % (symbol, T0, self.last[symbol]),
        )
        yield self._applied(symbol)

    def _applied(self, symbol: int) -> bytes:
        self.last[symbol] += 1
        return self._count("applied", self._update(symbol, self.last[symbol]))

    def _update(self, symbol: int, number: int) -> bytes:
        digit = number % 10
        return (
            b'{"ch":"book","s":"S%d","t":%d,"U":%d,"u":%d,"b":[["9.%d","%d"]],"a":[["11.%d","1"]]}'
            % (symbol, T0, number, number, digit, digit + 1, digit)
        )

    def _count(self, kind: str, message: bytes) -> bytes:
        self.made += 1
        self.counts[kind] += 1
        return message


@pytest.mark.rows("D1")
def test_messages_are_counted_as_they_were_made(row: RowRecorder) -> None:
    count_messages(150_000, row)


@pytest.mark.long(minutes=2)
@pytest.mark.rows("D1")
def test_a_million_messages_are_counted_as_they_were_made(row: RowRecorder) -> None:
    count_messages(1_000_000, row)


def count_messages(messages: int, row: RowRecorder) -> None:
    """5 % repeated, 1 % late, 0.1 % lost, some resets with a jump of 2^32."""
    table = InstrumentTable(
        instrument("simulated", "spot", name, f"{name}-USD", name, "USD", "0.1", "1")
        for name in map("S{}".format, range(SYMBOLS))
    )
    pipeline = Pipeline(table, lambda _number: Simulated.markets["spot"].book)
    queue = pipeline.frame_queues.of(Simulated, "spot")
    adapter = Simulated("spot", table.symbols("simulated", "spot"))
    subscriptions = [
        Subscription(number, f"S{number}", "book", f"book:S{number}") for number in range(SYMBOLS)
    ]
    session = Session(
        1, adapter, subscriptions, pipeline.buffer, queue.counts, SessionEvents(), "spot"
    )
    generator = Generator(messages, random.Random(13))
    kinds: Counter[int] = Counter()

    def flush() -> None:
        result = pipeline.flush(T0, T0)
        for batch in result.batches:
            found, numbers = np.unique(batch.rows["kind"], return_counts=True)
            kinds.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))

    for number, message in enumerate(generator.messages()):
        queue.arrive((session, message, T0 + number))
        if number % 2_000 == 1_999:
            flush()
    flush()
    made, ledger = generator.counts, pipeline.ledger()
    books = pipeline.books.statistics()["simulated", "spot"]
    late, holes = made.pop("late"), made["holes"]
    assert made.total() == generator.made >= messages
    assert (queue.counts.frames, queue.counts.decoded) == (generator.made, generator.made)
    assert (books.gaps, kinds[Kind.GAP]) == (holes, holes)
    assert books.duplicates == made["repeated"]
    assert (books.resets, kinds[Kind.RESET]) == (made["snapshots"], made["snapshots"])
    assert books.updates == made["applied"] + made["snapshots"]
    assert ledger.filtered == LEVELS * (made["repeated"] + made["holes"])
    assert kinds[Kind.LEVEL] == LEVELS * made["applied"] + SNAPSHOT_LEVELS * made["snapshots"]
    assert (ledger.unaccounted, ledger.held, books.valid) == (0, 0, SYMBOLS)
    row(
        "D1",
        promised="counts equal the generator's",
        measured=f"{generator.made:,} messages: {holes:,} gaps, {made['repeated']:,} repeated, "
        f"{late:,} late, {made['snapshots']:,} resets, all equal",
    )


def traded(ts_event: list[int], ts_recv: list[int]) -> Rows:
    rows = np.zeros(len(ts_event), TRADE)
    rows["kind"] = Kind.TRADE
    rows["ts_event"], rows["ts_recv"] = ts_event, ts_recv
    return rows


OFFSETS_S = (-3600, -5, 5, 3600)


@pytest.mark.rows("D3")
@pytest.mark.parametrize("offset_s", OFFSETS_S)
def test_a_venue_clock_that_is_off_gives_no_negative_lag(offset_s: int, row: RowRecorder) -> None:
    """The difference of the clocks is found and shown; lags are what is left of it."""
    metrics = Metrics(InstrumentTable([instrument("v", "m", "S", "S-U", "S", "U", "1", "1")]))
    rng = random.Random(offset_s)
    for second in range(30):
        sent = [T0 + second * SECOND + number * 10_000_000 for number in range(100)]
        received = [ns + rng.randint(1_000_000, 30_000_000) for ns in sent]
        stamped = [ns + offset_s * SECOND for ns in sent]
        rows = traded(stamped, received)
        metrics.sealed(RowClass.TRADE, rows, received[-1] + 1_000_000)
        metrics.acked(RowClass.TRADE, rows, received[-1] + 2_000_000, received[-1] + 1_000_000)
    metrics.settle()
    skew_ns = metrics.skew.known(0)
    assert skew_ns is not None
    assert abs(skew_ns + offset_s * SECOND) < 2_000_000
    for stage in Stage:
        lag = metrics.lag[stage]
        assert 0 <= lag.percentile_ns(0.01) <= lag.percentile_ns(0.99) < 2 * SECOND, stage
    row(
        "D3",
        promised="no negative lag, the skew shown",
        measured=f"venue clock {offset_s:+d} s: skew {skew_ns / -1e9:+.3f} s",
    )


@pytest.mark.rows("D3")
@pytest.mark.parametrize("step_s", [-2, -600, 3600])
def test_a_step_of_our_clock_between_receipt_and_ack_gives_no_negative_lag(step_s: int) -> None:
    metrics = Metrics(InstrumentTable([instrument("v", "m", "S", "S-U", "S", "U", "1", "1")]))
    rows = traded([T0 - 5_000_000] * 100, [T0] * 100)
    metrics.sealed(RowClass.TRADE, rows, T0 + step_s * SECOND)
    metrics.acked(RowClass.TRADE, rows, T0 + step_s * SECOND + 1_000_000, T0 + step_s * SECOND)
    metrics.settle()
    for stage in Stage:
        assert metrics.lag[stage].percentile_ns(0.5) >= 0, stage
        assert metrics.lag[stage].sums_ns[0] >= 0, stage
