"""What one flush takes out of the buffer: kept events turned into rows, column by column.

Everything is checked here for the whole batch at once: integers against their field, decimal text
against its instrument's exponents, prices and sizes against what they can be. What fails is
narrowed to the frame that brought it; that frame is taken out whole, of every class, and all others
stand. Where converting raises what nothing foresaw, each frame is tried alone, and those that raise
are taken out in the same way (`Sealed.bugs`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.columns.narrowing import (
    DEFERRED_WIDTH,
    Appended,
    guilty_frames,
    neutralize,
)
from ingestor.columns.sealed import Gap, Part, Rejected, Sealed
from ingestor.model.decimals import INT64_MAX, Lines, parse_column
from ingestor.model.errors import MALFORMED, BadNumber, DecodeError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RATE_EXPONENT, Exponent, RowClass
from ingestor.model.rows import QUOTE, TRADE, Cause, Flag, LevelFormat, Rows

# Fills in the rows of some events: `set_column` for integers; returns a column of decimal text for
# each number of the class. rows: array of TRADE or QUOTE, with times of receipt, instruments, kinds
# and Flag.LAST in place. An event that doesn't fit may raise anything; what is not of MALFORMED is
# reported as a bug.
ColumnReader = Callable[[list[Any], Rows], Sequence[Sequence[object]]]

Bad = dict[int, tuple[str, str]]  # frame -> reason, detail
SNAPSHOT_REASON: Final = "snapshot"  # why an answer to a request was refused

_LAST: Final = int(Flag.LAST)
_CODES: Final = {"i8": "q", "u8": "Q", "i4": "i", "u4": "I", "i2": "h", "u2": "H", "u1": "B"}
_CODE_OF: Final = {
    name: _CODES[dtype[name].str[1:]] for dtype in (TRADE, QUOTE) for name in dtype.names or ()
}  # a class whose field has one of these names gives it the same type
_BREAKS: Final = bytes.maketrans(b",", b"\n")
_NO_NUMBERS: Final = np.empty((0, 2), np.int64)
_NO_FRAMES: Final = np.empty(0, np.int64)
_IN_TURNS: Final = {RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL}  # prices and sizes
_LOWEST: Final = {Exponent.PRICE: 1, Exponent.SIZE: 0, Exponent.RATE: -INT64_MAX}
_UPDATE_NUMBERS: Final = slice(2, 5)  # where an UPDATE, as eight integers, has its numbers


def set_column(rows: Rows, name: str, values: Iterable[int]) -> None:
    """Set a field of rows. values: as many integers as there are rows.

    Raises TypeError for what is no integer, OverflowError for what the field can't hold.
    """
    code = _CODE_OF.get(name) or _CODES[rows.dtype[name].str[1:]]
    rows[name] = array(code, values)


def seal(appended: Appended, table: InstrumentTable) -> Sealed:
    """Convert all columns and take the frames out that don't fit."""
    before = len(appended.bugs)
    try:
        return _seal(appended, table, {})
    except Exception as failure:  # noqa: BLE001  # the boundary of a frame
        del appended.bugs[before:]  # they are found again
        guilty = guilty_frames(appended, lambda part: _seal(part, table, {}))
        appended.bugs += guilty.values() or [failure]
        neutralize(appended, guilty.keys(), table)
        bad = {frame: (DecodeError.reason, _words(bug)) for frame, bug in guilty.items()}
        return _seal(appended, table, bad)


