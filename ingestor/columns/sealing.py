"""Turn the events of one flush into rows, column by column.

Everything is checked here for the whole batch at once: integers against their field, decimal text
against its instrument's exponents, prices and sizes against what they can be. What fails is
narrowed to the frame that brought it; that frame is taken out whole, of every class, and all others
stand. Where converting raises what nothing foresaw, each frame is tried alone, and those that raise
are taken out in the same way (`Sealed.bugs`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.columns.merging import merge_rows, merge_updates, place_holes
from ingestor.columns.narrowing import (
    DEFERRED_WIDTH,
    Appended,
    guilty_frames,
    neutralize,
)
from ingestor.columns.own_exponents import convert_numbers
from ingestor.columns.sealed import Gap, Part, Rejected, Sealed
from ingestor.model.decimals import INT64_MAX, parse_column
from ingestor.model.errors import MALFORMED, BadNumber, DecodeError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.integers import Integers, fits_63_bits, int64_column
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import QUOTE, TRADE, Cause, Flag, Rows

# Fills in the rows of some events: `set_column` for integers; returns a column of decimal text for
# each number of the class. None stands for a number that is absent, where the class has it in
# `optional`. rows: array of TRADE
# or QUOTE, with times of receipt, instruments, kinds and Flag.LAST in place. An event that doesn't
# fit may raise anything; what is not of MALFORMED is reported as a bug.
ColumnReader = Callable[[list[Any], Rows], Sequence[Sequence[object]]]

Bad = dict[int, tuple[str, str]]  # frame -> reason, detail
SNAPSHOT_REASON: Final = "snapshot"  # why an answer to a request was refused

_BACKFILL: Final = np.uint16(Flag.BACKFILL)
_CODES: Final = {"i8": "q", "u8": "Q", "i4": "i", "u4": "I", "i2": "h", "u2": "H", "u1": "B"}
_CODE_OF: Final = {
    name: _CODES[dtype[name].str[1:]] for dtype in (TRADE, QUOTE) for name in dtype.names or ()
}  # a class whose field has one of these names gives it the same type
_WORDS: Final = "qQ"
_NO_NUMBERS: Final = np.empty((0, 2), np.int64)
_NO_FRAMES: Final = np.empty(0, np.int64)
_IN_TURNS: Final = {RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL}  # prices and sizes
_UPDATE_NUMBERS: Final = slice(2, 5)  # where an UPDATE, as eight integers, has its numbers


def set_column(rows: Rows, name: str, values: Integers) -> None:
    """Set a field of rows.

    Args:
        rows: n rows, changed in place.
        name: The field.
        values: n integers.

    Raises:
        TypeError: A value is not an integer.
        OverflowError: The field can't hold a value.
    """
    code = _CODE_OF.get(name) or _CODES[rows.dtype[name].str[1:]]
    if isinstance(values, np.ndarray):
        is_sure = code in _WORDS and values.dtype == np.int64 and fits_63_bits(values)
        rows[name] = values if is_sure else array(code, values.tolist())
    elif code == "B":
        rows[name] = _octets(values)
    else:
        rows[name] = array(code, values) if code != "q" else int64_column(values)


def _octets(values: Sequence[int]) -> bytearray | array[int]:
    try:
        return bytearray(values)  # is made in a third of the time that an array of "B" takes
    except (TypeError, ValueError):
        return array("B", values)  # says what is wrong as it does of all fields


def seal(appended: Appended, table: InstrumentTable) -> Sealed:
    """Convert all columns and take the frames out that don't fit."""
    before = len(appended.bugs)
    if appended.taken is not None:
        place_holes(appended.holes, appended.taken)
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
    if appended.answers and len(trade.rows):  # nobody but who fetches lost trades gets any
        trade.rows["flags"][np.isin(trade.frames, list(appended.answers))] |= _BACKFILL
    quote, quote_bad = _convert(RowClass.QUOTE, appended.quotes, table, bugs)
    levels, level_bad = _levels(appended, table)
    others: dict[RowClass, Part] = {}
    for row_class, deferred in appended.others.items():
        others[row_class], found = _convert(row_class, deferred, table, bugs)
        bad = bad | found
    updates, taken = appended.updates, appended.taken
    if taken is not None:
        trade = Part(*merge_rows(trade.rows, trade.frames, taken.trades, taken.trade_frames))
        quote = Part(*merge_rows(quote.rows, quote.frames, taken.quotes, taken.quote_frames))
        updates, levels = merge_updates(updates, levels, taken)
    sealed = Sealed(
        trades=trade.rows,
        quotes=quote.rows,
        updates=updates,
        prices=levels[:, 0],
        sizes=levels[:, 1],
        quote_frames=quote.frames,
        frames=appended.frames,
        sources=appended.sources,
        holes=appended.holes,
        rejected=appended.rejected,
        bugs=bugs,
        others=others,
        unkept_bytes=taken.payload_bytes if taken is not None else 0,
    )
    if trade_bad or quote_bad or level_bad or bad:
        bad = trade_bad | quote_bad | level_bad | bad
        _take_out(sealed, trade.frames, bad, appended.answers)
    return sealed


