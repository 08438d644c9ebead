"""Replay: the live path fed from recordings.

The same sessions, pipeline and sinks as live; `ts_recv` is the recorded one, and what live decided
by timer or load is taken from the recording. The rows don't depend on when a replay flushes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from ingestor.adapter import BookRule, TradeNumbers
from ingestor.books.settings import BookSettings
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Cause
from ingestor.model.timestamps import SECOND, iso_text
from ingestor.pipeline.pipeline import FlushResult, Pipeline
from ingestor.pipeline.trade_gaps import Lost
from ingestor.recording.format import (
    FORGET,
    LOST,
    RESTART,
    RESUBSCRIBE,
    REVISE,
    STREAMS,
    Connect,
    Decided,
    Disconnect,
    Header,
    Http,
    Line,
    Recv,
    Send,
    cause_of,
    unfilled_of,
)
from ingestor.recording.reader import Problems, chain_lines, find_chains, merge
from ingestor.sinks.interface import Sink
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.decisions import concerned, named, number_of
from ingestor.sources.replay.filters import check_symbols, kept_of
from ingestor.sources.replay.found_feeds import AdapterOf, FoundFeeds
from ingestor.sources.replay.options import ReplayOptions, ReplayTotals
from ingestor.sources.replay.recorded_feed import RecordedFeed, load_instruments
from ingestor.telemetry.bulkheads import bulkheads

_PAUSE_NS: Final = 10 * SECOND  # between two sessions: nobody looked at the time meanwhile
_CHECK_FRAMES: Final = 64  # how often a replay looks whether a flush is due
_HOLES: Final = {LOST: Cause.SHED, RESTART: Cause.RESTART}  # by the action that declares one
_Part = TypeVar("_Part")


class Gate(Protocol):
    """Holds a replay up while its sink has no room; an `asyncio.Event` is one."""

    def is_set(self) -> bool: ...
    async def wait(self) -> object: ...


class Replay:
    """One run over recordings. `results` gives what each flush gives; iterate it once."""

    def __init__(
        self,
        options: ReplayOptions,
        *,
        adapters: AdapterOf = adapter_of,
        settings: BookSettings | None = None,
        problems: Problems | None = None,
        on_file: Callable[[Path], None] | None = None,
    ) -> None:
        """on_file: hears each file that was read to its end (progress; `files` are all of them).

        Raises ConfigError when there is nothing to replay or it can't be known as what.
        """
        self.options = options
        self.problems = problems or Problems()
        self.table = InstrumentTable()
        self.totals = ReplayTotals()
        self.pipeline = Pipeline(self.table, self._rule_of, settings, self._trade_numbers_of)
        self.counts = self.pipeline.frame_queues.counts
        self._adapters = adapters
        self._on_file = on_file
        self._now_ns = 0
        self._found: set[str] = set()  # channels that have rows, before the filters
        self._kept_any = False
        for instrument in load_instruments(options.instruments) if options.instruments else ():
            self.table.add(instrument)
        chains = find_chains(options.paths, self.problems)
        found = FoundFeeds(options, self.problems, adapters, self.table, self.pipeline.frame_queues)
        self._feeds = [feed for chain in chains for feed in found.feeds_of(chain)]
        self.totals.origins = found.origins
        if not self._feeds:
            where = ", ".join(str(path) for path in options.paths)
            raise ConfigError("there is nothing to replay", where=where, hint=self._hint())
        if all(feed.chain.is_foreign for feed in self._feeds):  # all instruments are known
            check_symbols(sorted(options.symbols), self.table)

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(path for feed in self._feeds for path in feed.chain.files))

    @property
    def sessions(self) -> list[str]:
        """Ids of the recordings' sessions, for the headers of what is published again."""
        return list(dict.fromkeys(feed.chain.session or feed.chain.name for feed in self._feeds))

    @property
    def now_ns(self) -> int:
        """Return the time of the newest line that was replayed."""
        return self._now_ns

    def results(self) -> Iterator[FlushResult]:
        """Replay as fast as possible. Each result holds the rows asked for."""
        return (result for _, result in self.results_by(lambda path: None))

    def results_by(self, part: Callable[[Path], _Part]) -> Iterator[tuple[_Part, FlushResult]]:
        """The same, with the part that the rows' file belongs to: a flush where it changes."""
        buffer, rows_max = self.pipeline.buffer, self.options.flush_rows
        until_check = _CHECK_FRAMES
        current: _Part | None = None
        for feed, path, lines in self._runs():
            if (here := part(path)) != current:
                if current is not None:
                    yield current, self._flush()
                current = here
            receivers = feed.receivers
            for line in lines:
                if type(line) is Recv and (receiver := receivers.get(line.conn)) is not None:
                    arrive, session = receiver
                    data = line.data
                    payload = data.encode() if data is not None else line.payload
                    arrive((session, payload, line.ts_ns))
                    until_check -= 1
                    if until_check:
                        continue
                    until_check = _CHECK_FRAMES
                    self._now_ns = line.ts_ns
                    self.pipeline.frame_queues.decode()
                else:
                    for result in self._take(feed, line):
                        yield here, result
                if buffer.rows >= rows_max:
                    yield here, self._flush()
            self._now_ns = lines[-1].ts_ns
            last = here
        if self._now_ns:
            yield last, self._flush()

    async def run(
        self,
        sink: Sink,
        *,
        speed: float | None = None,
        gate: Gate | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> None:
        """Replay into a sink.

        Args:
            sink: Takes the batches.
            speed: 1.0 as recorded, None as fast as the sink takes it.
            gate: Nothing is read while it is not set.
            on_frame: Hears the recorded time in ns of each frame at the moment it is played.
        """
        if speed is not None:
            await self._run_paced(sink, speed, gate, on_frame)
            return
        for result in self.results():
            self._submit(sink, result)
            if gate is not None:
                await gate.wait()
            await asyncio.sleep(0)

    async def _run_paced(
        self,
        sink: Sink,
        speed: float,
        gate: Gate | None,
        on_frame: Callable[[int], None] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        began_s, began_ns = loop.time(), 0
        oldest_ns = 0  # recorded time of the oldest frame that is not flushed
        start_ns = self.options.start_ns or 0
        for feed, _, lines in self._runs():
            for line in lines:
                ts_ns = line.ts_ns
                if oldest_ns and ts_ns - oldest_ns >= self.options.linger_ns * speed:
                    self._submit(sink, self._flush())
                    oldest_ns = 0
                if ts_ns >= start_ns and not began_ns:
                    began_s, began_ns = loop.time(), ts_ns
                wait_s = (ts_ns - began_ns) / SECOND / speed - (loop.time() - began_s)
                if began_ns and wait_s > 0:
                    await asyncio.sleep(wait_s)
                if gate is not None and not gate.is_set():
                    paused_s = loop.time()
                    await gate.wait()
                    began_s += loop.time() - paused_s
                for result in self._play(feed, line):
                    self._submit(sink, result)
                if on_frame is not None and began_ns and isinstance(line, Recv):
                    on_frame(ts_ns)
                oldest_ns = oldest_ns or ts_ns
        self._submit(sink, self._flush())

    def _play(self, feed: RecordedFeed, line: Line) -> Iterator[FlushResult]:
        self._now_ns = line.ts_ns
        receiver = feed.receivers.get(line.conn) if isinstance(line, Recv) else None
        if receiver is not None and isinstance(line, Recv):
            arrive, session = receiver
            arrive((session, line.payload, line.ts_ns))
            self.pipeline.frame_queues.decode()
        else:
            yield from self._take(feed, line)
        if self.pipeline.buffer.rows >= self.options.flush_rows:
            yield self._flush()

    def _submit(self, sink: Sink, result: FlushResult) -> None:
        """Sinks live in the present: to them a row's age is what it has waited now."""
        for batch in result.batches:
            sink.submit(batch, time.time_ns())

    # Lines ---------------------------------------------------------------------------------------

    def _runs(self) -> Iterator[tuple[RecordedFeed, Path, list[Line]]]:
        """Yield lines by time, run by run, with whose they are."""
        feeds = {id(feed.chain): feed for feed in self._feeds}
        end_ns = self.options.end_ns
        sources = [
            (
                feed.chain,
                chain_lines(feed.chain, self.problems, end_ns=end_ns, progress=self._on_file),
            )
            for feed in self._feeds
        ]
        for chain, path, lines in merge(sources):
            yield feeds[id(chain)], path, lines

    def _take(self, feed: RecordedFeed, line: Line) -> Iterator[FlushResult]:
        """Take a line that is no frame of an open connection."""
        self.pipeline.frame_queues.decode()
        match line:
            case Recv():
                self._late(feed, line)
            case Connect():
                yield from self._add_instruments(feed, line.instruments)
                yield from self._end_books(feed, line.ts_ns)
                if feed.chain.is_foreign:
                    feed.open_surveyed(line.conn, line.ts_ns)
                else:
                    feed.open(
                        *(line.conn, line.market, line.ts_ns, line.subscriptions), lines=line.lines
                    )
                self._begin_books(feed)
            case Disconnect():
                feed.close(line.conn, line.ts_ns)
            case Http():
                self._now_ns = line.ts_ns
                if feed.fetched(line):  # lost trades: live took them to the sinks at once, too
                    yield self._flush()
            case Decided():
                yield from self._decided(feed, line)
            case Header() if line.format:
                if self.pipeline.derived is not None and line.ts_ns - self._now_ns > _PAUSE_NS:
                    yield self._flush()
                    self.pipeline.derived.skip_to(line.ts_ns)
                yield from self._add_instruments(feed, line.instruments)
                yield from self._end_books(feed, line.ts_ns)
                feed.header(line)
                self._begin_books(feed)
            case Header() | Send():
                pass

    def _end_books(self, feed: RecordedFeed, ts_ns: int) -> Iterator[FlushResult]:
        """Flush before connections that may have books in another form, which change their rule."""
        if any(market.books for market in feed.adapter.markets.values()):
            self._now_ns = ts_ns
            yield self._flush()

    def _begin_books(self, feed: RecordedFeed) -> None:
        """Begin the books anew that a connection carries in another form than one before."""
        for instrument in feed.changed_books:
            self.pipeline.books.forget(instrument)
        feed.changed_books.clear()

    def _add_instruments(
        self, feed: RecordedFeed, rows: Iterable[Mapping[str, Any]]
    ) -> Iterator[FlushResult]:
        """Take instruments; of those that are new revisions, everything before is flushed."""
        try:
            numbers = feed.add_instruments(rows)
        except ValueError as failure:
            self.problems.add(feed.chain.files[0], 0, str(failure))
            return
        if not numbers:
            return
        yield self._flush()
        for item in self._feeds:
            item.replace_instruments(numbers)
        self.pipeline.replace_instruments(numbers, self._now_ns)

    def _late(self, feed: RecordedFeed, line: Recv) -> None:
        """A frame of a connection that no line opened: recordings of others may have none."""
        if not feed.chain.is_foreign and not feed.market:
            self.totals.late += 1
            return
        session = feed.open_surveyed(line.conn, line.ts_ns)
        if session is None:
            self.totals.left_out += 1
        else:
            session.receive(line.payload, line.ts_ns)

    def _decided(self, feed: RecordedFeed, line: Decided) -> Iterator[FlushResult]:
        """Do what live decided, where it decided it."""
        if hole := _HOLES.get(str(line.decision.get("action"))):
            for connection, session in feed.sessions.items():
                if line.conn is None or line.conn == connection:
                    numbers = concerned(self.table, line.decision, session)
                    self.pipeline.buffer.hole(hole, line.ts_ns, instruments=numbers, source=session)
            return
        if line.decision.get("action") == REVISE:
            self._now_ns = line.ts_ns
            yield from self._add_instruments(feed, line.decision.get("instruments", ()))
            return
        if line.decision.get("action") == FORGET:
            self._now_ns = line.ts_ns
            yield self._flush()
            for forgotten in named(self.table, line.decision):
                self.pipeline.books.forget(forgotten)
            return
        if line.decision.get("action") == STREAMS and line.conn is not None:
            self._now_ns = line.ts_ns
            yield from self._add_instruments(feed, line.decision.get("instruments", ()))
            yield self._flush()  # as live did: what came before was of the old streams
            streams = line.decision.get("subscriptions", ())
            feed.change_streams(line.conn, streams, line.ts_ns)
            return
        if line.decision.get("action") == RESUBSCRIBE and line.conn is not None:
            feed.interrupt(line.conn, line.decision.get("streams", ()), line.ts_ns)
            return
        cause, lost = cause_of(line.decision), unfilled_of(line.decision)
        number = number_of(self.table, str(line.decision.get("key", "")))
        if number is None or (cause is None and lost is None):
            return
        self._now_ns = line.ts_ns
        yield self._flush()
        if cause is not None:
            self.pipeline.books.invalidate(number, cause, line.ts_ns)
        if lost is not None:
            self.pipeline.trade_gaps.give_up(Lost(number, lost), line.ts_ns)

    def _flush(self) -> FlushResult:
        result = self.pipeline.flush(self._now_ns)
        for failure in result.frame_bugs:
            bulkheads.bug("frame", failure)
        if result.derived_bug is not None:
            bulkheads.bug("derived rows", result.derived_bug)
        if self.options.filters:
            self._found.update(batch.row_class.channel for batch in result.batches if len(batch))
            result.batches = [
                kept
                for batch in result.batches
                if len(kept := kept_of(batch, self.options, self.table))
            ]
            self._kept_any |= bool(result.batches)
        return result

    def check_filters(self) -> None:
        """After a replay, say which filter matched nothing.

        Raises:
            ConfigError: with the nearest names, or what is there.
        """
        options = self.options
        check_symbols(sorted(options.symbols), self.table)
        for channel in sorted(options.channels - self._found):
            there = ", ".join(sorted(self._found)) or "nothing"
            raise ConfigError(f"no rows of {channel} are recorded", hint=f"there is {there}")
        if options.filters and not self._kept_any:
            raise ConfigError("no rows are left by the filters", hint=self._span())

    def _span(self) -> str:
        times = [feed.chain.header.ts_ns for feed in self._feeds if feed.chain.header.ts_ns]
        first = iso_text(min(times)) if times else "?"
        last = iso_text(self._now_ns) if self._now_ns else first
        return f"what was read is of {first} to {last}"

    def _rule_of(self, number: int) -> BookRule:
        one = self.table[number]
        for feed in self._feeds:
            rule = feed.rule_of(one.market, one.symbol) if feed.venue == one.venue else None
            if rule is not None:
                return rule
        return self._adapters(one.venue).markets[one.market].book

    def _trade_numbers_of(self, number: int) -> TradeNumbers:
        one = self.table[number]
        return self._adapters(one.venue).markets[one.market].trade_numbers

    def _hint(self) -> str:
        kept = self.problems.kept
        return str(kept[0]) if kept else "no recording matches"
