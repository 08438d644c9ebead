"""What one flush takes out of the buffer: kept events turned into rows, column by column.

Everything is checked here for the whole batch at once: integers against their field, decimal text
against its instrument's exponents. What fails is narrowed to the frame that brought it; that frame
is taken out whole, of every class, and all others stand.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from struct import error
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.columns.sealed import Gap, Rejected, Sealed, Source
from ingestor.model.decimals import Lines, parse_column
from ingestor.model.errors import BadNumber, DecodeError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import (
    NUMBERS,
    QUOTE,
    TRADE,
    Cause,
    Flag,
    Kind,
    LevelFormat,
    RowClass,
    Rows,
)

# Fills in the rows of some events: `set_column` for integers; returns a column of decimal text for
# each number of the class. rows: array of TRADE or QUOTE, with times of receipt, instruments, kinds
# and Flag.LAST in place. An event that doesn't fit may raise anything of UNFIT.
ColumnReader = Callable[[list[Any], Rows], Sequence[Sequence[object]]]

UNFIT: Final = (LookupError, TypeError, ValueError, OverflowError, AttributeError, error)
DEFERRED_WIDTH: Final = 5  # members of a kept event: reader, event, instrument, ts_recv, frame

_LAST: Final = int(Flag.LAST)
_DTYPES: Final = {RowClass.TRADE: TRADE, RowClass.QUOTE: QUOTE}
_KINDS: Final = {RowClass.TRADE: int(Kind.TRADE), RowClass.QUOTE: int(Kind.QUOTE)}
_CODES: Final = {"i8": "q", "u8": "Q", "u4": "I", "u2": "H", "u1": "B"}
_CODE_OF: Final = {
    name: _CODES[dtype[name].str[1:]] for dtype in (TRADE, QUOTE) for name in dtype.names or ()
}
_BREAKS: Final = bytes.maketrans(b",", b"\n")
_NO_NUMBERS: Final = np.empty((0, 2), np.int64)
_NO_FRAMES: Final = np.empty(0, np.int64)


def set_column(rows: Rows, name: str, values: Iterable[int]) -> None:
    """Set a field of trades or quotes. values: as many integers as there are rows.

    Raises TypeError for what is no integer, OverflowError for what the field can't hold.
    """
    rows[name] = array(_CODE_OF[name], values)


def seal(
    trades: list[Any],
    quotes: list[Any],
    updates: Rows,
    level_texts: list[object],
    json_levels: list[bytes],
    frames: list[bytes],
    sources: list[Source],
    holes: list[Gap],
    rejected: list[Rejected],
    table: InstrumentTable,
) -> Sealed:
    """Convert all columns and take the frames out that don't fit.

    trades, quotes: DEFERRED_WIDTH members for each event, in order. level_texts: prices and sizes
    of the updates' levels, in turns. json_levels: sides, in turns, of the updates whose levels are
    JSON.
    """
    trade, trade_bad = _convert(RowClass.TRADE, trades, table)
    quote, quote_bad = _convert(RowClass.QUOTE, quotes, table)
    levels, level_bad = _levels(updates, level_texts, json_levels, table)
    sealed = Sealed(
        trades=trade.rows,
        quotes=quote.rows,
        updates=updates,
        prices=levels[:, 0],
        sizes=levels[:, 1],
        quote_frames=quote.frames,
        frames=frames,
        sources=sources,
        holes=holes,
        rejected=rejected,
    )
    if trade_bad or quote_bad or level_bad:
        _take_out(sealed, trade.frames, trade_bad | quote_bad | level_bad)
    return sealed


Bad = dict[int, tuple[str, str]]  # frame -> reason, detail


@dataclass(slots=True)
class Part:
    """The rows of one class, and the frame that each came with."""

    rows: Rows
    frames: NDArray[np.int64]


_EMPTY: Final = {name: Part(np.empty(0, dtype), _NO_FRAMES) for name, dtype in _DTYPES.items()}


def read_deferred(row_class: RowClass, deferred: list[Any]) -> tuple[Part, list[object], Bad]:
    """Read kept events: their rows without numbers, the texts of the numbers, row after row, and
    the frames that can't be read."""
    count = len(deferred) // DEFERRED_WIDTH
    rows = np.zeros(count, _DTYPES[row_class])
    rows["instrument"] = array("I", deferred[2::DEFERRED_WIDTH])
    rows["ts_recv"] = array("q", deferred[3::DEFERRED_WIDTH])
    rows["flags"] = _LAST
    rows["kind"] = _KINDS[row_class]
    frames = np.frombuffer(array("q", deferred[4::DEFERRED_WIDTH]), np.int64)
    texts: list[object] = [None] * (count * len(NUMBERS[row_class]))
    bad: Bad = {}
    readers, events = deferred[0::DEFERRED_WIDTH], deferred[1::DEFERRED_WIDTH]
    if readers.count(readers[0]) == count:
        _read(readers[0], events, rows, texts, frames, bad)
    else:
        _read_apart(readers, events, rows, texts, frames, bad)
    return Part(rows, frames), texts, bad