@cache
def _template(row_class: RowClass) -> bytearray:
    """Return a row as it is before it is read."""
    row = np.zeros(1, row_class.dtype)
    row["flags"] = Flag.LAST
    row["kind"] = row_class.id
    return bytearray(row.tobytes())


def read_deferred(
    row_class: RowClass, deferred: list[Any], bugs: list[Exception]
) -> tuple[Part, Sequence[object], Bad]:
    """Read the events that were kept of one class.

    Args:
        row_class: The class.
        deferred: Members of events, flat.
        bugs: Receives the exceptions that nothing foresaw.

    Returns:
        The rows without their decimal numbers, the texts of these numbers row after row, and
        the frames that can't be read.
    """
    count = len(deferred) // DEFERRED_WIDTH
    rows = np.frombuffer(_template(row_class) * count, row_class.dtype)
    rows["instrument"] = array("I", deferred[2::DEFERRED_WIDTH])
    rows["ts_recv"] = int64_column(deferred[3::DEFERRED_WIDTH])
    frames = int64_column(deferred[4::DEFERRED_WIDTH])
    width = len(row_class.numbers)
    bad: Bad = {}
    readers, events = deferred[0::DEFERRED_WIDTH], deferred[1::DEFERRED_WIDTH]
    if readers.count(readers[0]) == count:
        texts = _read(readers[0], events, rows, width, frames, bad, bugs)
    else:
        texts = _read_apart(readers, events, rows, width, frames, bad, bugs)
    return Part(rows, frames), texts, bad


def _convert(
    row_class: RowClass, deferred: list[Any], table: InstrumentTable, bugs: list[Exception]
) -> tuple[Part, Bad]:
    if not deferred:
        return Part(np.empty(0, row_class.dtype), _NO_FRAMES), {}
    part, texts, bad = read_deferred(row_class, deferred, bugs)
    rows = part.rows
    sequences = rows["sequence"]
    if not fits_63_bits(sequences):
        for row in np.flatnonzero(sequences > INT64_MAX).tolist():
            bad.setdefault(int(part.frames[row]), _beyond(sequences[row]))
    names = row_class.numbers
    if row_class in _IN_TURNS:
        exponents = table.exponents_of(rows["instrument"], len(names))
        numbers, cells = _numbers(row_class, texts, exponents)
    else:
        numbers, cells = convert_numbers(row_class, texts, rows, table)
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
    width: int,
    frames: NDArray[np.int64],
    bad: Bad,
    bugs: list[Exception],
) -> Sequence[object]:
    """Let a reader fill in its rows; if it can't, one by one, so that only the culprits are bad.

    Return the texts of their numbers, row after row. width: how many a row has.
    """
    try:
        return _in_rows(reader(events, rows), width * len(events), width)
    except Exception as failure:  # noqa: BLE001  # the boundary of a frame
        is_bug = not isinstance(failure, MALFORMED)
        if len(events) == 1:
            bad[int(frames[0])] = DecodeError.reason, _words(failure)
            if is_bug:
                bugs.append(failure)
            return ["1"] * width
        found = len(bugs)
        texts: list[object] = []
        for index, event in enumerate(events):
            some = slice(index, index + 1)
            texts += _read(reader, [event], rows[some], width, frames[some], bad, bugs)
        if is_bug and len(bugs) == found:  # of no event alone
            bugs.append(failure)
        return texts


