"""Merges the topics of two clusters that carry the same streams: the first arrival of a row counts.

Two clusters publish to topics of their own, such as `md.a.trades.v1` and `md.b.trades.v1`. What one
of them lost, the other has. Rows are told apart as on the two lines of one feed (ADR 42):

| row | identity |
|---|---|
| trade with an id | its id |
| update of a book, where both lines number alike | the number, which must rise |
| update of any other book | none: it is taken from one line, until that has a GAP or falls silent |
| all others | what it says, without number and time of receipt; the n-th time on either line |

A GAP of one line is passed on only where the other had a hole at the same time, or has not been
heard since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ingestor.consumer.consumer import STALL_S, Consumer
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Flag, Kind, Rows

LINES: Final = 2
MEMORY: Final = 16_384  # rows of one stream that are remembered, at least
MARGIN_NS: Final = 1_000_000_000  # that two machines' clocks may differ, and lines lag
_AHEAD_NS: Final = MARGIN_NS // 4  # that one line is given before the other
_HOLES_KEPT: Final = 64
_SILENT_NS: Final = 5_000_000_000  # a line that is not heard for so long leads no book
_UPDATES_KEPT: Final = 1_024  # whose numbers are compared with those of the other line
_FOR_EVER: Final = 2**63 - 1
_Mark = tuple[int, int, int, int]


class _Recent:
    """Identities of rows, in two halves of which the older one is forgotten."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[object, list[int]] = {}
        self._old: dict[object, list[int]] = {}

    def is_first(self, identity: object, line: int, *, is_id: bool) -> bool:
        """Say whether a row was not seen before; it is now.

        Args:
            identity: What tells it from others of its stream.
            line: Where it came.
            is_id: It never comes twice on one line, but by mistake.
        """
        counts = self._new.get(identity) or self._old.pop(identity, None)
        if counts is None:
            counts = [0] * LINES
        is_first = max(counts) == 0 if is_id else counts[line] == max(counts)
        counts[line] += 1
        self._new[identity] = counts
        if len(self._new) >= MEMORY:
            self._old, self._new = self._new, {}
        return is_first


@dataclass(slots=True)
class _Line:
    """One line of one stream.

    last_ns: `ts_recv` of its last row. gap: its GAP, until rows come again. hole_since_ns: when the
    last row before it came. holes: of those that the other line filled, from when until when. Of a
    book: takes: whether the event under way is taken. updates: the last ones, by number. at: the
    number of the last one, None while it is not known, or the book broken. is_broken: until a new
    beginning.
    """

    last_ns: int = 0
    gap: Rows | None = None
    hole_since_ns: int = 0
    holes: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_HOLES_KEPT))
    takes: bool | None = None
    updates: dict[int, _Mark] = field(default_factory=dict)
    at: int | None = None
    is_broken: bool = False

    def had_hole(self, since_ns: int, until_ns: int) -> bool:
        """Say whether rows were missing at some time between, of which no GAP tells."""
        is_open = self.gap is not None and self.hole_since_ns <= until_ns
        return is_open or any(first <= until_ns and since_ns <= last for first, last in self.holes)


@dataclass(slots=True)
class _Stream:
    """Hold what came of one stream on both lines.

    number, time_ns: of the last update of its book. is_numbered: both lines number alike. leader:
    the line of a book for which that is not known. is_lost: the book is invalid.
    """

    lines: tuple[_Line, _Line] = field(default_factory=lambda: (_Line(), _Line()))
    recent: _Recent = field(default_factory=_Recent)
    number: int = 0
    time_ns: int = 0
    is_numbered: bool = False
    leader: int | None = None
    is_lost: bool = False