def _seal(appended: Appended, table: InstrumentTable, bad: Bad) -> Sealed:
    """bad: frames that are known not to fit."""
    bugs = appended.bugs
    trade, trade_bad = _convert(RowClass.TRADE, appended.trades, table, bugs)
    quote, quote_bad = _convert(RowClass.QUOTE, appended.quotes, table, bugs)
    levels, level_bad = _levels(appended, table)
    others: dict[RowClass, Part] = {}
    for row_class, deferred in appended.others.items():
        others[row_class], found = _convert(row_class, deferred, table, bugs)
        bad = bad | found
    sealed = Sealed(
        trades=trade.rows,
        quotes=quote.rows,
        updates=appended.updates,
        prices=levels[:, 0],
        sizes=levels[:, 1],
        quote_frames=quote.frames,
        frames=appended.frames,
        sources=appended.sources,
        holes=appended.holes,
        rejected=appended.rejected,
        bugs=bugs,
        others=others,
    )
    if trade_bad or quote_bad or level_bad or bad:
        bad = trade_bad | quote_bad | level_bad | bad
        _take_out(sealed, trade.frames, bad, appended.answers)
    return sealed


def read_deferred(
    row_class: RowClass, deferred: list[Any], bugs: list[Exception]
) -> tuple[Part, list[object], Bad]:
    """Read kept events: their rows without numbers, the texts of the numbers, row after row, and
    the frames that can't be read. bugs: takes the exceptions that nothing foresaw."""
    count = len(deferred) // DEFERRED_WIDTH
    rows = np.zeros(count, row_class.dtype)
    rows["instrument"] = array("I", deferred[2::DEFERRED_WIDTH])
    rows["ts_recv"] = array("q", deferred[3::DEFERRED_WIDTH])
    rows["flags"] = _LAST
    rows["kind"] = row_class.id
    frames = np.frombuffer(array("q", deferred[4::DEFERRED_WIDTH]), np.int64)
    texts: list[object] = [None] * (count * len(row_class.numbers))
    bad: Bad = {}
    readers, events = deferred[0::DEFERRED_WIDTH], deferred[1::DEFERRED_WIDTH]
    if readers.count(readers[0]) == count:
        _read(readers[0], events, rows, texts, frames, bad, bugs)
    else:
        _read_apart(readers, events, rows, texts, frames, bad, bugs)
    return Part(rows, frames), texts, bad