def _in_rows(columns: Sequence[Sequence[object]], count: int, width: int) -> Sequence[object]:
    """Return what a reader returned, row after row."""
    texts: list[object] = [None] * count
    for index, column in enumerate(columns):
        if width * len(column) != count:
            raise ValueError(f"{len(column)} numbers for {count // width} rows")
        texts[index::width] = column
    return texts


def _read_apart(
    readers: list[ColumnReader],
    events: list[Any],
    rows: Rows,
    width: int,
    frames: NDArray[np.int64],
    bad: Bad,
    bugs: list[Exception],
) -> Sequence[object]:
    """Several venues in one flush: each reader gets its own events, in order."""
    places: dict[ColumnReader, list[int]] = {}
    for place, reader in enumerate(readers):
        places.setdefault(reader, []).append(place)
    texts: list[object] = [None] * (width * len(events))
    for reader, at in places.items():
        some = rows[at]
        cells = _read(reader, [events[place] for place in at], some, width, frames[at], bad, bugs)
        rows[at] = some
        for index, place in enumerate(at):
            texts[place * width : (place + 1) * width] = cells[index * width : (index + 1) * width]
    return texts


def _levels(appended: Appended, table: InstrumentTable) -> tuple[NDArray[np.int64], Bad]:
    """Return int64[levels, 2], prices and sizes of all updates in order."""
    updates, texts = appended.updates, appended.level_texts
    if not len(updates):
        return _NO_NUMBERS, {}
    if not texts:
        return _NO_NUMBERS, {}
    numbers, bad = _levels_of(updates, updates["bids"] + updates["asks"], texts, table)
    names = updates.view(np.uint64).reshape(-1, 8)[:, _UPDATE_NUMBERS]
    if not fits_63_bits(names):
        for row, column in np.argwhere(names > INT64_MAX).tolist():
            bad.setdefault(int(updates["frame"][row]), _beyond(names[row, column]))
    return numbers, bad


def _levels_of(
    updates: Rows, counts: NDArray[np.uint32], texts: Sequence[object], table: InstrumentTable
) -> tuple[NDArray[np.int64], Bad]:
    exponents = table.exponents_of(updates["instrument"], 2).repeat(counts, axis=0)
    numbers, cells = _numbers(RowClass.LEVEL, texts, exponents)
    if not cells:
        return numbers, {}
    frames = np.repeat(updates["frame"], counts)
    return numbers, {
        int(frames[cell // 2]): (BadNumber.reason, f"{texts[cell]!r:.60}")
        for cell in reversed(cells)
    }


def _numbers(
    row_class: RowClass, texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Return int64[rows, width] in units of each cell's exponent, and the indices of bad cells.

    texts: prices and sizes in turn, as many for each row as its class has. exponents:
    int64[rows, width]. Bad: no plain decimal, finer than the instrument's increment, or a number
    that no price or size of the class can be.
    """
    values, bad = parse_column(texts, exponents.ravel())
    checked = values[0::2] if row_class is RowClass.LEVEL else values
    # Zeros are counted in a fraction of the time that the least of a column takes.
    if np.count_nonzero(checked) < len(checked) or not fits_63_bits(values):
        bad = sorted({*bad, *_impossible(row_class, values).tolist()})
    return values.reshape(exponents.shape), bad


def _impossible(row_class: RowClass, values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the indices of prices and sizes that can't be: a price is above 0 unless it is that of
    an empty side of a quote, a size is not below 0, and that of a trade is above 0.
    """
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
            if len(some) and (is_frame or row_class is not RowClass.TRADE)
        ]
    sealed.holes.sort(key=lambda hole: (hole.update, hole.trade, hole.quote))
    keep_levels = np.repeat(keep[2], sealed.updates["bids"] + sealed.updates["asks"])
    sealed.prices, sealed.sizes = sealed.prices[keep_levels], sealed.sizes[keep_levels]
    sealed.trades = sealed.trades[keep[0]]
    sealed.quotes, sealed.quote_frames = sealed.quotes[keep[1]], sealed.quote_frames[keep[1]]
    sealed.updates = sealed.updates[keep[2]]
    for part, mask in zip(others.values(), keep[3:], strict=True):
        part.rows, part.frames = part.rows[mask], part.frames[mask]