class LineArbiter:
    """Takes out what the other line brought before. Pure.

    duplicates: rows that came twice. filled: GAPs of one line that the other one filled.
    """

    def __init__(self) -> None:
        self.duplicates = 0
        self.filled = 0
        self._streams: dict[tuple[RowClass, str], _Stream] = {}
        self._heard_ns = [0] * LINES

    def take(self, line: int, batch: TickBatch) -> TickBatch:
        """Return the rows that are new, in their order; maybe none.

        Args:
            line: 0 or 1.
            batch: Rows of that line, in the order of its topics.
        """
        pieces: list[Rows] = []
        keep = np.zeros(len(batch), np.bool_)
        done = 0
        for place, gap in self._judge(line, batch, keep):
            pieces += [batch.rows[done:place][keep[done:place]], gap]
            done = place
        pieces.append(batch.rows[done:][keep[done:]])
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return TickBatch(batch.row_class, rows, batch.instruments)

    def _judge(
        self, line: int, batch: TickBatch, keep: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Rows]]:
        """Set which rows are kept; yield each GAP to be put in, and before which row."""
        rows, row_class = batch.rows, batch.row_class
        identities = _identities(row_class, rows)
        streams: dict[int, _Stream] = {}
        fields = (rows[name].tolist() for name in ("kind", "instrument", "ts_recv"))
        for place, (kind, number, ts_recv) in enumerate(zip(*fields, strict=True)):
            stream = streams.get(number)
            if stream is None:
                stream = streams[number] = self._stream(row_class, batch.instruments[number].key)
            self._heard_ns[line] = max(self._heard_ns[line], ts_recv)
            own = stream.lines[line]
            if kind == Kind.GAP:
                if self._breaks(own, rows[place : place + 1], ts_recv, stream.lines[1 - line]):
                    stream.is_lost, stream.leader = True, None  # nobody has these rows now
                    yield place, rows[place : place + 1]
                continue
            if own.gap is not None and (gap := self._close(stream, line, ts_recv)) is not None:
                gap["instrument"] = number
                yield place, gap
            if row_class is RowClass.LEVEL and self._is_stuck(stream, line):
                stream.is_lost, stream.leader = True, None
                cause = Cause.DISCONNECT
                yield place, control_row(row_class, Kind.GAP, number, ts_recv, cause=cause)
            own.last_ns = max(own.last_ns, ts_recv)
            if row_class is RowClass.LEVEL:
                keep[place] = self._takes_level(stream, line, rows[place])
            else:
                identity, is_id = identities[place]
                keep[place] = stream.recent.is_first(identity, line, is_id=is_id)
            self.duplicates += not keep[place]

    def _stream(self, row_class: RowClass, key: str) -> _Stream:
        found = self._streams.get((row_class, key))
        if found is None:
            found = self._streams[row_class, key] = _Stream()
        return found

    @staticmethod
    def _breaks(own: _Line, gap: Rows, now_ns: int, other: _Line) -> bool:
        """Take a GAP of a line; say whether both lines have one now."""
        if own.gap is None:
            own.hole_since_ns = own.last_ns or now_ns
        own.gap, own.takes, own.at, own.is_broken = gap.copy(), None, None, True
        return other.gap is not None

    def _close(self, stream: _Stream, line: int, now_ns: int) -> Rows | None:
        """End the hole of a line; return its GAP where nobody filled it."""
        own, other = stream.lines[line], stream.lines[1 - line]
        gap, since_ns = own.gap, own.hole_since_ns
        own.gap = None
        goes_on = other.last_ns > 0 and self._heard_ns[1 - line] >= now_ns - MARGIN_NS
        is_filled = goes_on and not other.had_hole(since_ns - MARGIN_NS, now_ns + MARGIN_NS)
        if is_filled and self._leads(stream, 1 - line):
            own.holes.append((since_ns, now_ns))
            self.filled += 1
            return None
        stream.is_lost, stream.leader = True, None
        return gap

    # ------------------------------------------------------------------ books

    @staticmethod
    def _leads(stream: _Stream, line: int) -> bool:
        """Say whether what comes next on a line continues what was given. Always of what is no
        book.
        """
        at = stream.lines[line].at
        if stream.is_numbered:
            return at is not None and at <= stream.number
        return stream.leader in (None, line)

    def _is_stuck(self, stream: _Stream, line: int) -> bool:
        """Say whether a book waits for a line that is not heard any more."""
        own = stream.lines[line]
        begins = own.takes is None and not stream.is_lost
        waits = own.at is not None and not self._leads(stream, line)
        return begins and waits and self._is_silent(1 - line)

    def _is_silent(self, line: int) -> bool:
        return self._heard_ns[1 - line] - self._heard_ns[line] > _SILENT_NS

    def _takes_level(self, stream: _Stream, line: int, row: np.void) -> bool:
        """Say whether a level, or a RESET, is taken. Events are taken whole."""
        own = stream.lines[line]
        flags, number, is_reset = int(row["flags"]), int(row["sequence"]), row["kind"] == Kind.RESET
        is_book = is_reset or bool(flags & Flag.SNAPSHOT)
        time_ns = 0 if flags & Flag.NO_VENUE_TIME else int(row["ts_event"])
        if own.takes is None or is_reset:
            if number and not is_book:
                self._compare(stream, line, number, (time_ns, *_of_level(row)))
            own.takes = self._takes_event(stream, line, number, time_ns, is_book=is_book)
        takes = own.takes
        if flags & Flag.SNAPSHOT if is_reset else flags & Flag.LAST:  # the event's last row
            own.takes, own.is_broken = None, own.is_broken and not is_book
            own.at = None if own.is_broken else number
            if takes:
                stream.number, stream.time_ns = number, max(stream.time_ns, time_ns)
        return takes

    def _compare(self, stream: _Stream, line: int, number: int, mark: _Mark) -> None:
        """Find out whether both lines number the updates of a book alike."""
        if stream.is_numbered:
            return
        if stream.lines[1 - line].updates.get(number) == mark:
            stream.is_numbered = True
            for each_line in stream.lines:
                each_line.updates.clear()
            return
        updates = stream.lines[line].updates
        updates[number] = mark
        if len(updates) > _UPDATES_KEPT:
            del updates[next(iter(updates))]

    def _takes_event(
        self, stream: _Stream, line: int, number: int, time_ns: int, *, is_book: bool
    ) -> bool:
        """Say whether an update or a new beginning of a book is taken. is_book: the latter."""
        if is_book and stream.is_lost:
            stream.is_lost, stream.leader = False, line
            return True
        if stream.is_lost:
            return False
        if stream.is_numbered:
            if not is_book:
                return number > stream.number and self._leads(stream, line)
            # A line that is ahead begins the book anew: it might wait for the other for ever. So
            # does a lower number that is later by the venue's clock.
            is_anew = number < stream.number and time_ns > stream.time_ns > 0
            return number > stream.number or is_anew
        if stream.leader is None or (is_book and stream.lines[1 - line].gap is not None):
            stream.leader = line
        return stream.leader == line


