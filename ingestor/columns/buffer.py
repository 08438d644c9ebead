"""Batches of rows, and the buffer that decoders append to until a flush seals it.

Trades, quotes and rows of other classes are kept as tuples, each with the function that reads such
tuples by columns. Book updates are packed into the bytes of their rows, their levels' texts in one
list. All numbers are converted and checked when the buffer is sealed (`ingestor.columns.sealing`).
A frame is all or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

import numpy as np

from ingestor.columns.deferred import check_pairs, read_quotes, read_trades
from ingestor.columns.narrowing import DEFERRED_WIDTH, Appended
from ingestor.columns.sealed import Gap, Rejected, Sealed, Source
from ingestor.columns.sealing import ColumnReader, seal
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import UPDATE, Cause, Flag
from ingestor.native import TakenRows

_UPDATE: Final = Struct("<qqQQQIIIIIHH")
assert _UPDATE.size == UPDATE.itemsize

_LAST: Final = int(Flag.LAST)
_BIDS, _ASKS, _FRAME = 6, 7, 9  # where an update has them
_CHECKSUM: Final = int(Flag.CHECKSUM)


class ColumnBuffer:
    """The events of one loop. Decoders append; `seal` hands over and starts anew.

    frame: the number of the frame that what is appended comes with.
    kept_trades, kept_quotes: DEFERRED_WIDTH members for each event, flat; a list of five for each
    event would cost twice as much. kept_rows: the same, of the other classes. bugs: as in `Sealed`.
    taken: rows of the compiled library, once a frame queue has it.
    """

    __slots__ = (
        "_answers",
        "_level_texts",
        "_levels",
        "_table",
        "_updates",
        "bugs",
        "carried_only",
        "frame",
        "frames",
        "holes",
        "kept_quotes",
        "kept_rows",
        "kept_trades",
        "rejected",
        "sources",
        "taken",
    )

    def __init__(self, table: InstrumentTable | None = None) -> None:
        """table: the one that is given to `seal`, for decoders that ask for `exponents`."""
        self._table = table
        self.carried_only = False  # leave out rows of classes that their source does not carry
        self.taken: TakenRows | None = None
        self._start()

    def _start(self) -> None:
        self.kept_trades: list[Any] = []
        self.kept_quotes: list[Any] = []
        self.kept_rows: dict[RowClass, list[Any]] = {}
        self._updates = bytearray()
        self._levels = 0
        self._level_texts: list[object] = []
        self.frames: list[bytes] = []
        self.sources: list[Source] = []
        self.frame = -1
        self.holes: list[Gap] = []
        self.rejected: list[Rejected] = []
        self.bugs: list[Exception] = []
        self._answers: set[int] = set()

    def exponents(self, instrument: int) -> tuple[int, int] | None:
        """Return the exponents of an instrument's prices and sizes; None where no table has it."""
        if self._table is None:
            return None
        found = self._table[instrument]
        return found.price_exponent, found.size_exponent

    @property
    def table(self) -> InstrumentTable | None:
        return self._table

    @property
    def events(self) -> Counter[RowClass]:
        """Return how many events of each class wait that were decoded in Python."""
        return Counter(
            {
                RowClass.TRADE: len(self.kept_trades) // DEFERRED_WIDTH,
                RowClass.QUOTE: len(self.kept_quotes) // DEFERRED_WIDTH,
                RowClass.LEVEL: len(self._updates) // _UPDATE.size,
            }
        )

    @property
    def rows(self) -> int:
        """Rows waiting: trades, quotes, price levels, others. The measure of `full`."""
        waiting = len(self.kept_trades) + len(self.kept_quotes)
        if self.kept_rows:
            waiting += sum(map(len, self.kept_rows.values()))
        taken = self.taken.rows if self.taken is not None else 0
        return waiting // DEFERRED_WIDTH + self._levels + taken

    @property
    def is_empty(self) -> bool:
        return not (self.frames or self.holes or self.rejected)

    def begin(self, source: Source, payload: bytes) -> None:
        """Start a frame. Everything appended from here to the next `begin` belongs to it."""
        self.frames.append(payload)
        self.sources.append(source)
        self.frame += 1

    def begin_answer(self, source: Source, body: bytes) -> None:
        """Start an answer to a request, as `begin` does a frame. It is no frame of the ledger."""
        self.begin(source, body)
        self._answers.add(self.frame)

    def begin_many(self, sources: Sequence[Source], payloads: Sequence[bytes]) -> range:
        """Start frames that are decoded together; return their numbers."""
        first = len(self.frames)
        self.sources += sources
        self.frames += payloads
        self.frame = len(self.frames) - 1
        return range(first, self.frame + 1)

    def begin_taken(self, source: Source, others: int) -> None:
        """Start the frames of one read, of which shapes took all but some. others: how many; they
        are numbered too, and resumed one by one.
        """
        count = 2 * others + 1
        self.sources += [source] * count
        self.frames += [b""] * count
        self.frame += count

    def resume(self, frame: int, payload: bytes) -> None:
        """Append what belongs to a frame that was numbered before.

        Later ones have no rows yet that were decoded in Python.
        """
        self.frames[frame] = payload
        self.frame = frame

    def resume_last(self) -> None:
        """Go on after the last frame that has a number."""
        self.frame = len(self.frames) - 1

    def carries(self, row_class: RowClass, instrument: int) -> bool:
        """Say whether the source of the current frame carries a class of an instrument."""
        return instrument in self.sources[self.frame].instruments(row_class)

    def add_row(
        self,
        row_class: RowClass,
        reader: ColumnReader,
        event: object,
        instrument: int,
        ts_recv: int,
    ) -> None:
        """Append one row of a class that has no method of its own.

        A message may have rows of several; with `carried_only`, those that its source does not
        carry are left out.

        Args:
            row_class: its class.
            reader: reads the event when the buffer is sealed.
            event: what the venue sent.
            instrument: its number.
            ts_recv: ns.
        """
        if self.carried_only and not self.carries(row_class, instrument):
            return
        kept = self.kept_rows.setdefault(row_class, [])
        kept += (reader, event, instrument, ts_recv, self.frame)

    def add_trade(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        sequence: int,
        price: object,
        size: object,
        side: int,
        trade_id: int = 0,
        *,
        trade_id_high: int = 0,
        flags: int = _LAST,
    ) -> None:
        """Append one trade; `rows.TRADE` has the fields.

        Args:
            instrument: Number of the instrument.
            ts_event: The venue's time in ns.
            ts_recv: Time of receipt in ns.
            sequence: The venue's number, 0 where there is none.
            price: Decimal text.
            size: Decimal text.
            side: A `Side`, that of the aggressor.
            trade_id: Lower 64 bits of the trade's id.
            trade_id_high: Upper 64 bits of the trade's id.
            flags: Bits of `Flag`.
        """
        event = (ts_event, sequence, price, size, side, trade_id, trade_id_high, flags)
        self.kept_trades += (read_trades, event, instrument, ts_recv, self.frame)

    def add_quote(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        sequence: int,
        bid_price: object,
        bid_size: object,
        ask_price: object,
        ask_size: object,
        *,
        flags: int = _LAST,
    ) -> None:
        """Append one quote. An empty side has the price "0" and the size "0".

        Args:
            instrument: Number of the instrument.
            ts_event: The venue's time in ns. Where there is none: ts_recv, and the flags
                NO_VENUE_TIME and LAST.
            ts_recv: Time of receipt in ns.
            sequence: The venue's number, 0 where there is none.
            bid_price: Decimal text.
            bid_size: Decimal text.
            ask_price: Decimal text.
            ask_size: Decimal text.
            flags: Bits of `Flag`.
        """
        event = (ts_event, sequence, bid_price, bid_size, ask_price, ask_size, flags)
        self.kept_quotes += (read_quotes, event, instrument, ts_recv, self.frame)

    def add_book_update(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        bids: Sequence[Sequence[object]],
        asks: Sequence[Sequence[object]],
        *,
        first: int = 0,
        last: int = 0,
        previous: int = 0,
        flags: int = 0,
        checksum: int | None = None,
        are_pairs: bool = False,
        check_value: int = 0,
    ) -> None:
        """Append one book event. It has a checksum or a check value, not both.

        Args:
            instrument: Number of the instrument.
            ts_event: The venue's time in ns.
            ts_recv: Time of receipt in ns.
            bids: Levels that begin with price text and size text.
            asks: As `bids`.
            first: First update number that the event covers, 0 = none.
            last: Last update number that the event covers, 0 = none.
            previous: Number of the update before, 0 = none.
            flags: Bits of `Flag`; SNAPSHOT replaces the book.
            checksum: The venue's checksum of the book after this event.
            are_pairs: The caller has checked that each level is a pair.
            check_value: 32 bits by which a REST image may name the state after this event, 0 =
                none.

        Raises:
            ValueError: A side is not a list, or a level is not a pair.
        """
        if not are_pairs:
            check_pairs(bids)
            check_pairs(asks)
        if checksum is not None:
            flags |= _CHECKSUM
        self._updates += _UPDATE.pack(
            ts_event,
            ts_recv,
            first,
            last,
            previous,
            instrument,
            len(bids),
            len(asks),
            check_value if checksum is None else checksum,
            self.frame,
            flags,
            0,
        )
        self._levels += len(bids) + len(asks)
        texts = self._level_texts
        for level in bids:
            texts += level
        for level in asks:
            texts += level

    def hole(
        self,
        cause: Cause,
        ts_recv: int,
        first: int = 0,
        last: int = 0,
        instruments: Sequence[int] | None = None,
        source: Source | None = None,
        row_class: RowClass | None = None,
        *,
        is_part: bool = False,
    ) -> None:
        """Declare that rows may be missing here.

        Args:
            cause: why.
            ts_recv: when it was found, in ns.
            first: the first missing number, 0 where it is not known.
            last: the last one.
            instruments: whose rows; None for all that the source carries.
            source: the connection; None for that of the current frame.
            row_class: the class of the rows; None for each that the source carries.
            is_part: the source is some streams of a connection that carries others too.
        """
        self.holes.append(
            Gap(
                source=source or self.sources[self.frame],
                cause=cause,
                ts_recv=ts_recv,
                update=len(self._updates) // _UPDATE.size,
                trade=len(self.kept_trades) // DEFERRED_WIDTH,
                quote=len(self.kept_quotes) // DEFERRED_WIDTH,
                frame=self.frame if source is None else -1,
                first=first,
                last=last,
                instruments=instruments,
                row_class=row_class,
                is_part=is_part,
                others={one: len(kept) // DEFERRED_WIDTH for one, kept in self.kept_rows.items()},
                after=self.frame,
            )
        )

    def reject(self, reason: str, detail: str, ts_recv: int) -> None:
        """Take the rows of the current frame back and keep the frame as rejected.

        The caller declares the holes.

        Args:
            reason: Word that counts it in the metrics.
            detail: Text for the log.
            ts_recv: Time of receipt in ns.
        """
        self.roll_back(self.frame)
        self.rejected.append(
            Rejected(
                self.sources[self.frame],
                self.frames[self.frame],
                reason,
                detail,
                ts_recv,
                is_frame=self.frame not in self._answers,
            )
        )

    def roll_back(self, first: int) -> None:
        """Take back every row of the frames from this number on."""
        for kept in (self.kept_trades, self.kept_quotes, *self.kept_rows.values()):
            while kept and kept[-1] >= first:
                del kept[-DEFERRED_WIDTH:]
        while self._updates and (update := _last_update(self._updates))[_FRAME] >= first:
            del self._updates[-_UPDATE.size :]
            levels = update[_BIDS] + update[_ASKS]
            self._levels -= levels
            del self._level_texts[len(self._level_texts) - 2 * levels :]
        while self.holes and self.holes[-1].frame >= first:
            self.holes.pop()

    def seal(self, table: InstrumentTable) -> Sealed:
        """Convert all columns, take the frames out that don't fit, and start anew.

        What does not fit: a number that is no plain decimal, finer than the instrument's increment
        or out of its field's range, and a price or size that can't be. Such frames are in
        `rejected` and their instruments in `holes`.
        """
        appended = self.take_out()  # first: what can't be sealed is not sealed again
        return seal(appended, table)

    def take_out(self) -> Appended:
        """Return all that was appended as it is, and start anew."""
        appended = Appended(
            trades=self.kept_trades,
            quotes=self.kept_quotes,
            updates=np.frombuffer(self._updates, UPDATE),
            level_texts=self._level_texts,
            frames=self.frames,
            sources=self.sources,
            holes=self.holes,
            rejected=self.rejected,
            answers=self._answers,
            bugs=self.bugs,
            others=self.kept_rows,
            taken=self.taken.take_out() if self.taken is not None else None,
        )
        self._start()
        return appended


def _last_update(rows: bytearray) -> tuple[int, ...]:
    return _UPDATE.unpack_from(rows, len(rows) - _UPDATE.size)
