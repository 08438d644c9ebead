"""One flush: seal the columns, drop what was resent, run the books, hand over batches.

Pure: the caller passes the time and takes the result to the sinks. Everything is per batch; the
only per-row Python here is on rare paths (marks, resent trades).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ingestor.adapter import BookRule, TradeNumbers
from ingestor.books.manager import BookManager
from ingestor.books.repair_planner import Repair
from ingestor.books.settings import BookSettings
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Gap, Rejected, Sealed
from ingestor.decode.frame_queue import FrameQueues
from ingestor.derived.derived import DerivedRows
from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.errors import SequenceGap
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Cause, Kind, Rows
from ingestor.pipeline.arbitration import Arbiter
from ingestor.pipeline.asked_rows import keep_asked
from ingestor.pipeline.gaps import Mark, concerned, with_gaps
from ingestor.pipeline.resent_rows import ResentRows
from ingestor.pipeline.trade_gaps import Lost, TradeGaps
from ingestor.telemetry.metrics import Metrics


@dataclass(slots=True)
class FlushResult:
    """Hold the result of one flush: at most one batch per class, and what is left to be done.

    repairs: books that need a snapshot. rejected: frames for quarantine. errors: books that broke,
    for the log. bugs: instrument and exception, where a book's code raised. frame_bugs: exceptions
    that nothing foresaw, of frames or of code that decodes many. lost: trades that are missing.
    derived_bug: the exception of code that derives rows; they begin anew.
    """

    batches: list[TickBatch] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    errors: list[SequenceGap] = field(default_factory=list)
    bugs: list[tuple[int, Exception]] = field(default_factory=list)
    frame_bugs: list[Exception] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    derived_bug: Exception | None = None

    @property
    def rows(self) -> int:
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """The row side of the ledger, up to the sinks: every decoded row is one of these."""

    decoded: int
    published: int
    duplicate: int
    filtered: int
    held: int

    @property
    def unaccounted(self) -> int:
        return self.decoded - self.published - self.duplicate - self.filtered - self.held


_OWN_WAY: Final = (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL)


class Pipeline:
    """From the tick buffer to batches, for one loop."""

    def __init__(
        self,
        table: InstrumentTable,
        rule_of: Callable[[int], BookRule],
        settings: BookSettings | None = None,
        trade_numbers_of: Callable[[int], TradeNumbers] | None = None,
    ) -> None:
        """Create the pipeline.

        Args:
            table: the instruments.
            rule_of: instrument number -> the book rule of its market.
            settings: of the books.
            trade_numbers_of: instrument number -> what its market's trade numbers say; None:
                nothing.
        """
        self.table = table
        self.buffer = ColumnBuffer(table)
        self.frame_queues = FrameQueues(table, self.buffer)
        self.books = BookManager(table, rule_of, settings or BookSettings())
        self.metrics = Metrics(table)
        self._rule_of = rule_of
        self.bytes_received = 0  # payload of all frames, as of the last flush
        self._held = 0
        self._filtered = 0
        self._others = [row_class for row_class in ROW_CLASSES if row_class not in _OWN_WAY]
        self._resent = {
            row_class: ResentRows(table, row_class.resent_by)
            for row_class in ROW_CLASSES
            if row_class.resent_by
        }
        self.trade_gaps = TradeGaps(table, trade_numbers_of)
        self._arbiter = Arbiter(rule_of)
        self.derived: DerivedRows | None = None

    def derive(self, settings_of: Callable[[int], DerivedSettings] | None) -> None:
        """Derive rows from here on; what was begun with the same settings goes on.

        settings_of: instrument number -> what is derived for it; None: nothing is.
        """
        if settings_of is None:
            self.derived = None
        elif self.derived is None:
            self.derived = DerivedRows(self.table, settings_of)
        else:
            self.derived.configure(settings_of)

    def flush(self, now_ns: int, steady_ns: int | None = None) -> FlushResult:
        """Take everything out of the frame queues and the buffer.

        Args:
            now_ns: ns since the epoch, for lags.
            steady_ns: ns of a clock that is never set, by which books wait and repairs are due;
                `now_ns` serves as one where time is that of a recording.
        """
        self.frame_queues.decode()
        sealed = self.buffer.seal(self.table)
        self.bytes_received += sum(map(len, sealed.frames)) + sealed.unkept_bytes
        for rejected in sealed.rejected:
            if rejected.at_sealing and rejected.is_frame:
                rejected.source.count_refused(rejected.reason)
        self.frame_queues.seal()
        if self.frame_queues.lines.is_used:
            self._arbitrate(sealed)
        trades = self._trades(sealed)
        books = self.books.apply(sealed, now_ns if steady_ns is None else steady_ns)
        quotes = self._quotes(sealed)
        self._held = books.held
        self._filtered += books.filtered
        result = FlushResult(repairs=books.repairs, rejected=sealed.rejected, errors=books.errors)
        result.bugs, result.frame_bugs = books.bugs, sealed.bugs
        result.lost = self.trade_gaps.found()
        self._settle(result, RowClass.TRADE, sealed.trades, trades, now_ns)
        self._settle(result, RowClass.QUOTE, sealed.quotes, quotes, now_ns, books.quotes)
        if len(sealed.updates):
            updates = sealed.updates
            levels = updates["bids"] + updates["asks"].astype(np.int64)
            names = ("decoded", "published") if books.is_whole else ("decoded",)
            instruments = updates["instrument"]
            self.metrics.count_rows(names, RowClass.LEVEL, instruments, rows_each=levels)
        if books.is_whole and len(books.rows):
            self.metrics.sealed(RowClass.LEVEL, sealed.updates, now_ns)
            result.batches.append(TickBatch(RowClass.LEVEL, books.rows, self.table))
        else:
            self._settle(result, RowClass.LEVEL, None, books.rows, now_ns)
            if len(sealed.updates):
                self.metrics.last_seen.note_arrivals(RowClass.LEVEL, sealed.updates["instrument"])
        derived = self._derived(result, trades, books.rows, now_ns)
        for row_class in self._others:
            self._settle_other(result, row_class, sealed, now_ns, derived.get(row_class))
        for hole in sealed.holes:
            if hole.cause is Cause.REJECTED and hole.instruments is not None:
                self._note_refused(hole)
        if books.added:
            added = np.array(books.added, np.uint32)
            self.metrics.count_rows("published", RowClass.LEVEL, added, sign=-1)
            self.metrics.count_rows("marks", RowClass.LEVEL, added)
        return result

    def replace_instruments(self, numbers: Mapping[int, int], ts_ns: int) -> None:
        """Follow new revisions of instruments, between two flushes.

        Args:
            numbers: number of the old revision -> number of the new one.
            ts_ns: when that is, ns since the epoch; the time of the GAPs it makes.
        """
        for resent in self._resent.values():
            resent.replace_instruments(numbers)
        self._arbiter.replace_instruments(numbers)
        self.trade_gaps.replace_instruments(numbers)
        self.books.replace_instruments(numbers, ts_ns)
        if self.derived is not None:
            self.derived.replace_instruments(numbers)

    @property
    def is_empty(self) -> bool:
        """Return True if nothing waits to be flushed."""
        is_waiting = self.trade_gaps.is_waiting
        return self.buffer.is_empty and self.frame_queues.is_empty and not is_waiting

    def ledger(self) -> LedgerLine:
        """Return the sums since the start, as of the last flush."""
        total = self.metrics.total
        return LedgerLine(
            decoded=total("decoded"),
            published=total("published"),
            duplicate=total("duplicate"),
            filtered=self._filtered,
            held=self._held,
        )

    def _arbitrate(self, sealed: Sealed) -> None:
        """Leave out what another line brought before."""
        paired = self.frame_queues.lines.paired(len(self.table))
        for row_class, instruments in self._arbiter.take(sealed, paired).items():
            self.metrics.count_rows(("decoded", "duplicate"), row_class, instruments)

    def _quotes(self, sealed: Sealed) -> Rows:
        """Return the decoded quotes with their GAP marks.

        Books see to the marks of quotes that are taken from them.
        """
        marks: list[Mark] = [
            (hole.quote, number, hole)
            for hole in sealed.holes
            for number in concerned(RowClass.QUOTE, hole)
            if not self._rule_of(number).quotes_from_book
        ]
        return with_gaps(RowClass.QUOTE, sealed.quotes, marks)

    def _rows_of(self, row_class: RowClass, decoded: Rows, holes: Sequence[Gap]) -> Rows:
        """Return the decoded rows of a class without resent ones, with GAP rows between."""
        marks = [
            (hole.place(row_class), number, hole)
            for hole in holes
            for number in concerned(row_class, hole)
        ]
        rows = with_gaps(row_class, decoded, marks)
        resent = self._resent.get(row_class)
        if resent is None or not len(rows):
            return rows
        rows, repeated = resent.drop(rows)
        if len(repeated):
            self.metrics.count_rows("duplicate", row_class, repeated)
        return rows

    def _trades(self, sealed: Sealed) -> Rows:
        trades = self._rows_of(RowClass.TRADE, sealed.trades, sealed.holes)
        if not len(trades) and not self.trade_gaps.is_waiting:
            return trades
        trades, unwanted = self.trade_gaps.take(trades)
        if len(unwanted):
            self.metrics.count_rows("duplicate", RowClass.TRADE, unwanted)
        return trades

    def _derived(
        self, result: FlushResult, trades: Rows, levels: Rows, now_ns: int
    ) -> Mapping[RowClass, Rows]:
        """Return what follows from the rows of a flush, by class.

        Args:
            result: takes the exception of code that raises.
            trades: with their GAPs.
            levels: with their GAPs and RESETs.
            now_ns: ns since the epoch.
        """
        if self.derived is None:
            return {}
        try:
            return self.derived.take(trades, levels, now_ns)
        except Exception as failure:  # noqa: BLE001  # the boundary of derived rows
            result.derived_bug = failure
            self.derived = self.derived.begun_anew()
            return {}

    def _settle_other(
        self,
        result: FlushResult,
        row_class: RowClass,
        sealed: Sealed,
        now_ns: int,
        derived: Rows | None,
    ) -> None:
        """Do for a class without a way of its own what is done for trades.

        Args:
            result: takes the batch.
            row_class: the class.
            sealed: the flush.
            now_ns: ns since the epoch.
            derived: rows of the class that this program made.
        """
        part = sealed.others.get(row_class)
        if part is not None:
            keep_asked(sealed, row_class)
        elif not sealed.holes and derived is None:
            return
        decoded = np.empty(0, row_class.dtype) if part is None else part.rows
        rows = self._rows_of(row_class, decoded, sealed.holes)
        self._settle(result, row_class, decoded, rows, now_ns, derived)

    def _note_refused(self, hole: Gap) -> None:
        """Count a refused frame as an arrival of what it may have concerned."""
        for row_class in ROW_CLASSES:
            instruments = np.array(concerned(row_class, hole), np.uint32)
            if len(instruments):
                self.metrics.last_seen.note_arrivals(row_class, instruments)

    def _settle(
        self,
        result: FlushResult,
        row_class: RowClass,
        decoded: Rows | None,
        rows: Rows,
        now_ns: int,
        derived: Rows | None = None,
    ) -> None:
        """Count what became of one class and add its batch to the result.

        decoded: what the buffer held (None: counted by the caller). rows: what is published of it,
        with marks between. derived: rows that were made of others, with theirs.
        """
        count = self.metrics.count_rows
        if decoded is rows:
            count(("decoded", "published"), row_class, rows["instrument"])
        else:
            if decoded is not None:
                count("decoded", row_class, decoded["instrument"])
            if len(rows):
                self._count_marked(row_class, rows)
        if derived is not None and len(derived):
            count("marks", row_class, derived["instrument"])
            is_gap = derived["kind"] == Kind.GAP
            if is_gap.any():
                count("gaps", row_class, derived["instrument"][is_gap])
            rows = np.concatenate([rows, derived])
        if len(rows):
            self.metrics.sealed(row_class, rows, now_ns)
            result.batches.append(TickBatch(row_class, rows, self.table))

    def _count_marked(self, row_class: RowClass, rows: Rows) -> None:
        """rows: decoded rows, perhaps with marks among them."""
        count = self.metrics.count_rows
        is_control_row = rows["kind"] != row_class.id
        if is_control_row.any():
            count("marks", row_class, rows["instrument"][is_control_row])
            count("gaps", row_class, rows["instrument"][rows["kind"] == Kind.GAP])
            rows = rows[~is_control_row]
        count("published", row_class, rows["instrument"])