def _of_level(row: np.void) -> tuple[int, int, int]:
    return int(row["price"]), int(row["size"]), int(row["side"])


def _identities(row_class: RowClass, rows: Rows) -> list[tuple[object, bool]]:
    """Return what tells each row from others of its stream, and whether that is an id."""
    if row_class is RowClass.LEVEL:
        return []
    plain = rows.copy()
    plain["ts_event"][(rows["flags"] & Flag.NO_VENUE_TIME) != 0] = 0
    for name in ("ts_recv", "sequence", "instrument"):
        plain[name] = 0
    size, text = plain.dtype.itemsize, plain.tobytes()
    contents = [text[at : at + size] for at in range(0, len(text), size)]
    if row_class is not RowClass.TRADE:
        return [(content, False) for content in contents]
    ids = zip(rows["trade_id_high"].tolist(), rows["trade_id_low"].tolist(), strict=True)
    return [
        (one, True) if any(one) else (content, False)
        for one, content in zip(ids, contents, strict=True)
    ]


class TwoClusters:
    """Reads the same streams from two clusters: an async iterator of TickBatch, each row once.

        async with TwoClusters(
            Consumer(servers_a, ["md.a.trades.v1", "md.a.book.v1"], window_s=0.02),
            Consumer(servers_b, ["md.b.trades.v1", "md.b.book.v1"], window_s=0.02),
        ) as both:
            async for batch in both:
                ...

    Whatever comes first is given at once; while a line has a backlog, the other one waits for it.
    """

    def __init__(self, first: Consumer, second: Consumer) -> None:
        """Create the two clusters.

        Args:
            first: of one cluster's topics, not entered yet. One topic wants `is_ordered`.
            second: of the other's; maybe of another Kafka.

        Raises:
            ConfigError: the rows of one don't come in order of time.
        """
        self._lines = (first, second)
        if not all(consumer.is_merged for consumer in self._lines):
            hint = "give window_s, and is_ordered=True for a single topic"
            raise ConfigError("rows of two clusters must come in order of time", hint=hint)
        self._arbiter = LineArbiter()
        self._stack = AsyncExitStack()
        self._reading: dict[int, asyncio.Task[TickBatch | None]] = {}
        self._waiting: dict[int, TickBatch] = {}  # came, and not all of it was given
        self._ended: set[int] = set()
        self._last_ns = [0] * LINES
        self.positions: list[dict[tuple[str, int], int]] = [{}, {}]

    async def __aenter__(self) -> Self:
        """Connect. Raises as `Consumer` does."""
        async with AsyncExitStack() as stack:
            for consumer in self._lines:
                await stack.enter_async_context(consumer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)
        await self._stack.aclose()

    @property
    def duplicates(self) -> int:
        """Rows that came twice."""
        return self._arbiter.duplicates

    @property
    def filled(self) -> int:
        """GAPs of one line that the other one filled."""
        return self._arbiter.filled

    async def __aiter__(self) -> AsyncIterator[TickBatch]:
        while (batch := await self.next_batch()) is not None:
            yield batch

    async def next_batch(self) -> TickBatch | None:
        """Return the next rows, at least one; None where both lines ended."""
        while await self._fill():
            line = min(self._waiting, key=lambda one: int(self._waiting[one].rows["ts_recv"][0]))
            rows = self._rows_due(line, await self._limit_ns(line))
            if rows and len(taken := self._arbiter.take(line, self._give(line, rows))):
                return taken
        return None

    async def _fill(self) -> bool:
        """Wait until rows of a line are there; return False where both ended."""
        for line in range(LINES):
            if line not in {*self._reading, *self._waiting, *self._ended}:
                self._reading[line] = asyncio.create_task(self._lines[line].next_batch())
        while self._reading:
            if not self._waiting:
                reading = self._reading.values()
                await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            for line in [line for line, task in self._reading.items() if task.done()]:
                batch = await self._reading.pop(line)
                if batch is None:
                    self._ended.add(line)
                else:
                    self._waiting[line] = batch
            if self._waiting:
                break
        return bool(self._waiting)

    async def _limit_ns(self, line: int) -> int:
        """Return the time up to which rows of a line may be given: not far ahead of the other."""
        other = 1 - line
        if other in self._waiting:
            return int(self._waiting[other].rows["ts_recv"][0]) + _AHEAD_NS
        if other in self._reading and await self._lines[other].is_behind():
            limit_ns = self._last_ns[other] + _AHEAD_NS
            if self._rows_due(line, limit_ns):
                return limit_ns
            await asyncio.wait({self._reading[other]}, timeout=STALL_S)
            if self._reading[other].done():
                return limit_ns  # look again
        return _FOR_EVER

    def _rows_due(self, line: int, limit_ns: int) -> int:
        waiting = self._waiting.get(line)
        if waiting is None:
            return 0
        times_ns = np.maximum.accumulate(waiting.rows["ts_recv"])
        return int(times_ns.searchsorted(limit_ns, "right"))

    def _give(self, line: int, rows: int) -> TickBatch:
        """Take the first rows of those that wait."""
        batch = self._waiting.pop(line)
        given = TickBatch(batch.row_class, batch.rows[:rows], batch.instruments)
        self._last_ns[line] = max(self._last_ns[line], int(given.rows["ts_recv"].max()))
        if rows < len(batch):
            rest = TickBatch(batch.row_class, batch.rows[rows:], batch.instruments)
            self._waiting[line] = rest
        else:
            self.positions[line] = self._lines[line].positions
        return given
