"""The JSON encoding: one record per venue event, keyed `venue:market:symbol`.

schemas/*.schema.json describe the values. Trades and quotes are one row each; a book event is its
levels up to the row flagged LAST, as `bids` and `asks`; a mark (gap, reset) is a record of its
own. Prices and sizes are decimal strings with exactly as many decimals as the instrument has, so
that a reader learns the exponents from the text.

Values are written by columns: a value is a row of pieces, some the same for all, some kept for each
instrument, some made of numbers, and stays so until a batch is joined (see `framing`). The few rows
that have no such pieces (marks, negative numbers) are written one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from itertools import accumulate, repeat
from operator import mod
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ingestor.batch import Instruments
from ingestor.codec.digits import Texts, decimal_texts, even_digits, integer_texts
from ingestor.codec.framing import Column, Columns, ColumnsPart, Pieces, with_length
from ingestor.codec.wire import Part, Record, joined
from ingestor.fixed import format_decimal
from ingestor.rows import (
    CHANNEL_OF,
    MARK_FIELDS,
    NUMBERS,
    Cause,
    Flag,
    Kind,
    RowClass,
    Rows,
    Side,
)

LEVELS_PER_RECORD: Final = 4_096  # a snapshot of 46,000 levels is cut; LAST is on its last record

SIDE_NAMES: Final = {Side.NONE: "none", Side.BID: "buy", Side.ASK: "sell"}  # of trades
KIND_NAMES: Final = {
    Kind.TRADE: "trade",
    Kind.QUOTE: "quote",
    Kind.LEVEL: "book",
    Kind.GAP: "gap",
    Kind.RESET: "reset",
}
NO_CAUSE: Final = "none"
CAUSE_NAMES: Final = {0: NO_CAUSE, **{int(cause): cause.name.lower() for cause in Cause}}

_TOGETHER_MAX: Final = 1_024  # rows; the columns of more would leave the processor's cache
_LAST: Final = int(Flag.LAST)
_MS: Final = 1_000_000
_FIRST_MARK: Final = int(Kind.GAP)  # kinds from here on are marks, not ticks
_PAIR: Final = b'["%b","%b"]'


class JsonEncoder:
    """Rows -> records. Keeps the texts of each instrument seen."""

    encoding: Final = "json"

    def __init__(self, instruments: Instruments, session: bytes) -> None:
        """instruments: by number, may grow. session: 16 bytes."""
        assert len(session) == 16
        self._instruments = instruments
        self._session = session.hex()
        self._keys = Pieces(
            lambda number: with_length(instruments[number].key.encode()), instruments
        )
        self._prefixes = {
            row_class: Pieces(partial(self._prefix, row_class, Kind(row_class)), instruments)
            for row_class in RowClass
        }
        self._exponents = np.zeros((0, 2), np.int64)  # of price and size, by instrument

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of `rows`, in order."""
        return list(self.encode_parts(row_class, [(rows, first_sequence)])[0])

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[ColumnsPart]:
        """Return the records of each part, in order."""
        if len(parts) > 1 and sum(len(rows) for rows, _ in parts) > _TOGETHER_MAX:
            return [self.encode_parts(row_class, [part])[0] for part in parts]
        rows = joined([rows for rows, _ in parts])
        bounds = np.array([0, *accumulate(len(rows) for rows, _ in parts)])
        # What a row's index is to be raised by to be its sequence number, by part.
        offsets = np.array([first for _, first in parts]) - bounds[:-1]
        encode = self._book if row_class is RowClass.LEVEL else self._ticks
        return encode(row_class, rows, bounds, offsets).parts()

    def _ticks(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> Columns:
        """A record holds one row."""
        names = NUMBERS[row_class]
        numbers = _numbers(rows, names)
        sequences = np.arange(len(rows)) + offsets.repeat(np.diff(bounds))
        instruments = rows["instrument"].astype(np.intp)
        value = _Value(self._prefixes[row_class].take(instruments), integer_texts(sequences))
        venue_sequences = value.add_times(rows, b',"rows":1,')
        first, *others = self._decimals(instruments, numbers)
        first_name, *other_names = (name.encode() for name in names)
        value.add_flags(rows, b'"%b":"' % first_name, with_side=row_class is RowClass.TRADE)
        value.add(first)
        for name, texts in zip(other_names, others, strict=True):
            value.add_same(b'","%b":"' % name)
            value.add(texts)
        if row_class is RowClass.TRADE:
            value.add_same(b'","trade_id":"')
            value.add(_trade_ids(rows, venue_sequences))
        value.add_same(b'"}')
        keys, ts_ms = self._keys.take(instruments), rows["ts_recv"] // _MS
        columns = Columns(keys, ts_ms, value.pieces, value.lengths, None, bounds)
        for index in _odd(rows, numbers):
            columns.replace(index, self._one(row_class, rows[index], int(sequences[index])))
        return columns

    def _book(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> Columns:
        """A record holds consecutive rows that differ in side, price, size and LAST alone."""
        numbers = _numbers(rows, NUMBERS[row_class])
        (prices, _), (sizes, _) = self._decimals(rows["instrument"].astype(np.intp), numbers)
        levels = list(map(mod, repeat(_PAIR), zip(prices, sizes, strict=True)))
        for index in _odd(rows, numbers):
            levels[index] = self._level(rows[index])
        starts = event_starts(rows, bounds[1:-1])
        ends = np.append(starts[1:], len(rows))
        cuts = np.searchsorted(starts, bounds)
        sequences = starts + np.repeat(offsets, np.diff(cuts))
        asks_before = np.concatenate(([0], np.cumsum(rows["side"] == Side.ASK)))
        splits = (ends - asks_before[ends] + asks_before[starts]).tolist()  # where asks begin
        spans = list(zip(starts.tolist(), splits, ends.tolist(), strict=True))
        heads = rows.take(ends - 1)
        instruments = heads["instrument"].astype(np.intp)
        counts = ends - starts
        value = _Value(self._prefixes[row_class].take(instruments), integer_texts(sequences))
        value.add_same(b',"rows":')
        value.add(integer_texts(counts))
        value.add_times(heads, b",")
        value.add_flags(heads, b'"bids":[', with_side=False)
        value.add_texts([b",".join(levels[start:split]) for start, split, _ in spans])
        value.add_same(b'],"asks":[')
        value.add_texts([b",".join(levels[split:end]) for _, split, end in spans])
        value.add_same(b"]}")
        keys, ts_ms = self._keys.take(instruments), heads["ts_recv"] // _MS
        columns = Columns(keys, ts_ms, value.pieces, value.lengths, counts, cuts)
        for index in np.flatnonzero(heads["kind"] >= _FIRST_MARK).tolist():
            columns.replace(index, self._mark(row_class, heads[index], int(sequences[index])))
        return columns

    def _decimals(self, instruments: NDArray[np.intp], numbers: NDArray[np.int64]) -> list[Texts]:
        """Return texts for each column of `numbers`, which take turns as price and size. Negative
        ones come out as 0."""
        if self._exponents.shape[0] < len(self._instruments):
            known = [self._instruments[number] for number in range(len(self._instruments))]
            pairs = [(one.price_exponent, one.size_exponent) for one in known]
            self._exponents = np.array(pairs, np.int64)
        exponents = self._exponents.take(instruments, axis=0)
        width = numbers.shape[1]
        if width > 2:
            exponents = np.tile(exponents, (1, width // 2))
        values = np.maximum(numbers, 0).ravel().view(np.uint64)
        texts, lengths = decimal_texts(values, exponents.ravel())
        return [(texts[index::width], lengths[index::width]) for index in range(width)]

    def _key(self, number: int) -> bytes:
        return with_length(self._instruments[number].key.encode())

    def _prefix(self, row_class: RowClass, kind: Kind, number: int) -> bytes:
        """Return how a value begins, up to our sequence number."""
        one = self._instruments[number]
        venue, market, symbol = (orjson.dumps(part).decode() for part in one.key.split(":", 2))
        return (
            f'{{"venue":{venue},"market":{market},"symbol":{symbol},"revision":{one.revision},'
            f'"channel":"{CHANNEL_OF[row_class]}","kind":"{KIND_NAMES[kind]}",'
            f'"session":"{self._session}","seq":'
        ).encode()

    def _level(self, row: np.void) -> bytes:
        price, size = self._texts(row, NUMBERS[RowClass.LEVEL])
        return f'["{price}","{size}"]'.encode()

    def _texts(self, row: np.void, fields: Sequence[str]) -> list[str]:
        one = self._instruments[int(row["instrument"])]
        exponents = (one.price_exponent, one.size_exponent)
        return [
            format_decimal(int(row[field]), exponents[index % 2])
            for index, field in enumerate(fields)
        ]

    def _one(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        """Write one row the long way: a mark, or a tick with a negative number."""
        if row["kind"] >= _FIRST_MARK:
            return self._mark(row_class, row, sequence)
        names = NUMBERS[row_class]
        fields = dict(zip(names, self._texts(row, names), strict=True))
        if row_class is RowClass.TRADE:
            high, low = int(row["trade_id_high"]), int(row["trade_id_low"])
            fields["trade_id"] = _id_text(high, low).decode()
            fields = {"side": SIDE_NAMES[Side(int(row["side"]))], **fields}
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _mark(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        one = self._instruments[int(row["instrument"])]
        first, last = (int(row[field]) for field in MARK_FIELDS[row_class])
        fields = {
            "cause": CAUSE_NAMES[int(row["side"])],
            "first": first,
            "last": last,
            "decimals": [one.price_exponent, one.size_exponent],
        }
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _start(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        prefix = self._prefix(row_class, Kind(row["kind"]), int(row["instrument"]))
        numbers = tuple(int(row[field]) for field in ("ts_event", "ts_recv", "sequence", "flags"))
        times = b'"ts_event":%d,"ts_recv":%d,"sequence":%d,"flags":%d,' % numbers
        return prefix + b'%d,"rows":1,' % sequence + times


class _Value:
    """The pieces that values are joined from, in the making."""

    def __init__(self, prefixes: Texts, sequences: Texts) -> None:
        self.pieces: list[Column] = [prefixes[0], sequences[0]]
        self.lengths = prefixes[1] + sequences[1]

    def add(self, texts: Texts) -> None:
        self.pieces.append(texts[0])
        self.lengths += texts[1]

    def add_texts(self, texts: list[bytes]) -> None:
        self.add((texts, np.array([len(text) for text in texts], np.int64)))

    def add_same(self, text: bytes) -> None:
        """Add a text that is in every value."""
        self.pieces.append(text)
        self.lengths += len(text)

    def add_times(self, rows: Rows, opening: bytes) -> Texts:
        """Add the times and the venue's sequence numbers; return the latter. opening: what stands
        before them."""
        times = [np.ascontiguousarray(rows[field]) for field in ("ts_event", "ts_recv")]
        columns = [even_digits(column) for column in times]
        template = opening + b'"ts_event":%b,"ts_recv":%b,"sequence":'
        first, second = columns
        if first is None or second is None:
            pairs = zip(*(integer_texts(column)[0] for column in times), strict=True)
            self.add_texts([template % pair for pair in pairs])
        else:
            # All texts are as long: a table of octets, whose rows numpy turns into bytes at once.
            gaps = bytes(first.shape[1]), bytes(second.shape[1])
            table = np.frombuffer(template % gaps, np.uint8)[None].repeat(len(rows), axis=0)
            at = len(opening) + len(b'"ts_event":')
            table[:, at : at + first.shape[1]] = first
            end = table.shape[1] - len(b',"sequence":')
            table[:, end - second.shape[1] : end] = second
            self.pieces.append(table.view(f"S{table.shape[1]}").ravel().tolist())
            self.lengths += table.shape[1]
        sequences = integer_texts(np.ascontiguousarray(rows["sequence"]))
        self.add(sequences)
        return sequences

    def add_flags(self, rows: Rows, ending: bytes, *, with_side: bool) -> None:
        """Add the flags, and the side of trades. ending: what stands after them."""
        flags, sides = rows["flags"], rows["side"].astype(np.intp)
        if (flags == flags[0]).all():
            texts, lengths = _flag_texts(int(flags[0]), ending, with_side=with_side)
            self.add((texts.take(sides, mode="clip").tolist(), lengths.take(sides, mode="clip")))
            return
        mixed = np.empty(len(rows), object)
        for one in {*flags.tolist()}:
            at = flags == one
            texts, _ = _flag_texts(one, ending, with_side=with_side)
            mixed[at] = texts.take(sides[at], mode="clip")
        self.add_texts(mixed.tolist())


@lru_cache(maxsize=256)
def _flag_texts(
    flags: int, ending: bytes, *, with_side: bool
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return what `_Value.add_flags` adds for each side, and its length."""
    sides = [b'"side":"%b",' % name.encode() if with_side else b"" for name in SIDE_NAMES.values()]
    texts = [b',"flags":%d,%b%b' % (flags, side, ending) for side in sides]
    return np.array(texts, object), np.array([len(text) for text in texts], np.int64)


def event_starts(rows: Rows, bounds: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where the records of LEVEL rows begin: with every event, and at `bounds`, which are
    above 0. rows: at least one."""
    before, after = rows[:-1], rows[1:]
    starts = (before["flags"] & _LAST != 0) | (after["kind"] >= _FIRST_MARK)
    for field in ("kind", "instrument", "ts_event", "ts_recv", "sequence"):
        starts |= before[field] != after[field]
    starts |= (before["flags"] ^ after["flags"]) & ~np.uint16(_LAST) != 0
    starts |= after["side"] < before["side"]
    starts[bounds - 1] = True
    at = np.concatenate(([0], np.flatnonzero(starts) + 1))
    if np.diff(at, append=len(rows)).max() <= LEVELS_PER_RECORD:
        return at
    return np.unique(np.concatenate((at, *(_cuts(at, len(rows))))))


def _cuts(starts: NDArray[np.intp], end: int) -> Iterable[NDArray[np.intp]]:
    for start, stop in zip(starts, np.append(starts[1:], end), strict=True):
        yield np.arange(start, stop, LEVELS_PER_RECORD)


def _numbers(rows: Rows, fields: Sequence[str]) -> NDArray[np.int64]:
    """Return int64[rows, fields]."""
    numbers = np.empty((len(rows), len(fields)), np.int64)
    for index, field in enumerate(fields):
        numbers[:, index] = rows[field]
    return numbers


def _trade_ids(rows: Rows, sequences: Texts) -> Texts:
    low, high = rows["trade_id_low"], rows["trade_id_high"]
    if high.any():
        texts = list(map(_id_text, high.tolist(), low.tolist()))
        return texts, np.array([len(text) for text in texts], np.int64)
    if (low == rows["sequence"]).all():  # most venues count trades by their ids
        return sequences
    return integer_texts(np.ascontiguousarray(low))


def _odd(rows: Rows, numbers: NDArray[np.int64]) -> list[int]:
    """Return the rows that have no pieces: marks, and ticks with a negative number."""
    is_mark = rows["kind"] >= _FIRST_MARK
    if not is_mark.any() and numbers.min() >= 0:
        return []
    odd: list[int] = np.flatnonzero(is_mark | (numbers < 0).any(axis=1)).tolist()
    return odd


def _id_text(high: int, low: int) -> bytes:
    """Return a trade id: decimal digits, or a UUID where it is wider than 64 bits."""
    if high == 0:
        return b"%d" % low
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()
