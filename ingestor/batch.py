"""Columns until sealed: the buffer that decoders append to, and what sealing makes of it.

A decoder packs each event's numbers straight into the bytes of its row; prices and sizes stay text
in one list per class until the batch is sealed, when whole columns are converted with numpy. Until
then the price field of a row holds the number of its frame: that is how a bad number, found only
at sealing, is narrowed to the frame that brought it. A frame is all or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct, error
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ingestor.errors import BadNumber
from ingestor.fixed import parse_column
from ingestor.instruments import InstrumentTable
from ingestor.rows import QUOTE, TRADE, UPDATE, Cause, Flag, Kind, RowClass, Rows

_TRADE: Final = Struct("<qqQIHBBq8xQQ")
_QUOTE: Final = Struct("<qqQIHBBq24x")
_UPDATE: Final = Struct("<qqQQQIIIIIHH")
assert (_TRADE.size, _QUOTE.size, _UPDATE.size) == (
    TRADE.itemsize,
    QUOTE.itemsize,
    UPDATE.itemsize,
)

_LAST: Final = int(Flag.LAST)
_TRADE_KIND: Final = int(Kind.TRADE)
_QUOTE_KIND: Final = int(Kind.QUOTE)
_PRICE: Final = 7  # where the price of a trade or quote, and until sealed its frame, is packed
_BIDS, _ASKS, _FRAME = 6, 7, 9  # the same for an update
_QUOTE_FIELDS: Final = ("bid_price", "bid_size", "ask_price", "ask_size")
_CHECKSUM: Final = int(Flag.CHECKSUM)
_NO_VALUES: Final = np.empty(0, np.int64)
_LEVEL_TYPES: Final = {list, tuple}
_PAIR: Final = {2}

PackError = error  # what a number that doesn't fit its field raises; a ValueError to decoders


class InstrumentLike(Protocol):
    """What reading rows needs of an instrument; `Instrument` satisfies it."""

    @property
    def key(self) -> str: ...
    @property
    def price_exponent(self) -> int: ...
    @property
    def size_exponent(self) -> int: ...
    @property
    def revision(self) -> int: ...


class Instruments(Protocol):
    """Instruments by number; `InstrumentTable` and any sequence satisfy it."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> InstrumentLike: ...


@dataclass(slots=True)
class TickBatch:
    """Sealed rows of one class, in order per instrument: what sinks take and consumers get.

    rows: array of TRADE, QUOTE or LEVEL, marks included. instruments: what the rows' `instrument`
    field indexes: the process's table, or the table that came with a Kafka record or a file.
    """

    row_class: RowClass
    rows: Rows
    instruments: Instruments

    def __len__(self) -> int:
        return len(self.rows)


class Source(Protocol):
    """Who a frame came from: one connection."""

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        """Return the numbers of the instruments subscribed to on it, for one class."""


@dataclass(slots=True)
class Hole:
    """Rows that a source may have lost, at a place in the stream.

    update, trade, quote: rows of each class that were appended before it. ts_recv: ns.
    instruments: who is concerned; None = every instrument of the source.
    """

    source: Source
    cause: Cause
    ts_recv: int
    update: int
    trade: int
    quote: int
    frame: int = -1
    first: int = 0
    last: int = 0
    instruments: Sequence[int] | None = None


@dataclass(slots=True)
class Rejected:
    """A frame that was refused: its raw bytes and why.

    at_sealing: found only when columns were converted; its session had counted it as decoded.
    """

    source: Source
    payload: bytes
    reason: str
    detail: str
    ts_recv: int
    at_sealing: bool = False


