"""Order books: sealed venue updates in; verified, venue-agnostic book rows out.

What leaves `BookManager.apply` needs no venue rules: RESET, a snapshot, deltas, and GAP when that
is the truth. A gap in the numbers, a checksum or a quote that contradicts, a crossed book, a
negative size, a refused frame, a disconnect: each breaks the books concerned and no others. A
broken book is empty, its GAP stands in the stream, a repair is asked for, and its next rows are
RESET and a snapshot. `book` has the states, `sequence` the rules, `verification` the proofs.

Every level that comes in is accounted for: it is published (snapshots one to one, whatever they
replace), filtered, or held. Rows that we add are marks and the removals of `BookOutput.added`.

    levels in + held before + added = level rows published + filtered + held now
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from operator import length_hint
from typing import Final

from ingestor.adapter import BookRule, Continuity, SnapshotSource
from ingestor.books.book import NEXT, Book, Event, State, Update
from ingestor.books.flush import NEGATIVE, Flush
from ingestor.books.images import take_image
from ingestor.books.lending import lending
from ingestor.books.open_books import OpenBooks
from ingestor.books.output import BookOutput
from ingestor.books.quote_queue import QuoteQueue
from ingestor.books.repair_planner import RepairPlanner
from ingestor.books.rest_check import RestCheck
from ingestor.books.sequence import Continuation, bridges, continues, held_verdicts, missing
from ingestor.books.settings import BookSettings
from ingestor.books.statistics import BookStatistics
from ingestor.books.verification import prove, remember, verify_quote
from ingestor.books.wanted_rows import WantedRows
from ingestor.columns.sealed import Gap, Sealed
from ingestor.model.batch import TickBatch
from ingestor.model.errors import SequenceGap
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag
from ingestor.model.timestamps import SECOND

_SLOW: Final = int(Flag.SNAPSHOT) | NEGATIVE
_RANGE: Final = Continuity.RANGE
_PREVIOUS: Final = Continuity.PREVIOUS
_INCREMENT: Final = Continuity.INCREMENT
# The rows that were lost may have held the GAP that is in force: it is declared again.
_NOTHING_TO_REPAIR: Final = frozenset({Cause.DISCONNECT, Cause.RESTART})  # a snapshot follows
_TELL_AGAIN: Final = frozenset({Cause.SHED, Cause.DEAD_LETTER})


class BookManager:
    """All books of one loop. Pure: the caller passes the time."""

    def __init__(
        self,
        table: InstrumentTable,
        rule_of: Callable[[int], BookRule],
        settings: BookSettings | None = None,
    ) -> None:
        """rule_of: instrument number -> the rule of its market."""
        self._table = table
        self._settings = settings or BookSettings()
        self._books = OpenBooks(table, rule_of, self._settings)
        self._breaks: list[tuple[int, Cause, int]] = []  # from outside, for the next flush
        self._lending = lending(self._books)
        self._repairs = RepairPlanner(table, self._settings)
        self._errors: list[SequenceGap] = []
        self._bugs: list[tuple[int, Exception]] = []
        self._memory = self._settings.oracle_memory if self._settings.verify else 0
        self._held = 0
        self._wanted = WantedRows(rule_of)
        self._given_up: list[int] = []  # updates came late, of streams that nobody carries any more
        self._forgotten = 0  # levels held by forgotten books, filtered with the next flush

    def apply(self, sealed: Sealed, now_ns: int) -> BookOutput:
        """Take one flush. An empty one is fine: it lets overdue repairs be asked for again.

        Updates, quotes and holes are taken in the order in which they came, so that what becomes of
        a book doesn't depend on where the flushes fell.
        """
        flush = Flush(sealed, now_ns)
        self._books.fit(flush)
        flush.filtered, self._forgotten = self._forgotten, 0
        breaks, self._breaks = self._breaks, []
        for instrument, cause, ts_ns in breaks:
            self._break(flush, self._books.book(instrument, now_ns), 0, ts_ns, cause)
        quotes_waiting = QuoteQueue(sealed, self._books.has_quote_check)
        for hole in sealed.holes:
            self._run(flush, quotes_waiting, hole.quote, hole.update)
            self._hole(flush, hole)
        self._run(flush, quotes_waiting, len(sealed.quotes), len(flush))
        for instrument in self._given_up:
            self.forget(instrument)
        self._given_up.clear()
        self._repairs.ask_again(now_ns)
        output = BookOutput(
            rows=flush.rows(self._wanted.without_levels),
            quotes=flush.quotes(),
            filtered=flush.filtered,
            held=self._held,
            repairs=self._repairs.take(),
            added=flush.added,
            errors=self._errors,
            bugs=self._bugs,
            is_whole=flush.is_whole,
        )
        self._errors, self._bugs = [], []
        return output

    def invalidate(self, instrument: int, cause: Cause, now_ns: int) -> None:
        """Break a book from outside, because rows were shed or a stream is stale.

        The GAP comes with the next `apply`.

        Args:
            instrument: Number of the instrument.
            cause: Reason of the hole.
            now_ns: Monotonic time in ns.
        """
        self._breaks.append((instrument, cause, now_ns))

    def forget(self, instrument: int) -> None:
        """Drop a book that will not be heard of again (delisted, a new revision took over)."""
        book = self._books.remove(instrument)
        if book is not None:
            self._held -= book.held_levels
            self._forgotten += book.held_levels
            self._repairs.done(book)
            self._wanted.forget(instrument)

    def replace_instruments(self, numbers: Mapping[int, int], ts_ns: int) -> None:
        """Follow new revisions of instruments.

        A book whose numbers keep their exponents goes on as it is. Any other one begins anew, with
        a GAP, since its rows cannot be compared with those to come.

        Args:
            numbers: number of the old revision -> number of the new one.
            ts_ns: the time of the GAPs, ns since the epoch.
        """
        self._books.note()
        self._books.fit_table()
        for old, new in numbers.items():
            book = self._books.by_instrument.get(old)
            if book is None:
                continue
            self._wanted.move(old, new)
            if (self._table.exponents[old] == self._table.exponents[new]).all():
                self._books.move(old, new)
                self._repairs.move(book, new)
                self._breaks = [
                    (new if instrument == old else instrument, cause, now_ns)
                    for instrument, cause, now_ns in self._breaks
                ]
            else:
                self.forget(old)
                self.invalidate(new, Cause.REJECTED, ts_ns)

    def snapshots(self, instruments: Iterable[int]) -> TickBatch:
        """Return the best levels of the valid books among `instruments`, as LEVEL rows.

        Rows are flagged SNAPSHOT, and PARTIAL where the book is deeper than what is shown. An empty
        book is one RESET row flagged SNAPSHOT. `sequence` is the number of the newest update.
        """
        broken = {instrument for instrument, _, _ in self._breaks}
        rows = self._books.images(instruments, broken, self._settings.snapshot_depth)
        return TickBatch(RowClass.LEVEL, rows, self._table)

    def is_valid(self, instrument: int) -> bool:
        """Return True if consumers may use this book now."""
        return self._books.valid(instrument) is not None

    def valid_book(self, instrument: int) -> Book | None:
        """Return a book that consumers may use now. The manager alone may change it."""
        return self._books.valid(instrument)

    def start_rest_check(self, instrument: int) -> RestCheck:
        """Keep the states of a valid book from now on; `RestCheck.finish` ends that."""
        return RestCheck(self._books.by_instrument[instrument])

    def statistics(self, now_ns: int | None = None) -> dict[tuple[str, str], BookStatistics]:
        """Return the sums by (venue, market). now_ns: counts the invalid times that still last."""
        return self._books.statistics(now_ns)

    def _run(self, flush: Flush, quotes_waiting: QuoteQueue, quotes_end: int, end: int) -> None:
        """Take, in order, the updates before `end` and the quotes before row `quotes_end`.

        The boundary of each book: an update that raises costs its own book, which begins anew.
        """
        if self._lending is not None and flush.has_many(end) and not 0 <= quotes_waiting.due < end:
            for index in self._lending.take(flush, end):
                self._judge(flush, index)
        while left := flush.left(end):
            if flush.skipped is not None:
                flush.go_on_at(flush.taken)
            indices = iter(left)
            try:
                self._apply_updates(flush, quotes_waiting, indices, quotes_end)
                break
            except Exception as failure:  # noqa: BLE001  # the boundary of a book
                failed = left[len(left) - length_hint(indices) - 1]
                self._contain_update(flush, failed, failure)
                flush.go_on_at(failed + 1)
        flush.taken = end
        self._apply_quotes(flush, quotes_waiting, quotes_end, end)

    def _judge(self, flush: Flush, index: int) -> None:
        """Verify an update whose levels are in its book already."""
        try:
            self._verify_update(flush, self._books.by_instrument[flush.instruments[index]], index)
        except Exception as failure:  # noqa: BLE001  # the boundary of a book
            self._contain_update(flush, index, failure)

    def _contain_update(self, flush: Flush, index: int, failure: Exception) -> None:
        """Leave out an update that raised, and begin its book anew."""
        update = flush.update(index)
        flush.discard_once(update)
        self._contain(flush, flush.instruments[index], update.at, update.ts_recv, failure)

    def _contain(
        self, flush: Flush, instrument: int, at: int, ts_recv: int, failure: Exception
    ) -> None:
        """Begin the book anew in whose code an exception was raised, with a GAP.

        Args:
            flush: the flush that is taken.
            instrument: whose book it is.
            at: the place of the GAP, as in `Flush`.
            ts_recv: the time of the GAP, ns since the epoch.
            failure: the exception.
        """
        self._bugs.append((instrument, failure))
        source = self._books.by_instrument[instrument].source
        self.forget(instrument)
        book = self._books.book(instrument, flush.now_ns)
        if source is not None:
            self._wanted.carry(book, source)
        self._break(flush, book, at, ts_recv, Cause.REJECTED)

    def _apply_updates(
        self, flush: Flush, quotes_waiting: QuoteQueue, indices: Iterator[int], quotes_end: int
    ) -> None:
        """Take some updates.

        This is the fast path of live books; all else goes to `_apply_slow_path`.
        """
        books, levels = self._books.by_instrument, flush.levels
        live, tops_max = State.LIVE, self._memory // 8
        for index, (
            instrument,
            flags,
            first,
            last,
            previous,
            bids,
            asks,
            top_bid,
            top_ask,
        ) in zip(indices, flush.updates, strict=False):
            if index == quotes_waiting.due:
                self._apply_quotes(flush, quotes_waiting, quotes_end, index)
            book = books[instrument]
            rule = book.continuity
            if (
                book.state is not live
                or flags & _SLOW
                or (rule is _RANGE and first != book.last + 1)
                or (rule is _PREVIOUS and previous != book.last)
                or (rule is _INCREMENT and last != book.last + 1)
            ):
                deque(islice(levels, bids + asks), 0)  # they are passed over
                self._apply_slow_path(flush, index)
                continue
            if book.giver is not None:
                book.take_back()
            if bids:
                book.own_bids.apply(islice(levels, bids), top_bid)
            if asks:
                book.own_asks.apply(islice(levels, asks), top_ask)
            if (
                not book.is_simple
                or book.own_bids.best + book.own_asks.best >= 0
                or book.own_bids.is_over
                or book.own_asks.is_over
                or book.recent_quotes
            ):
                self._verify_update(flush, book, index)
                continue
            book.last = last
            book.counters.updates += 1
            if book.remembers:
                remember(book, tops_max)

    def _verify_update(self, flush: Flush, book: Book, index: int) -> None:
        """An update's levels are in the book: prove it, and show what it did beyond its rows."""
        flags, checksum = flush.flags[index], flush.checksums[index]
        cause = prove(book, flush.lasts[index], flags, checksum, self._memory)
        if cause is not None:
            self._refuse(flush, book, flush.update(index), flush.start(index), cause)
        elif book.removed is not None or (book.quotes_from_book and book.top() != book.shown):
            self._show(flush, book, flush.update(index), flush.start(index + 1))

    def _apply_quotes(
        self, flush: Flush, quotes_waiting: QuoteQueue, quotes_end: int, taken: int
    ) -> None:
        """Verify with the quotes before row `quotes_end` that follow `taken` updates or fewer."""
        for instrument, number, ts_recv, quote in quotes_waiting.take(taken, quotes_end):
            book = self._books.by_instrument[instrument]
            try:
                cause = verify_quote(book, number, quote, self._memory)
                if cause is not None and book.is_valid:
                    self._break(flush, book, flush.start(taken), ts_recv, cause)
            except Exception as failure:  # noqa: BLE001  # the boundary of a book
                self._contain(flush, instrument, flush.start(taken), ts_recv, failure)

    def _apply_slow_path(self, flush: Flush, index: int) -> None:
        """Take one update that isn't plainly the next delta of a live book."""
        update = flush.update(index)
        book = self._books.book(flush.instruments[index], flush.now_ns)
        if book.state is not State.LIVE or update.flags & _SLOW:
            source = flush.sealed.sources[int(flush.sealed.updates["frame"][index])]
            is_carried = self._wanted.carry(book, source)
            if book.state is State.EMPTY and not update.flags & Flag.SNAPSHOT and not is_carried:
                flush.discard(update)
                self._given_up.append(book.instrument)
                return
        if update.flags & NEGATIVE:
            book.counters.crossed += 1
            self._refuse(flush, book, update, update.at, Cause.CROSSED)
        elif not update.flags & Flag.SNAPSHOT:
            self._delta(flush, book, update, update.at)
        elif update.flags & book.seed_flag:
            self._seed(flush, book, update)
        elif book.rule.images_only and book.is_valid:
            cause, shown = take_image(flush, book, update, self._memory)
            if cause is None:
                self._show(flush, book, shown, update.at)
            else:
                self._refuse(flush, book, update, update.at, cause)
        else:
            self._drop_held(flush, book, len(book.held))
            self._replace(flush, book, update, Event.IMAGE)

    def _delta(self, flush: Flush, book: Book, update: Update, at: int) -> None:
        """Take one delta, by the rules. at: where its rows belong (it may have been held)."""
        if not book.is_valid:
            self._wait(flush, book, update)
            return
        judge = continues if book.state is State.LIVE else bridges
        verdict = judge(book.continuity, book.last, update)
        if verdict is Continuation.COVERED:
            book.counters.duplicates += book.state is State.LIVE
            flush.discard(update)
        elif verdict is Continuation.MISSING:
            first, last = missing(book.continuity, book.last, update)
            self._break(flush, book, at, update.ts_recv, Cause.SEQUENCE, first, last)
            self._wait(flush, book, update)
        else:
            for side, keys, sizes in (
                (book.bids, update.bid_keys, update.bid_sizes),
                (book.asks, update.ask_keys, update.ask_sizes),
            ):
                if keys:
                    side.apply(zip(keys, sizes, strict=True), max(keys))
            cause = prove(book, update.last, update.flags, update.checksum, self._memory)
            if cause is not None:
                self._refuse(flush, book, update, at, cause)
                return
            book.state = NEXT[book.state, Event.DELTA]
            if update.at < 0:
                flush.publish(at, book.instrument, update)
            self._show(flush, book, update, at if update.at < 0 else at + update.levels)

    def _wait(self, flush: Flush, book: Book, update: Update) -> None:
        """A delta on a book without snapshot: hold it where the snapshot comes by REST."""
        before, book.state = book.state, NEXT[book.state, Event.DELTA]
        cause = Cause.DISCONNECT if before is State.OFFLINE else None
        # Elsewhere the snapshot was lost, or will come by itself.
        if before in {State.EMPTY, State.OFFLINE}:
            is_fetched = book.rule.snapshot is SnapshotSource.REST
            (self._repairs.ask if is_fetched else self._repairs.expect)(book, cause, flush.now_ns)
        if not book.holds_updates:
            flush.discard(update)
            return
        if (
            book.held
            and continues(book.continuity, book.held[-1].last, update) is Continuation.MISSING
        ):
            self._drop_held(flush, book, len(book.held))
        flush.leave_out(update)
        book.held.append(replace(update, at=-1))
        book.held_levels += update.levels
        self._held += update.levels
        if len(book.held) > self._settings.held_updates_max:
            self._drop_held(flush, book, len(book.held) // 4 + 1)

    def _drop_held(self, flush: Flush, book: Book, count: int) -> None:
        """Discard the oldest `count` held updates."""
        levels = sum(update.levels for update in book.held[:count])
        del book.held[:count]
        book.held_levels -= levels
        self._held -= levels
        flush.filtered += levels

    def _seed(self, flush: Flush, book: Book, update: Update) -> None:
        """Take a REST snapshot, then the held deltas that it doesn't cover."""
        if book.is_valid or book.state is State.OFFLINE:
            flush.discard(update)
            return
        verdicts = held_verdicts(book.continuity, update.last, book.held)
        covered = next(
            (at for at, one in enumerate(verdicts) if one is not Continuation.COVERED),
            len(verdicts),
        )
        self._drop_held(flush, book, covered)
        if book.held and verdicts[covered] is Continuation.MISSING:  # it is older than what we hold
            flush.discard(update)
            self._repairs.ask(book, book.repair_cause, flush.now_ns, again=True)
            return
        if self._replace(flush, book, update, Event.SEED):
            held, book.held = book.held, []
            self._held, book.held_levels = self._held - book.held_levels, 0
            for item in held:
                self._delta(flush, book, item, update.at + update.levels)

    def _replace(self, flush: Flush, book: Book, update: Update, event: Event) -> bool:
        """Put a snapshot in the place of whatever the book was; return whether it was right."""
        book.bids.replace(update.bid_keys, update.bid_sizes)
        book.asks.replace(update.ask_keys, update.ask_sizes)
        book.begin(update.flags)
        cause = prove(book, update.last, update.flags, update.checksum, self._memory)
        if cause is not None:
            self._refuse(flush, book, update, update.at, cause)
            return False
        if not book.is_valid:
            book.counters.invalid_ns += flush.now_ns - book.invalid_since_ns
            book.valid_since_ns = flush.now_ns
        book.state = NEXT[book.state, event]
        book.gap_open = False
        book.partial = bool(update.flags & Flag.PARTIAL)
        book.counters.resets += 1
        self._repairs.done(book)
        flush.reset(update.at, book.instrument, update)
        self._show(flush, book, update, update.at + update.levels)
        return True

    def _show(self, flush: Flush, book: Book, update: Update, at: int) -> None:
        """Publish what an update did beyond its own rows. at: behind them."""
        if book.removed is not None:
            flush.remove(at, book.instrument, update, *book.removed)
            book.counters.added += len(book.removed[0]) + len(book.removed[1])
            book.removed = None
        if book.quotes_from_book:
            top = book.top()
            if top != book.shown:
                book.shown = top
                if self._wanted.has_quotes(book):
                    flush.quote(book.instrument, update, top)

    def _hole(self, flush: Flush, hole: Gap) -> None:
        """Break the books that a hole concerns: those named, else all of the connection."""
        is_down = hole.cause in _NOTHING_TO_REPAIR
        for instrument in self._wanted.carried(hole):
            book = self._books.book(instrument, flush.now_ns)
            if hole.is_part:
                self._wanted.interrupt(flush, book, hole)
            elif not (is_down and self._wanted.is_elsewhere(book, hole.source)):
                self._wanted.carry(book, hole.source)
                event = Event.DISCONNECT if is_down else Event.BREAK
                at = flush.start(hole.update)
                self._break(flush, book, at, hole.ts_recv, hole.cause, hole.first, hole.last, event)

    def _refuse(self, flush: Flush, book: Book, update: Update, at: int, cause: Cause) -> None:
        """Leave an update out and break the book that it contradicts."""
        flush.discard(update)
        self._break(flush, book, at, update.ts_recv, cause)

    def _break(
        self,
        flush: Flush,
        book: Book,
        at: int,
        ts_recv: int,
        cause: Cause,
        first: int = 0,
        last: int = 0,
        event: Event = Event.BREAK,
    ) -> None:
        """The book can't be trusted: say so in the stream, empty it, ask for a repair."""
        if not book.gap_open or cause in _TELL_AGAIN:
            flush.gap(at, book.instrument, ts_recv, cause, first, last)
            self._wanted.end_quotes(flush, book, ts_recv, cause, first, last)
            book.counters.gaps += 1
            book.gap_open = True
            if event is not Event.DISCONNECT:
                key = self._table[book.instrument].key
                self._errors.append(SequenceGap(key, cause.name.lower(), first, last))
        if book.is_valid:
            book.invalid_since_ns = flush.now_ns
            if flush.now_ns - book.valid_since_ns > self._settings.healthy_s * SECOND:
                book.attempts = 0
        self._drop_held(flush, book, len(book.held))
        book.clear()
        book.state = NEXT[book.state, event]
        if book.state is State.OFFLINE:
            self._repairs.done(book)
        else:
            self._repairs.ask(book, cause, flush.now_ns)