def _convert(row_class: RowClass, deferred: list[Any], table: InstrumentTable) -> tuple[Part, Bad]:
    if not deferred:
        return _EMPTY[row_class], {}
    part, texts, bad = read_deferred(row_class, deferred)
    names = NUMBERS[row_class]
    numbers, cells = _numbers(texts, part.rows["instrument"], len(names), table)
    for cell in cells:
        detail = f"{texts[cell]!r:.60}"
        bad.setdefault(int(part.frames[cell // len(names)]), (BadNumber.reason, detail))
    for index, name in enumerate(names):
        part.rows[name] = numbers[:, index]
    return part, bad


def _read(
    reader: ColumnReader,
    events: list[Any],
    rows: Rows,
    texts: list[object],
    frames: NDArray[np.int64],
    bad: Bad,
) -> None:
    """Let a reader fill in its rows; if it can't, one by one, so that only the culprits are bad."""
    width = len(texts) // len(events)
    try:
        columns = reader(events, rows)
    except UNFIT as failure:
        if len(events) == 1:
            reason = f"{type(failure).__name__}: {failure}"
            bad[int(frames[0])] = DecodeError.reason, reason
            texts[:] = ["0"] * width
            return
        for index, event in enumerate(events):
            cells: list[object] = [None] * width
            _read(reader, [event], rows[index : index + 1], cells, frames[index : index + 1], bad)
            texts[index * width : (index + 1) * width] = cells
        return
    for index, column in enumerate(columns):
        texts[index::width] = column


def _read_apart(
    readers: list[ColumnReader],
    events: list[Any],
    rows: Rows,
    texts: list[object],
    frames: NDArray[np.int64],
    bad: Bad,
) -> None:
    """Several venues in one flush: each reader gets its own events, in order."""
    places: dict[ColumnReader, list[int]] = {}
    for place, reader in enumerate(readers):
        places.setdefault(reader, []).append(place)
    width = len(texts) // len(events)
    for reader, at in places.items():
        some = rows[at]
        cells: list[object] = [None] * (len(at) * width)
        _read(reader, [events[place] for place in at], some, cells, frames[at], bad)
        rows[at] = some
        for index, place in enumerate(at):
            texts[place * width : (place + 1) * width] = cells[index * width : (index + 1) * width]


def _levels(
    updates: Rows, texts: list[object], raw: list[bytes], table: InstrumentTable
) -> tuple[NDArray[np.int64], Bad]:
    """Return int64[levels, 2], prices and sizes of all updates in order."""
    if not raw:
        return _levels_of(updates, texts, table) if texts else (_NO_NUMBERS, {})
    is_json = updates["level_format"] == LevelFormat.JSON
    counts = updates["bids"] + updates["asks"]
    lines = Lines(
        b",".join([side for side in raw if side != b"[]"]).translate(_BREAKS, b'[]"'),
        2 * int(counts[is_json].sum()),
    )
    if not texts:
        return _levels_of(updates, lines, table) if lines.raw else (_NO_NUMBERS, {})
    numbers = np.empty((int(counts.sum()), 2), np.int64)
    bad: Bad = {}
    at = np.repeat(is_json, counts)
    for mask, some, cells in ((at, updates[is_json], lines), (~at, updates[~is_json], texts)):
        if cells:
            numbers[mask], found = _levels_of(some, cells, table)
            bad |= found
    return numbers, bad


def _levels_of(
    updates: Rows, texts: Sequence[object], table: InstrumentTable
) -> tuple[NDArray[np.int64], Bad]:
    counts = updates["bids"] + updates["asks"]
    numbers, cells = _numbers(texts, np.repeat(updates["instrument"], counts), 2, table)
    if not cells:
        return numbers, {}
    frames = np.repeat(updates["frame"], counts)
    return numbers, {
        int(frames[cell // 2]): (BadNumber.reason, f"{texts[cell]!r:.60}")
        for cell in reversed(cells)
    }


def _numbers(
    texts: Sequence[object], instruments: NDArray[np.uint32], width: int, table: InstrumentTable
) -> tuple[NDArray[np.int64], list[int]]:
    """Return int64[rows, width] in units of each cell's exponent, and the indices of bad cells.

    texts: prices and sizes in turn, `width` for each row. Bad: no plain decimal, finer than the
    instrument's increment, or a negative size.
    """
    exponents = table.exponents[:, :width][instruments]
    values, bad = parse_column(texts, exponents.ravel())
    numbers = values.reshape(-1, width)
    negative = values[1::2] < 0
    if negative.any():
        bad = sorted({*bad, *(2 * np.flatnonzero(negative) + 1).tolist()})
    return numbers, bad


def _take_out(sealed: Sealed, trade_frames: NDArray[np.int64], bad: Bad) -> None:
    """List each bad frame as rejected and its instruments as a hole; take out its rows."""
    arrays = (sealed.trades, sealed.quotes, sealed.updates)
    frames_of = (trade_frames, sealed.quote_frames, sealed.updates["frame"])
    keep = [~np.isin(frames, list(bad)) for frames in frames_of]
    before = [np.concatenate(([0], np.cumsum(mask))) for mask in keep]
    for hole in sealed.holes:
        hole.trade = int(before[0][hole.trade])
        hole.quote = int(before[1][hole.quote])
        hole.update = int(before[2][hole.update])
    for frame, (reason, detail) in sorted(bad.items()):
        rows = [rows[frames == frame] for rows, frames in zip(arrays, frames_of, strict=True)]
        at = [int(np.searchsorted(frames, frame)) for frames in frames_of]
        ts_recv = int(next(some["ts_recv"][0] for some in rows if len(some)))
        source = sealed.sources[frame]
        sealed.rejected.append(
            Rejected(source, sealed.frames[frame], reason, detail, ts_recv, at_sealing=True)
        )
        sealed.holes.append(
            Gap(
                source=source,
                cause=Cause.REJECTED,
                ts_recv=ts_recv,
                trade=int(before[0][at[0]]),
                quote=int(before[1][at[1]]),
                update=int(before[2][at[2]]),
                frame=frame,
                instruments=np.unique(
                    np.concatenate([some["instrument"] for some in rows])
                ).tolist(),
            )
        )
    sealed.holes.sort(key=lambda hole: (hole.update, hole.trade, hole.quote))
    keep_levels = np.repeat(keep[2], sealed.updates["bids"] + sealed.updates["asks"])
    sealed.prices, sealed.sizes = sealed.prices[keep_levels], sealed.sizes[keep_levels]
    sealed.trades = sealed.trades[keep[0]]
    sealed.quotes, sealed.quote_frames = sealed.quotes[keep[1]], sealed.quote_frames[keep[1]]
    sealed.updates = sealed.updates[keep[2]]