@dataclass(slots=True)
class Sealed:
    """What one flush took out of the buffer.

    trades, quotes: arrays of TRADE and QUOTE rows. updates: array of UPDATE; their levels are
    prices and sizes (int64, bids then asks, update after update). All in order of arrival.
    frames, sources: the raw frames and where they came from; UPDATE.frame indexes both.
    """

    trades: Rows
    quotes: Rows
    updates: Rows
    prices: NDArray[np.int64]
    sizes: NDArray[np.int64]
    frames: list[bytes]
    sources: list[Source]
    holes: list[Hole] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows decoded: trades, quotes and price levels."""
        return len(self.trades) + len(self.quotes) + len(self.prices)


class TickBuffer:
    """The columns of one loop. Decoders append; `seal` hands over and starts anew."""

    __slots__ = (
        "_level_texts",
        "_quote_texts",
        "_quotes",
        "_trade_texts",
        "_trades",
        "_updates",
        "frame",
        "frames",
        "holes",
        "rejected",
        "sources",
    )

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._trades = bytearray()
        self._quotes = bytearray()
        self._updates = bytearray()
        self._trade_texts: list[object] = []
        self._quote_texts: list[object] = []
        self._level_texts: list[object] = []
        self.frames: list[bytes] = []
        self.sources: list[Source] = []
        self.frame = -1
        self.holes: list[Hole] = []
        self.rejected: list[Rejected] = []

    @property
    def rows(self) -> int:
        """Rows waiting: trades, quotes and price levels. The measure of `full`."""
        return (
            len(self._trades) // _TRADE.size
            + len(self._quotes) // _QUOTE.size
            + len(self._level_texts) // 2
        )

    @property
    def is_empty(self) -> bool:
        return not (self.frames or self.holes or self.rejected)

    def begin(self, source: Source, payload: bytes) -> None:
        """Start a frame. Everything appended from here to the next `begin` belongs to it."""
        self.frames.append(payload)
        self.sources.append(source)
        self.frame += 1

    def trade(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        sequence: int,
        price: object,
        size: object,
        side: int,
        trade_id: int = 0,
        trade_id_high: int = 0,
        flags: int = _LAST,
    ) -> None:
        """Append one trade. price, size: decimal text. Times in ns; see `rows.TRADE`."""
        self._trades += _TRADE.pack(
            ts_event,
            ts_recv,
            sequence,
            instrument,
            flags,
            side,
            _TRADE_KIND,
            self.frame,
            trade_id_high,
            trade_id,
        )
        self._trade_texts += (price, size)

    def quote(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        sequence: int,
        bid_price: object,
        bid_size: object,
        ask_price: object,
        ask_size: object,
        flags: int = _LAST,
    ) -> None:
        """Append one quote. Prices and sizes: decimal text; an empty side is "0", "0".

        ts_event: ns; where the venue gives none, pass ts_recv and Flag.NO_VENUE_TIME | Flag.LAST.
        """
        self._quotes += _QUOTE.pack(
            ts_event,
            ts_recv,
            sequence,
            instrument,
            flags,
            0,
            _QUOTE_KIND,
            self.frame,
        )
        self._quote_texts += (bid_price, bid_size, ask_price, ask_size)

    def levels(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        first: int,
        last: int,
        bids: Sequence[Sequence[object]],
        asks: Sequence[Sequence[object]],
        previous: int = 0,
        flags: int = 0,
        checksum: int | None = None,
        *,
        are_pairs: bool = False,
        mark: int = 0,
    ) -> None:
        """Append one book event. bids, asks: levels that begin with price text, size text.

        Flag.SNAPSHOT replaces the book. first, last, previous: update numbers, 0 = none.
        mark: 32 bits by which a REST image may name the state after this event; 0 = none. An event
        has a checksum or a mark. A level may have more members than two; they are ignored.
        Raises ValueError for a level that has fewer or is no list.
        """
        if not are_pairs:
            bids, asks = _as_pairs(bids), _as_pairs(asks)
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
            mark if checksum is None else checksum,
            self.frame,
            flags,
            0,
        )
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
    ) -> None:
        """Declare that rows may be missing here; `source` defaults to the current frame's."""
        self.holes.append(
            Hole(
                source=source or self.sources[-1],
                cause=cause,
                ts_recv=ts_recv,
                update=len(self._updates) // _UPDATE.size,
                trade=len(self._trades) // _TRADE.size,
                quote=len(self._quotes) // _QUOTE.size,
                frame=self.frame if source is None else -1,
                first=first,
                last=last,
                instruments=instruments,
            )
        )

    def reject(self, reason: str, detail: str, ts_recv: int, *, is_hole: bool = True) -> None:
        """Take the current frame back and keep it as rejected. Its source has a hole here, unless
        the frame was an answer that its asker will ask for again (a REST snapshot)."""
        self._rollback()
        source = self.sources[-1]
        self.rejected.append(Rejected(source, self.frames[-1], reason, detail, ts_recv))
        if is_hole:
            self.hole(Cause.REJECTED, ts_recv)

    def _rollback(self) -> None:
        """Take back every row of the current frame. Texts follow their row, so rows tell all."""
        frame = self.frame
        while self._trades and _last(_TRADE, self._trades)[_PRICE] == frame:
            del self._trades[-_TRADE.size :]
            del self._trade_texts[-2:]
        while self._quotes and _last(_QUOTE, self._quotes)[_PRICE] == frame:
            del self._quotes[-_QUOTE.size :]
            del self._quote_texts[-4:]
        while self._updates and (update := _last(_UPDATE, self._updates))[_FRAME] == frame:
            del self._updates[-_UPDATE.size :]
            texts = 2 * (update[_BIDS] + update[_ASKS])
            del self._level_texts[len(self._level_texts) - texts :]
        while self.holes and self.holes[-1].frame == frame:
            self.holes.pop()

    def seal(self, table: InstrumentTable) -> Sealed:
        """Convert all columns, take the frames with a bad number out, and start anew.

        Bad: no plain decimal, finer than the instrument's increment, or a negative size. Such
        frames are in `rejected` and their instruments in `holes`.
        """
        trades = np.frombuffer(self._trades, TRADE)
        quotes = np.frombuffer(self._quotes, QUOTE)
        updates = np.frombuffer(self._updates, UPDATE)
        counts = updates["bids"] + updates["asks"]
        columns = (
            _Column(trades["price"], trades["instrument"], self._trade_texts),
            _Column(quotes["bid_price"], np.repeat(quotes["instrument"], 2), self._quote_texts),
            _Column(
                np.repeat(updates["frame"], counts),
                np.repeat(updates["instrument"], counts),
                self._level_texts,
            ),
        )
        parsed = [_parse(column, table) for column in columns]
        sealed = Sealed(
            trades=trades,
            quotes=quotes,
            updates=updates,
            prices=parsed[2].values[0::2],
            sizes=parsed[2].values[1::2],
            frames=self.frames,
            sources=self.sources,
            holes=self.holes,
            rejected=self.rejected,
        )
        bad = {frame: detail for one in parsed for frame, detail in one.bad_frames}
        keep = _reject_frames(sealed, bad) if bad else None
        trades["price"], trades["size"] = parsed[0].values[0::2], parsed[0].values[1::2]
        for field_index, name in enumerate(_QUOTE_FIELDS):
            quotes[name] = parsed[1].values[field_index::4]
        if keep is not None:
            _take_out(sealed, keep)
        self._start()
        return sealed