def _convert(
    row_class: RowClass, deferred: list[Any], table: InstrumentTable, bugs: list[Exception]
) -> tuple[Part, Bad]:
    if not deferred:
        return Part(np.empty(0, row_class.dtype), _NO_FRAMES), {}
    part, texts, bad = read_deferred(row_class, deferred, bugs)
    rows = part.rows
    if (sequences := rows["sequence"]).max() > INT64_MAX:
        for row in np.flatnonzero(sequences > INT64_MAX).tolist():
            bad.setdefault(int(part.frames[row]), _beyond(sequences[row]))
    names = row_class.numbers
    numbers, cells = _numbers(row_class, texts, rows["instrument"], table)
    for cell in cells:
        detail = f"{texts[cell]!r:.60}"
        bad.setdefault(int(part.frames[cell // len(names)]), (BadNumber.reason, detail))
    for index, name in enumerate(names):
        rows[name] = numbers[:, index]
    return part, bad


def _beyond(number: np.uint64) -> tuple[str, str]:
    return DecodeError.reason, f"the number {number} is beyond 63 bits"


def _words(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}"


def _read(
    reader: ColumnReader,
    events: list[Any],
    rows: Rows,
    texts: list[object],
    frames: NDArray[np.int64],
    bad: Bad,
    bugs: list[Exception],
) -> None:
    """Let a reader fill in its rows; if it can't, one by one, so that only the culprits are bad."""
    width = len(texts) // len(events)
    try:
        columns = reader(events, rows)
        for index, column in enumerate(columns):
            texts[index::width] = column
    except Exception as failure:  # noqa: BLE001  # the boundary of a frame
        is_bug = not isinstance(failure, MALFORMED)
        if len(events) == 1:
            bad[int(frames[0])] = DecodeError.reason, _words(failure)
            texts[:] = ["1"] * width
            if is_bug:
                bugs.append(failure)
            return
        found = len(bugs)
        for index, event in enumerate(events):
            some = slice(index, index + 1)
            cells: list[object] = [None] * width
            _read(reader, [event], rows[some], cells, frames[some], bad, bugs)
            texts[index * width : (index + 1) * width] = cells
        if is_bug and len(bugs) == found:  # of no event alone
            bugs.append(failure)


def _read_apart(
    readers: list[ColumnReader],
    events: list[Any],
    rows: Rows,
    texts: list[object],
    frames: NDArray[np.int64],
    bad: Bad,
    bugs: list[Exception],
) -> None:
    """Several venues in one flush: each reader gets its own events, in order."""
    places: dict[ColumnReader, list[int]] = {}
    for place, reader in enumerate(readers):
        places.setdefault(reader, []).append(place)
    width = len(texts) // len(events)
    for reader, at in places.items():
        some = rows[at]
        cells: list[object] = [None] * (len(at) * width)
        _read(reader, [events[place] for place in at], some, cells, frames[at], bad, bugs)
        rows[at] = some
        for index, place in enumerate(at):
            texts[place * width : (place + 1) * width] = cells[index * width : (index + 1) * width]


def _levels(appended: Appended, table: InstrumentTable) -> tuple[NDArray[np.int64], Bad]:
    """Return int64[levels, 2], prices and sizes of all updates in order."""
    updates, texts = appended.updates, appended.level_texts
    if not len(updates):
        return _NO_NUMBERS, {}
    numbers, bad = _level_numbers(updates, texts, appended.json_levels, table)
    names = updates.view(np.uint64).reshape(-1, 8)[:, _UPDATE_NUMBERS]
    if names.max() > INT64_MAX:
        for row, column in np.argwhere(names > INT64_MAX).tolist():
            bad.setdefault(int(updates["frame"][row]), _beyond(names[row, column]))
    return numbers, bad


def _level_numbers(
    updates: Rows, texts: list[object], raw: list[bytes], table: InstrumentTable
) -> tuple[NDArray[np.int64], Bad]:
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
    instruments = np.repeat(updates["instrument"], counts)
    numbers, cells = _numbers(RowClass.LEVEL, texts, instruments, table)
    if not cells:
        return numbers, {}
    frames = np.repeat(updates["frame"], counts)
    return numbers, {
        int(frames[cell // 2]): (BadNumber.reason, f"{texts[cell]!r:.60}")
        for cell in reversed(cells)
    }


def _numbers(
    row_class: RowClass,
    texts: Sequence[object],
    instruments: NDArray[np.uint32],
    table: InstrumentTable,
) -> tuple[NDArray[np.int64], list[int]]:
    """Return int64[rows, width] in units of each cell's exponent, and the indices of bad cells.

    texts: the numbers of each row in turn. Bad: no plain decimal, finer than the instrument's
    increment, or a number that no price or size of the class can be.
    """
    width = len(row_class.numbers)
    if row_class not in _IN_TURNS:
        return _other_numbers(row_class, texts, instruments, table)
    exponents = table.exponents[:, :width][instruments]
    values, bad = parse_column(texts, exponents.ravel())
    lowest = values[0::2].min() if row_class is RowClass.LEVEL else values.min()
    if lowest <= 0 or (row_class is RowClass.LEVEL and values[1::2].min() < 0):
        bad = sorted({*bad, *_impossible(row_class, values).tolist()})
    return values.reshape(-1, width), bad


def _other_numbers(
    row_class: RowClass,
    texts: Sequence[object],
    instruments: NDArray[np.uint32],
    table: InstrumentTable,
) -> tuple[NDArray[np.int64], list[int]]:
    """As `_numbers`, for a class whose numbers are in any units."""
    shape = len(instruments), len(row_class.numbers)
    exponents = np.full(shape, RATE_EXPONENT)
    for index, unit in enumerate(row_class.exponents):
        if unit is not Exponent.RATE:
            of_unit = table.price_exponents if unit is Exponent.PRICE else table.size_exponents
            exponents[:, index] = of_unit[instruments]
    values, bad = parse_column(texts, exponents.ravel())
    lowest = np.array([_LOWEST[unit] for unit in row_class.exponents], np.int64)
    numbers = values.reshape(shape)
    return numbers, sorted({*bad, *np.flatnonzero(numbers < lowest).tolist()})


def _impossible(row_class: RowClass, values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the indices of prices and sizes that can't be: a price is above 0 unless it is that of
    an empty side of a quote, a size is not below 0, and that of a trade is above 0."""
    prices, sizes = values[0::2], values[1::2]
    is_bad = np.empty(len(values), np.bool_)
    is_bad[0::2] = prices <= 0 if row_class is not RowClass.QUOTE else prices < (sizes != 0)
    is_bad[1::2] = sizes <= 0 if row_class is RowClass.TRADE else sizes < 0
    return np.flatnonzero(is_bad)


def _take_out(sealed: Sealed, trade_frames: NDArray[np.int64], bad: Bad, answers: set[int]) -> None:
    """List each bad frame as rejected and its instruments as a hole; take out its rows."""
    others = sealed.others
    row_classes = (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL, *others)
    arrays = [sealed.trades, sealed.quotes, sealed.updates]
    arrays += [part.rows for part in others.values()]
    frames_of = [trade_frames, sealed.quote_frames, sealed.updates["frame"]]
    frames_of += [part.frames for part in others.values()]
    keep = [~np.isin(frames, list(bad)) for frames in frames_of]
    before = [np.concatenate(([0], np.cumsum(mask))) for mask in keep]
    for hole in sealed.holes:
        hole.trade = int(before[0][hole.trade])
        hole.quote = int(before[1][hole.quote])
        hole.update = int(before[2][hole.update])
        for row_class, passed in zip(others, before[3:], strict=True):
            hole.others[row_class] = int(passed[hole.others.get(row_class, 0)])
    for frame, (reason, detail) in sorted(bad.items()):
        rows = [rows[frames == frame] for rows, frames in zip(arrays, frames_of, strict=True)]
        at = [int(np.searchsorted(frames, frame)) for frames in frames_of]
        ts_recv = int(next(some["ts_recv"][0] for some in rows if len(some)))
        is_frame = frame not in answers
        sealed.rejected.append(
            Rejected(
                sealed.sources[frame],
                sealed.frames[frame],
                reason if is_frame else SNAPSHOT_REASON,
                detail,
                ts_recv,
                at_sealing=True,
                is_frame=is_frame,
            )
        )
        sealed.holes += [
            Gap(
                source=sealed.sources[frame],
                cause=Cause.REJECTED,
                ts_recv=ts_recv,
                trade=int(before[0][at[0]]),
                quote=int(before[1][at[1]]),
                update=int(before[2][at[2]]),
                frame=frame,
                instruments=np.unique(some["instrument"]).tolist(),
                row_class=row_class,
                others={
                    other: int(passed[place])
                    for other, passed, place in zip(others, before[3:], at[3:], strict=True)
                },
            )
            for row_class, some in zip(row_classes, rows, strict=True)
            if len(some)
        ]
    sealed.holes.sort(key=lambda hole: (hole.update, hole.trade, hole.quote))
    keep_levels = np.repeat(keep[2], sealed.updates["bids"] + sealed.updates["asks"])
    sealed.prices, sealed.sizes = sealed.prices[keep_levels], sealed.sizes[keep_levels]
    sealed.trades = sealed.trades[keep[0]]
    sealed.quotes, sealed.quote_frames = sealed.quotes[keep[1]], sealed.quote_frames[keep[1]]
    sealed.updates = sealed.updates[keep[2]]
    for part, mask in zip(others.values(), keep[3:], strict=True):
        part.rows, part.frames = part.rows[mask], part.frames[mask]