@dataclass(slots=True)
class _Column:
    """Price and size texts in turn, with the frame of each row and the instrument of each pair."""

    frames: NDArray[np.int64]
    instruments: NDArray[np.uint32]
    texts: list[object]


@dataclass(slots=True)
class _Parsed:
    values: NDArray[np.int64]
    bad_frames: list[tuple[int, str]]


def _as_pairs(levels: Sequence[Sequence[object]]) -> Sequence[Sequence[object]]:
    """Return levels of price and size alone. Raises ValueError for what is none."""
    if not {*map(type, levels)} <= _LEVEL_TYPES:
        raise ValueError("a price level is no list")
    widths = {*map(len, levels)}
    if widths <= _PAIR:
        return levels
    if min(widths) < 2:
        raise ValueError("a price level without price or size")
    return [level[:2] for level in levels]


def _last(layout: Struct, rows: bytearray) -> tuple[int, ...]:
    return layout.unpack_from(rows, len(rows) - layout.size)


def _parse(column: _Column, table: InstrumentTable) -> _Parsed:
    if not column.texts:
        return _Parsed(_NO_VALUES, [])
    exponents = np.empty(len(column.texts), np.int64)
    exponents[0::2] = table.price_exponents[column.instruments]
    exponents[1::2] = table.size_exponents[column.instruments]
    values, bad = parse_column(column.texts, exponents)
    negative = values[1::2] < 0
    if negative.any():
        bad += (2 * np.flatnonzero(negative) + 1).tolist()
    if not bad:
        return _Parsed(values, [])
    cells_per_row = len(column.texts) // max(len(column.frames), 1)
    return _Parsed(
        values,
        [
            (int(column.frames[cell // cells_per_row]), f"{column.texts[cell]!r:.60}")
            for cell in bad
        ],
    )


_Masks = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]


def _reject_frames(sealed: Sealed, bad: dict[int, str]) -> _Masks:
    """List each bad frame as rejected and its instruments as a hole; return the rows to keep.

    Runs while the price fields still hold frame numbers, which ascend in every class.
    """
    arrays = (sealed.trades, sealed.quotes, sealed.updates)
    frames_of = (sealed.trades["price"], sealed.quotes["bid_price"], sealed.updates["frame"])
    keep = tuple(~np.isin(frames, list(bad)) for frames in frames_of)
    before = [np.concatenate(([0], np.cumsum(mask))) for mask in keep]
    for hole in sealed.holes:
        hole.trade = int(before[0][hole.trade])
        hole.quote = int(before[1][hole.quote])
        hole.update = int(before[2][hole.update])
    for frame, detail in bad.items():
        rows = [array[frames == frame] for array, frames in zip(arrays, frames_of, strict=True)]
        at = [int(np.searchsorted(frames, frame)) for frames in frames_of]
        ts_recv = int(next(array["ts_recv"][0] for array in rows if len(array)))
        source = sealed.sources[frame]
        sealed.rejected.append(
            Rejected(source, sealed.frames[frame], BadNumber.reason, detail, ts_recv, True)
        )
        sealed.holes.append(
            Hole(
                source=source,
                cause=Cause.REJECTED,
                ts_recv=ts_recv,
                trade=int(before[0][at[0]]),
                quote=int(before[1][at[1]]),
                update=int(before[2][at[2]]),
                frame=frame,
                instruments=np.unique(
                    np.concatenate([array["instrument"] for array in rows])
                ).tolist(),
            )
        )
    sealed.holes.sort(key=lambda hole: (hole.update, hole.trade, hole.quote))
    return keep[0], keep[1], keep[2]


def _take_out(sealed: Sealed, keep: _Masks) -> None:
    keep_trades, keep_quotes, keep_updates = keep
    keep_levels = np.repeat(keep_updates, sealed.updates["bids"] + sealed.updates["asks"])
    sealed.prices, sealed.sizes = sealed.prices[keep_levels], sealed.sizes[keep_levels]
    sealed.trades = sealed.trades[keep_trades]
    sealed.quotes = sealed.quotes[keep_quotes]
    sealed.updates = sealed.updates[keep_updates]
